package egress

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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

	uses     []use     // lists that share their ends; 0 is the empty one
	patterns []Pattern // those that have to be matched; 0 is none
	exact    index     // name -> list of uses
	below    index     // Pattern.Fixed of a pattern with wildcards -> list of uses
	depths   uint64    // bit n is set when a key of below has n labels
	addrs    [2]nets   // address rules, by transport: TCP, UDP
	byBound  [2]bool   // whether a TCP or UDP rule has a name
	judged   []use     // one HTTP or HTTPS use, without its name, for each protocol, ports and sources
}

// Compile checks the rules and joins them. Its errors name the rule. A service
// tag has to be replaced by its prefixes first, for nothing here can look it up.
// The rules and clusters are copied; their slices must not change afterwards.
func Compile(rules []Rule, clusters []Cluster) (*Policy, error) {
	p := &Policy{rules: slices.Clone(rules), clusters: slices.Clone(clusters)}
	if err := checkClusters(p.clusters); err != nil {
		return nil, err
	}
	if err := checkRules(p.rules); err != nil {
		return nil, err
	}
	newCompiler(p).compile()
	p.id = p.hash()
	return p, nil
}

func checkRules(rules []Rule) error {
	seen := make(map[string]bool, len(rules))
	for i := range rules {
		r := &rules[i]
		switch {
		case r.ID == "":
			return fmt.Errorf("rule %d: no id", i+1)
		case seen[r.ID]:
			return fmt.Errorf("rule %s: there are two of this id", r.ID)
		case len(r.To) == 0:
			return fmt.Errorf("rule %s: no destination", r.ID)
		}
		seen[r.ID] = true
		for _, e := range r.To {
			if err := checkEndpoint(e); err != nil {
				return fmt.Errorf("rule %s: %s: %w", r.ID, e, err)
			}
		}
	}
	return nil
}

func checkEndpoint(e Endpoint) error {
	switch h := e.Host.(type) {
	case Tag:
		return fmt.Errorf("the service tag %s has not been replaced by its prefixes", h.Name())
	case Net:
		return nil
	case Pattern:
		if h.s != "" {
			return nil
		}
	}
	return errors.New("no destination")
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

// hash covers what decides: not the reasons, sources and needs.
func (p *Policy) hash() string {
	lines := make([]string, 0, len(p.rules)+len(p.clusters))
	for i := range p.rules {
		lines = append(lines, "rule "+string(p.rules[i].content[:]))
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
