package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// probe is a packet as the rules see it: the first of its connection, a later one of a connection that has a mark, or one
// that conntrack finds invalid.
type probe struct {
	src, dst   netip.Addr
	proto      uint32
	port       uint16 // destination; of TCP and UDP
	flags      uint32 // of TCP
	data       []byte // behind the transport's header
	options    []uint8
	headers    []uint8 // IPv6 extension headers
	v4Options  bool
	fragment   bool
	invalid    bool // to conntrack
	untracked  bool // it never saw it
	noChecksum bool // of UDP
	reply      bool // its direction
	related    bool // an error about its connection
	toGateway  bool
	elsewhere  bool // its source is not routed back to where it came from
	mark, meta uint32
}

// machine carries out a Ruleset on probes, as nft(8) describes its statements. It is written from that description and
// shares nothing with what compiles the rules for the kernel.
type machine struct {
	t      testing.TB
	chains map[string]*Chain
	sets   map[string]*Set
	opened []Element // of learned sets
	steps  int
}

func newMachine(t testing.TB, rs *Ruleset, opened []Element) *machine {
	m := &machine{t: t, chains: map[string]*Chain{}, sets: map[string]*Set{}, opened: opened}
	for i := range rs.Chains {
		m.chains[rs.Chains[i].Name] = &rs.Chains[i]
	}
	for i := range rs.Sets {
		m.sets[rs.Sets[i].Name] = &rs.Sets[i]
	}
	return m
}

// fate is what becomes of a packet.
type fate string

const (
	passes  fate = "passes"
	dropped fate = "dropped"
	queued  fate = "queued"
	toSelf  fate = "to the gateway"
)

// run takes a probe through the hooks on its way.
func (m *machine) run(p *probe) fate {
	if f := m.hooks(p, "prerouting"); f != passes {
		return f
	}
	if !p.toGateway {
		return m.hooks(p, "forward", "postrouting")
	}
	if f := m.hooks(p, "input"); f != passes {
		return f
	}
	return toSelf
}

func (m *machine) hooks(p *probe, hooks ...string) fate {
	for _, hook := range hooks {
		var bases []*Chain
		for _, c := range m.chains {
			if c.Hook != nil && c.Hook.Name == hook {
				bases = append(bases, c)
			}
		}
		slices.SortFunc(bases, func(a, b *Chain) int { return a.Hook.Priority - b.Hook.Priority })
		for _, c := range bases {
			if c.Hook.Type == "nat" && (p.invalid || p.untracked) {
				continue // no connection, no translation
			}
			switch v := m.chain(c, p, 0); {
			case v == drop || v == "" && c.Hook.Drop:
				return dropped
			case v == "queue":
				return queued
			}
		}
	}
	return passes
}

// chain returns the verdict of a chain, or nothing when its end is reached.
func (m *machine) chain(c *Chain, p *probe, depth int) verdict {
	if depth > 16 { // the kernel's own bound
		m.t.Fatalf("chain %s: too deep", c.Name)
	}
	for _, r := range c.Rules {
		if m.steps++; m.steps > 1e6 {
			m.t.Fatalf("chain %s: no end", c.Name)
		}
		switch v := m.rule(r, p); {
		case v == "":
		case v == goBack:
			return ""
		case strings.HasPrefix(string(v), jumpVerb):
			if v := m.chain(m.target(v, jumpVerb), p, depth+1); v != "" {
				return v
			}
		case strings.HasPrefix(string(v), gotoVerb):
			return m.chain(m.target(v, gotoVerb), p, depth+1)
		default:
			return v
		}
	}
	return ""
}

func (m *machine) target(v verdict, verb string) *Chain {
	c := m.chains[strings.TrimPrefix(string(v), verb)]
	if c == nil {
		m.t.Fatalf("%q: no such chain", v)
	}
	return c
}

// rule carries a rule out, up to what does not match.
func (m *machine) rule(r Rule, p *probe) verdict {
	for _, s := range r {
		v, matches := m.statement(s, p)
		if v != "" || !matches {
			return v
		}
	}
	return ""
}

func (m *machine) statement(s Statement, p *probe) (v verdict, matches bool) {
	switch s := s.(type) {
	case match:
		return "", s.holds(p)
	case between:
		port, ok := p.portOf(s.field)
		return "", ok && s.first <= port && port <= s.last
	case loopback:
		return "", false
	case linkLocal:
		return "", p.src.Is6() && p.src.IsLinkLocalUnicast()
	case hasOption:
		return "", p.proto == protoTCP && slices.Contains(p.options, s.kind)
	case hasHeader:
		return "", slices.Contains(p.headers, s.protocol)
	case in:
		_, ok := m.find(s.set, s.field, p)
		return "", ok
	case goFrom:
		if r, ok := m.find(s.set, s.field, p); ok {
			return goTo(r.Chain), true
		}
		return "", false
	case markFrom:
		r, ok := m.find(s.set, s.field, p)
		if ok {
			p.mark = uint32(r.Mark)
		}
		return "", ok
	case setMark:
		if p.tracked() {
			p.mark = uint32(s.mark)
		}
	case setPacketMark:
		p.meta = uint32(s.mark)
	case copyMark:
		if p.tracked() {
			p.mark = p.meta
		}
	case limit:
		return "", !s.over // nobody here sends that much
	case count, report, stripOption:
	case masquerade:
		return accept, true
	case untracked:
		p.untracked = true
	case setPort:
		p.port = s.port
	case enqueue:
		return "queue", true
	case redirect:
		p.port, p.toGateway = s.port, true
		return accept, true
	case reject:
		return drop, true
	case verdict:
		return s, true
	default:
		m.t.Fatalf("%T: unknown", s)
	}
	return "", true
}

