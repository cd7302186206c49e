package dnsproxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	// askLimit is how long a client waits for an answer or for SERVFAIL: less
	// than the 5 s after which resolvers give up on a server.
	askLimit = 2 * time.Second
	// maxTries bounds what one question sends out: enough that of two upstreams
	// one may be down and the other lose every third datagram.
	maxTries = 8
	// The next upstream is asked too when an answer is later than most, within
	// these bounds.
	minHedge, maxHedge = 20 * time.Millisecond, 150 * time.Millisecond
	// maxFails in a row put an upstream at the end of the order.
	maxFails = 3
	// probeEvery is how often an upstream at the end is asked whether it is back.
	probeEvery = 2 * time.Second
)

var errNoUpstream = errors.New("no upstream is configured")

// upstream is a resolver that we ask.
type upstream struct {
	addr   netip.AddrPort
	lowers atomic.Bool // it does not repeat the case of names
	lines  linePool

	mu       sync.Mutex
	mean     time.Duration // of the time to answer, and its deviation, as TCP estimates them (RFC 6298)
	spread   time.Duration
	fails    int // in a row
	measured bool

	queries, errors, mismatches, tcp atomic.Uint64
}

// hedge is when an answer of u is late.
func (u *upstream) hedge() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.fails >= maxFails:
		return minHedge // nobody waits for one that is down
	case !u.measured:
		return maxHedge
	}
	return min(max(u.mean+4*u.spread, minHedge), maxHedge)
}

// up reports whether u answered lately. One that is not is still asked, last.
func (u *upstream) up() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.fails < maxFails
}

func (u *upstream) answered(after time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fails = 0
	if !u.measured {
		u.measured, u.mean, u.spread = true, after, after/2
		return
	}
	u.spread += ((u.mean - after).Abs() - u.spread) / 4
	u.mean += (after - u.mean) / 8
}

func (u *upstream) failed() {
	u.errors.Add(1)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fails++
}

// SetUpstreams replaces the upstreams; those that stay keep what is known of
// them. Safe at any time.
func (s *Server) SetUpstreams(addrs []netip.AddrPort) {
	s.setup()
	s.setUpstreams(addrs)
}

func (s *Server) setUpstreams(addrs []netip.AddrPort) {
	known := map[netip.AddrPort]*upstream{}
	for _, u := range *s.pool.Load() {
		known[u.addr] = u
	}
	pool := make([]*upstream, 0, len(addrs))
	for _, a := range addrs {
		u := known[a]
		if u == nil {
			u = &upstream{addr: a}
			known[a] = u
		}
		pool = append(pool, u)
	}
	s.pool.Store(&pool)
	for _, u := range known {
		if !slices.Contains(pool, u) {
			u.lines.hangUp(0)
		}
	}
}

// order returns the upstreams as they are to be asked: those that answer, as
// configured, and then the others.
func (s *Server) order() []*upstream {
	var order, down []*upstream
	for _, u := range *s.pool.Load() {
		if u.up() {
			order = append(order, u)
		} else {
			down = append(down, u)
		}
	}
	return append(order, down...)
}

// ask asks the upstreams in turn, the next one as soon as one fails or is late,
// and returns the first good answer. Those still under way are called off, and
// waited for.
func (s *Server) ask(ctx context.Context, q question) (*chain, error) {
	order := s.order()
	if len(order) == 0 {
		return nil, errNoUpstream
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	type result struct {
		c   *chain
		err error
	}
	results := make(chan result)
	late := time.NewTimer(askLimit)
	defer late.Stop()
	tries, pending, refusals := 0, 0, 0
	next := func() {
		if tries == maxTries || refusals >= len(order) || ctx.Err() != nil {
			return
		}
		u := order[tries%len(order)]
		go func() {
			c, err := s.try(ctx, u, q)
			results <- result{c, err}
		}()
		late.Reset(u.hedge() << (tries / len(order)))
		tries++
		pending++
	}
	next()
	var errs []error
	for pending > 0 {
		select {
		case <-late.C:
			next()
		case r := <-results:
			pending--
			if r.err == nil {
				cancel()
				for range pending {
					<-results
				}
				return r.c, nil
			}
			errs = append(errs, r.err)
			if errors.As(r.err, new(unusable)) {
				refusals++ // asking that one again changes nothing
			}
			next()
		}
	}
	return nil, errors.Join(errs...)
}

// try is one exchange, and what it says about u.
func (s *Server) try(ctx context.Context, u *upstream, q question) (*chain, error) {
	u.queries.Add(1)
	start, late := time.Now(), u.hedge()
	c, err := s.exchange(ctx, u, q)
	took := time.Since(start)
	switch {
	case err == nil:
		u.answered(took)
	case errors.As(err, new(unusable)):
		u.answered(took)
		u.errors.Add(1)
	case errors.Is(ctx.Err(), context.Canceled) && took <= late:
		// Called off before it was late: nothing is known.
	default:
		u.failed()
	}
	return c, err
}

// probe asks those upstreams that are down for the root's name servers, until
// ctx is done: an answer of any kind within the time of a hedge brings one back.
// It closes what is idle.
func (s *Server) probe(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var all sync.WaitGroup
		for _, u := range *s.pool.Load() {
			u.lines.hangUp(maxLineIn)
			if !u.up() {
				all.Go(func() { s.probeOne(ctx, u) })
			}
		}
		all.Wait()
	}
}

func (s *Server) probeOne(ctx context.Context, u *upstream) {
	ctx, cancel := context.WithTimeout(ctx, 2*maxHedge)
	defer cancel()
	packed, err := question{qtype: dns.TypeNS}.pack(true, false)
	if err != nil {
		return
	}
	start := time.Now()
	if _, err := s.askUDP(ctx, u, packed); err == nil {
		u.answered(time.Since(start))
	}
}
