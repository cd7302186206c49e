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
		m.Conn.SetReadDeadline(time.Now().Add(StallTimeout))
		if m.interrupted.Load() {
			m.Conn.SetReadDeadline(past)
		}
	}
	n, err := m.Conn.Read(p)
	m.read.Add(uint64(n))
	return n, err
}

func (m *meter) Write(p []byte) (int, error) {
	m.Conn.SetWriteDeadline(time.Now().Add(StallTimeout))
	n, err := m.Conn.Write(p)
	m.written.Add(uint64(n))
	return n, err
}

// past is a deadline that has expired.
var past = time.Unix(1, 0)

// interrupt ends the read that another goroutine is in, and those to come.
func (m *meter) interrupt() {
	m.interrupted.Store(true)
	m.Conn.SetReadDeadline(past)
}

// closeWrite says that nothing more will come, where the connection can say so.
func (m *meter) closeWrite() {
	if c, ok := m.Conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
		return
	}
	m.Conn.Close()
}
