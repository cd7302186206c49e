package gateway

import (
	"net/netip"

	"tidegate.io/tidegate/egress"
)

// Bounds of what a Follower keeps. A source is an address: a pod's, or a node's with many
// pods behind it.
const (
	maxConns       = 16384    // the length of the queue: no more can be in the kernel either
	maxSourceConns = 2048     // an eighth: a busy node opens some hundred at once
	maxBytes       = 64 << 20 // buffers of all connections
	maxSourceBytes = 8 << 20  // an eighth: 4,096 ordinary hellos, or 64 of the largest
	maxHeld        = 64       // packets of one connection in the queue: an initial window is ten
	maxSourceHeld  = 2048     // an eighth of the queue: one source must not fill it
	maxAllHeld     = 12288    // three quarters: what is on its way must find room
)

// source is what one client address has.
type source struct{ conns, bytes, held int }

// sources counts for each and for all.
type sources struct {
	by    map[netip.Addr]*source
	bytes int
	held  int
	spare []*source
}

// enter returns the source for a new connection of a, or nil when it has too many or all
// together have.
func (f *Follower) enter(a netip.Addr) *source {
	if len(f.conns) >= maxConns && !f.makeRoom() {
		return nil
	}
	s := f.sources.by[a]
	if s == nil {
		s = f.sources.make()
		f.sources.by[a] = s
	}
	if s.conns >= maxSourceConns {
		return nil
	}
	return s
}

// makeRoom gives up the connection whose SYN has been without an answer for longest. Sources can
// be spoofed, so a flood of SYNs is not always one source's; a server that answers does so long
// before as many have come.
func (f *Follower) makeRoom() bool {
	oldest := f.syns.root.next
	if oldest == &f.syns.root || oldest.conn.state != opening {
		return false
	}
	f.log(oldest.conn, egress.Denied(egress.TooManyPending))
	f.free(oldest.conn)
	return true
}

func (s *sources) make() *source {
	if n := len(s.spare); n > 0 {
		free := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return free
	}
	return &source{}
}

// full reports whether no more packets of c may wait in the queue.
func (f *Follower) full(c *conn) bool {
	return len(c.held) >= maxHeld || c.source.held >= maxSourceHeld || f.sources.held >= maxAllHeld
}

// hold counts a packet that waits in the queue, and release some that do not any more.
func (s *sources) hold(src *source) {
	src.held++
	s.held++
}

func (s *sources) release(src *source, n int) {
	src.held -= n
	s.held -= n
}

// leave takes one connection off a source.
func (s *sources) leave(a netip.Addr, src *source) {
	if src.conns--; src.conns > 0 {
		return
	}
	delete(s.by, a)
	if len(s.spare) < maxSpare {
		*src = source{}
		s.spare = append(s.spare, src)
	}
}

// room makes s hold n bytes, charged to src. It reports false when that is more than src, or
// all together, may have.
func (f *Follower) room(s *stream, src *source, n int) bool {
	if n <= cap(s.buf) {
		return true
	}
	buf := f.buffers.take(n)
	more := cap(buf) - cap(s.buf)
	if src.bytes+more > maxSourceBytes || f.sources.bytes+more > maxBytes {
		f.buffers.give(buf)
		return false
	}
	src.bytes += more
	f.sources.bytes += more
	buf = append(buf, s.buf...)
	f.buffers.give(s.buf)
	s.buf = buf
	return true
}

// drop gives the buffer of s back.
func (f *Follower) drop(s *stream, src *source) {
	src.bytes -= cap(s.buf)
	f.sources.bytes -= cap(s.buf)
	f.buffers.give(s.buf)
	*s = stream{ahead: s.ahead[:0]}
}
