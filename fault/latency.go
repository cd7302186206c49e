//go:build linux

package fault

import (
	"slices"
	"sync"
	"time"
)

// A sample is something that succeeded.
type sample struct {
	began time.Time
	took  time.Duration
}

// maxSamples bounds what is kept of one stream: an hour's worth, of which the oldest half goes when there are more.
const maxSamples = 200_000

// latencies are samples of one stream. The zero value is ready, for any number of goroutines.
type latencies struct {
	mu  sync.Mutex
	all []sample
}

func (l *latencies) add(began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) >= maxSamples {
		l.all = slices.Clone(l.all[maxSamples/2:])
	}
	l.all = append(l.all, sample{began, time.Since(began)})
}

// p99 is that of the samples which began from one time to another; 0 if there are none.
func (l *latencies) p99(from, to time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var took []time.Duration
	for _, s := range l.all {
		if !s.began.Before(from) && s.began.Before(to) {
			took = append(took, s.took)
		}
	}
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[(len(took)-1)*99/100]
}

// gap is the longest time between two times in which nothing succeeded.
func (l *latencies) gap(from, to time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ends []time.Time
	for _, s := range l.all {
		ends = append(ends, s.began.Add(s.took))
	}
	slices.SortFunc(ends, time.Time.Compare)
	longest, last := time.Duration(0), from
	for _, end := range ends {
		switch {
		case end.Before(from):
			continue
		case end.After(to):
			return max(longest, to.Sub(last))
		}
		longest, last = max(longest, end.Sub(last)), end
	}
	return max(longest, to.Sub(last))
}
