package egress

import (
	"net/netip"
	"strings"
)

// deepest is the number of labels from which on names share one bit of
// Policy.depths.
const deepest = 63

// Decide judges c. It is pure and does not allocate, and a name costs the same
// among a hundred rules and a million.
//
// What an address rule permits is allowed at its first packet. A TCP
// connection to a port of HTTP or HTTPS rules has to wait for the name it will
// show. A name is allowed when a rule permits it and DNS gave the destination's
// address for that very name (Bound): a name alone proves nothing, for a client
// may show any.
func (p *Policy) Decide(c Conn) Verdict {
	if c.Dst.Port() == 0 {
		return Denied(NoRule)
	}
	if r := p.byAddress(&c); r != nil {
		return Verdict{Allow, ByAddressRule, r}
	}
	if r := p.byBoundName(&c); r != nil {
		return guard(&c, Verdict{Allow, ByNameRule, r})
	}
	switch c.Proto {
	case TCP:
		return p.atSYN(&c)
	case HTTP, HTTPS:
		return p.byName(&c)
	case UDP:
		if port := c.Dst.Port(); port == 443 || port == 80 {
			return Denied(QUIC)
		}
	}
	return Denied(NoRule)
}

// guard refuses what a name may not lead to.
func guard(c *Conn, v Verdict) Verdict {
	if Guarded(c.Dst.Addr()) {
		return Denied(GuardedAddress)
	}
	return v
}

// byAddress finds a rule for the destination's address.
func (p *Policy) byAddress(c *Conn) *Rule {
	a := c.Dst.Addr()
	if !a.IsValid() {
		return nil
	}
	n := &p.addrs[transportIndex(c.Proto)]
	for at := n.narrowest(a); at >= 0; at = n.parents[at] {
		for list := n.lists[at]; list != 0; list = p.uses[list].next {
			if r := p.permits(&p.uses[list], c); r != nil {
				return r
			}
		}
	}
	return nil
}

func transportIndex(p Proto) int {
	if p.Transport() == UDP {
		return 1
	}
	return 0
}

// byBoundName finds a TCP or UDP rule for a name that the destination has.
func (p *Policy) byBoundName(c *Conn) *Rule {
	t := c.Proto.Transport()
	if !p.byBound[transportIndex(t)] {
		return nil
	}
	for _, n := range c.Bound {
		if r, _ := p.named(t, n, c); r != nil {
			return r
		}
	}
	return nil
}

// atSYN judges a TCP connection of which only addresses are known.
func (p *Policy) atSYN(c *Conn) Verdict {
	wait := Denied(NoRule)
	for i := range p.judged {
		if u := &p.judged[i]; p.permits(u, c) != nil {
			wait = Verdict{Wait, NeedsRequest, nil}
			if u.proto == HTTPS {
				wait.Reason = NeedsHello
				break
			}
		}
	}
	if wait.Action == Deny || !c.Strict || c.API {
		return wait
	}
	for _, n := range c.Bound {
		for proto := HTTP; proto <= HTTPS; proto++ {
			if r, _ := p.named(proto, n, c); r != nil {
				return wait
			}
		}
	}
	return Denied(AddressUnknown)
}

// byName judges a connection by the name that it showed.
func (p *Policy) byName(c *Conn) Verdict {
	toAPI := c.API && c.Proto == HTTPS
	if c.Name.IsZero() {
		switch {
		case toAPI:
			return p.asAPIServer(c)
		case c.Literal:
			return Denied(AddressAsName)
		}
		return Denied(NoServerName)
	}
	r, elsewhere := p.named(c.Proto, c.Name, c)
	switch {
	case r != nil && hasName(c.Bound, c.Name):
		return guard(c, Verdict{Allow, ByNameRule, r})
	case toAPI && (r != nil || inCluster(c.Name)):
		return p.asAPIServer(c)
	case r != nil:
		return Denied(AddressNotBound)
	case elsewhere:
		return Denied(PortNotAllowed)
	}
	return Denied(NameNotAllowed)
}

