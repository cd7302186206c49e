//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	backlog   = 16384
	maxHello  = 64 << 10
	serverLen = 20000 // descriptors; more connections at once than this are refused
	chunk     = 256 << 10
)

// A Server answers connections in any number of namespaces: a TLS record that holds a whole ClientHello, and each HTTP/1
// request, with Reply. It reads no further into what it gets.
type Server struct {
	// Reply is what is sent back; it may be changed while no load runs. Size is how many bytes are sent in all: beyond
	// Reply come zeros.
	Reply atomic.Pointer[[]byte]
	Size  atomic.Int64

	listeners []int
	pollers   []*poller
	served    atomic.Int64
	done      sync.WaitGroup
	stop      context.CancelFunc
}

// Listen opens a listener in the namespace of the calling thread; the server has been started. It is for one goroutine.
func (s *Server) Listen(a netip.AddrPort) error {
	addr := newAddress(a)
	fd, err := unix.Socket(addr.family(), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", a, err)
	}
	s.listeners = append(s.listeners, fd)
	if addr.v6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	err = errors.Join(err,
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		bind(fd, &addr),
		unix.Listen(fd, backlog))
	for _, p := range s.pollers {
		err = errors.Join(err, p.add(fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, int32(-1-fd)))
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", a, err)
	}
	return nil
}

// Served is how many requests were answered so far.
func (s *Server) Served() int64 { return s.served.Load() }

// Start serves on threads threads until Close.
func (s *Server) Start(threads int) error {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for range threads {
		p, err := newPoller()
		if err != nil {
			return err
		}
		s.pollers = append(s.pollers, p)
		s.done.Go(func() {
			defer p.close()
			t := &serving{server: s, poll: p}
			t.run(ctx)
		})
	}
	return nil
}

// Close ends the server and its listeners.
func (s *Server) Close() {
	if s.stop != nil {
		s.stop()
		s.done.Wait()
	}
	for _, l := range s.listeners {
		closeFD(l)
	}
}

// serving is one thread of a server. Descriptors index its connections.
type serving struct {
	server *Server
	poll   *poller
	conns  [serverLen]peer
	buf    [maxHello]byte
	zeros  [chunk]byte
}

// peer is one connection as the server sees it.
type peer struct {
	need int   // bytes until the ClientHello is whole; 0 before its header is read
	have int   // bytes of it that were read
	left int64 // bytes of the answer that are still to be sent
	head int   // bytes of Reply that were sent
	full bool  // waits for room to send
}

func (t *serving) run(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := t.poll.wait(50 * time.Millisecond)
		if err != nil {
			return
		}
		for _, e := range events {
			if e.Fd < 0 {
				t.accept(int(-1 - e.Fd))
				continue
			}
			t.serve(int(e.Fd), e.Events)
		}
	}
}

func (t *serving) accept(listener int) {
	for range 16 {
		fd, err := accept(listener)
		if err != nil {
			return
		}
		if fd >= len(t.conns) {
			closeFD(fd)
			continue
		}
		t.conns[fd] = peer{}
		if t.poll.add(fd, unix.EPOLLIN|unix.EPOLLRDHUP, int32(fd)) != nil {
			closeFD(fd)
			continue
		}
		t.serve(fd, unix.EPOLLIN) // the hello is often there already
	}
}

func (t *serving) serve(fd int, events uint32) {
	c := &t.conns[fd]
	if events&unix.EPOLLOUT != 0 && !t.send(fd, c) {
		return
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		return
	}
	n, err := read(fd, t.buf[:])
	switch {
	case err != nil && again(err):
		return
	case err != nil || n == 0:
		closeFD(fd)
		return
	}
	if c.took(t.buf[:n]) {
		t.server.served.Add(1)
		c.head, c.left = 0, max(t.server.Size.Load(), int64(len(*t.server.Reply.Load())))
		t.send(fd, c)
	}
}

// took counts bytes of a request and reports whether it is whole.
func (c *peer) took(b []byte) bool {
	if c.need == 0 {
		c.need = requestLen(b)
	}
	c.have += len(b)
	if c.have < c.need {
		return false
	}
	c.need, c.have = 0, 0
	return true
}

// requestLen is the length of the ClientHello that begins b with the headers of its records, or of b if it is something
// else, which comes in one piece.
func requestLen(b []byte) int {
	if len(b) < 9 || b[0] != 22 {
		return len(b)
	}
	message := 4 + int(b[6])<<16 + int(b[7])<<8 + int(b[8])
	record := int(b[3])<<8 + int(b[4])
	if record == 0 {
		return len(b)
	}
	return message + 5*((message+record-1)/record)
}

// send sends what is left of the answer; it reports false after it has closed the connection.
func (t *serving) send(fd int, c *peer) bool {
	reply := *t.server.Reply.Load()
	for c.left > 0 {
		b := t.zeros[:min(c.left, chunk)]
		if c.head < len(reply) {
			b = reply[c.head:]
		}
		n, err := write(fd, b)
		if err != nil && again(err) {
			if !c.full {
				c.full = true
				_ = t.poll.control(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLOUT, int32(fd))
			}
			return true
		}
		if err != nil {
			closeFD(fd)
			return false
		}
		c.left -= int64(n)
		if c.head < len(reply) {
			c.head += n
		}
	}
	if c.full {
		c.full = false
		_ = t.poll.control(unix.EPOLL_CTL_MOD, fd, unix.EPOLLIN|unix.EPOLLRDHUP, int32(fd))
	}
	return true
}
