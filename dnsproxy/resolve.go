package dnsproxy

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

const (
	// maxStale is for how long an expired answer may stand in (RFC 8767,
	// section 5, names days; AKS's own resolvers serve an hour).
	maxStale = time.Hour
	// staleTTL is for how many seconds a client may use it (RFC 8767, section 4).
	staleTTL = 30
	// retryStale is how long a failed name is answered from its expired answer
	// before the upstreams are asked again.
	retryStale = 5 * time.Second
	// failTTL is how long a failure is remembered (RFC 9520, section 3.2 asks
	// for at least a second), so that clients' retries do not multiply.
	failTTL = time.Second
)

// flights are the questions under way, one for all who ask the same.
type flights struct {
	mu      sync.Mutex
	running map[string]*flight
}

type flight struct {
	done  chan struct{}
	found found
}

// found is an answer, or nil when there is none.
type found struct {
	*entry
	stale bool
}

// resolve answers q for n from the cache or the upstreams: a failure is an
// entry too, that says SERVFAIL. It returns none only when ctx is done.
func (s *Server) resolve(ctx context.Context, q *query, n egress.Name) found {
	now := s.now()
	old := s.cache.get(q.cacheKey())
	switch {
	case old == nil:
	case old.fresh(now):
		s.counts.hits.Add(1)
		return found{old, false}
	case s.mayServeStale(old, now) && now.UnixNano() < old.retry.Load():
		return found{old, true}
	}
	s.flights.mu.Lock()
	if f := s.flights.running[string(q.cacheKey())]; f != nil {
		s.flights.mu.Unlock()
		select {
		case <-f.done:
			return f.found
		case <-ctx.Done():
			return found{}
		}
	}
	key, f := string(q.cacheKey()), &flight{done: make(chan struct{})}
	if s.flights.running == nil {
		s.flights.running = map[string]*flight{}
	}
	s.flights.running[key] = f
	s.flights.mu.Unlock()

	f.found = s.refresh(ctx, q, key, n, old)
	s.flights.mu.Lock()
	delete(s.flights.running, key)
	s.flights.mu.Unlock()
	close(f.done)
	return f.found
}

func (s *Server) mayServeStale(e *entry, now time.Time) bool {
	return e.rcode != dns.RcodeServerFailure && now.Before(e.expires.Add(maxStale)) && s.Stale != nil && s.Stale(e.name)
}

// refresh asks the upstreams, and keeps the answer.
func (s *Server) refresh(ctx context.Context, q *query, key string, n egress.Name, old *entry) found {
	s.counts.misses.Add(1)
	c, err := s.ask(ctx, question{n, q.qtype, q.do, q.cd})
	var e *entry
	now := s.now()
	if err == nil {
		c.strip(n, s.Internal)
		s.reportStripped(n, c.stripped)
		e, err = newEntry(key, n, c, now)
	}
	switch {
	case err == nil:
	case old != nil && s.mayServeStale(old, now):
		old.retry.Store(now.Add(retryStale).UnixNano())
		return found{old, true}
	default:
		e = failure(key, n, q, now)
	}
	if e.expires.After(now) {
		s.cache.put(e)
	}
	return found{e, false}
}

// failure is the entry that says SERVFAIL.
func failure(key string, n egress.Name, q *query, now time.Time) *entry {
	said := *q
	said.edns, said.rd, said.cd = false, false, false
	b := reply{rcode: dns.RcodeServerFailure}.append(nil, &said)
	return &entry{key: key, name: n, rcode: dns.RcodeServerFailure, packed: b, why: edeUpstream, born: now, expires: now.Add(failTTL)}
}

func (s *Server) reportStripped(n egress.Name, addrs []netip.Addr) {
	s.counts.stripped.Add(uint64(len(addrs)))
	if s.Denied == nil {
		return
	}
	for _, a := range addrs {
		s.Denied("", egress.Conn{Proto: egress.UDP, Dst: netip.AddrPortFrom(a, 53), Name: n}, egress.GuardedAddress)
	}
}
