package dnsproxy

import (
	"encoding/binary"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

const (
	headerLen  = 12  // RFC 1035, section 4.1.1
	maxNameLen = 255 // RFC 1035, section 2.3.4, on the wire
)

// Bits of the second 16 of a header (RFC 1035, section 4.1.1; RFC 4035, section 3.1.6).
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagAD = 1 << 5
	flagCD = 1 << 4
)

// query is what a client asks. It holds no pointers, so that a reader can use
// one for all its queries.
type query struct {
	id       uint16
	opcode   uint16
	rd, cd   bool
	asked    bool // a question could be read, and belongs into the reply
	edns, do bool
	version  uint8
	size     int // the largest UDP answer the client takes
	qtype    uint16
	class    uint16
	nameLen  int
	wire     [maxNameLen]byte // the name as the client spelled it
	key      [maxNameLen + 3]byte
}

// read parses one message (RFC 1035, section 4.1; RFC 6891, section 6.1) and
// returns the RCODE that it deserves by its form alone. It reports false for
// what must not be answered: answers to answers would be a loop.
//
// It is strict: what it does not understand to the last byte is a FORMERR, so
// that no two readers of the query can differ.
func (q *query) read(b []byte) (rcode int, ok bool) {
	if len(b) < headerLen || b[2]&(flagQR>>8) != 0 {
		return 0, false
	}
	flags := binary.BigEndian.Uint16(b[2:])
	q.id = binary.BigEndian.Uint16(b)
	q.opcode = flags >> 11 & 0xf
	q.rd, q.cd = flags&flagRD != 0, flags&flagCD != 0
	q.asked, q.edns, q.do, q.version, q.size = false, false, false, 0, dns.MinMsgSize
	if q.opcode != dns.OpcodeQuery {
		return dns.RcodeNotImplemented, true
	}
	additional := binary.BigEndian.Uint16(b[10:])
	if binary.BigEndian.Uint16(b[4:]) != 1 || binary.BigEndian.Uint32(b[6:]) != 0 || additional > 1 {
		return dns.RcodeFormatError, true
	}
	off, ok := q.question(b)
	if !ok {
		return dns.RcodeFormatError, true
	}
	q.asked = true
	if additional == 1 {
		if off, ok = q.opt(b, off); !ok {
			return dns.RcodeFormatError, true
		}
	}
	switch {
	case off != len(b):
		return dns.RcodeFormatError, true
	case q.version != 0:
		return dns.RcodeBadVers, true // RFC 6891, section 6.1.3
	}
	q.finishKey()
	return dns.RcodeSuccess, true
}

// question reads the name, without compression: there is nothing before it to
// point to.
func (q *query) question(b []byte) (off int, ok bool) {
	off = headerLen
	for {
		if off >= len(b) {
			return 0, false
		}
		n := int(b[off])
		off++
		if n == 0 {
			break
		}
		off += n
		if n > 63 || off > len(b) || off-headerLen >= maxNameLen {
			return 0, false
		}
	}
	if off+4 > len(b) {
		return 0, false
	}
	q.nameLen = off - headerLen
	copy(q.wire[:], b[headerLen:off])
	q.qtype = binary.BigEndian.Uint16(b[off:])
	q.class = binary.BigEndian.Uint16(b[off+2:])
	return off + 4, true
}

// opt reads the OPT record (RFC 6891, section 6.1.2), the only one that a query
// may hold. Its options are walked and dropped: cookies are between neighbours
// (RFC 7873), and a client subnet would tell strangers about our network (RFC
// 7871, section 11).
func (q *query) opt(b []byte, off int) (next int, ok bool) {
	if off+11 > len(b) || b[off] != 0 || binary.BigEndian.Uint16(b[off+1:]) != dns.TypeOPT {
		return 0, false
	}
	data := off + 11
	next = data + int(binary.BigEndian.Uint16(b[off+9:]))
	if next > len(b) || !validOptions(b[data:next]) {
		return 0, false
	}
	q.edns = true
	q.size = max(int(binary.BigEndian.Uint16(b[off+3:])), dns.MinMsgSize)
	q.version = b[off+6]
	q.do = b[off+7]&0x80 != 0
	return next, true
}

func validOptions(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 4 {
			return false
		}
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b) {
			return false
		}
		b = b[n:]
	}
	return true
}

// skipName returns the offset after the name at off, which a pointer may end.
func skipName(b []byte, off int) (next int, ok bool) {
	for off < len(b) {
		switch n := int(b[off]); {
		case n == 0:
			return off + 1, true
		case n >= 0xc0:
			return off + 2, off+2 <= len(b)
		case n > 63:
			return 0, false
		default:
			off += 1 + n
		}
	}
	return 0, false
}

// Bits of the last byte of a key.
const (
	keyDO = 1 << iota
	keyCD
)

// finishKey makes the cache's key: the name in lower case, the type, and what
// else the answer depends on.
func (q *query) finishKey() {
	for i, c := range q.wire[:q.nameLen] {
		if c >= 'A' && c <= 'Z' { // never a length, which is below 64
			c += 'a' - 'A'
		}
		q.key[i] = c
	}
	binary.BigEndian.PutUint16(q.key[q.nameLen:], q.qtype)
	var flags byte
	if q.do {
		flags |= keyDO
	}
	if q.cd {
		flags |= keyCD
	}
	q.key[q.nameLen+2] = flags
}

// cacheKey is the bytes under which the answer is cached.
func (q *query) cacheKey() []byte { return q.key[:q.nameLen+3] }

// name returns the name asked for; it reports false for one that no rule can
// hold, and that is therefore never asked of anybody.
func (q *query) name() (egress.Name, bool) {
	text := make([]byte, 0, maxNameLen)
	for b := q.key[:q.nameLen]; b[0] != 0; b = b[1+b[0]:] {
		for _, c := range b[1 : 1+b[0]] {
			if c == '.' { // a dot inside a label would look like two labels
				return egress.Name{}, false
			}
			text = append(text, c)
		}
		text = append(text, '.')
	}
	n, err := egress.ParseName(string(text))
	return n, err == nil
}

// ask makes the query for n that the server asks for itself.
func (q *query) ask(n egress.Name, qtype uint16) {
	*q = query{asked: true, rd: true, qtype: qtype, class: dns.ClassINET, size: dns.MaxMsgSize}
	label := 0
	for i, c := range []byte(n.String() + ".") {
		if q.wire[i+1] = c; c == '.' {
			q.wire[label] = byte(i - label)
			label = i + 1
		}
	}
	q.nameLen = label + 1
	q.wire[label] = 0
	q.finishKey()
}
