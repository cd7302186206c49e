package dnsproxy

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// maxUDP is the largest answer sent over UDP, whatever the client says it
// takes: larger ones are fragmented, and fragments can be forged or are lost
// (the value of DNS Flag Day 2020).
const maxUDP = 1232

// deniedTTL is for how many seconds a client may remember a denial: short, so
// that a new rule helps at once.
const deniedTTL = 10

// Extended errors (RFC 8914, section 4) that say why in the client's own tools.
var (
	edeStale    = &extended{dns.ExtendedErrorCodeStaleAnswer, "no upstream answered"}
	edeBlocked  = &extended{dns.ExtendedErrorCodeFiltered, "no rule permits this name"}
	edeStripped = &extended{dns.ExtendedErrorCodeForgedAnswer, "private addresses were taken out"}
	edeNotReady = &extended{dns.ExtendedErrorCodeNotReady, "too many queries at once"}
	edeFull     = &extended{dns.ExtendedErrorCodeNotReady, "too many names are in use"}
	edeUpstream = &extended{dns.ExtendedErrorCodeNetworkError, "no upstream answered"}
	edeStranger = &extended{dns.ExtendedErrorCodeProhibited, "not a client of any cluster"}
)

type extended struct {
	code uint16
	text string
}

// reply is an answer that needs no upstream.
type reply struct {
	rcode int
	soa   bool // with the SOA that lets the denial of a name or of data be cached (RFC 2308, section 5)
	why   *extended
}

// denialSOA is the authority record of our own denials: root, so that it is an
// ancestor of any name, with names that exist nowhere.
var denialSOA = []byte{
	0, 0, byte(dns.TypeSOA), 0, dns.ClassINET, 0, 0, 0, deniedTTL, 0, 22,
	0, 0, // MNAME and RNAME are the root
	0, 0, 0, 1, 0, 0, 0, deniedTTL, 0, 0, 0, deniedTTL, 0, 0, 0, deniedTTL, 0, 0, 0, deniedTTL,
}

// append appends the message that says r to q.
func (r reply) append(b []byte, q *query) []byte {
	at := len(b)
	b = append(b, make([]byte, headerLen)...)
	head := b[at:]
	binary.BigEndian.PutUint16(head, q.id)
	binary.BigEndian.PutUint16(head[2:], q.replyFlags(r.rcode)|q.opcode<<11)
	if q.asked {
		head[5] = 1
		b = append(b, q.wire[:q.nameLen]...)
		b = binary.BigEndian.AppendUint16(b, q.qtype)
		b = binary.BigEndian.AppendUint16(b, q.class)
	}
	if r.soa {
		b[at+9] = 1
		b = append(b, denialSOA...)
	}
	if q.edns {
		b[at+11] = 1
		b = appendOPT(b, q, r.rcode, r.why)
	}
	return b
}

func (q *query) replyFlags(rcode int) uint16 {
	flags := flagQR | flagRA | uint16(rcode&0xf)
	if q.rd {
		flags |= flagRD
	}
	if q.cd {
		flags |= flagCD
	}
	return flags
}

// appendOPT appends the OPT record of a reply (RFC 6891, section 6.1.2): ours,
// nothing of it is the upstream's.
func appendOPT(b []byte, q *query, rcode int, why *extended) []byte {
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, dns.TypeOPT)
	b = binary.BigEndian.AppendUint16(b, maxUDP)
	b = append(b, byte(rcode>>4), 0)
	var do uint16
	if q.do {
		do = 1 << 15
	}
	b = binary.BigEndian.AppendUint16(b, do)
	if why == nil {
		return append(b, 0, 0)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(6+len(why.text)))
	b = binary.BigEndian.AppendUint16(b, dns.EDNS0EDE)
	b = binary.BigEndian.AppendUint16(b, uint16(2+len(why.text)))
	b = binary.BigEndian.AppendUint16(b, why.code)
	return append(b, why.text...)
}

// optLen is how long appendOPT's record is.
func optLen(q *query, why *extended) int {
	switch {
	case !q.edns:
		return 0
	case why == nil:
		return 11
	default:
		return 11 + 6 + len(why.text)
	}
}