// asAPIServer judges a connection to the API server's current address as if it
// had named the API server. Clients inside a cluster dial the service's address,
// which the node turns into this one, and name no server, the service, or (live
// patching) another service.
func (p *Policy) asAPIServer(c *Conn) Verdict {
	cluster := p.Cluster(c.Src.Addr())
	switch {
	case cluster == nil || cluster.APIServer.IsZero():
		return Denied(NoServerName)
	case !cluster.ByAddress:
		return Denied(APIServerByName)
	}
	r, _ := p.named(HTTPS, cluster.APIServer, c)
	if r == nil {
		return Denied(NameNotAllowed)
	}
	return guard(c, Verdict{Allow, ByAPIServerAddress, r})
}

// inCluster reports whether n is a name of the API server that only the
// cluster's own DNS knows.
func inCluster(n Name) bool {
	switch n.s {
	case "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local":
		return true
	}
	return false
}

func hasName(names []Name, n Name) bool {
	for _, m := range names {
		if m == n {
			return true
		}
	}
	return false
}

// named finds the rule for n with the most specific pattern, for proto, c's
// port and c's source. elsewhere reports whether n is permitted at all, on
// another port or protocol.
func (p *Policy) named(proto Proto, n Name, c *Conn) (r *Rule, elsewhere bool) {
	if r, elsewhere = p.among(p.exact.find(n.s), proto, n, c); r != nil {
		return r, true
	}
	labels := 1
	for i := range len(n.s) {
		if n.s[i] == '.' {
			labels++
		}
	}
	for i := range len(n.s) {
		if n.s[i] != '.' {
			continue
		}
		if labels--; p.depths&(1<<min(labels, deepest)) == 0 {
			continue
		}
		found, also := p.among(p.below.find(n.s[i+1:]), proto, n, c)
		if found != nil {
			return found, true
		}
		elsewhere = elsewhere || also
	}
	return nil, elsewhere
}

func (p *Policy) among(list int32, proto Proto, n Name, c *Conn) (r *Rule, elsewhere bool) {
	for ; list != 0; list = p.uses[list].next {
		u := &p.uses[list]
		if u.pattern != 0 && !p.patterns[u.pattern].Match(n) {
			continue
		}
		if u.proto == proto {
			if r = p.permits(u, c); r != nil {
				return r, true
			}
		}
		elsewhere = elsewhere || p.from(u, c.Src.Addr())
	}
	return nil, elsewhere
}

// permits returns the rule of u if it holds for c's port and source.
func (p *Policy) permits(u *use, c *Conn) *Rule {
	if !u.ports.Has(c.Dst.Port()) || !p.from(u, c.Src.Addr()) {
		return nil
	}
	return &p.rules[u.rule]
}

func (p *Policy) from(u *use, src netip.Addr) bool {
	from := p.rules[u.rule].From
	return len(from) == 0 || contains(from, src)
}

// Permits reports whether a rule permits client to speak of n at all, on any
// port and protocol: the question of a DNS server, which is asked before a
// connection is.
func (p *Policy) Permits(client netip.Addr, n Name) bool {
	_, somewhere := p.named(0, n, &Conn{Src: netip.AddrPortFrom(client, 0)})
	return somewhere
}

// Spells reports whether a rule spells n out.
func (p *Policy) Spells(n Name) bool { return !n.IsZero() && p.exact.find(n.s) != 0 }

// Zone returns what the narrowest wildcard around n ends in, and "" when there is
// none: below it, whoever owns the domain makes names at will.
func (p *Policy) Zone(n Name) string {
	for _, zone, more := strings.Cut(n.s, "."); more; _, zone, more = strings.Cut(zone, ".") {
		if p.below.find(zone) != 0 {
			return zone
		}
	}
	return ""
}
