package audit

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// tier is the stage of a firewall at which a rule is asked. An earlier stage
// that matches ends the matter.
type tier uint8

const (
	networkTier     tier = iota + 1 // by address and port
	applicationTier                 // by the name in the first bytes
)

// grant is one destination of one rule of somebody's firewall. A denial is a
// grant too, with deny set.
type grant struct {
	at   string // the rule, as its owner finds it: group/collection/rule
	text string // the destination as written
	deny bool

	policy   string // the firewall policy, in lower case; empty: not known
	depth    int    // how many policies it inherits from, whose rules come first
	tier     tier
	priority []int // lower first, compared in order

	protos  []egress.Proto
	ports   egress.Ports
	from    []netip.Prefix // empty: every client
	to      target
	inspect bool // TLS is terminated
	nsg     bool // of a network security group
	builtin bool // the product's own, which nobody wrote
	open    bool // anything may follow the name, in a URL list whose entries end with a slash
}

// target is what a rule leads to: one of its fields.
type target struct {
	names   names
	net     netip.Prefix
	tag     string // a service tag, as written
	fqdnTag string // a list of names that Azure keeps
}

var (
	anyAddr  = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	anyAddr6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	allPorts = egress.Ports{First: 1, Last: 65535}
)

func (t *target) anywhere() bool {
	return t.names == allNames || t.net.IsValid() && t.net.Bits() == 0
}

// speaks reports whether the grant is about p: TCP carries what is named.
func (g *grant) speaks(p egress.Proto) bool {
	return slices.Contains(g.protos, p) || p.Named() && slices.Contains(g.protos, egress.TCP)
}

func within(narrow, wide egress.Ports) bool {
	return wide.First <= narrow.First && narrow.Last <= wide.Last
}

func meet(a, b egress.Ports) bool { return a.First <= b.Last && b.First <= a.Last }

// covers reports whether all that the endpoint permits matches the grant.
func (g *grant) covers(e egress.Endpoint, n *Needs) bool {
	return g.speaks(e.Proto) && within(e.Ports, g.ports) && g.to.holds(e.Host, n)
}

// touches reports whether some of it does, as far as can be known.
func (g *grant) touches(e egress.Endpoint, n *Needs) bool {
	if !g.speaks(e.Proto) || !meet(g.ports, e.Ports) {
		return false
	}
	switch h := e.Host.(type) {
	case egress.Pattern:
		return g.to.names.overlaps(namesOf(h)) || g.to.holds(h, n)
	case egress.Net:
		return g.to.net.IsValid() && g.to.net.Overlaps(h.Prefix) || g.to.holds(h, n)
	}
	return g.to.holds(e.Host, n)
}

// holds reports whether the target holds every destination of a host.
func (t *target) holds(h egress.Host, n *Needs) bool {
	switch h := h.(type) {
	case egress.Pattern:
		return t.names.covers(h) || t.net.IsValid() && t.net.Bits() == 0
	case egress.Net:
		if t.tag != "" {
			return slices.ContainsFunc(n.prefixes(t.tag), func(p netip.Prefix) bool { return holdsPrefix(p, h.Prefix) })
		}
		return t.net.IsValid() && holdsPrefix(t.net, h.Prefix)
	case egress.Tag:
		return t.net.IsValid() && t.net.Bits() == 0 || holdsTag(t.tag, h.Name())
	}
	return false
}

func holdsPrefix(wide, narrow netip.Prefix) bool {
	return wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
}

// holdsTag: a tag without a region holds those of its regions.
func holdsTag(wide, narrow string) bool {
	wide, narrow = lower(wide), lower(narrow)
	return wide != "" && (wide == narrow || strings.HasPrefix(narrow, wide+"."))
}

// admits reports whether the grant is for every one of the clients.
func (g *grant) admits(clients []netip.Prefix) bool {
	if len(g.from) == 0 {
		return true
	}
	return !slices.ContainsFunc(clients, func(c netip.Prefix) bool {
		return !slices.ContainsFunc(g.from, func(f netip.Prefix) bool { return holdsPrefix(f, c) })
	})
}

// precedes reports whether g matches whatever h matches.
func (g *grant) precedes(h *grant) bool {
	if !within(h.ports, g.ports) || slices.ContainsFunc(h.protos, func(p egress.Proto) bool { return !g.speaks(p) }) {
		return false
	}
	if len(g.from) > 0 && (len(h.from) == 0 || !g.admits(h.from)) {
		return false
	}
	switch {
	case !h.to.names.none():
		return g.to.names.holds(h.to.names) || g.to.net == anyAddr
	case h.to.net.IsValid():
		return g.to.net.IsValid() && holdsPrefix(g.to.net, h.to.net)
	case h.to.tag != "":
		return g.to.net == anyAddr || holdsTag(g.to.tag, h.to.tag)
	}
	return g.to.net == anyAddr || g.to.fqdnTag != "" && g.to.fqdnTag == h.to.fqdnTag
}

// inOrder puts grants into the order in which the firewall asks them.
func inOrder(gs []grant) {
	slices.SortStableFunc(gs, func(a, b grant) int {
		return cmp.Or(cmp.Compare(a.tier, b.tier), cmp.Compare(a.depth, b.depth), slices.Compare(a.priority, b.priority), denials(a, b))
	})
}

// denials come first where priorities are equal.
func denials(a, b grant) int {
	switch {
	case a.deny == b.deny:
		return 0
	case a.deny:
		return -1
	}
	return 1
}
