package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// multiTenant are suffixes below which any customer of a cloud can make a name,
// and so receive what a wildcard lets out.
var multiTenant = egress.MultiTenantSuffixes()

// narrowPrefix is the length from which on a prefix is taken for somebody's own.
const narrowPrefix = 24

// breadth finds what is open beyond the needs, and gives the widest the highest
// rank. Whole names are nobody's breadth.
func (j *judge) breadth() {
	type written struct{ at, text string }
	said, serves := map[written]bool{}, map[written]bool{}
	for i := range j.grants {
		if g := &j.grants[i]; j.used[i] || j.needed(g) {
			serves[written{g.at, g.text}] = true
		}
	}
	for i := range j.grants {
		g := &j.grants[i]
		key := written{g.at, g.text}
		if g.deny || j.dead[i] || said[key] || !g.open && (j.needed(g) || j.opened(i)) {
			continue
		}
		rank, why := j.rank(i)
		switch {
		case rank > 0:
			said[key] = true
		case serves[key] || isRetired(g.to.names):
			continue
		default:
			said[key] = true
			j.report.Others = append(j.report.Others, Cover{At: g.at, Text: g.text})
			continue
		}
		j.say(Finding{Kind: Wide, Level: Warning, At: g.at, Text: g.text, Why: why, rank: rank})
	}
}

// opened reports whether an earlier rule has opened the same already.
func (j *judge) opened(i int) bool {
	return len(j.grants) <= maxCompared && j.earlier(i, func(*grant) bool { return true }) >= 0
}

// needed reports whether one need permits all that the grant does.
func (j *judge) needed(g *grant) bool {
	for i := range j.needs.Rules {
		for _, e := range j.needs.Rules[i].To {
			if j.permits(e, g) {
				return true
			}
		}
	}
	return false
}

func (j *judge) permits(e egress.Endpoint, g *grant) bool {
	if !within(g.ports, e.Ports) || !g.speaks(e.Proto) {
		return false
	}
	switch h := e.Host.(type) {
	case egress.Pattern:
		n := g.to.names
		if n.lead == apexOrBelow {
			n.lead = below // the dialect cannot leave the apex out
		}
		return !n.none() && namesOf(h).holds(n)
	case egress.Net:
		return g.to.net.IsValid() && holdsPrefix(h.Prefix, g.to.net) || g.to.net == anyAddr6 && h.Prefix == anyAddr
	case egress.Tag:
		return holdsTag(h.Name(), g.to.tag)
	}
	return false
}

func (j *judge) rank(i int) (int, string) {
	g := &j.grants[i]
	t := &g.to
	switch {
	case g.open && j.Format == Squid:
		return 645, fmt.Sprintf("The expression does not end with $, so names such as %s.evil.example are open too.", g.to.names.rest)
	case g.open:
		return 645, fmt.Sprintf("It lacks the slash that other entries end with: a URL list then takes %s.evil.example for it too.", g.text)
	case t.anywhere() && g.ports == allPorts:
		return 1000, "It opens every address on every port."
	case t.anywhere():
		return 900, fmt.Sprintf("It opens every address, for %s.", g.service())
	case t.tag != "":
		return j.rankTag(g)
	case t.net.IsValid() && t.net.Bits() < narrowPrefix:
		return 700 - t.net.Bits(), fmt.Sprintf("It opens %s addresses, for %s.", addresses([]netip.Prefix{t.net}), g.service())
	case t.fqdnTag != "":
		return 100, "What the tag opens is not published, is the same for every cluster and region, and changes without notice."
	case t.names.none() || t.names.exact():
		return j.rankPorts(i)
	case t.names.lead == anyBytes:
		return rankLookAlikes(t.names.rest)
	case !strings.Contains(t.names.rest, "."):
		return 640, "It opens a whole top-level domain, in which anybody can register names."
	}
	for _, suffix := range multiTenant {
		if t.names.has(fresh + "." + suffix.String()) {
			return 500, fmt.Sprintf("Any customer can make a name below %s, and so receive what leaves the cluster; name your own.", suffix)
		}
	}
	if j.used[i] {
		return 300, fmt.Sprintf("It opens more names than %s.", j.narrower(g))
	}
	return 0, ""
}

// rankLookAlikes: whoever can make names beside the one that was meant gets what
// leaves the cluster.
func rankLookAlikes(rest string) (int, string) {
	_, parent, _ := strings.Cut(rest, ".")
	if !strings.Contains(parent, ".") || isMultiTenant(parent) {
		return 650, fmt.Sprintf("The * is not followed by a dot, so look-alikes such as evil%s are open, which anybody can register.", rest)
	}
	return 350, fmt.Sprintf("The * is not followed by a dot, so names such as other%s are open too.", rest)
}

func (j *judge) rankTag(g *grant) (int, string) {
	prefixes := j.needs.prefixes(g.to.tag)
	if len(prefixes) == 0 {
		return 800, "It opens the addresses of a service tag, other customers' among them; --service-tags counts them."
	}
	return 800, fmt.Sprintf("It opens %s addresses in %d prefixes, other customers' among them, for %s.", addresses(prefixes), len(prefixes), g.service())
}

// rankPorts: the host is right, and the ports are too many.
func (j *judge) rankPorts(i int) (int, string) {
	g := &j.grants[i]
	if j.used[i] && g.ports.Last-g.ports.First > 0 {
		return 400, fmt.Sprintf("It opens ports %s, where %s is needed.", g.ports, j.narrower(g))
	}
	return 0, ""
}

// narrower are the needs that the grant is there for.
func (j *judge) narrower(g *grant) string {
	var out []string
	for i := range j.needs.Rules {
		for _, e := range j.needs.Rules[i].To {
			same := func(h grant) bool { return h.at == g.at && h.text == g.text && h.touches(e, j.needs) }
			if s := e.String(); slices.ContainsFunc(j.grants, same) && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return list(out)
}

// addresses counts IPv4 addresses, and IPv6 prefixes apart, for people.
func addresses(ps []netip.Prefix) string {
	var n uint64
	for _, p := range ps {
		if p.Addr().Is4() {
			n += 1 << (32 - p.Bits())
		}
	}
	switch {
	case n == 0:
		return "IPv6"
	case n >= 10_000_000:
		return fmt.Sprintf("%d million", n/1_000_000)
	case n >= 1_000_000:
		return fmt.Sprintf("%.1f million", float64(n)/1e6)
	case n >= 10_000:
		return fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	return fmt.Sprint(n)
}

func isMultiTenant(s string) bool {
	n, err := egress.ParseName(s)
	return err == nil && egress.MultiTenant(n)
}
