package audit

import (
	"net/netip"
	"slices"

	"tidegate.io/tidegate/egress"
)

// Several rules may meet a need together, each for a part of its addresses,
// ports or clients. What is left of the need is kept as boxes, from which the
// rules are taken in their order: one that permits makes them smaller, and one
// that denies what is left ends the matter.

// maxBoxes bounds the pieces of one need: more are taken for not covered.
const maxBoxes = 4096

// box is a part of a need. Its destination is either one prefix, or all of what
// the need names, which no rule splits.
type box struct {
	from  netip.Prefix // invalid: every client
	to    netip.Prefix // invalid: the need's own host
	ports egress.Ports
}

// together reports whether several rules meet the need, each a part of it.
func (j *judge) together(r *egress.Rule, e egress.Endpoint) bool {
	by, ok := j.byUnion(r, e)
	if !ok {
		return false
	}
	var at, text []string
	for _, i := range by {
		j.used[i] = true
		at, text = append(at, j.grants[i].at), append(text, clip(j.grants[i].text))
	}
	j.report.Covered = append(j.report.Covered, Cover{r.ID, e, list(slices.Compact(at)), list(slices.Compact(text))})
	return true
}

// byUnion returns the grants that meet the need together.
func (j *judge) byUnion(r *egress.Rule, e egress.Endpoint) ([]int, bool) {
	left := j.boxes(e)
	var by []int
	for i := range j.grants {
		g := &j.grants[i]
		if !g.speaks(e.Proto) {
			continue
		}
		next, hit := j.without(left, i, r, e)
		switch {
		case !hit:
			continue
		case g.deny:
			return nil, false
		case len(next) == 0:
			return append(by, i), true
		case len(next) > maxBoxes:
			return nil, false
		}
		left, by = next, append(by, i)
	}
	return nil, false
}

// boxes are all of a need: one for each of the cluster's clients and, where the
// host is or stands for addresses, for each of these.
func (j *judge) boxes(e egress.Endpoint) []box {
	from, to := j.needs.From, []netip.Prefix{{}}
	if len(from) == 0 {
		from = []netip.Prefix{{}}
	}
	switch h := e.Host.(type) {
	case egress.Net:
		to = []netip.Prefix{h.Prefix}
	case egress.Tag:
		if ps := j.needs.prefixes(h.Name()); len(ps) > 0 && len(ps) <= maxBoxes {
			to = ps
		}
	}
	var out []box
	for _, f := range from {
		for _, t := range to {
			out = append(out, box{f, t, e.Ports})
		}
	}
	return out
}

// without takes the i-th grant from the boxes; hit reports whether it took
// anything, or may have.
func (j *judge) without(left []box, i int, r *egress.Rule, e egress.Endpoint) (next []box, hit bool) {
	g := &j.grants[i]
	whole := g.to.holds(e.Host, j.needs) || j.byTag(g, r, e)
	some := g.touches(e, j.needs)
	clients := []netip.Prefix{{}}
	if len(j.needs.From) > 0 && len(g.from) > 0 {
		clients = g.from
	}
	for _, b := range left {
		if len(next) > maxBoxes {
			break
		}
		toPrefixes := []netip.Prefix{b.to}
		if !whole {
			toPrefixes = j.addresses(g)
		}
		parts, took := []box{b}, false
		for _, to := range toPrefixes {
			for _, from := range clients {
				parts, took = cutAll(parts, box{from, to, g.ports}, took)
			}
		}
		// A denial of a part that cannot be measured takes an unknown part.
		if g.deny && some && !whole && !b.to.IsValid() && meet(g.ports, b.ports) {
			took = took || slices.ContainsFunc(clients, func(from netip.Prefix) bool { return meets(b.from, from) })
		}
		hit = hit || took
		next = append(next, parts...)
	}
	return next, hit
}

// addresses are the prefixes that a grant is for; none where it is for names.
func (j *judge) addresses(g *grant) []netip.Prefix {
	if g.to.net.IsValid() {
		return []netip.Prefix{g.to.net}
	}
	return j.needs.prefixes(g.to.tag)
}

func cutAll(parts []box, by box, took bool) ([]box, bool) {
	var out []box
	for _, p := range parts {
		rest, ok := p.cut(by)
		took = took || ok
		out = append(out, rest...)
	}
	return out, took
}

// cut returns what is left of b outside of by; ok reports whether they meet.
func (b box) cut(by box) (rest []box, ok bool) {
	if !meets(b.from, by.from) || !meets(b.to, by.to) || !meet(b.ports, by.ports) {
		return []box{b}, false
	}
	for _, from := range minus(b.from, by.from) {
		rest = append(rest, box{from, b.to, b.ports})
	}
	from := narrower(b.from, by.from)
	for _, to := range minus(b.to, by.to) {
		rest = append(rest, box{from, to, b.ports})
	}
	to := narrower(b.to, by.to)
	if b.ports.First < by.ports.First {
		rest = append(rest, box{from, to, egress.Ports{First: b.ports.First, Last: by.ports.First - 1}})
	}
	if b.ports.Last > by.ports.Last {
		rest = append(rest, box{from, to, egress.Ports{First: by.ports.Last + 1, Last: b.ports.Last}})
	}
	return rest, true
}

// meets reports whether two prefixes overlap. The invalid one is everything on
// the side of a rule; of a need it is met by that only, for some clients are not
// all.
func meets(need, rule netip.Prefix) bool {
	switch {
	case !rule.IsValid():
		return true
	case !need.IsValid():
		return rule.Bits() == 0 // of either family
	}
	return need.Overlaps(rule)
}

func narrower(need, rule netip.Prefix) netip.Prefix {
	if rule.IsValid() && need.IsValid() && rule.Bits() > need.Bits() {
		return rule
	}
	return need
}

// minus are the prefixes of a that are not in b, which overlaps it.
func minus(a, b netip.Prefix) []netip.Prefix {
	if !a.IsValid() || !b.IsValid() || b.Bits() <= a.Bits() {
		return nil
	}
	var out []netip.Prefix
	for bits := b.Bits(); bits > a.Bits(); bits-- {
		out = append(out, netip.PrefixFrom(flip(b.Addr(), bits-1), bits).Masked())
	}
	slices.Reverse(out)
	return out
}

// flip turns the bit of an address round.
func flip(a netip.Addr, bit int) netip.Addr {
	raw := a.AsSlice()
	raw[bit/8] ^= 0x80 >> (bit % 8)
	out, _ := netip.AddrFromSlice(raw)
	return out
}
