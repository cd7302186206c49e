package gateway

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
	"tidegate.io/tidegate/wire/wiretest"
)

// Marks as a test reads them.
const (
	cutMark     = 1 << 30
	allowedMark = 1 << 29
	passedMark  = 1 << 28
)

// names of the tests: the address shared is that of an allowed and a denied name, as on a content
// network.
var (
	node    = netip.MustParseAddrPort("10.224.0.4:50000")
	node6   = netip.MustParseAddrPort("[fd00:1::4]:50000")
	shared  = netip.MustParseAddrPort("20.1.2.3:443")
	shared6 = netip.MustParseAddrPort("[2603:1000::3]:443")
	apiAddr = netip.MustParseAddrPort("20.9.9.9:443")
	good    = egress.MustParseName("mcr.microsoft.com")
	evil    = egress.MustParseName("evil.example.org")
)

var houseRules = []string{
	"core/mcr https://mcr.microsoft.com:443",
	"core/mcr-data https://*.data.mcr.microsoft.com:443",
	"core/apiserver https://p-1.hcp.westeurope.azmk8s.io:443",
	"house/db tcp://20.7.0.0/16:443",
	"house/ntp udp://20.8.0.1/32:123",
	"house/vpn udp://20.8.0.2/32:1194",
	"house/web http://mcr.microsoft.com:80",
}