// tracked reports whether there is a connection that p belongs to.
func (p *probe) tracked() bool { return !p.invalid && !p.untracked }

func (p *probe) portOf(f field) (uint16, bool) {
	return p.port, f == tcpDport && p.proto == protoTCP || f == udpDport && p.proto == protoUDP
}

// value is a field of the probe; not ok is a field that such a packet does not have.
func (p *probe) value(f field) (v uint32, ok bool) {
	v4, tcp, udp := p.src.Is4(), p.proto == protoTCP, p.proto == protoUDP
	const udpHeader, fragmented, plainHeader, optionWords, headerFragment = 8, 0x2000, 5, 6, 44
	one := func(b bool) uint32 {
		if b {
			return 1
		}
		return 0
	}
	switch f {
	case l4proto:
		return p.proto, true
	case tcpDport, udpDport:
		port, ok := p.portOf(f)
		return uint32(port), ok
	case tcpFlags:
		return p.flags, tcp
	case udpLength:
		return uint32(udpHeader + len(p.data)), udp
	case udpChecksum:
		return 1 - one(p.noChecksum), udp
	case ntpMode: // of whatever transport
		if len(p.data) == 0 {
			return 0, false
		}
		return uint32(p.data[0]), udp
	case ctState:
		const fresh = 8
		switch {
		case p.invalid:
			return stateInvalid, true
		case p.untracked:
			return stateUntracked, true
		case p.related:
			return stateRelated, true
		}
		return fresh, true
	case ctDirection:
		return directionReply * one(p.reply), p.tracked()
	case ctMark:
		return p.mark, p.tracked()
	case metaMark:
		return p.meta, true
	case fibSourceDevice:
		return 1 - one(p.elsewhere), true
	case fibDestination:
		return map[bool]uint32{true: addressLocal, false: 1}[p.toGateway], true
	case anyStart:
		return map[bool]uint32{true: plainV4 + one(p.v4Options), false: 0x60}[v4], true
	case v6Next:
		switch {
		case v4:
			return 0, false
		case len(p.headers) > 0:
			return uint32(p.headers[0]), true
		case p.fragment:
			return headerFragment, true
		}
		return p.proto, true
	case anyDport:
		return uint32(p.port), true // and 0 where there are none
	case anyFlags:
		const behindUDP = 13 - 8
		switch {
		case tcp:
			return p.flags, true
		case !udp:
			return 0, true
		case len(p.data) > behindUDP:
			return uint32(p.data[behindUDP]), true
		}
		return 0, false
	case anyFragment:
		return fragmented * one(p.fragment), true
	case v4Fragment:
		return fragmented * one(p.fragment), v4
	case v4Protocol:
		return p.proto, v4
	case v4HeaderLength:
		return map[bool]uint32{true: optionWords, false: plainHeader}[p.v4Options], v4
	case v6FragmentProtocol:
		return p.proto, !v4 && p.fragment
	case innerByte:
		if len(p.data) == 0 {
			return 0, false
		}
		return uint32(p.data[0]), tcp || udp
	}
	panic(fmt.Sprintf("field %q: no number", fields[f].text))
}

func (m match) holds(p *probe) bool {
	v, ok := p.value(m.field)
	if !ok {
		return false
	}
	if m.mask != 0 {
		v &= m.mask
	}
	switch m.op {
	case "==":
		return v == m.value
	case "!=":
		return v != m.value
	case ">":
		return v > m.value
	case ">=":
		return v >= m.value
	case "&":
		return v&m.value != 0
	}
	panic("operator " + m.op)
}

// find looks a field of the probe up in a set.
func (m *machine) find(name string, f field, p *probe) (Range, bool) {
	s := m.sets[name]
	if s == nil {
		m.t.Fatalf("set %s: not there", name)
	}
	if s.Key == PortKey {
		port, ok := p.portOf(f)
		i := slices.IndexFunc(s.Ranges, func(r Range) bool { return r.Ports.Has(port) })
		if !ok || i < 0 {
			return Range{}, false
		}
		return s.Ranges[i], true
	}
	a := p.src
	if f == v4Dst || f == v6Dst {
		a = p.dst
	}
	if a.Is4() != (f == v4Src || f == v4Dst) {
		return Range{}, false
	}
	for _, e := range m.opened {
		if e.Set == name && e.Addr == a {
			return Range{Mark: e.Mark}, true
		}
	}
	return find(s.Ranges, a)
}
