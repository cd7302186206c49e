package kernel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

// drawn is a policy made from a seed, with what DNS has told about its names.
type drawn struct {
	policy   *egress.Policy
	rs       *Ruleset
	bindings []egress.Binding
	opened   []Element
}

// The places where drawn policies and probes meet.
var (
	drawnClients = []string{"10.224.0.4", "10.224.0.77", "10.224.0.200", "fd00:224::4", "fd00:224::77", "fd00:224::200"}
	drawnServers = []string{"20.40.0.10", "20.40.0.11", "20.40.1.1", "20.40.128.1", "2603:1020::10", "2603:1020::11", "2603:1020:0:1::1"}
	drawnNets    = []string{"20.40.0.10/32", "20.40.0.0/24", "20.40.0.0/16", "20.40.128.0/17", "0.0.0.0/0", "[2603:1020::10]", "[2603:1020::/64]", "[2603:1020::/32]", "[::/0]"}
	drawnNames   = []string{"a.example", "b.example", "*.c.example", "x-*.d.example", "x.*.f.example"}
	drawnPorts   = []string{"22", "53", "80", "123", "443", "5000-5010", "5005", "8443", "9000"}
	drawnFrom    = []string{"10.224.0.0/25", "10.224.0.200/32", "fd00:224::200/128", "10.224.0.0/16"}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func draw(t testing.TB, seed uint64, observe bool) *drawn {
	r := rand.New(rand.NewPCG(seed, 1))
	var rules []egress.Rule
	for i := range r.IntN(9) {
		var from []netip.Prefix
		if r.IntN(3) == 0 {
			from = prefixes(pick(r, drawnFrom))
		}
		var to []string
		for range 1 + r.IntN(3) {
			proto, host := pick(r, []string{"tcp", "udp", "https", "http"}), pick(r, drawnNames)
			if proto[0] != 'h' && r.IntN(2) == 0 {
				host = pick(r, drawnNets)
			}
			to = append(to, fmt.Sprintf("%s://%s:%s", proto, host, pick(r, drawnPorts)))
		}
		rules = append(rules, rule(t, fmt.Sprintf("r%d", i), from, to...))
	}
	d := &drawn{policy: compilePolicy(t, []egress.Cluster{{Name: "prod", From: nodes}}, rules...)}
	s := settings(d.policy, Cluster{Name: "prod", Internal: prefixes("10.0.0.0/8", "fd00::/8"), Observe: observe})
	s.Queues, s.Management = 1, netip.AddrPort{}
	d.rs = plan(t, d.policy, s)
	for range r.IntN(6) {
		name := pick(r, []string{"a.example", "b.example", "z.c.example", "x-1.d.example", "x.y.f.example", "other.example"})
		b := binding("prod", name, pick(r, drawnServers), time.Hour)
		d.bindings = append(d.bindings, b)
		d.opened = append(d.opened, learn(d.rs, b)...)
	}
	return d
}

// conn draws a first packet and what is known of its connection.
func (d *drawn) conn(r *rand.Rand) (egress.Conn, *probe) {
	src, dst := netip.MustParseAddr(pick(r, drawnClients)), netip.MustParseAddr(pick(r, drawnServers))
	for src.Is4() != dst.Is4() {
		dst = netip.MustParseAddr(pick(r, drawnServers))
	}
	port := pick(r, []uint16{22, 53, 80, 123, 443, 5000, 5005, 5010, 5011, 8443, 9000, 9999})
	c := egress.Conn{Proto: egress.TCP, Src: netip.AddrPortFrom(src, 1), Dst: netip.AddrPortFrom(dst, port)}
	p := &probe{src: src, dst: dst, proto: protoTCP, port: port, flags: flagSYN}
	if r.IntN(2) == 0 {
		c.Proto, p.proto, p.flags = egress.UDP, protoUDP, 0
		p.data = make([]byte, 48)
		p.data[0] = 4<<3 | 3 // what a client of NTP sends, wherever it goes
	}
	for _, b := range d.bindings {
		if b.Addr == dst {
			c.Bound = append(c.Bound, b.Name)
		}
	}
	return c, p
}

// want is what the kernel has to do with a first packet for which the policy gives a verdict.
func want(c egress.Conn, v egress.Verdict) (fate, State) {
	switch {
	case c.Dst.Port() == 53:
		return toSelf, Undecided // the gateway's own resolver answers
	case v.Action == egress.Allow:
		return passes, Allowed
	case v.Action == egress.Wait && v.Reason == egress.NeedsHello:
		return queued, Held
	case v.Action == egress.Wait:
		return toSelf, Proxied
	}
	return dropped, Undecided
}

// alone reports whether the rule with this number permits the connection by itself. It need not be the one that the policy
// names: of two whose ports overlap the kernel takes the one that it comes to first.
func (d *drawn) alone(t *testing.T, number uint32, c egress.Conn) bool {
	rules := d.policy.Rules()
	if number == 0 || int(number) > len(rules) {
		return false
	}
	return compilePolicy(t, d.policy.Clusters(), rules[number-1]).Decide(c).Action == egress.Allow
}

// FuzzPlanAgreesWithDecide draws a policy and connections, and holds what the planned rules do at the first packet against
// what the policy says of them.
func FuzzPlanAgreesWithDecide(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(seed, seed*7)
	}
	f.Fuzz(func(t *testing.T, seed, packets uint64) {
		d := draw(t, seed, false)
		r := rand.New(rand.NewPCG(packets, 2))
		for range 16 {
			c, p := d.conn(r)
			v := d.policy.Decide(c)
			m := newMachine(t, d.rs, d.opened)
			got := m.run(p)
			fate, state := want(c, v)
			mark := Mark(p.mark)
			if got != fate || state != Undecided && mark.State() != state || state == Allowed && !d.alone(t, mark.Rule(), c) {
				t.Fatalf("%s %s to %s bound to %v: the rules say %s, %s; the policy %s, %s for %s\n%s",
					c.Proto, c.Src.Addr(), c.Dst, c.Bound, got, mark, fate, state, v.Reason, d.rs)
			}
		}
	})
}