func policyOf(t testing.TB, rules ...string) *egress.Policy {
	t.Helper()
	var rs []egress.Rule
	for _, s := range rules {
		words := strings.Fields(s)
		r := egress.Rule{ID: words[0]}
		for _, w := range words[1:] {
			e, err := egress.ParseEndpoint(w)
			if err != nil {
				t.Fatal(err)
			}
			r.To = append(r.To, e)
		}
		rs = append(rs, r)
	}
	p, err := egress.Compile(rs, []egress.Cluster{
		{Name: "prod", From: []netip.Prefix{netip.MustParsePrefix("10.224.0.0/16"), netip.MustParsePrefix("fd00:1::/64")},
			APIServer: egress.MustParseName("p-1.hcp.westeurope.azmk8s.io"), ByAddress: true},
		{Name: "watched", From: []netip.Prefix{netip.MustParsePrefix("10.225.0.0/16")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rig is a Follower with a client and a server at its sides, neither of which knows TCP by itself.
type rig struct {
	t      testing.TB
	f      *Follower
	now    time.Time
	policy *egress.Policy
	names  *Bindings

	src, dst  netip.AddrPort
	isn, sisn uint32 // sequence numbers of the two SYNs
	heard     int    // how much of the server's stream the client acknowledges
	id        uint32
	verdicts  map[uint32]verdict
	order     []uint32
	packets   map[uint32]wire.Packet
	resets    []wire.Packet
	flows     []egress.Flow
	lookups   []egress.Name
	seen, got []byte // by the server: last version of each byte, first version of each byte
	have      []bool
}

type verdict struct {
	accept bool
	mark   uint32
}

func newRig(t testing.TB) *rig {
	r := &rig{
		t: t, now: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC), policy: policyOf(t, houseRules...), names: &Bindings{},
		src: node, dst: shared, isn: 0xfffffff0, sisn: 0x7ffffffa, // both wrap in the first bytes
		verdicts: map[uint32]verdict{}, packets: map[uint32]wire.Packet{},
	}
	for _, a := range []netip.AddrPort{shared, shared6} {
		r.bind("prod", good, a.Addr())
		r.bind("prod", evil, a.Addr())
		r.bind("watched", good, a.Addr())
	}
	r.f = New(Config{
		Policy: func() *egress.Policy { return r.policy }, Bindings: r.names,
		API:     func(cluster string, a netip.Addr) bool { return cluster == "prod" && a == apiAddr.Addr() },
		Observe: func(cluster string) bool { return cluster == "watched" },
		Verdict: r.verdict,
		Reset: func(b []byte) {
			p, err := wire.ReadPacket(slices.Clone(b))
			if err != nil {
				t.Fatal(err)
			}
			r.resets = append(r.resets, p)
		},
		Decided: func(f egress.Flow) { r.flows = append(r.flows, f) },
		Allowed: func(rule *egress.Rule) uint32 { return allowedMark | r.number(rule) },
		Passed: func(rule *egress.Rule) uint32 {
			if rule == nil {
				return passedMark
			}
			return passedMark | r.number(rule)
		},
		Cut: cutMark,
	})
	return r
}

func (r *rig) number(rule *egress.Rule) uint32 {
	for i, x := range r.policy.Rules() {
		if x.ID == rule.ID {
			return uint32(i + 1)
		}
	}
	r.t.Fatalf("rule %s is not in the policy", rule.ID)
	return 0
}

func (r *rig) bind(scope string, n egress.Name, a netip.Addr) {
	r.names.Learn(r.now, []egress.Binding{{Scope: scope, Name: n, Addr: a, Expires: r.now.Add(time.Hour)}})
}

func (r *rig) verdict(id uint32, accept bool, mark uint32) {
	if _, twice := r.verdicts[id]; twice {
		r.t.Fatalf("packet %d has two verdicts", id)
	}
	if _, came := r.packets[id]; !came {
		r.t.Fatalf("packet %d never came", id)
	}
	r.verdicts[id] = verdict{accept, mark}
	r.order = append(r.order, id)
	if p := r.packets[id]; accept && mark != cutMark && p.Src == r.src && !p.Flags.Has(wire.SYN) {
		r.deliver(int(int32(p.Seq-r.isn-1)), p.Payload)
	}
}

// deliver is a server that takes everything in its window: got keeps the first version of a byte,
// seen the last. What real servers take lies between the two.
func (r *rig) deliver(off int, data []byte) {
	for i, b := range data {
		at := off + i
		if at < 0 {
			continue
		}
		for len(r.have) <= at {
			r.have, r.got, r.seen = append(r.have, false), append(r.got, 0), append(r.seen, 0)
		}
		if !r.have[at] {
			r.have[at], r.got[at] = true, b
		}
		r.seen[at] = b
	}
}

// delivered is what the server has, in order.
func (r *rig) delivered() (first, last []byte) {
	n := slices.Index(r.have, false)
	if n < 0 {
		n = len(r.have)
	}
	return r.got[:n], r.seen[:n]
}

// option changes the bytes of a packet.
type option func([]byte) []byte

// tcpOption adds an option of TCP, padded to a word.
func tcpOption(b ...byte) option {
	return func(p []byte) []byte {
		for len(b)%4 != 0 {
			b = append(b, 1)
		}
		at := 20
		if p[0]>>4 == 6 {
			at = 40
		}
		p = slices.Insert(p, at+20, b...)
		p[at+12] += byte(len(b) / 4 << 4)
		return relength(p)
	}
}

func relength(p []byte) []byte {
	if p[0]>>4 == 6 {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		return p
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	return p
}

// ipOption adds four bytes of options to an IPv4 header, or a header of options to IPv6.
func ipOption(p []byte) []byte {
	if p[0]>>4 == 6 {
		p = slices.Insert(p, 40, p[6], 0, 1, 4, 0, 0, 0, 0)
		p[6] = 60
		return relength(p)
	}
	p = slices.Insert(p, 20, 1, 1, 1, 1)
	p[0]++
	return relength(p)
}

// urgent sets the urgent pointer.
func urgent(n byte) option {
	return func(p []byte) []byte {
		p[39] = n
		return p
	}
}

func (r *rig) feed(p wire.Packet, options ...option) uint32 {
	b := wire.AppendPacket(nil, p)
	for _, o := range options {
		b = o(b)
	}
	r.id++
	q, err := wire.ReadPacket(slices.Clone(b))
	if err != nil {
		q = p
	}
	r.packets[r.id] = q
	r.f.Packet(r.now, r.id, b)
	return r.id
}

// client sends from the client: data at an offset from its first byte.
func (r *rig) client(flags wire.Flags, off int, data []byte, options ...option) uint32 {
	return r.feed(wire.Packet{
		Src: r.src, Dst: r.dst, Proto: wire.TCP, Flags: flags, Seq: r.isn + 1 + uint32(off), Ack: r.sisn + 1 + uint32(r.heard),
		Window: 65535, Payload: data,
	}, options...)
}

// server sends from the server, acknowledging what lies before offset acked.
func (r *rig) server(flags wire.Flags, acked, off int, data []byte) uint32 {
	return r.feed(wire.Packet{
		Src: r.dst, Dst: r.src, Proto: wire.TCP, Flags: flags, Seq: r.sisn + 1 + uint32(off), Ack: r.isn + 1 + uint32(acked),
		Window: 65535, Payload: data,
	})
}

func (r *rig) syn() uint32    { return r.client(wire.SYN, -1, nil) }
func (r *rig) synAck() uint32 { return r.server(wire.SYN|wire.ACK, 0, -1, nil) }

// handshake opens the connection.
func (r *rig) handshake() *rig {
	r.t.Helper()
	for _, id := range []uint32{r.syn(), r.synAck(), r.client(wire.ACK, 0, nil)} {
		if v := r.verdicts[id]; !v.accept || v.mark != 0 {
			r.t.Fatalf("packet %d of the handshake: %+v, flows %v", id, v, r.words())
		}
	}
	return r
}

const push = wire.PSH | wire.ACK

// say sends data in one segment.
func (r *rig) say(off int, data []byte, options ...option) uint32 {
	return r.client(push, off, data, options...)
}

// answer sends what a server says, in one segment, acknowledging n bytes.
func (r *rig) answer(n, off int, data []byte) uint32 {
	id := r.server(push, n, off, data)
	r.heard = max(r.heard, off+len(data))
	return id
}

func (r *rig) after(d time.Duration) {
	r.now = r.now.Add(d)
	r.f.Tick(r.now)
}

// words is what was decided, as text.
func (r *rig) words() string {
	var out []string
	for _, f := range r.flows {
		out = append(out, f.Verdict.String())
	}
	return strings.Join(out, ", ")
}

// state is what became of a packet, as a word.
func (r *rig) fate(id uint32) string {
	v, ok := r.verdicts[id]
	switch {
	case !ok:
		return "held"
	case !v.accept:
		return "dropped"
	case v.mark == cutMark:
		return "cut"
	case v.mark&allowedMark != 0:
		return "allowed"
	case v.mark&passedMark != 0:
		return "passed for good"
	}
	return "passed"
}

// clientHello is a hello with a name.
func clientHello(n egress.Name) []byte { return wiretest.Client(n.String()).Bytes() }

const retryRandom = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91" +
	"\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"

func serverHelloWith(random string) []byte {
	msg := append([]byte{2, 0, 0, 0, 3, 3}, random...)
	msg = append(msg, 0, 0x13, 0x01, 0, 0, 6, 0, 43, 0, 2, 3, 4)
	msg[3] = byte(len(msg) - 4)
	return wiretest.Record(22, 0x0303, msg)
}

func serverHello() []byte     { return serverHelloWith(strings.Repeat("\x5a", 32)) }
func retryRequest() []byte    { return serverHelloWith(retryRandom) }
func changeCipher() []byte    { return wiretest.Record(20, 0x0303, []byte{1}) }
func join(b ...[]byte) []byte { return bytes.Join(b, nil) }
