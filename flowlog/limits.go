package flowlog

import (
	"net/netip"
	"sync"
	"time"

	"tidegate.io/tidegate/egress"
)

const (
	// deniedRate and deniedBurst are how many denials of one source are told: a source
	// is a node with many pods, and a burst is a pod that tries everything once.
	deniedRate  = 100 // a second
	deniedBurst = 2000

	// maxSources bounds the sources that are told apart; those beyond share one rate.
	maxSources = 16384
)

// limits holds one token bucket for each source of denials.
type limits struct {
	mu     sync.Mutex
	by     map[netip.Addr]*bucket
	others bucket
}

type bucket struct {
	tokens float64
	at     time.Time
	count  uint64 // suppressed since the last summary
	last   egress.Reason
}

// admit takes a token for f's source, and counts where there is none.
func (l *limits) admit(f egress.Flow, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(f.Conn.Src.Addr(), now)
	b.fill(now)
	if b.tokens < 1 {
		b.count++
		b.last = f.Verdict.Reason
		return false
	}
	b.tokens--
	return true
}

// fill adds what the time since has earned.
func (b *bucket) fill(now time.Time) {
	b.tokens = min(deniedBurst, b.tokens+now.Sub(b.at).Seconds()*deniedRate)
	b.at = now
}

func (l *limits) bucket(a netip.Addr, now time.Time) *bucket {
	if b := l.by[a]; b != nil {
		return b
	}
	if len(l.by) >= maxSources {
		if l.others.at.IsZero() {
			l.others = bucket{tokens: deniedBurst, at: now}
		}
		return &l.others
	}
	if l.by == nil {
		l.by = map[netip.Addr]*bucket{}
	}
	b := &bucket{tokens: deniedBurst, at: now}
	l.by[a] = b
	return b
}

// suppressed is what one source had too many of.
type suppressed struct {
	src   netip.Addr // invalid for the sources that are not told apart
	last  egress.Reason
	count uint64
}

// left returns what was suppressed since the last call, and forgets sources that
// have been quiet long enough to have all their tokens again.
func (l *limits) left(now time.Time) []suppressed {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []suppressed
	for a, b := range l.by {
		if b.count > 0 {
			out = append(out, suppressed{a, b.last, b.count})
			b.count = 0
		} else if b.fill(now); b.tokens == deniedBurst {
			delete(l.by, a)
		}
	}
	if l.others.count > 0 {
		out = append(out, suppressed{netip.Addr{}, l.others.last, l.others.count})
		l.others.count = 0
	}
	return out
}

// source is the source as text; empty for those that are not told apart.
func (s suppressed) source() string {
	if !s.src.IsValid() {
		return ""
	}
	return s.src.String()
}

// again takes back what left has returned.
func (l *limits) again(s suppressed, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &l.others
	if s.src.IsValid() {
		b = l.bucket(s.src, now)
	}
	b.count += s.count
	b.last = s.last
}
