package dnsproxy

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// ourselves stands for the gateway among the clients whose questions wait:
// what a client shows it may make it look up.
var ourselves netip.Addr

// Lookup returns all addresses of n and for how long they may be used, from
// the cache or the upstreams: for the gateway's own questions, such as where
// the API server is. No policy is asked and nothing is learned; guarded
// addresses are among the result where Internal vouches for them. The error
// is a [net.DNSError]. It takes up to two seconds, even if ctx ends before,
// because others may wait for the same answer. Many may run at once, within
// the bound of one client.
func (s *Server) Lookup(ctx context.Context, n egress.Name) ([]netip.Addr, time.Duration, error) {
	s.setup()
	if !s.waits.enter(ourselves) {
		s.counts.overloaded.Add(1)
		return nil, 0, &net.DNSError{Err: "too many questions at once", Name: n.String(), IsTemporary: true}
	}
	defer s.waits.leave(ourselves)
	types := []uint16{dns.TypeA, dns.TypeAAAA}
	if s.NoAAAA {
		types = types[:1]
	}
	results := make(chan found)
	for _, t := range types {
		go func() {
			var q query
			q.ask(n, t)
			results <- s.resolve(context.WithoutCancel(ctx), &q, n)
		}()
	}
	var addrs []netip.Addr
	least, failed, missing := time.Duration(maxTTL)*time.Second, 0, 0
	for range types {
		f := <-results
		switch {
		case f.entry == nil || f.rcode == dns.RcodeServerFailure:
			failed++
			continue
		case f.rcode == dns.RcodeNameError:
			missing++
		}
		addrs = append(append(addrs, f.open...), f.inside...)
		left := max(0, f.expires.Sub(s.now()))
		if f.stale {
			left = staleTTL * time.Second
		}
		least = min(least, left)
	}
	switch {
	case len(addrs) > 0:
		return addrs, least, nil
	case failed > 0:
		return nil, 0, &net.DNSError{Err: "no upstream answered", Name: n.String(), IsTemporary: true}
	case missing > 0:
		return nil, 0, &net.DNSError{Err: "no such name", Name: n.String(), IsNotFound: true}
	}
	return nil, 0, &net.DNSError{Err: "no address", Name: n.String(), IsNotFound: true}
}