// FuzzPlanStopsOddPackets draws packets that no honest client sends: whatever the policy, none of them may pass or open
// anything, but through the queue to who reads them.
func FuzzPlanStopsOddPackets(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(seed, seed*5)
	}
	f.Fuzz(func(t *testing.T, seed, packets uint64) {
		d := draw(t, seed, false)
		r := rand.New(rand.NewPCG(packets, 3))
		for range 16 {
			_, p := d.conn(r)
			p.makeOdd(r)
			if got := newMachine(t, d.rs, d.opened).run(p); got == passes {
				t.Fatalf("%+v passes\n%s", p, d.rs)
			}
		}
	})
}

// FuzzPlanKeepsVerdicts draws later packets of connections in each state. Nothing passes that has not been allowed, but a
// bare acknowledgement of a connection that is being looked at, and a SYN is judged anew whatever its connection was.
func FuzzPlanKeepsVerdicts(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(seed, seed*3)
	}
	f.Fuzz(func(t *testing.T, seed, packets uint64) {
		d := draw(t, seed, false)
		r := rand.New(rand.NewPCG(packets, 5))
		for range 32 {
			c, p := d.conn(r)
			c.Proto, p.proto, p.data = egress.TCP, protoTCP, nil
			p.flags = pick(r, []uint32{flagSYN, flagACK, flagACK | 8, flagACK | flagFIN, flagRST, flagRST | flagACK, flagSYN | flagACK, 0, flagACK | 32, flagSYN | 0xc0, 255})
			if r.IntN(2) == 0 {
				p.data = []byte{22}
			}
			state := pick(r, []State{Undecided, Allowed, Cut, Held})
			p.mark = uint32(NewMark(state, 1))
			what := fmt.Sprintf("%s, then %s to %s with flags %#x and %d bytes", state, p.src, c.Dst, p.flags, len(p.data))
			got := newMachine(t, d.rs, d.opened).run(p)
			if msg := d.wrong(t, c, p, state, got); msg != "" {
				t.Fatalf("%s: %s, %s: %s\n%s", what, got, Mark(p.mark), msg, d.rs)
			}
		}
	})
}

// FuzzShortcutsChangeNothing takes the shortcuts out of a plan, and any packet of a connection in any state must fare as it
// does with them, and leave the same marks.
func FuzzShortcutsChangeNothing(f *testing.F) {
	for seed := range uint64(32) {
		f.Add(seed, seed*11)
	}
	f.Fuzz(func(t *testing.T, seed, packets uint64) {
		r := rand.New(rand.NewPCG(packets, 6))
		d := draw(t, seed, r.IntN(4) == 0)
		long := d.rs.withoutShortcuts(t)
		for range 64 {
			p := d.later(r)
			short, before := *p, *p
			got, mark := newMachine(t, d.rs, d.opened).run(&short), short.mark
			want := newMachine(t, long, d.opened).run(p)
			if got != want || mark != p.mark || short.meta != p.meta {
				t.Fatalf("%+v: %s, %s, packet %s; without shortcuts %s, %s, packet %s\n%s",
					before, got, Mark(mark), Mark(short.meta), want, Mark(p.mark), Mark(p.meta), d.rs)
			}
		}
	})
}

