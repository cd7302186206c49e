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
	b.tokens = min(deniedBurst, b.tokens+now.Sub(b.at).Seconds()*deniedRate)
	b.at = now
	if b.tokens < 1 {
		b.count++
		b.last = f.Verdict.Reason
		return false
	}
	b.tokens--
	return true
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
	src   string // empty for the sources that are not told apart
	last  egress.Reason
	count uint64
}

// left returns what was suppressed since the last call, and forgets sources that
// have been quiet long enough to have all their tokens again.
func (l *limits) left() []suppressed {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []suppressed
	for a, b := range l.by {
		if b.count > 0 {
			out = append(out, suppressed{a.String(), b.last, b.count})
			b.count = 0
		} else if b.tokens >= deniedBurst-1 {
			delete(l.by, a)
		}
	}
	if l.others.count > 0 {
		out = append(out, suppressed{"", l.others.last, l.others.count})
		l.others.count = 0
	}
	return out
}
