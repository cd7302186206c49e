package kernel

import "fmt"

// Statement is one part of a rule: a comparison, or something that is done. The
// text is nft's.
type Statement interface{ text() string }

// field is something of a packet or a connection that can be compared.
type field uint8

const (
	l4proto field = iota
	v4Src
	v4Dst
	v6Src
	v6Dst
	tcpDport
	udpSport
	udpDport
	tcpFlags
	udpLength
	udpChecksum
	ntpMode
	ctState
	ctDirection
	ctMark
	metaMark
	inputName
	fibSourceDevice
	fibDestination
	v4Fragment
	v4Protocol
	v4HeaderLength
	v6Next
	v6FragmentProtocol

	// The same places in a packet of whatever protocol, where IPv4 and TCP have these.
	anyStart // the first byte: version and header length
	anyFragment
	anyDport
	anyFlags

	innerByte

	numFields
)

// fields gives each field its text in nft and the size of its value in bytes.
var fields = [numFields]struct {
	text string
	size int
}{
	l4proto:            {"meta l4proto", 1},
	v4Src:              {"ip saddr", 4},
	v4Dst:              {"ip daddr", 4},
	v6Src:              {"ip6 saddr", 16},
	v6Dst:              {"ip6 daddr", 16},
	tcpDport:           {"tcp dport", 2},
	udpSport:           {"udp sport", 2},
	udpDport:           {"udp dport", 2},
	tcpFlags:           {"tcp flags", 1},
	udpLength:          {"udp length", 2},
	udpChecksum:        {"udp checksum", 2},
	ntpMode:            {"@th,64,8", 1},
	ctState:            {"ct state", 4},
	ctDirection:        {"ct direction", 1},
	ctMark:             {"ct mark", 4},
	metaMark:           {"meta mark", 4},
	inputName:          {"meta iifname", 16},
	fibSourceDevice:    {"fib saddr . iif oif", 4},
	fibDestination:     {"fib daddr type", 4},
	v4Fragment:         {"ip frag-off", 2},
	v4Protocol:         {"ip protocol", 1},
	v4HeaderLength:     {"ip hdrlength", 1},
	v6Next:             {"ip6 nexthdr", 1},
	v6FragmentProtocol: {"frag nexthdr", 1},
	anyStart:           {"@nh,0,8", 1},
	anyFragment:        {"@nh,48,16", 2},
	anyDport:           {"@th,16,16", 2},
	anyFlags:           {"@th,104,8", 1},
	innerByte:          {"@ih,0,8", 1},
}

// Values of fields that nft has words for.
const (
	protoICMP, protoTCP, protoUDP, protoICMPv6 = 1, 6, 17, 58

	stateInvalid, stateRelated, stateNew, stateUntracked = 1, 4, 8, 64

	directionOriginal, directionReply = 0, 1

	addressLocal = 2 // RTN_LOCAL

	plainV4 = 0x45 // the first byte of an IPv4 header without options

	flagFIN, flagSYN, flagRST, flagACK = 1, 2, 4, 16
	openingFlags                       = flagFIN | flagSYN | flagRST | flagACK // of which a bare SYN has SYN alone
	allFlags                           = 255
)

// match compares a field, after its bits have been reduced to mask where mask is
// not 0, with a number.
type match struct {
	field field
	mask  uint32
	op    string // ==, !=, >, >=; & is "has the bit"
	value uint32
}

func (m match) text() string {
	value, f := fmt.Sprint(m.value), fields[m.field].text
	switch m.field {
	case ctState:
		return f + " " + map[uint32]string{stateInvalid: "invalid", stateRelated: "related", stateNew: "new", stateUntracked: "untracked"}[m.value]
	case ctDirection:
		return f + " " + [...]string{"original", "reply"}[m.value]
	case fibDestination:
		return f + " " + m.op + " local"
	case fibSourceDevice:
		return f + " missing"
	case ctMark, metaMark, anyStart, v4Fragment, anyFragment:
		value = fmt.Sprintf("%#x", m.value)
	}
	if m.mask != 0 {
		return fmt.Sprintf("%s & %#x %s %s", f, m.mask, m.op, value)
	}
	return f + " " + m.op + " " + value
}

// between compares a port field with a range.
type between struct {
	field       field
	first, last uint16
}

func (b between) text() string {
	if b.first == b.last {
		return fmt.Sprintf("%s %d", fields[b.field].text, b.first)
	}
	return fmt.Sprintf("%s %d-%d", fields[b.field].text, b.first, b.last)
}

// loopback matches what comes in on the loopback device.
type loopback struct{}

func (loopback) text() string { return `meta iifname "lo"` }

// linkLocal matches the IPv6 link-local sources.
type linkLocal struct{}

func (linkLocal) text() string { return "ip6 saddr fe80::/10" }

