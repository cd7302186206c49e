package gateway

import (
	"slices"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// state is what a connection waits for.
type state uint8

const (
	opening    state = iota // the SYN passed; its answer did not come yet
	reading                 // open; the hello is not complete
	asking                  // the hello is complete; DNS is asked about its name
	confirming              // allowed and let through; the server has not answered yet
)

// conn is an undecided connection.
type conn struct {
	key     key
	state   state
	observe bool // nothing is held or refused
	web     bool // it is observed and shows a request, not a hello
	retried bool // the server has sent a HelloRetryRequest
	flowing bool // what is contiguous of an incomplete hello is not held any more
	fin     bool // the client's FIN passed

	source *source
	scope  string
	known  egress.Conn // what is known of it
	policy *egress.Policy
	allow  egress.Verdict // the policy's, from confirming on
	hello  wire.ClientHello

	// The client's direction. Offsets count from the byte after its SYN.
	first  uint32 // sequence number of offset 0: the SYN-ACK's acknowledgement number
	client stream
	from   int // where the hello that counts begins: behind the first one after a retry
	end    int // where it ends, once it is complete
	sent   int // the server may have what is before it, and nothing else
	acked  int // the server has acknowledged what is before it
	held   []held
	bytes  int // held

	// The server's direction.
	theirs uint32 // sequence number after its SYN
	heard  uint32 // sequence number after the last that it sent
	answer uint32 // sequence number of offset 0 in server: where its answer begins
	server stream
	said   wire.Answer

	life, release timer
}

// held is a packet of the client that waits in the queue.
type held struct {
	id       uint32
	from, to int // offsets of its first byte, and after its last
	fin      bool
}

const (
	// maxSpare is how many conns are kept for use again.
	maxSpare = 1024

	// The contiguous beginning of a hello is let through once this much of it is held: a
	// client's initial window is ten segments, and it stalls when that is out.
	releaseSegments = 8
	releaseBytes    = 8 << 10
)

// track begins to follow a connection; its limits have been asked.
func (f *Follower) track(k key, s *source) *conn {
	var c *conn
	if n := len(f.spare); n > 0 {
		c, f.spare = f.spare[n-1], f.spare[:n-1]
	} else {
		c = &conn{}
		c.life.conn, c.release.conn = c, c
	}
	c.key, c.source = k, s
	s.conns++
	f.conns[k] = c
	f.syns.push(&c.life, f.now)
	return c
}

// free forgets a connection.
func (f *Follower) free(c *conn) {
	c.life.leave()
	c.release.leave()
	if c.state == asking {
		f.forgetLookup(c)
	}
	f.sources.release(c.source, len(c.held))
	f.drop(&c.client, c.source)
	f.drop(&c.server, c.source)
	delete(f.conns, c.key)
	f.sources.leave(c.key.client.Addr(), c.source)
	if len(f.spare) < maxSpare {
		*c = conn{held: c.held[:0], client: stream{ahead: c.client.ahead[:0]}, server: stream{ahead: c.server.ahead[:0]}}
		c.life.conn, c.release.conn = c, c
		f.spare = append(f.spare, c)
	}
}

// wait restarts the time that the connection may take for what it waits for.
func (f *Follower) wait(c *conn, d *deadlines) {
	c.life.leave()
	d.push(&c.life, f.now)
}

// hold keeps a packet in the queue, in the order of its bytes. What is only observed
// passes at once.
func (f *Follower) hold(c *conn, h held) {
	if c.observe {
		f.pass(c, h)
		return
	}
	at := len(c.held)
	for at > 0 && c.held[at-1].from > h.from {
		at--
	}
	c.held = slices.Insert(c.held, at, h)
	c.bytes += h.to - h.from
	f.sources.hold(c.source)
}

// letGo lets the held packets pass that begin before limit, in order.
func (f *Follower) letGo(c *conn, limit int) {
	keep := c.held[:0]
	for _, h := range c.held {
		if h.from >= limit {
			keep = append(keep, h)
			continue
		}
		c.bytes -= h.to - h.from
		f.pass(c, h)
	}
	f.sources.release(c.source, len(c.held)-len(keep))
	c.held = keep
}

// pass lets one packet of the client's through.
func (f *Follower) pass(c *conn, h held) {
	c.sent = max(c.sent, h.to)
	c.fin = c.fin || h.fin
	f.Verdict(h.id, true, 0)
}

// sequence is the sequence number of what the server expects next from the client.
func (c *conn) sequence() uint32 {
	n := c.first + uint32(c.sent)
	if c.fin {
		n++
	}
	return n
}
