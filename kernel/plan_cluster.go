package kernel

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"tidegate.io/tidegate/egress"
)

// cluster plans the chains of one cluster.
func (pl *planner) cluster(c client) {
	internal := "internal." + c.id
	// What a cluster's own clients have is inside as well.
	pl.members(internal, append(slices.Clone(c.Internal), c.from...))

	pl.newConnections(c, internal)

	out := toDestination(internal, accept)
	if c.Observe {
		out = append(out,
			Rule{invalid, accept},
			Rule{related, accept}, // its mark is that of the connection which it is about
			Rule{port(udpDport, 443), jumpTo(pl.observe(egress.QUIC))},
			Rule{match{field: udpDport, op: "!=", value: 443}, jumpTo(pl.observe(egress.NoRule))},
			Rule{proto(protoTCP), jumpTo(pl.observe(egress.NoRule))},
			Rule{notProto(protoTCP), notProto(protoUDP), jumpTo(pl.observe(egress.ProtocolNotAllowed))},
			Rule{setMark{NewMark(Passed, 0)}, accept})
		pl.chain("out."+c.id, out...)
		pl.chain("in."+c.id, Rule{accept})
		if pl.settings.DNS != 0 {
			pl.chain("dns."+c.id, Rule{toUs, goTo("dns")}) // where the network's DNS points to the gateway
		}
		return
	}
	pl.chain("out."+c.id, append(out, Rule{goTo("denied")})...)
	pl.chain("in."+c.id, append(fromSource(internal, accept), Rule{drop})...)
	if pl.settings.DNS != 0 {
		rules := append([]Rule{{toUs, goTo("dns")}}, toDestination(internal, goBack)...)
		pl.chain("dns."+c.id, append(rules, Rule{goTo("dns")})...)
	}
}

// newConnections plans the chain that first packets of a cluster's clients enter.
func (pl *planner) newConnections(c client, internal string) {
	name := "new." + c.id
	rules := append([]Rule{{toUs, goBack}}, toDestination(internal, goBack)...)
	if !c.Observe {
		// A source that would not be routed back to where it came from.
		rules = append(rules, Rule{match{field: fibSourceDevice, op: "==", value: 0}, goTo(pl.deny(egress.InvalidPacket, drop))})
	}
	rules = append(rules, Rule{proto(protoTCP), bareSYN("!="), goBack})
	for _, f := range []field{udpDport, tcpDport} {
		then := []Statement{goBack} // to be redirected, or refused
		if c.Observe {
			then = []Statement{setMark{NewMark(Passed, 0)}, accept}
		}
		rules = append(rules, append(Rule{port(f, 53)}, then...))
	}
	var addresses, learned, hellos, requests []Rule
	for _, g := range pl.groups(c) {
		addresses = append(addresses, pl.addressRules(c, g)...)
		learned = append(learned, pl.learnedRules(c, g)...)
		hellos = append(hellos, pl.portRules(c, g, egress.HTTPS)...)
		requests = append(requests, pl.portRules(c, g, egress.HTTP)...)
	}
	rules = append(rules, addresses...)
	if len(learned) > 0 {
		rules = append(rules, Rule{jumpTo("learned." + c.id)})
	}
	// A port of both is read as HTTPS, as the policy does, also where the rules hold for different clients.
	pl.chain(name, slices.Concat(rules, hellos, requests)...)
	if len(learned) > 0 {
		// No name leads to a guarded address, whatever a set may hold.
		pl.chain("learned."+c.id, append(toDestination("guarded", goBack), learned...)...)
	}
}

// group is the endpoints of a cluster's rules that hold for the same clients.
type group struct {
	id   string         // in the names of sets
	from []netip.Prefix // nil is the whole cluster
	uses []use          // of names that are read, one for each protocol and ports
}

type use struct {
	endpoint egress.Endpoint
	mark     Mark
}

func (pl *planner) groups(c client) []group {
	groups := []group{{id: c.id}}
	type shown struct {
		group int
		proto egress.Proto
		ports egress.Ports
	}
	seen := map[shown]bool{}
	for _, r := range pl.policy.Rules() {
		from := r.From
		if covers(from, c.from) {
			from = nil
		} else if !overlap(from, c.from) {
			continue
		}
		i := slices.IndexFunc(groups, func(g group) bool { return slices.Equal(g.from, from) })
		if i < 0 {
			i = len(groups)
			groups = append(groups, group{id: c.id + "." + digest(from), from: from})
			pl.members("from."+groups[i].id, from)
		}
		for _, e := range r.To {
			s := shown{i, e.Proto, e.Ports}
			if e.Proto.Named() && seen[s] {
				continue
			}
			seen[s] = true
			groups[i].uses = append(groups[i].uses, use{e, NewMark(c.kept(), pl.marks[r.ID])})
		}
	}
	return groups
}

