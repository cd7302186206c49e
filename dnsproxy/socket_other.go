//go:build !linux

package dnsproxy

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// A socket reads queries and sends answers, one by one: elsewhere the gateway does not run. The kernel chooses where an answer
// comes from. All but sendTo and interrupt are for one goroutine.
type socket struct {
	conn    *net.UDPConn
	stopped atomic.Bool
	buf     [maxQuery]byte
	n       int
	from    netip.AddrPort
	out     []byte // the answer to be sent, nil for none
}

// destination is where an answer goes.
type destination struct{ to netip.AddrPort }

func openSocket(conn *net.UDPConn) (*socket, error) { return &socket{conn: conn}, nil }

// close gives the socket up, when nobody uses it any more.
func (s *socket) close() { _ = s.conn.Close() }

// interrupt ends the reading; answers can still be sent.
func (s *socket) interrupt() {
	s.stopped.Store(true)
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
}

// read waits for a query and returns 1, or net.ErrClosed after interrupt.
func (s *socket) read() (int, error) {
	var err error
	if s.n, s.from, err = s.conn.ReadFromUDPAddrPort(s.buf[:]); s.stopped.Load() {
		err = net.ErrClosed
	}
	return 1, err
}

// query returns the query and who sent it; it is valid until the next read.
func (s *socket) query(int) (msg []byte, from netip.AddrPort) {
	return s.buf[:s.n], netip.AddrPortFrom(s.from.Addr().Unmap(), s.from.Port())
}

// answer has msg sent to who sent the query, by the next send.
func (s *socket) answer(_ int, msg []byte) { s.out = msg }

// send sends the answer and returns how many were lost.
func (s *socket) send() (lost int) {
	if s.out == nil {
		return 0
	}
	if _, err := s.conn.WriteToUDPAddrPort(s.out, s.from); err != nil {
		lost++
	}
	s.out = nil
	return lost
}

// destination is where the answer to the query goes.
func (s *socket) destination(int) destination { return destination{s.from} }

// sendTo sends one answer; any goroutine may.
func (s *socket) sendTo(d *destination, msg []byte) error {
	_, err := s.conn.WriteToUDPAddrPort(msg, d.to)
	return err
}
