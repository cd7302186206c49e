package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Warning is something that is allowed and deserves a look.
type Warning struct {
	Rule string // the id of the rule that it is about
	Text string
}

func (w Warning) String() string { return "rule " + w.Rule + ": " + w.Text }

// Warnings looks at the rules as a whole: what one opens that others are meant
// to judge, and what anybody could use.
func (g *Gateway) Warnings() []Warning {
	var ws []Warning
	judged := judgedPorts(g.Rules)
	near := newNeighbours(g.Rules)
	for i, r := range g.Rules {
		for _, e := range r.To {
			if w := aroundNames(e, judged); w != "" {
				ws = append(ws, Warning{r.ID, w})
			}
			if w := anybodys(e); w != "" {
				ws = append(ws, Warning{r.ID, w})
			}
		}
		for _, j := range near.of(r) {
			wide := g.Rules[j]
			if max(i, j) < g.needs {
				continue // each row of the catalogue has a reason of its own, and goes with its feature
			}
			if i != j && masks(wide, r) && (!masks(r, wide) || j < i) {
				ws = append(ws, Warning{r.ID, fmt.Sprintf("rule %s permits all of it already", wide.ID)})
				break
			}
		}
	}
	return ws
}

// neighbours finds the rules that may permit what another does without looking at all of them, for there may be a
// million names: an endpoint that covers a pattern has a fixed part that the pattern's ends with.
type neighbours struct {
	byFixed map[string][]int // rules with a pattern, by the pattern's fixed part
	others  []int            // rules with an endpoint that is no pattern
}

func newNeighbours(rules []egress.Rule) neighbours {
	n := neighbours{byFixed: map[string][]int{}}
	once := func(to []int, i int) []int {
		if len(to) > 0 && to[len(to)-1] == i {
			return to
		}
		return append(to, i)
	}
	for i, r := range rules {
		for _, e := range r.To {
			if p, ok := e.Host.(egress.Pattern); ok {
				fixed := p.Fixed().String()
				n.byFixed[fixed] = once(n.byFixed[fixed], i)
			} else {
				n.others = once(n.others, i)
			}
		}
	}
	return n
}

// of returns the rules, in their order, that may cover r's first endpoint.
func (n neighbours) of(r egress.Rule) []int {
	near := slices.Clone(n.others)
	if len(r.To) > 0 {
		if p, ok := r.To[0].Host.(egress.Pattern); ok {
			name := p.Fixed().String()
			for more := true; more; _, name, more = strings.Cut(name, ".") {
				near = append(near, n.byFixed[name]...)
			}
			near = append(near, n.byFixed[""]...)
		}
	}
	slices.Sort(near)
	return slices.Compact(near)
}

// judgedPorts returns the port ranges on which connections are judged by name.
func judgedPorts(rules []egress.Rule) []egress.Ports {
	seen := map[egress.Ports]bool{}
	var ports []egress.Ports
	for _, r := range rules {
		for _, e := range r.To {
			if e.Proto.Named() && !seen[e.Ports] {
				seen[e.Ports] = true
				ports = append(ports, e.Ports)
			}
		}
	}
	return ports
}

// aroundNames says where an address rule takes connections away from the name
// rules: what it permits is settled at the first packet.
func aroundNames(e egress.Endpoint, judged []egress.Ports) string {
	net, ok := e.Host.(egress.Net)
	if !ok || e.Proto != egress.TCP || insideOnly(net.Prefix) {
		return ""
	}
	for _, p := range judged {
		if e.Ports.First <= p.Last && p.First <= e.Ports.Last {
			return fmt.Sprintf("%s covers port %s of name rules: what goes to these addresses is not judged by name", e, p)
		}
	}
	return ""
}

func insideOnly(p netip.Prefix) bool {
	for _, g := range egress.GuardedRanges() {
		if g.Bits() <= p.Bits() && g.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

func anybodys(e egress.Endpoint) string {
	p, ok := e.Host.(egress.Pattern)
	if !ok {
		return ""
	}
	if _, exact := p.Exact(); exact || !strings.HasPrefix(p.String(), "*.") || !egress.MultiTenant(p.Fixed()) {
		return ""
	}
	return fmt.Sprintf("any customer can create a name under %s; name the ones that are needed", p.Fixed())
}

// masks reports whether wide permits everything that r does.
func masks(wide, r egress.Rule) bool {
	if !fromCovers(wide.From, r.From) {
		return false
	}
	for _, e := range r.To {
		covered := false
		for _, w := range wide.To {
			covered = covered || w.Covers(e)
		}
		if !covered {
			return false
		}
	}
	return true
}

func fromCovers(wide, narrow []netip.Prefix) bool {
	if len(wide) == 0 {
		return true
	}
	for _, n := range narrow {
		covered := false
		for _, w := range wide {
			covered = covered || w.Bits() <= n.Bits() && w.Contains(n.Addr())
		}
		if !covered {
			return false
		}
	}
	return len(narrow) > 0
}
