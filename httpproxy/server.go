package httpproxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"tidegate.io/tidegate/egress"
)

// Bounds of what strangers can make grow. A connection holds at most 32 KiB of
// read buffers and two copy buffers, so all of them together stay below 400 MiB.
const (
	// MaxConns is the most client connections at a time.
	MaxConns = 4096

	// MaxConnsPerClient leaves room for the others when one client floods. A client
	// is a node, which may speak for all of its pods.
	MaxConnsPerClient = MaxConns / 8
)

// How long peers may take.
const (
	HeadTimeout   = 10 * time.Second // for a whole request head, or for the first byte of a connection
	IdleTimeout   = 2 * time.Minute  // between requests; servers commonly close earlier
	StallTimeout  = 5 * time.Minute  // without any byte of a body, or of the answer
	DialTimeout   = 10 * time.Second // for each address
	LookupTimeout = 10 * time.Second
	HelloTimeout  = 5 * time.Second  // for a ClientHello in a tunnel, as for one outside of it
	AnswerTimeout = 30 * time.Second // for what a server says to a ClientHello
	TunnelIdle    = 2 * time.Hour    // without a byte in either direction; watches of the API server are that silent
	TunnelMax     = 24 * time.Hour   // of a tunnel in all
	lingerTimeout = time.Second      // for a refused client to read why before its connection is reset
	maxRetryDelay = time.Second      // of Accept while the process has no free descriptors
)

// Server serves both ways. Its exported fields must be set before and not change
// while it serves; the functions are called from many goroutines at once.
type Server struct {
	// Decide judges a connection: HTTP for each request, and for a CONNECT tunnel TCP and
	// HTTPS. It fills in what only the caller knows (Bound unless it is there, API, Strict),
	// and returns the flow with its time, policy and verdict. Of a name that Permits
	// refuses it is asked with an unknown address. A flow that denies and is Observed passes.
	Decide func(context.Context, egress.Conn) egress.Flow

	// Dial connects to c.Dst on behalf of c.Src. The proxy closes the connection; half-closing
	// a tunnel needs a CloseWrite method.
	Dial func(ctx context.Context, c egress.Conn) (net.Conn, error)

	// Report is told of each decision, and of the end of what was permitted, with the bytes
	// between the proxy and the origin. It must not block. A flow that the proxy refuses before
	// Decide can be asked, such as a malformed request, has neither policy nor cluster.
	Report func(egress.Flow)

	// Permits says whether client may ask for the addresses of n at all; nil permits none.
	// Only the explicit proxy asks.
	Permits func(client netip.Addr, n egress.Name) bool

	// Lookup returns the addresses of n, the preferred ones first. Only the explicit proxy asks,
	// and only for what Permits or an observing Decide lets pass.
	Lookup func(ctx context.Context, client netip.Addr, n egress.Name) ([]netip.Addr, error)

	// From are the clients of the explicit proxy; empty is none.
	From []netip.Prefix

	// Now is the clock; nil is time.Now.
	Now func() time.Time

	rechecks atomic.Uint64 // calls of Recheck
	mu       sync.Mutex
	clients  map[netip.Addr]int // open connections of each client
	conns    int                // their sum
	live     map[*live]struct{} // permitted exchanges and tunnels that are not over
}

// ServeTransparent serves connections whose local address is the one that the client
// dialled. It closes l when ctx is done, ends all connections, and returns nil.
func (s *Server) ServeTransparent(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, false)
}

// ServeProxy is an explicit proxy for the clients in From. It ends as ServeTransparent does.
func (s *Server) ServeProxy(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, true)
}

// Conns returns the number of open client connections.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

func (s *Server) serve(ctx context.Context, l net.Listener, explicit bool) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var open sync.WaitGroup
	defer open.Wait()
	serving, cancel := context.WithCancel(ctx)
	defer cancel()
	var delay time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // mostly out of descriptors: those in use go on, and free some
			delay = min(max(2*delay, time.Millisecond), maxRetryDelay)
			sleep(ctx, delay)
			continue
		}
		delay = 0
		open.Go(func() { s.serveConn(serving, conn, l.Addr(), explicit) })
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// serveConn serves one connection to its end.
func (s *Server) serveConn(ctx context.Context, conn net.Conn, own net.Addr, explicit bool) {
	defer conn.Close()
	src, dst := addrPort(conn.RemoteAddr()), addrPort(conn.LocalAddr())
	at := egress.Conn{Proto: egress.TCP, Src: src, Dst: dst}
	switch {
	case explicit && !s.admits(src.Addr()), !explicit && isOwn(dst, addrPort(own)):
		s.refused(at, egress.NoRule)
		return
	case !s.enter(src.Addr()):
		s.refused(at, egress.TooManyPending)
		return
	}
	defer s.leave(src.Addr())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	newClient(s, conn, src, dst, explicit, cancel).serve(ctx)
}

// admits is the access list of the explicit proxy. Without one, any machine that
// reaches its port could borrow the cluster's rules.
func (s *Server) admits(client netip.Addr) bool {
	for _, p := range s.From {
		if p.Contains(client) {
			return true
		}
	}
	return false
}

// isOwn reports whether a client dialled the listener itself instead of being diverted
// to it. Sent on, such a request would come back forever.
func isOwn(dst, own netip.AddrPort) bool {
	if own.Addr().IsUnspecified() {
		return dst.Port() == own.Port()
	}
	return dst == own
}

// enter counts a connection in, if there is room for it.
func (s *Server) enter(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns >= MaxConns || s.clients[client] >= MaxConnsPerClient {
		return false
	}
	if s.clients == nil {
		s.clients = map[netip.Addr]int{}
	}
	s.conns++
	s.clients[client]++
	return true
}

func (s *Server) leave(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
	if s.clients[client]--; s.clients[client] == 0 {
		delete(s.clients, client)
	}
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// refused reports what the proxy denies by itself.
func (s *Server) refused(c egress.Conn, r egress.Reason) egress.Flow {
	f := egress.Flow{Time: s.now(), Conn: c, Verdict: egress.Denied(r)}
	s.Report(f)
	return f
}

// passes reports whether what f decided may go on.
func passes(f egress.Flow) bool { return f.Verdict.Action == egress.Allow || f.Observed }

// addrPort is a as a comparable value; the invalid one when a is no address of IP.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(interface{ AddrPort() netip.AddrPort })
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
