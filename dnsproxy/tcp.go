package dnsproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"tidegate.io/tidegate/egress"
)

// Bounds of TCP. Clients come here after a truncated answer, and leave.
const (
	maxConns       = 1024
	maxClientConns = 128
	maxPipelined   = 32               // questions of a connection that wait (RFC 7766, section 6.2.1.1)
	idleLimit      = 10 * time.Second // RFC 7766, section 6.2.3 asks for seconds
)

// serveTCP accepts from l until it is closed.
func (s *Server) serveTCP(ctx context.Context, l net.Listener) error {
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		case err != nil: // out of descriptors, or the client is gone
			s.counts.dropped.Add(1)
			time.Sleep(readPause)
			continue
		}
		addr, ok := peer(conn)
		if !ok || !s.conns.enter(addr.Addr()) {
			s.counts.overloaded.Add(1)
			conn.Close()
			continue
		}
		s.work.Go(func() {
			defer s.conns.leave(addr.Addr())
			s.serveConn(ctx, conn, client{addr: addr, proto: egress.TCP})
		})
	}
}

func peer(conn net.Conn) (netip.AddrPort, bool) {
	a, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

// serveConn answers the queries of one connection, in the order in which
// answers are found (RFC 7766, section 6.2.1.1), and closes it.
func (s *Server) serveConn(ctx context.Context, conn net.Conn, c client) {
	var waiting sync.WaitGroup
	defer conn.Close()
	defer waiting.Wait()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	slots := make(chan struct{}, maxPipelined)
	w := tcpWriter{conn: conn}
	in, out := make([]byte, maxQuery), make([]byte, 2, 2+maxUDP)
	for {
		msg, err := readTCP(conn, in)
		if err != nil {
			return
		}
		var q query
		answer, p := s.quick(out[:2], msg, &q, &c)
		if p == nil {
			if answer == nil || w.write(answer) != nil {
				return // what is no query is no DNS client either
			}
			continue
		}
		slots <- struct{}{}
		asker := c
		waiting.Go(func() {
			defer func() { <-slots }()
			s.answer(ctx, &q, &asker, p, func(b []byte) {
				_ = w.write(append(make([]byte, 2, 2+len(b)), b...)) // the reader sees what is wrong
			})
		})
	}
}

// readTCP reads one message into buf (RFC 1035, section 4.2.2).
func readTCP(conn net.Conn, buf []byte) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(idleLimit)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	if n > len(buf) {
		return nil, io.ErrShortBuffer
	}
	_, err := io.ReadFull(conn, buf[:n])
	return buf[:n], err
}

// tcpWriter writes whole messages, one after the other.
type tcpWriter struct {
	mu   sync.Mutex
	conn net.Conn
}

// write sends b, whose first two bytes are room for its length.
func (w *tcpWriter) write(b []byte) error {
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.conn.SetWriteDeadline(time.Now().Add(idleLimit)); err != nil {
		return err
	}
	_, err := w.conn.Write(b)
	return err
}
