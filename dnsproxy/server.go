package dnsproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/egress"
)

// Server answers DNS queries. Its fields are set before its first use and not
// changed after; its functions may be called by many goroutines at once, and
// all but Learn and Dial must not block.
//
// Answers are cached once for all clients, while bindings belong to a scope: a
// cached answer is reported again for each scope that gets it, every minute of
// its use, and after [Server.Relearn].
type Server struct {
	// UDP and TCP are where clients ask; Run closes them, those of UDP as soon as
	// it has copies of their descriptors. On a wildcard UDP socket each answer
	// leaves from the address its query was sent to, so that redirected queries
	// are answered on any route. A socket is read by one core; several that share
	// a port (SO_REUSEPORT) use several.
	UDP []*net.UDPConn
	TCP []net.Listener

	// Upstreams are the resolvers to ask, the preferred one first. They are
	// trusted to resolve, not to be honest about anything but the question.
	// With none, what is not answered here is SERVFAIL.
	Upstreams []netip.AddrPort

	// Client names the scope that a client's bindings belong to. An unknown
	// client, and everyone when Client is nil, is REFUSED.
	Client func(client netip.Addr) (scope string, ok bool)

	// MayResolve reports whether n may be asked of the outside for client. It
	// is asked for every query, cached or not, so a changed policy holds at
	// once. Nil permits nothing.
	MayResolve func(client netip.Addr, n egress.Name) bool

	// Internal reports that n may have the guarded address a (see
	// [egress.Guarded]): the cluster's own names, private endpoints. Other
	// guarded addresses are taken out of answers (rebinding); nil takes out
	// all. It is asked when an answer arrives; after a change, call Flush.
	Internal func(n egress.Name, a netip.Addr) bool

	// Learn is told the addresses of an answer before the answer leaves; it may
	// take up to 100 ms, then the answer leaves anyway and is counted.
	// Guarded addresses are never among them. Expires is when the client has to
	// ask again: the receiver adds what grace it gives. Returning an error
	// means "not programmed": it is counted, and the next answer reports
	// again; [ErrNoRoom] also keeps this one back. Nil learns nothing.
	Learn func(ctx context.Context, bindings []egress.Binding) error

	// Denied is told of each query whose name may not be resolved; its name is
	// zero when it is none that egress could hold, and the destination is
	// unknown. Kubernetes' search-list noise is answered and not reported. It
	// is also told of each guarded address that was taken out of an answer:
	// that is the destination then, with neither source nor scope, because the
	// answer is for whoever asks. Nil reports nothing.
	Denied func(scope string, c egress.Conn, r egress.Reason)

	// Stale reports whether n may be answered from an expired answer, for an
	// hour, when no upstream answers; meant for the exact names of a policy.
	// Nil: none.
	Stale func(n egress.Name) bool

	// Search are further domains that clients append to every name they look
	// up (resolv.conf, "search"); what is denied below them is noise.
	Search []egress.Name

	Refuse bool // denied names are REFUSED; otherwise they do not exist (NXDOMAIN)
	NoAAAA bool // AAAA questions have no data, for where IPv6 does not leave

	// Dial connects to an upstream ("udp" or "tcp"), for each question anew, and
	// must give each of UDP a random port (RFC 5452, section 9.2). Nil is a
	// [net.Dialer], whose sockets are used for some questions, one at a time.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Now is the clock; nil is time.Now.
	Now func() time.Time

	start   sync.Once
	reading context.Context // until Pause
	pause   context.CancelFunc
	pool    atomic.Pointer[[]*upstream]
	cache   cache
	flights flights
	waits   load // questions
	conns   load // TCP connections
	lessons lessons
	counts  counts
	work    sync.WaitGroup
}

// setup makes what the first use needs.
func (s *Server) setup() {
	s.start.Do(func() {
		s.reading, s.pause = context.WithCancel(context.Background())
		s.waits.most, s.waits.mostClient = maxPending, maxClientPending
		s.conns.most, s.conns.mostClient = maxConns, maxClientConns
		s.pool.Store(new([]*upstream))
		s.setUpstreams(s.Upstreams)
	})
}

// Run serves the sockets until ctx is done and returns nil, or until one of
// them fails and returns why. It closes them all, and waits for everything it
// started.
func (s *Server) Run(ctx context.Context) error {
	s.setup()
	all, ctx := errgroup.WithContext(ctx)
	closing := func(c io.Closer) { // ends reads that block, and is waited for
		all.Go(func() error {
			<-ctx.Done()
			_ = c.Close()
			return nil
		})
	}
	var sockets []*socket
	for _, conn := range s.UDP {
		_ = conn.SetReadBuffer(socketBuffer) // what it has will do too
		sock, err := openSocket(conn)
		if err != nil {
			all.Go(func() error { return fmt.Errorf("serve %s: %w", conn.LocalAddr(), err) })
			continue
		}
		sockets = append(sockets, sock)
		all.Go(func() error {
			select {
			case <-ctx.Done():
			case <-s.reading.Done():
			}
			sock.interrupt()
			return nil
		})
		all.Go(func() error { s.serveUDP(ctx, sock); return nil })
	}
	for _, l := range s.TCP {
		closing(l)
		all.Go(func() error { return s.serveTCP(ctx, l) })
	}
	all.Go(func() error { s.probe(ctx); return nil })
	err := all.Wait()
	s.work.Wait()
	for _, sock := range sockets {
		sock.close()
	}
	for _, u := range *s.pool.Load() {
		u.lines.hangUp(0)
	}
	return err
}

// Pause leaves what is asked by UDP from here on in the sockets, for whoever else
// has them. What has been asked is answered. Safe at any time.
func (s *Server) Pause() {
	s.setup()
	s.pause()
}

// Pending is how many questions wait for an upstream, or for Learn. Safe at any time.
func (s *Server) Pending() int {
	s.setup()
	return s.waits.now()
}

// Flush forgets all cached answers. Safe at any time.
func (s *Server) Flush() { s.cache.flush() }

func (s *Server) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}