// withoutShortcuts is the rule set as if there were none.
func (rs *Ruleset) withoutShortcuts(t *testing.T) *Ruleset {
	long := *rs
	long.Chains = slices.Clone(rs.Chains)
	rules := func(rules []Rule) string { return fmt.Sprint(rules) }
	for i, c := range long.Chains {
		short := map[string][]Rule{"normalise": shortcuts.normalise, "classify": shortcuts.classify, "forward": shortcuts.forward}[c.Name]
		if at := map[string]int{"normalise": 1, "classify": 1}[c.Name]; len(short) > 0 {
			if rules(c.Rules[at:at+len(short)]) != rules(short) {
				t.Fatalf("chain %s: its shortcuts are not where they are looked for", c.Name)
			}
			long.Chains[i].Rules = slices.Delete(slices.Clone(c.Rules), at, at+len(short))
		}
	}
	return &long
}

// later draws a packet of any connection: of any protocol and direction, whole or odd.
func (d *drawn) later(r *rand.Rand) *probe {
	_, p := d.conn(r)
	p.mark = uint32(NewMark(pick(r, []State{Undecided, Allowed, Allowed, Allowed, Cut, Held, Watched, Passed, Proxied}), uint32(r.IntN(3))))
	p.meta = pick(r, []uint32{0, uint32(NewMark(Allowed, 1)), uint32(NewMark(Cut, 0)), uint32(seen)}) // from elsewhere
	if p.proto == protoTCP {
		p.flags = pick(r, []uint32{flagSYN, flagACK, flagACK | 8, flagACK | flagFIN, flagRST, flagSYN | flagACK, flagSYN | flagFIN, 0, 255, flagSYN | 0xc0})
	} else if r.IntN(2) == 0 { // where TCP has its flags
		p.data = slices.Repeat([]byte{pick(r, []byte{0, flagSYN, flagACK, 4<<3 | 3})}, pick(r, []int{0, 1, 6, 48}))
	}
	if r.IntN(3) == 0 {
		p.src, p.dst, p.reply = p.dst, p.src, true
		p.port = pick(r, []uint16{p.port, 40000, ntpPort})
	}
	switch r.IntN(6) {
	case 0:
		p.makeOdd(r)
	case 1:
		p.proto, p.flags, p.data = map[bool]uint32{true: protoICMP, false: protoICMPv6}[p.src.Is4()], 0, nil
		p.port = pick(r, []uint16{0, ntpPort, flagSYN}) // bytes of its checksum
		p.related = r.IntN(3) > 0
	}
	return p
}

// wrong says what is wrong with the fate of a later packet, or nothing.
func (d *drawn) wrong(t *testing.T, c egress.Conn, p *probe, state State, got fate) string {
	const opening = flagFIN | flagSYN | flagRST | flagACK
	if p.flags&opening == flagSYN {
		want, next := want(c, d.policy.Decide(c))
		switch {
		case want == queued && len(p.data) > 0:
			want = dropped
		case want == passes && !d.alone(t, Mark(p.mark).Rule(), c):
			return "it rides a rule that does not permit it"
		}
		if got != want || next != Undecided && Mark(p.mark).State() != next {
			return fmt.Sprintf("a SYN is judged anew: want %s, %s", want, next)
		}
		return ""
	}
	looked := got == queued ||
		got == passes && p.flags == flagACK && len(p.data) == 0 ||
		got == dropped && p.flags&flagSYN != 0 && len(p.data) > 0
	switch {
	case c.Dst.Port() == 53: // translated at its first packet, which this is not
	case state == Allowed && got != passes:
		return "it was allowed"
	case state == Held && !looked:
		return "it is being looked at"
	case (state == Cut || state == Undecided) && got != dropped:
		return "nobody allowed it"
	}
	return ""
}

// makeOdd changes a packet so that it must not be forwarded.
func (p *probe) makeOdd(r *rand.Rand) {
	switch r.IntN(6) {
	case 0:
		p.invalid = true
		if p.proto == protoTCP {
			p.flags = flagACK
		}
	case 1:
		p.proto, p.flags, p.port = pick(r, []uint32{4, 41, 47, 50, 51, 94, 97, 132, 136}), 0, 0
	case 2:
		p.proto, p.flags, p.port = protoTCP, flagSYN, 443
		p.fragment = true
	case 3:
		if p.src.Is4() {
			p.v4Options = true
		} else {
			p.headers = []uint8{pick(r, []uint8{headerHop, headerRouting, headerDestination})}
		}
	case 4:
		p.elsewhere = true
		p.port = 9999 // where no rule comes before
	case 5:
		p.proto, p.flags, p.port = protoUDP, 0, 443
		p.data = []byte{0xc3}
		p.dst = netip.MustParseAddr("192.0.2.1")
		if p.src.Is6() {
			p.dst = netip.MustParseAddr("2001:db8::1")
		}
		p.elsewhere = true
	}
}