// hasOption matches a TCP option by its kind; hasHeader an IPv6 extension header.
type (
	hasOption struct{ kind uint8 }
	hasHeader struct{ protocol uint8 }
)

func (o hasOption) text() string {
	if name, known := optionNames[o.kind]; known {
		return "tcp option " + name + " exists"
	}
	return fmt.Sprintf("tcp option %d exists", o.kind)
}

func (h hasHeader) text() string { return "exthdr " + headerNames[h.protocol] + " exists" }

// TCP option kinds, and IPv6 extension headers by protocol number.
const (
	optionMD5, optionAO, optionMPTCP, optionFastOpen = 19, 29, 30, 34

	headerHop, headerRouting, headerDestination = 0, 43, 60
)

var (
	optionNames = map[uint8]string{optionMPTCP: "mptcp", optionFastOpen: "fastopen"}
	headerNames = map[uint8]string{headerHop: "hbh", headerRouting: "rt", headerDestination: "dst"}
)

// in matches a field that is in a set; inChain goes where a map of chains says;
// markFrom gives the connection the mark that a map of marks says.
type (
	in struct {
		field field
		set   string
	}
	goFrom struct {
		field field
		set   string
	}
	markFrom struct {
		field field
		set   string
	}
)

func (s in) text() string       { return fields[s.field].text + " @" + s.set }
func (s goFrom) text() string   { return fields[s.field].text + " vmap @" + s.set }
func (s markFrom) text() string { return "ct mark set " + fields[s.field].text + " map @" + s.set }

// setMark writes the connection's mark, setPacketMark the packet's, and copyMark
// the packet's into the connection's.
type (
	setMark       struct{ mark Mark }
	setPacketMark struct{ mark Mark }
	copyMark      struct{}
)

func (s setMark) text() string       { return fmt.Sprintf("ct mark set %#x", uint32(s.mark)) }
func (s setPacketMark) text() string { return fmt.Sprintf("meta mark set %#x", uint32(s.mark)) }
func (copyMark) text() string        { return "ct mark set meta mark" }

// count adds to a named counter.
type count struct{ name string }

func (c count) text() string { return fmt.Sprintf("counter name %q", c.name) }

// limit matches while, or once (over), a source has sent more than rate packets a
// second, after a burst.
type limit struct {
	field       field
	set         string
	over        bool
	rate, burst uint32
}

func (l limit) text() string {
	over := ""
	if l.over {
		over = "over "
	}
	return fmt.Sprintf("add @%s { %s limit rate %s%d/second burst %d packets }", l.set, fields[l.field].text, over, l.rate, l.burst)
}

// report sends the packet's beginning to a log group.
type report struct {
	group  uint16
	prefix string
}

func (r report) text() string {
	return fmt.Sprintf("log prefix %q group %d snaplen %d", r.prefix, r.group, logCopy)
}

// enqueue hands the packet to the process.
type enqueue struct {
	first, count uint16
	bypass       bool // let it pass when nobody reads the queue
	native       bool
}

func (q enqueue) text() string {
	s := fmt.Sprintf("queue num %d", q.first)
	if q.bypass {
		s = fmt.Sprintf("queue flags bypass num %d", q.first)
	}
	if q.count > 1 {
		s += fmt.Sprintf("-%d", q.first+q.count-1)
	}
	return s
}

// redirect gives the connection to the gateway's own address on port.
type redirect struct{ port uint16 }

func (r redirect) text() string { return fmt.Sprintf("redirect to :%d", r.port) }

type masquerade struct{}

func (masquerade) text() string { return "masquerade" }

// untrack keeps conntrack from seeing the packet, and setPort writes one of its ports,
// without remembering what it was.
type (
	untracked struct{}
	setPort   struct {
		field field
		port  uint16
	}
)

var untrack untracked

func (untracked) text() string { return "notrack" }
func (s setPort) text() string { return fmt.Sprintf("%s set %d", fields[s.field].text, s.port) }

// stripOption overwrites a TCP option with padding.
type stripOption struct{ kind uint8 }

func (s stripOption) text() string { return "reset tcp option " + optionNames[s.kind] }

// reject answers the sender and drops.
type reject string

// The answers.
const (
	withReset       reject = "tcp reset"
	withProhibited  reject = "icmpx admin-prohibited"
	withUnreachable reject = "icmpx port-unreachable"
)

func (r reject) text() string { return "reject with " + string(r) }

// verdict ends a chain, or goes to another.
type verdict string

const (
	accept   verdict = "accept"
	drop     verdict = "drop"
	goBack   verdict = "return"
	gotoVerb         = "goto "
	jumpVerb         = "jump "
)

func (v verdict) text() string { return string(v) }

func goTo(chain string) verdict   { return verdict(gotoVerb + chain) }
func jumpTo(chain string) verdict { return verdict(jumpVerb + chain) }
