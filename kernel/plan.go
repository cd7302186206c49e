package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

const tableName = "tidegate"

// Plan works out the rules for a policy. It is pure; its errors name the cluster
// or the rule. Every cluster of the policy needs its entry in s.Clusters.
func Plan(p *egress.Policy, s Settings) (*Ruleset, error) {
	clusters, err := joinClusters(p, s)
	if err != nil {
		return nil, err
	}
	marks, err := numberRules(p, s)
	if err != nil {
		return nil, err
	}
	pl := &planner{policy: p, settings: s, marks: marks, rs: &Ruleset{Sysctls: sysctls()}}
	pl.sharedSets(clusters)
	pl.hooks(clusters)
	for _, c := range clusters {
		pl.cluster(c)
	}
	pl.sharedChains()
	slices.Sort(pl.rs.Counters)
	pl.rs.Counters = slices.Compact(pl.rs.Counters)
	return pl.rs, nil
}

// client is a cluster with what the policy and the settings say of it.
type client struct {
	Cluster
	from []netip.Prefix
	id   string // the name in the names of chains and sets
}

// kept is the state of connections that the cluster's rules permit.
func (c client) kept() State {
	if c.Observe {
		return Passed
	}
	return Allowed
}

// maxClusterName keeps the names of sets below the kernel's limit.
const maxClusterName = 64

func joinClusters(p *egress.Policy, s Settings) ([]client, error) {
	byName := map[string]Cluster{}
	for _, c := range s.Clusters {
		byName[c.Name] = c
	}
	if s.Queues > 1 && s.Observe >= s.Queue && s.Observe < s.Queue+s.Queues || s.Observe == s.Queue {
		return nil, fmt.Errorf("queue %d: observed connections need a queue of their own", s.Observe)
	}
	var clients []client
	for _, pc := range p.Clusters() {
		c, known := byName[pc.Name]
		switch {
		case !known:
			return nil, fmt.Errorf("cluster %s: not in the settings", pc.Name)
		case len(pc.Name) > maxClusterName:
			return nil, fmt.Errorf("cluster %s: longer than %d bytes", pc.Name, maxClusterName)
		}
		clients = append(clients, client{c, pc.From, identifier(pc.Name)})
	}
	return clients, nil
}

// identifier writes a cluster's name with the characters that nft takes, and no
// two names alike.
func identifier(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "_%02x", c)
	}
	return b.String()
}

func numberRules(p *egress.Policy, s Settings) (map[string]uint32, error) {
	rules := p.Rules()
	if s.Number == nil && len(rules) > 0 {
		return nil, errors.New("rules have no numbers for their marks")
	}
	marks := make(map[string]uint32, len(rules))
	taken := make(map[uint32]string, len(rules))
	for _, r := range rules {
		n := s.Number(r.ID)
		if n == 0 || n > MaxRule {
			return nil, fmt.Errorf("rule %s: number %d is not one from 1 to %d", r.ID, n, MaxRule)
		}
		if other, is := taken[n]; is {
			return nil, fmt.Errorf("rules %s and %s: both have the number %d", other, r.ID, n)
		}
		marks[r.ID], taken[n] = n, r.ID
	}
	return marks, nil
}

// planner gathers the rules of one plan.
type planner struct {
	policy   *egress.Policy
	settings Settings
	marks    map[string]uint32
	rs       *Ruleset
}

// families is what differs between IPv4 and IPv6, so that no rule has to be
// written twice.
var families = [...]struct {
	name     string
	key      KeyType
	src, dst field
}{
	{"v4", V4, v4Src, v4Dst},
	{"v6", V6, v6Src, v6Dst},
}

func (pl *planner) add(s Set) { pl.rs.Sets = append(pl.rs.Sets, s) }

func (pl *planner) chain(name string, rules ...Rule) {
	pl.rs.Chains = append(pl.rs.Chains, Chain{Name: name, Rules: rules})
}

func (pl *planner) base(name, typ, hook string, priority int, dropping bool, rules ...Rule) {
	pl.rs.Chains = append(pl.rs.Chains, Chain{name, &Hook{typ, hook, priority, dropping}, rules})
}

// members adds a pair of sets that hold prefixes, name.v4 and name.v6.
func (pl *planner) members(name string, ps []netip.Prefix) {
	for _, f := range families {
		pl.add(Set{Name: name + "." + f.name, Key: f.key, Ranges: merge(ps, f.key)})
	}
}

// chains adds a pair of maps from the addresses of clusters to their chains.
func (pl *planner) chains(name string, clusters []client) {
	for _, f := range families {
		s := Set{Name: name + "." + f.name, Key: f.key, Kind: Chains}
		for _, c := range clusters {
			for _, r := range merge(c.from, f.key) {
				r.Chain = name + "." + c.id
				s.Ranges = append(s.Ranges, r)
			}
		}
		slices.SortFunc(s.Ranges, func(a, b Range) int { return a.First.Compare(b.First) })
		pl.add(s)
	}
}

// each returns a rule for each family.
func each(rule func(name string, src, dst field) Rule) []Rule {
	var rules []Rule
	for _, f := range families {
		rules = append(rules, rule(f.name, f.src, f.dst))
	}
	return rules
}

// fromSource returns the rules "what comes from the pair of sets does then".
func fromSource(set string, then ...Statement) []Rule {
	return each(func(name string, src, _ field) Rule {
		return append(Rule{in{src, set + "." + name}}, then...)
	})
}

// toDestination is fromSource for what goes to the sets.
func toDestination(set string, then ...Statement) []Rule {
	return each(func(name string, _, dst field) Rule {
		return append(Rule{in{dst, set + "." + name}}, then...)
	})
}

func (pl *planner) sharedSets(clusters []client) {
	var all, strict []netip.Prefix
	for _, c := range clusters {
		all = append(all, c.from...)
		if !c.Observe {
			strict = append(strict, c.from...)
		}
	}
	pl.members("clients", all)
	pl.members("enforced", strict)
	pl.rs.Gate = strict
	pl.members("guarded", egress.GuardedRanges())
	pl.chains("new", clusters)
	pl.chains("out", clusters)
	pl.chains("in", clusters)
	if pl.settings.DNS != 0 {
		pl.chains("dns", clusters)
	}
	for _, name := range []string{"logged", "cut", "ntp", "held", "fresh"} {
		for _, f := range families {
			pl.add(Set{Name: name + "." + f.name, Key: f.key, Kind: Rates})
		}
	}
}

func ctIs(s State) match      { return match{ctMark, uint32(stateMask), "==", uint32(NewMark(s, 0))} }
func packetIs(s State) match  { return match{metaMark, uint32(stateMask), "==", uint32(NewMark(s, 0))} }
func proto(p uint32) match    { return match{field: l4proto, op: "==", value: p} }
func notProto(p uint32) match { return match{field: l4proto, op: "!=", value: p} }

// bareSYN matches what opens a TCP connection, or whatever else.
func bareSYN(op string) match {
	return match{tcpFlags, openingFlags, op, flagSYN}
}

var (
	original    = match{field: ctDirection, op: "==", value: directionOriginal}
	reply       = match{field: ctDirection, op: "==", value: directionReply}
	invalid     = match{ctState, stateInvalid, "&", stateInvalid}
	related     = match{ctState, stateRelated, "&", stateRelated}
	unknown     = match{ctState, stateNew, "&", stateNew} // a packet that makes an entry of conntrack
	isUntracked = match{ctState, stateUntracked, "&", stateUntracked}
	toUs        = match{field: fibDestination, op: "==", value: addressLocal}
)

func port(f field, p uint16) between { return between{f, p, p} }
