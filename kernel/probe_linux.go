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
	tries := []struct {
		feature   *bool
		statement Statement
	}{
		{&f.NativeQueue, enqueue{0, 1, false, true}},
		{&f.StripOption, stripOption{optionMPTCP}},
		{&f.InnerHeader, match{field: innerByte, op: ">=", value: 0}},
	}
	// A transaction takes the kernel some 10 ms, so one tells whether it can do all of them.
	var all []Rule
	for _, try := range tries {
		all = append(all, Rule{proto(protoTCP), try.statement})
	}
	can, err := probeRules(s, all...)
	for i, try := range tries {
		if *try.feature = can; err == nil && !can {
			*try.feature, err = probeRules(s, all[i])
		}
		if err != nil {
			return Features{}, fmt.Errorf("probe %q: %w", try.statement.text(), err)
		}
	}
	return f, nil
}

// probeTable is made and deleted in one transaction.
const probeTable = "tidegate-probe"

// probeRules reports whether the kernel takes rules.
func probeRules(s *socket, rules ...Rule) (bool, error) {
	b := &batch{}
	b.edge(unix.NFNL_MSG_BATCH_BEGIN)
	b.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, attrString(nil, unix.NFTA_TABLE_NAME, probeTable), "table")
	chain := attrString(attrString(nil, unix.NFTA_CHAIN_TABLE, probeTable), unix.NFTA_CHAIN_NAME, "try")
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, chain, "chain")
	for _, r := range rules {
		expressions, err := r.compile()
		if err != nil {
			return false, err
		}
		rule := attrString(attrString(nil, unix.NFTA_RULE_TABLE, probeTable), unix.NFTA_RULE_CHAIN, "try")
		rule = attr(rule, unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, expressions)
		b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, rule, "rule")
	}
	b.message(unix.NFT_MSG_DELTABLE, 0, attrString(nil, unix.NFTA_TABLE_NAME, probeTable), "table")
	err := b.send(s)
	var refused *requestError
	if errors.As(err, &refused) && b.what[refused.index] == "rule" {
		switch refused.errno {
		case unix.ENOENT, unix.EINVAL, unix.EOPNOTSUPP: // no such expression, or not in this form
			return false, nil
		}
	}
	return err == nil, err
}
