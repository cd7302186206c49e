package export

import (
	"net/netip"
	"slices"

	"tidegate.io/tidegate/egress"
)

// maxExpanded bounds the ports that a range is written out as, where the
// target has no ranges: more would bury the other rules.
const maxExpanded = 16

// can says what a target can express. The zero can is nothing.
type can struct {
	protos   []egress.Proto
	names    shape // of HTTP and HTTPS rules
	dnsNames shape // of TCP and UDP rules
	nets     bool  // IPv4 addresses of TCP and UDP rules
	nets6    bool  // IPv6 addresses
	tags     bool  // Azure's service tags
	sources  bool  // which clients
	ranges   bool  // ranges of ports
	spelling spelling
}

// service is what is spoken, on which ports.
type service struct {
	proto egress.Proto
	ports egress.Ports
}

// grant is what one rule opens on one service, all of which the target can
// express. Its hosts are of one kind only.
type grant struct {
	rule *egress.Rule
	service
	from  []netip.Prefix // empty is every client
	names []egress.Pattern
	nets  []netip.Prefix
	tags  []egress.Tag
}

// addr reports whether the hosts are addresses.
func (g *grant) addr() bool { return len(g.nets) > 0 }

// grants are the rules as far as the target can express them, in their order;
// the rest has become gaps.
func (j *job) grants() []grant {
	var out []grant
	for i := range j.Rules {
		out = append(out, j.ruleGrants(&j.Rules[i])...)
	}
	return out
}

func (j *job) ruleGrants(r *egress.Rule) []grant {
	from := r.From
	if len(from) == 0 {
		from = j.From
	}
	c := j.format.can
	if len(r.From) > 0 && !c.sources && !j.widen(r, egress.Endpoint{}, WidenAnyClient, "the format does not tell clients apart, and the rule is for %s only", prefixes(r.From)) {
		return nil
	}
	if !c.sources {
		from = nil
	} else if c.nets && !c.nets6 && len(from) > 0 {
		if from = only4(from); len(from) == 0 {
			j.gap(r, egress.Endpoint{}, "the format has no IPv6, and neither have the rule's clients IPv4")
			return nil
		}
	}
	var out []grant
	for _, whole := range r.To {
		for _, e := range j.sift(r, whole) {
			out = addTo(out, grant{rule: r, service: service{e.Proto, e.Ports}, from: from}, e.Host)
		}
	}
	return out
}

func only4(ps []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(ps), func(p netip.Prefix) bool { return !p.Addr().Is4() })
}

// addTo puts the host into the grant of its service and kind.
func addTo(all []grant, g grant, h egress.Host) []grant {
	switch h := h.(type) {
	case egress.Pattern:
		g.names = []egress.Pattern{h}
	case egress.Net:
		g.nets = []netip.Prefix{h.Prefix}
	case egress.Tag:
		g.tags = []egress.Tag{h}
	}
	for i := range all {
		a := &all[i]
		if a.service == g.service && (a.names != nil) == (g.names != nil) && (a.nets != nil) == (g.nets != nil) {
			a.names = addNew(a.names, g.names...)
			a.nets = addNew(a.nets, g.nets...)
			a.tags = addNew(a.tags, g.tags...)
			return all
		}
	}
	return append(all, g)
}

func addNew[T comparable](list []T, more ...T) []T {
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// sift returns what the target can express of an endpoint, and makes the rest gaps.
func (j *job) sift(r *egress.Rule, e egress.Endpoint) []egress.Endpoint {
	out := []egress.Endpoint{e}
	if p, ok := e.Host.(egress.Pattern); ok {
		out = j.siftName(r, e, p)
	} else if !j.takesAddress(r, e) {
		return nil
	}
	if len(out) == 0 || !slices.Contains(j.format.can.protos, out[0].Proto) {
		if len(out) > 0 {
			j.gap(r, e, "the format has no rules for %s", e.Proto)
		}
		return nil
	}
	return j.siftPorts(r, e, out)
}

// siftName returns the endpoint as it is, wider, or not at all.
func (j *job) siftName(r *egress.Rule, e egress.Endpoint, p egress.Pattern) []egress.Endpoint {
	c := j.format.can
	has := c.dnsNames
	if e.Proto.Named() {
		has = c.names
	}
	wants := shapeOf(p)
	wide, below := belowFixed(p)
	lacks := wants.words(has)
	if has.holds(wants) {
		lacks = c.spelling.not
	}
	switch spoken := slices.Contains(c.protos, e.Proto); {
	case spoken && has.holds(wants) && c.spelling.takes(p):
		return []egress.Endpoint{e}
	case spoken && !has.holds(wants) && has.holds(shapeBelow) && below && c.spelling.takes(wide):
		if j.widen(r, e, WidenWildcard, "the format has no pattern like %s; %s would hold it, and more", wants.missing(has), wide) {
			e.Host = wide
			return []egress.Endpoint{e}
		}
	case c.nets && slices.Contains(c.protos, e.Proto.Transport()):
		if j.widen(r, e, WidenAnyAddress, "the format has no %s", lacks) {
			return anyAddress(e, c.nets6)
		}
	case !spoken:
		j.gap(r, e, "the format has no rules for %s", e.Proto)
	default:
		j.gap(r, e, "the format has no %s", lacks)
	}
	return nil
}

func anyAddress(e egress.Endpoint, nets6 bool) []egress.Endpoint {
	e.Proto = e.Proto.Transport()
	e.Host = egress.Net{Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	out := []egress.Endpoint{e}
	if nets6 {
		e.Host = egress.Net{Prefix: netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
		out = append(out, e)
	}
	return out
}

func (j *job) takesAddress(r *egress.Rule, e egress.Endpoint) bool {
	c := j.format.can
	switch h := e.Host.(type) {
	case egress.Tag:
		if !c.tags {
			j.gap(r, e, "the format does not know Azure's service tags; --service-tags writes them out as prefixes")
		}
		return c.tags
	case egress.Net:
		switch {
		case h.Addr().Is6() && c.nets && !c.nets6:
			j.gap(r, e, "the format has no IPv6")
		case h.Addr().Is6() && !c.nets6 || h.Addr().Is4() && !c.nets:
			j.gap(r, e, "the format has no addresses")
		default:
			return true
		}
	}
	return false
}

// siftPorts writes a range out where the target has none.
func (j *job) siftPorts(r *egress.Rule, whole egress.Endpoint, es []egress.Endpoint) []egress.Endpoint {
	n := int(whole.Ports.Last) - int(whole.Ports.First) + 1
	switch {
	case n == 1 || j.format.can.ranges:
		return es
	case n > maxExpanded:
		j.gap(r, whole, "the format has no ranges of ports, and %d ports are too many to write out", n)
		return nil
	}
	var out []egress.Endpoint
	for _, e := range es {
		for port := int(whole.Ports.First); port <= int(whole.Ports.Last); port++ {
			e.Ports = egress.Ports{First: uint16(port), Last: uint16(port)}
			out = append(out, e)
		}
	}
	return out
}

// prefixes joins prefixes as they are written; single addresses stand alone.
func prefixes(ps []netip.Prefix) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = egress.Net{Prefix: p}.String()
	}
	return join(words, ", ")
}
