package dnsproxy

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Stats are counts since the start.
type Stats struct {
	Answers map[string]uint64 // by RCODE

	Hits, Misses, Stale    uint64 // answers from the cache; questions to upstreams; answers from expired entries
	Denied, Noise          uint64 // names that may not be resolved; those of them not reported
	Stripped               uint64 // guarded addresses taken out of answers
	Strangers              uint64 // queries of unknown clients
	Overloaded             uint64 // questions refused because too many waited, or because Learn had no room
	Dropped                uint64 // messages that are no query
	Learned                uint64 // calls of Learn
	LearnLate, LearnFailed uint64 // answers that left before Learn was done; calls of Learn that failed

	Entries, Bytes int // in the cache
	Evicted        uint64

	Upstreams []UpstreamStats

	Durations   []Bucket // of answers, from query to reply
	DurationSum time.Duration
}

// UpstreamStats are the counts of one upstream.
type UpstreamStats struct {
	Addr       netip.AddrPort
	Up         bool   // it answers; one that does not is asked last
	Queries    uint64 // sent
	Errors     uint64 // without a usable answer
	Mismatches uint64 // messages that did not answer the question: forgeries, most likely
	TCP        uint64 // questions asked over TCP
}

// Bucket counts the answers that took at most Most, and not those of other buckets.
type Bucket struct {
	Most  time.Duration // zero: any longer
	Count uint64
}

// durations are the upper ends of the histogram's buckets: hits are within the
// first, a Learn within the second and third, upstreams in the rest.
var durations = [...]time.Duration{
	50 * time.Microsecond, 250 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
}

// maxRcode is the largest that we send (BADVERS).
const maxRcode = 16

// counts are what Stats shows.
type counts struct {
	hits, misses, stale, denied, noise, stripped, strangers, overloaded, dropped, learned, learnLate, learnFailed atomic.Uint64

	rcodes [maxRcode + 1]atomic.Uint64
	took   [len(durations) + 1]atomic.Uint64
	sum    atomic.Int64
}

// done counts an answer.
func (c *counts) done(rcode int, took time.Duration) {
	c.rcodes[rcode].Add(1)
	c.sum.Add(int64(took))
	i := 0
	for i < len(durations) && took > durations[i] {
		i++
	}
	c.took[i].Add(1)
}

// Stats returns the counts. Safe at any time.
func (s *Server) Stats() Stats {
	s.setup()
	c := &s.counts
	st := Stats{
		Answers: map[string]uint64{},
		Hits:    c.hits.Load(), Misses: c.misses.Load(), Stale: c.stale.Load(),
		Denied: c.denied.Load(), Noise: c.noise.Load(), Stripped: c.stripped.Load(), Strangers: c.strangers.Load(),
		Overloaded: c.overloaded.Load(), Dropped: c.dropped.Load(),
		Learned: c.learned.Load(), LearnLate: c.learnLate.Load(), LearnFailed: c.learnFailed.Load(),
		DurationSum: time.Duration(c.sum.Load()),
	}
	for rcode := range c.rcodes {
		if n := c.rcodes[rcode].Load(); n > 0 {
			st.Answers[rcodeText(rcode)] = n
		}
	}
	for i := range c.took {
		b := Bucket{Count: c.took[i].Load()}
		if i < len(durations) {
			b.Most = durations[i]
		}
		st.Durations = append(st.Durations, b)
	}
	st.Entries, st.Bytes, st.Evicted = s.cache.stats()
	for _, u := range *s.pool.Load() {
		st.Upstreams = append(st.Upstreams, UpstreamStats{
			Addr: u.addr, Up: u.up(), Queries: u.queries.Load(), Errors: u.errors.Load(), Mismatches: u.mismatches.Load(), TCP: u.tcp.Load(),
		})
	}
	return st
}

func rcodeText(rcode int) string {
	if rcode == dns.RcodeBadVers {
		return "BADVERS" // the library knows the number by its other name, BADSIG
	}
	return dns.RcodeToString[rcode]
}
