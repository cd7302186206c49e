package egress

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Policy is a compiled set of rules. It never changes, and may be used from
// many goroutines at once. The zero Policy denies everything.
type Policy struct {
	id       string
	rules    []Rule
	clusters []Cluster

	uses    [][]use // interned lists of uses; index 0 is none, see list
	exact   index   // name -> index in uses
	below   index   // Pattern.Fixed of a pattern with wildcards -> index in uses
	depths  uint64  // bit n is set when a key of below has n labels
	addrs   [2]nets // address rules, by transport: TCP, UDP
	byBound [2]bool // whether a TCP or UDP rule has a name
	judged  []use   // the HTTP and HTTPS uses without their names: one for each protocol, ports and sources
}

// use is one endpoint of one rule, as it is found by name or by address.
type use struct {
	pattern Pattern // only where it has to be matched: neither exact nor plain
	ports   Ports
	proto   Proto
	rule    int32
}

// Compile checks the rules and joins them. Its errors name the rule. A service
// tag has to be replaced by its prefixes first, for nothing here can look it up.
// The rules and clusters are copied; their slices must not change afterwards.
func Compile(rules []Rule, clusters []Cluster) (*Policy, error) {
	p := &Policy{rules: slices.Clone(rules), clusters: slices.Clone(clusters)}
	if err := checkClusters(p.clusters); err != nil {
		return nil, err
	}
	c := compiler{exact: map[string][]use{}, below: map[string][]use{}, judged: map[string]use{}}
	seen := make(map[string]bool, len(rules))
	for i, r := range p.rules {
		switch {
		case r.ID == "":
			return nil, fmt.Errorf("rule %d: no id", i+1)
		case seen[r.ID]:
			return nil, fmt.Errorf("rule %s: there are two of this id", r.ID)
		case len(r.To) == 0:
			return nil, fmt.Errorf("rule %s: no destination", r.ID)
		}
		seen[r.ID] = true
		for _, e := range r.To {
			if err := c.add(e, int32(i), r.From); err != nil {
				return nil, fmt.Errorf("rule %s: %s: %w", r.ID, e, err)
			}
		}
	}
	c.finish(p)
	p.id = p.hash()
	return p, nil
}

func checkClusters(clusters []Cluster) error {
	for i, c := range clusters {
		if c.Name == "" {
			return fmt.Errorf("cluster %d: no name", i+1)
		}
		for _, d := range clusters[:i] {
			if c.Name == d.Name {
				return fmt.Errorf("cluster %s: there are two of this name", c.Name)
			}
			for _, a := range c.From {
				for _, b := range d.From {
					if a.Overlaps(b) {
						return fmt.Errorf("clusters %s and %s: %s and %s overlap", d.Name, c.Name, b, a)
					}
				}
			}
		}
	}
	return nil
}

// compiler gathers uses by key before they are interned.
type compiler struct {
	exact, below map[string][]use
	addrs        [2][]netUse
	byBound      [2]bool
	judged       map[string]use // by protocol, ports and sources
}

func (c *compiler) add(e Endpoint, rule int32, from []netip.Prefix) error {
	u := use{ports: e.Ports, proto: e.Proto, rule: rule}
	switch h := e.Host.(type) {
	case Tag:
		return fmt.Errorf("the service tag %s has not been replaced by its prefixes", h.Name())
	case Net:
		t := transportIndex(e.Proto)
		c.addrs[t] = append(c.addrs[t], netUse{h.Prefix, u})
		return nil
	case Pattern:
		if key := fmt.Sprint(u.proto, u.ports, from); u.proto.Named() {
			c.judged[key] = u
		}
		if !e.Proto.Named() {
			c.byBound[transportIndex(e.Proto)] = true
		}
		c.addPattern(h, u)
		return nil
	}
	return fmt.Errorf("no destination")
}

func (c *compiler) addPattern(h Pattern, u use) {
	if n, ok := h.Exact(); ok {
		c.exact[n.s] = append(c.exact[n.s], u)
		return
	}
	if !h.plain() {
		u.pattern = h
	}
	key := h.Fixed().s
	c.below[key] = append(c.below[key], u)
}

// finish interns the lists of uses, so that a million names of one rule share
// one list and a look-up touches little memory.
func (c *compiler) finish(p *Policy) {
	p.uses = [][]use{nil}
	p.exact, p.below = p.intern(c.exact), p.intern(c.below)
	for key := range c.below {
		p.depths |= 1 << min(strings.Count(key, ".")+1, deepest)
	}
	for _, key := range slices.Sorted(maps.Keys(c.judged)) {
		p.judged = append(p.judged, c.judged[key])
	}
	p.byBound = c.byBound
	for i := range c.addrs {
		p.addrs[i] = newNets(c.addrs[i])
	}
}

func (p *Policy) intern(byKey map[string][]use) index {
	m := make(map[string]int32, len(byKey))
	singles := map[use]int32{} // most names have one use
	for key, us := range byKey {
		at, had := singles[us[0]]
		if !had || len(us) > 1 {
			at = int32(len(p.uses))
			p.uses = append(p.uses, us)
		}
		if len(us) == 1 {
			singles[us[0]] = at
		}
		m[key] = at
	}
	return newIndex(m)
}

// list returns the uses at an index of exact or below.
func (p *Policy) list(at int32) []use {
	if at == 0 {
		return nil
	}
	return p.uses[at]
}

// hash covers what decides: not the reasons, sources and needs.
func (p *Policy) hash() string {
	lines := make([]string, 0, len(p.rules)+len(p.clusters))
	for _, r := range p.rules {
		to := make([]string, len(r.To))
		for i, e := range r.To {
			to[i] = e.String()
		}
		slices.Sort(to)
		lines = append(lines, fmt.Sprintf("rule %s %v %s", r.ID, r.From, strings.Join(to, " ")))
	}
	for _, c := range p.clusters {
		lines = append(lines, fmt.Sprintf("cluster %s %v %s %t", c.Name, c.From, c.APIServer, c.ByAddress))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:8])
}

// ID is a hash of everything that decides, the same for the same rules in any
// order, so that a logged decision can be traced to its policy and replayed.
func (p *Policy) ID() string { return p.id }

// Rules returns the rules in the order they were given. They must not be changed.
func (p *Policy) Rules() []Rule { return p.rules }

// Clusters returns the clusters in the order they were given. They must not be changed.
func (p *Policy) Clusters() []Cluster { return p.clusters }

// Cluster returns the cluster that a client belongs to, or nil.
func (p *Policy) Cluster(client netip.Addr) *Cluster {
	for i := range p.clusters {
		if contains(p.clusters[i].From, client) {
			return &p.clusters[i]
		}
	}
	return nil
}

func contains(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
