package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Probe finds out by trying what the kernel can do, in the network namespace of
// the calling thread. Nothing that it tries comes into force. An error means that
// it could not tell.
func Probe() (Features, error) {
	var f Features
	s, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return f, fmt.Errorf("probe: %w", err)
	}
	defer func() { _ = s.close() }()
	for _, p := range []struct {
		feature   *bool
		statement Statement
	}{
		{&f.NativeQueue, enqueue{0, 1, false, true}},
		{&f.StripOption, stripOption{optionMPTCP}},
		{&f.InnerHeader, match{field: innerByte, op: ">=", value: 0}},
	} {
		if *p.feature, err = probeRule(s, Rule{proto(protoTCP), p.statement}); err != nil {
			return Features{}, fmt.Errorf("probe %q: %w", p.statement.text(), err)
		}
	}
	return f, nil
}

// probeTable is made and deleted in one transaction.
const probeTable = "tidegate-probe"

// probeRule reports whether the kernel takes a rule.
func probeRule(s *socket, r Rule) (bool, error) {
	expressions, err := r.compile()
	if err != nil {
		return false, err
	}
	b := &batch{}
	b.edge(unix.NFNL_MSG_BATCH_BEGIN)
	b.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, attrString(nil, unix.NFTA_TABLE_NAME, probeTable), "table")
	chain := attrString(attrString(nil, unix.NFTA_CHAIN_TABLE, probeTable), unix.NFTA_CHAIN_NAME, "try")
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, chain, "chain")
	rule := attrString(attrString(nil, unix.NFTA_RULE_TABLE, probeTable), unix.NFTA_RULE_CHAIN, "try")
	rule = attr(rule, unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, expressions)
	b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, rule, "rule")
	b.message(unix.NFT_MSG_DELTABLE, 0, attrString(nil, unix.NFTA_TABLE_NAME, probeTable), "table")
	err = b.send(s)
	var refused *requestError
	if errors.As(err, &refused) && b.what[refused.index] == "rule" {
		switch refused.errno {
		case unix.ENOENT, unix.EINVAL, unix.EOPNOTSUPP: // no such expression, or not in this form
			return false, nil
		}
	}
	return err == nil, err
}
