package httpproxy

import (
	"net"
	"sync/atomic"
	"time"
)

// meter is a connection that counts its bytes and gives up on a peer that stalls. Each
// write has StallTimeout, and so has each read while patient; else the read deadline is set
// from outside.
type meter struct {
	net.Conn
	patient     bool // belongs to the goroutine that reads
	read        atomic.Uint64
	written     atomic.Uint64
	interrupted atomic.Bool
}

func (m *meter) Read(p []byte) (int, error) {
	if m.patient {
		m.within(StallTimeout)
		if m.interrupted.Load() {
			m.until(past)
		}
	}
	n, err := m.Conn.Read(p)
	m.read.Add(uint64(n))
	return n, err
}

func (m *meter) Write(p []byte) (int, error) {
	_ = m.SetWriteDeadline(time.Now().Add(StallTimeout)) // on a closed connection, Write says so
	n, err := m.Conn.Write(p)
	m.written.Add(uint64(n))
	return n, err
}

// until sets when reading ends. On a closed connection it has no effect, and the read says so.
func (m *meter) until(t time.Time) { _ = m.SetReadDeadline(t) }

// within is until, from now.
func (m *meter) within(d time.Duration) { m.until(time.Now().Add(d)) }

// past is a deadline that has expired.
var past = time.Unix(1, 0)

// interrupt ends the read that another goroutine is in, and those to come.
func (m *meter) interrupt() {
	m.interrupted.Store(true)
	m.until(past)
}

// closeWrite says that nothing more will come, where the connection can say so.
func (m *meter) closeWrite() {
	if c, ok := m.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // it fails when the peer is gone, who then needs not be told
		return
	}
	m.Close()
}
