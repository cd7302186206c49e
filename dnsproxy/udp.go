package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"

	"tidegate.io/tidegate/egress"
)

const (
	// maxQuery is the longest query that is read: a name, a type, and OPT with
	// room for options that are dropped.
	maxQuery = 1232
	// oobLen holds the control messages of both families.
	oobLen = 128
	// batchLen is how many queries are read, and answers sent, by one system
	// call. They are what costs: finding an answer takes a tenth of one.
	batchLen = 32
	// socketBuffer holds some thousand queries, as when all pods of a node start
	// at once. The kernel may give less.
	socketBuffer = 4 << 20
	// readPause keeps a socket that only fails from taking a core.
	readPause = 10 * time.Millisecond
)

// batch is the buffers of a socket's reader.
type batch struct {
	conn    *ipv4.PacketConn // of either family: batches are the socket's
	queries []ipv4.Message
	answers []ipv4.Message // the first n are to be sent
	out     [][]byte
	n       int
}

func newBatch(conn *net.UDPConn) *batch {
	b := &batch{
		conn:    ipv4.NewPacketConn(conn),
		queries: make([]ipv4.Message, batchLen), answers: make([]ipv4.Message, batchLen), out: make([][]byte, batchLen),
	}
	for i := range batchLen {
		b.queries[i] = ipv4.Message{Buffers: [][]byte{make([]byte, maxQuery)}, OOB: make([]byte, oobLen)}
		b.answers[i].Buffers = make([][]byte, 1)
		b.out[i] = make([]byte, 0, maxUDP)
	}
	return b
}

// serveUDP answers what arrives on conn until ctx is done. What can be answered
// at once is, by this goroutine; the rest gets one of its own. One reader fills
// its batches under load, and costs less than several that take turns.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	b := newBatch(conn)
	var q query
	for {
		n, err := b.conn.ReadBatch(b.queries, 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve %s: %w", conn.LocalAddr(), err)
		case err != nil: // of an earlier answer (ICMP), or of memory: not of the socket
			s.counts.dropped.Add(1)
			time.Sleep(readPause)
			continue
		}
		b.n = 0
		for i := range b.queries[:n] {
			s.take(ctx, b, i, &q)
		}
		s.send(b.conn, b.answers[:b.n])
	}
}

// take answers b's query i, or has it answered later.
func (s *Server) take(ctx context.Context, b *batch, i int, q *query) {
	m := &b.queries[i]
	from, ok := m.Addr.(*net.UDPAddr)
	if !ok {
		return
	}
	addr := from.AddrPort()
	c := client{addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), proto: egress.UDP}
	answer, p := s.quick(b.out[i][:0], m.Buffers[0][:m.N], q, &c)
	oob := replyFrom(m.OOB[:m.NN])
	if p != nil {
		s.later(ctx, b.conn, append([]byte(nil), oob...), from, *q, c, p)
	} else if answer != nil {
		a := &b.answers[b.n]
		a.Buffers[0], a.OOB, a.Addr = answer, oob, from
		b.n++
	}
}

// later answers in a goroutine of its own.
func (s *Server) later(ctx context.Context, conn *ipv4.PacketConn, oob []byte, to net.Addr, q query, c client, p *pending) {
	s.work.Go(func() {
		if b := s.answer(ctx, &q, &c, p); b != nil {
			s.send(conn, []ipv4.Message{{Buffers: [][]byte{b}, OOB: oob, Addr: to}})
		}
	})
}

// send sends answers; one that cannot be sent is lost, as datagrams are.
func (s *Server) send(conn *ipv4.PacketConn, answers []ipv4.Message) {
	for len(answers) > 0 {
		n, err := conn.WriteBatch(answers, 0)
		if err != nil {
			s.counts.dropped.Add(1)
			n = max(n, 0) + 1
		}
		answers = answers[n:]
	}
}
