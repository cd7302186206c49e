package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"tidegate.io/tidegate/egress"
)

const (
	// maxQuery is the longest query that is read: a name, a type, and OPT with
	// room for options that are dropped.
	maxQuery = 1232
	// oobLen holds the control messages of both families.
	oobLen = 128
	// socketBuffer holds some thousand queries, as when all pods of a node start
	// at once. The kernel may give less.
	socketBuffer = 4 << 20
	// readPause keeps a socket that only fails from taking a core.
	readPause = 10 * time.Millisecond
)

// readers is how many goroutines serve a UDP socket: one is woken while another
// answers.
func readers() int { return min(runtime.GOMAXPROCS(0), 8) }

// serveUDP answers what arrives on conn until conn is closed. What can be
// answered at once is, by this goroutine; the rest gets one of its own.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	in, oob, out := make([]byte, maxQuery), make([]byte, oobLen), make([]byte, 0, maxUDP)
	var q query
	for {
		n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(in, oob)
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
		c := client{addr: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), proto: egress.UDP}
		answer, p := s.quick(out[:0], in[:n], &q, &c)
		if p != nil {
			s.later(ctx, conn, replyFrom(oob[:oobn]), from, q, c, p)
		} else if answer != nil {
			s.write(conn, answer, replyFrom(oob[:oobn]), from)
		}
	}
}

// later answers in a goroutine of its own. What it needs of the reader's
// buffers is copied.
func (s *Server) later(ctx context.Context, conn *net.UDPConn, oob []byte, to netip.AddrPort, q query, c client, p *pending) {
	oob = append([]byte(nil), oob...)
	s.work.Go(func() {
		if b := s.answer(ctx, &q, &c, p); b != nil {
			s.write(conn, b, oob, to)
		}
	})
}

// write sends an answer; one that cannot be sent is lost, as datagrams are.
func (s *Server) write(conn *net.UDPConn, b, oob []byte, to netip.AddrPort) {
	if _, _, err := conn.WriteMsgUDPAddrPort(b, oob, to); err != nil {
		s.counts.dropped.Add(1)
	}
}
