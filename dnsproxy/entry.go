package dnsproxy

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// entry is an answer as it is cached: packed, so that a hit is a copy with the
// id, the spelling of the name, and the TTLs patched. It does not change, but
// for the atomics.
type entry struct {
	key     string
	name    egress.Name
	rcode   int
	packed  []byte   // header, question, answer and authority; no OPT
	records []record // those of packed, in order
	answers int      // how many of them are in the answer section
	why     *extended
	open    []netip.Addr // to be reported before the answer leaves
	inside  []netip.Addr // guarded ones that the name may have: answered, never reported

	born    time.Time
	expires time.Time // not after born for an answer that is for those who asked only

	retry  atomic.Int64 // while expired: not asked again before this time (Unix nanoseconds)
	taught atomic.Pointer[[]taught]
}

// record says where in a packed message a record is.
type record struct{ ttl, end uint16 }

// newEntry packs what accept let through.
func newEntry(key string, n egress.Name, c *chain, now time.Time) (*entry, error) {
	m := &dns.Msg{Compress: true, Answer: c.answer, Ns: c.authority}
	m.Response, m.RecursionAvailable, m.Rcode = true, true, c.rcode
	m.Question = []dns.Question{c.question}
	b, err := m.Pack()
	if err != nil {
		return nil, err
	}
	e := &entry{
		key: key, name: n, rcode: c.rcode, packed: b, answers: len(c.answer), why: c.why,
		open: c.open, inside: c.inside, born: now, expires: now.Add(c.ttl),
	}
	e.records, err = findRecords(b, len(c.answer)+len(c.authority))
	return e, err
}

func findRecords(b []byte, n int) ([]record, error) {
	off, ok := skipName(b, headerLen)
	off += 4
	records := make([]record, n)
	for i := range records {
		if ok {
			off, ok = skipName(b, off)
		}
		if !ok || off+10 > len(b) {
			return nil, errors.New("packed message ends early")
		}
		records[i].ttl = uint16(off + 4)
		off += 10 + int(binary.BigEndian.Uint16(b[off+8:]))
		records[i].end = uint16(off)
	}
	return records, nil
}

// size is what the entry counts for in the cache.
func (e *entry) size() int { return entryOverhead + len(e.packed) + len(e.key) + 4*len(e.records) }

// entryOverhead is about what an entry holds besides its bytes: structures, the
// map's and the list's share, and its addresses.
const entryOverhead = 512

func (e *entry) fresh(now time.Time) bool { return now.Before(e.expires) }

// append appends the answer to q, of at most limit bytes; what does not fit is
// left out, whole records from the end, and the client told to use TCP. A
// client that cannot still gets some addresses. For a stale answer, stale is
// true and all TTLs are staleTTL.
func (e *entry) append(b []byte, q *query, limit int, now time.Time, stale bool) []byte {
	why := e.why
	if stale {
		why = edeStale
	}
	at, n := len(b), len(e.records)
	room := limit - optLen(q, why)
	end := len(e.packed)
	for n > 0 && end > room {
		n--
		end = headerLen + q.nameLen + 4
		if n > 0 {
			end = int(e.records[n-1].end)
		}
	}
	b = append(b, e.packed[:end]...)
	m := b[at:]
	copy(m[headerLen:], q.wire[:q.nameLen]) // as the client spelled it: it may compare (0x20)
	flags := q.replyFlags(e.rcode)
	if n < len(e.records) {
		flags |= flagTC
	}
	binary.BigEndian.PutUint16(m, q.id)
	binary.BigEndian.PutUint16(m[2:], flags)
	binary.BigEndian.PutUint16(m[6:], uint16(min(n, e.answers)))
	binary.BigEndian.PutUint16(m[8:], uint16(max(0, n-e.answers)))
	e.patchTTLs(m, n, now, stale)
	if q.edns {
		m[11] = 1
		b = appendOPT(b, q, e.rcode, why)
	}
	return b
}

func (e *entry) patchTTLs(m []byte, n int, now time.Time, stale bool) {
	age := max(0, int64(now.Sub(e.born)/time.Second))
	if age == 0 && !stale {
		return
	}
	for _, r := range e.records[:n] {
		left := max(0, int64(binary.BigEndian.Uint32(m[r.ttl:]))-age)
		if stale {
			left = staleTTL
		}
		binary.BigEndian.PutUint32(m[r.ttl:], uint32(left))
	}
}
