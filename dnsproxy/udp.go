package dnsproxy

import (
	"context"
	"errors"
	"net"
	"time"

	"tidegate.io/tidegate/egress"
)

const (
	// maxQuery is the longest query that is read: a name, a type, and OPT with
	// room for options that are dropped.
	maxQuery = 1232
	// batchLen is how many queries are read, and answers sent, by one system
	// call where the system can.
	batchLen = 32
	// socketBuffer holds some thousand queries, as when all pods of a node start
	// at once. The kernel may give less.
	socketBuffer = 4 << 20
	// readPause keeps a socket that only fails from taking a core.
	readPause = 10 * time.Millisecond
)

// serveUDP answers what arrives on sock until that is interrupted. What can be
// answered at once is, by this goroutine; the rest is left to workers. One reader
// fills its batches under load, and costs less than several that take turns.
func (s *Server) serveUDP(ctx context.Context, sock *socket) {
	r := udpReader{socket: sock, workers: newWorkers(), out: make([]byte, batchLen*maxUDP)}
	defer r.workers.end()
	for {
		n, err := r.read()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // of an earlier answer (ICMP), or of memory: not of the socket
			s.counts.dropped.Add(1)
			time.Sleep(readPause)
			continue
		}
		for i := range n {
			s.take(ctx, &r, i)
		}
		s.counts.dropped.Add(uint64(r.send())) // as datagrams are
	}
}

// udpReader is a socket with what its one reader needs.
type udpReader struct {
	*socket
	workers *workers
	q       query
	out     []byte // room for a batch of answers
}

// take answers query i, or has it answered later.
func (s *Server) take(ctx context.Context, r *udpReader, i int) {
	msg, from := r.query(i)
	c := client{addr: from, proto: egress.UDP}
	answer, p := s.quick(r.out[i*maxUDP:i*maxUDP:(i+1)*maxUDP], msg, &r.q, &c)
	switch {
	case p != nil:
		s.later(ctx, r, i, c, p)
	case answer != nil:
		r.answer(i, answer)
	}
}

// later has a worker answer.
func (s *Server) later(ctx context.Context, r *udpReader, i int, c client, p *pending) {
	sock, to, q := r.socket, r.destination(i), r.q
	r.workers.do(func() {
		s.answer(ctx, &q, &c, p, func(b []byte) {
			if sock.sendTo(&to, b) != nil {
				s.counts.dropped.Add(1)
			}
		})
	})
}
