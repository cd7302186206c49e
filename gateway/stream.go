package gateway

import "bytes"

// stream is what one end has sent, each byte at its offset. It takes a byte once: whether
// two versions of one agree has to be asked before (conflicts).
type stream struct {
	buf   []byte // from offset 0 on; behind next it has holes
	next  int    // everything before it is there
	ahead []span // what is there behind a hole: in order, apart, not touching next
}

// span is the bytes from one offset to before another.
type span struct{ from, to int }

// maxAhead bounds the pieces of a stream that lie behind holes. Real losses leave one or
// two; more would only come from one who scatters bytes on purpose.
const maxAhead = 32

// conflicts reports whether data at offset off differs from what is there.
func (s *stream) conflicts(off int, data []byte) bool {
	if s.differs(span{0, s.next}, off, data) {
		return true
	}
	for _, sp := range s.ahead {
		if s.differs(sp, off, data) {
			return true
		}
	}
	return false
}

func (s *stream) differs(sp span, off int, data []byte) bool {
	from, to := max(sp.from, off), min(sp.to, off+len(data))
	return from < to && !bytes.Equal(s.buf[from:to], data[from-off:to-off])
}

// has reports whether everything from one offset to before another is there.
func (s *stream) has(from, to int) bool {
	if to <= s.next {
		return true
	}
	for _, sp := range s.ahead {
		if sp.from <= from && to <= sp.to {
			return true
		}
	}
	return false
}

// scattered reports whether a piece at these offsets would be one too many.
func (s *stream) scattered(from, to int) bool {
	if from <= s.next || len(s.ahead) < maxAhead {
		return false
	}
	for _, sp := range s.ahead {
		if from <= sp.to && sp.from <= to {
			return false
		}
	}
	return true
}

// put takes data at offset off; buf has room for it, and nothing in it conflicts.
func (s *stream) put(off int, data []byte) {
	sp := span{off, off + len(data)}
	if sp.from == sp.to {
		return
	}
	if sp.to > len(s.buf) {
		s.buf = s.buf[:sp.to]
	}
	copy(s.buf[off:], data)
	s.insert(sp)
}

// insert joins sp with the spans that it touches, and with what is contiguous.
func (s *stream) insert(sp span) {
	if sp.from <= s.next {
		s.next = max(s.next, sp.to)
		for len(s.ahead) > 0 && s.ahead[0].from <= s.next {
			s.next = max(s.next, s.ahead[0].to)
			s.ahead = append(s.ahead[:0], s.ahead[1:]...)
		}
		return
	}
	at := 0
	for at < len(s.ahead) && s.ahead[at].to < sp.from {
		at++
	}
	last := at
	for last < len(s.ahead) && s.ahead[last].from <= sp.to {
		sp.from, sp.to = min(sp.from, s.ahead[last].from), max(sp.to, s.ahead[last].to)
		last++
	}
	if at == last {
		s.ahead = append(s.ahead, span{})
		copy(s.ahead[at+1:], s.ahead[at:])
		s.ahead[at] = sp
		return
	}
	s.ahead[at] = sp
	s.ahead = append(s.ahead[:at+1], s.ahead[last:]...)
}

// classes are the sizes of buffers: an ordinary hello, one with post-quantum keys in a bad
// case, a large one, and two hellos of the largest size.
var classes = [...]int{2 << 10, 8 << 10, 32 << 10, 128 << 10}

// maxIdle bounds the buffers of each class that are kept for use again: 2 MiB a class.
const maxIdle = 2 << 20

// buffers are free buffers by class.
type buffers [len(classes)][][]byte

// take returns an empty buffer with room for n bytes, which is at most the largest class.
func (b *buffers) take(n int) []byte {
	for i, size := range classes {
		if n > size {
			continue
		}
		if free := b[i]; len(free) > 0 {
			b[i] = free[:len(free)-1]
			return free[len(free)-1]
		}
		return make([]byte, 0, size)
	}
	return make([]byte, 0, n)
}

// give takes a buffer back.
func (b *buffers) give(buf []byte) {
	for i, size := range classes {
		if cap(buf) == size && (len(b[i])+1)*size <= maxIdle {
			b[i] = append(b[i], buf[:0])
		}
	}
}