// covers reports whether a rule for some clients holds for all of a cluster.
func covers(from, cluster []netip.Prefix) bool {
	if len(from) == 0 {
		return true
	}
	for _, c := range cluster {
		if !slices.ContainsFunc(from, func(f netip.Prefix) bool { return f.Bits() <= c.Bits() && f.Contains(c.Addr()) }) {
			return false
		}
	}
	return true
}

func overlap(from, cluster []netip.Prefix) bool {
	return slices.ContainsFunc(from, func(f netip.Prefix) bool { return slices.ContainsFunc(cluster, f.Overlaps) })
}

// digest names a list of prefixes, the same in every plan.
func digest(ps []netip.Prefix) string {
	h := fnv.New32a()
	for _, p := range ps {
		fmt.Fprintln(h, p)
	}
	return fmt.Sprintf("%08x", h.Sum32())
}

// narrow returns the rule with the group's clients as its first condition, or two
// rules, one for each family, where the rest does not tell the family.
func (g *group) narrow(family string, src field, rest ...Statement) Rule {
	if g.from == nil {
		return rest
	}
	return append(Rule{in{src, "from." + g.id + "." + family}}, rest...)
}

// service is what the kernel sees of an endpoint without its host.
type service struct {
	proto egress.Proto // TCP or UDP
	ports egress.Ports
}

func (s service) String() string { return fmt.Sprintf("%s.%s", s.proto, s.ports) }

func (s service) match() Statement {
	f := tcpDport
	if s.proto == egress.UDP {
		f = udpDport
	}
	return between{f, s.ports.First, s.ports.Last}
}

// services groups what pick takes of the uses by service, in order of appearance.
func services(uses []use, pick func(egress.Endpoint) bool) (order []service, by map[service][]use) {
	by = map[service][]use{}
	for _, u := range uses {
		if !pick(u.endpoint) {
			continue
		}
		s := service{u.endpoint.Proto.Transport(), u.endpoint.Ports}
		if _, seen := by[s]; !seen {
			order = append(order, s)
		}
		by[s] = append(by[s], u)
	}
	return order, by
}

// addressRules settle connections to addresses that rules name.
func (pl *planner) addressRules(c client, g group) (rules []Rule) {
	order, by := services(g.uses, func(e egress.Endpoint) bool { _, is := e.Host.(egress.Net); return is })
	for _, s := range order {
		for _, f := range families {
			set := Set{Name: fmt.Sprintf("addr.%s.%s.%s", g.id, s, f.name), Key: f.key, Kind: Marks, Ranges: flatten(by[s], f.key)}
			if len(set.Ranges) == 0 {
				continue
			}
			pl.add(set)
			rules = append(rules, g.narrow(f.name, f.src, s.match(), markFrom{f.dst, set.Name}, accept))
		}
	}
	return rules
}

// learnedRules settle connections to addresses that DNS gave for names of TCP and
// UDP rules.
func (pl *planner) learnedRules(c client, g group) (rules []Rule) {
	order, by := services(g.uses, func(e egress.Endpoint) bool {
		_, is := e.Host.(egress.Pattern)
		return is && !e.Proto.Named()
	})
	for _, s := range order {
		name := fmt.Sprintf("open.%s.%s", g.id, s)
		for _, f := range families {
			pl.add(Set{Name: name + "." + f.name, Key: f.key, Kind: Marks, Learned: true})
			rules = append(rules, g.narrow(f.name, f.src, s.match(), markFrom{f.dst, name + "." + f.name}, accept))
		}
		for _, u := range by[s] {
			pl.rs.learned.add(learnedUse{c.Name, u.endpoint.Host.(egress.Pattern), name, u.mark})
		}
	}
	return rules
}

// portRules send connections to the ports of HTTPS or HTTP rules to where their first bytes are read.
func (pl *planner) portRules(c client, g group, p egress.Proto) (rules []Rule) {
	set := Set{Name: p.String() + "." + g.id, Key: PortKey}
	for _, u := range g.uses {
		if _, named := u.endpoint.Host.(egress.Pattern); named && u.endpoint.Proto == p {
			set.Ranges = append(set.Ranges, Range{Ports: u.endpoint.Ports})
		}
	}
	if len(set.Ranges) == 0 {
		return nil
	}
	set.Ranges = mergePorts(set.Ranges)
	pl.add(set)
	then := Rule{in{tcpDport, set.Name}, setMark{NewMark(Held, 0)}, accept}
	switch {
	case c.Observe:
		then[1] = setMark{NewMark(Watched, 0)}
	case p == egress.HTTP:
		then[1] = setMark{NewMark(Proxied, 0)}
	}
	if g.from == nil {
		return []Rule{then}
	}
	return each(func(name string, src, _ field) Rule { return g.narrow(name, src, then...) })
}
