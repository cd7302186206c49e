package audit

import (
	"net/netip"
	"slices"

	"tidegate.io/tidegate/egress"
)

// Decider returns the policy's decision on a connection, as far as it can be
// known: what the policy names by service tag needs n.Prefixes, and what it
// names by an FQDN tag needs n.Tagged and n.Rules. It may be called from one
// goroutine at a time.
func (p *Policy) Decider(n Needs) func(egress.Conn) bool {
	return func(c egress.Conn) bool {
		for i := range p.grants {
			if g := &p.grants[i]; g.matches(&c, &n) {
				return !g.deny
			}
		}
		return false
	}
}

// TellsClients reports whether some rule is for some clients only.
func (p *Policy) TellsClients() bool {
	return slices.ContainsFunc(p.grants, func(g grant) bool { return len(g.from) > 0 })
}

func (g *grant) matches(c *egress.Conn, n *Needs) bool {
	if !g.speaks(c.Proto) || !g.ports.Has(c.Dst.Port()) {
		return false
	}
	src := c.Src.Addr()
	if len(g.from) > 0 && src.IsValid() && !slices.ContainsFunc(g.from, func(p netip.Prefix) bool { return p.Contains(src) }) {
		return false
	}
	t, dst := &g.to, c.Dst.Addr()
	switch {
	case !t.names.none():
		return !c.Name.IsZero() && t.names.has(c.Name.String())
	case t.net.IsValid():
		return t.net.Bits() == 0 || dst != unknownAddr && t.net.Contains(dst)
	case t.tag != "":
		return dst != unknownAddr && slices.ContainsFunc(n.prefixes(t.tag), func(p netip.Prefix) bool { return p.Contains(dst) })
	}
	return g.tagMatches(c, n)
}

func (g *grant) tagMatches(c *egress.Conn, n *Needs) bool {
	if n.Tagged == nil || lower(g.to.fqdnTag) != lower(aksTag) {
		return false
	}
	for i := range n.Rules {
		for _, e := range n.Rules[i].To {
			if p, ok := e.Host.(egress.Pattern); ok && n.Tagged(n.Rules[i].ID) && e.Proto == c.Proto && p.Match(c.Name) {
				return true
			}
		}
	}
	return false
}
