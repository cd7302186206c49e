package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Priorities of the policy rules: before the main table's 32766, and after what an
// administrator is likely to have.
const (
	// What the rules have seen passes the gate. It stands first: the way of each such
	// packet is asked for twice, there and back.
	seenPriority  = 29795 + iota
	localPriority // what the machine itself sends passes, too
	_             // led to the HTTP proxy once
	gatePriority  // the rest of the clients' packets goes nowhere
	endPriority   // where those that pass go on

	firstPriority, lastPriority = seenPriority, endPriority
)

// Actions of policy rules: linux/fib_rules.h.
const (
	actGoto      = 2
	actNop       = 3
	actBlackhole = 6
)

// proxyTable is the routing table in which an earlier version had a route to the HTTP proxy.
const proxyTable = 29796

// gate are clients whose packets go nowhere while the table is not there, or empty, because
// somebody else has flushed it: packets have no mark then, and policy rules stop them. It
// holds whether or not the process runs. It is not made where nobody else can flush the table:
// with a policy rule the way of every packet is looked up at length, there and back, and that
// lasts until the namespace ends, though the rule be removed.
type gate []netip.Prefix

// rules are those of one family.
func (g gate) rules(family int) []*netlink.Rule {
	rule := func(priority int, action uint8) *netlink.Rule {
		n := netlink.NewRule()
		n.Family, n.Priority, n.Type = family, priority, action
		return n
	}
	var gates []*netlink.Rule
	for _, p := range g {
		if p.Addr().Is4() == (family == unix.AF_INET) {
			n := rule(gatePriority, actBlackhole)
			n.Src = &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
			gates = append(gates, n)
		}
	}
	if len(gates) == 0 {
		return nil
	}
	end, local, marked := rule(endPriority, actNop), rule(localPriority, actGoto), rule(seenPriority, actGoto)
	local.IifName, local.Goto, marked.Goto = "lo", endPriority, endPriority
	mask := uint32(seen)
	marked.Mark, marked.Mask = uint32(seen), &mask
	// In this order no packet meets the gate before the way around it is there.
	return append([]*netlink.Rule{end, local, marked}, gates...)
}

var ipFamilies = []int{unix.AF_INET, unix.AF_INET6}

// validMark makes the kernel look for the way back of a packet with the packet's own mark.
// Else the way back of every answer to a client would lead to the gate.
var validMark = []Sysctl{{Key: "net/ipv4/conf/all/src_valid_mark", Value: "1"}}

// apply makes the policy rules, and takes away what is not wanted.
func (g gate) apply() error {
	if len(g) > 0 {
		if err := applySysctls(validMark); err != nil {
			return err
		}
	}
	return eachFamily(func(family int) error {
		have, err := ourRules(family)
		if err != nil {
			return err
		}
		want := g.rules(family)
		for _, n := range want {
			if err := netlink.RuleAdd(n); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("rule %d: %w", n.Priority, err)
			}
		}
		slices.SortFunc(have, func(a, b netlink.Rule) int { return gateFirst(a) - gateFirst(b) })
		for i := range have {
			if slices.ContainsFunc(want, func(n *netlink.Rule) bool { return ruleKey(n) == ruleKey(&have[i]) }) {
				continue
			}
			if err := netlink.RuleDel(&have[i]); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("rule %d: %w", have[i].Priority, err)
			}
		}
		return removeRoute(family)
	})
}

// gateFirst orders rules that go: a gate must not stay without the way around it.
func gateFirst(r netlink.Rule) int {
	if r.Priority == gatePriority {
		return 0
	}
	return 1
}

// intact reports whether all of them are there.
func (g gate) intact() (bool, error) {
	whole := true
	err := eachFamily(func(family int) error {
		have, err := ourRules(family)
		if err != nil {
			return err
		}
		for _, n := range g.rules(family) {
			whole = whole && slices.ContainsFunc(have, func(h netlink.Rule) bool { return ruleKey(&h) == ruleKey(n) })
		}
		return nil
	})
	return whole, err
}

// eachFamily calls f for both families, of which a machine may lack IPv6.
func eachFamily(f func(family int) error) error {
	for _, family := range ipFamilies {
		err := f(family)
		if family == unix.AF_INET6 && errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		} else if err != nil {
			return fmt.Errorf("policy rules: %w", err)
		}
	}
	return nil
}

// ourRules lists those with our priorities.
func ourRules(family int) ([]netlink.Rule, error) {
	all, err := netlink.RuleList(family)
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return slices.DeleteFunc(all, func(r netlink.Rule) bool { return r.Priority < firstPriority || r.Priority > lastPriority }), nil
}

// ruleKey is what tells our rules apart. Their actions follow from it.
func ruleKey(r *netlink.Rule) string {
	var mask uint32
	if r.Mask != nil {
		mask = *r.Mask
	}
	src := ""
	if r.Src != nil {
		src = r.Src.String()
	}
	return fmt.Sprintf("%d %d %x/%x %s %d %s", r.Priority, r.Table, r.Mark, mask, r.IifName, r.Goto, src)
}

// removeRoute takes away what an earlier version has left.
func removeRoute(family int) error {
	all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if family == unix.AF_INET6 {
		all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	err := netlink.RouteDel(&netlink.Route{Table: proxyTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_NOWHERE, Dst: all})
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("route: %w", err)
	}
	return nil
}
