package flowlog

import (
	"context"
	"sync"
	"sync/atomic"

	"tidegate.io/tidegate/egress"
)

// ring keeps the last flows.
type ring struct {
	mu   sync.Mutex
	kept []egress.Flow
	next int // where the next one goes, once kept is full
}

func (r *ring) add(f egress.Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) < maxKept {
		r.kept = append(r.kept, f)
		return
	}
	r.kept[r.next] = f
	r.next = (r.next + 1) % maxKept
}

// Last returns up to n of the flows kept in memory that match, the newest first.
// A nil match matches all.
func (l *Log) Last(n int, match func(*egress.Flow) bool) []egress.Flow {
	r := &l.kept
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []egress.Flow
	for i := range r.kept {
		at := (r.next - 1 - i + 2*len(r.kept)) % len(r.kept)
		if f := &r.kept[at]; len(out) < n && (match == nil || match(f)) {
			out = append(out, *f)
		}
	}
	return out
}

const (
	// maxWatchers bounds who may watch at a time.
	maxWatchers = 64

	// maxBehind is how many flows a watcher may be behind before it misses some.
	maxBehind = 1024
)

// watchers are who sees flows pass.
type watchers struct {
	mu  sync.Mutex
	all map[*Watcher]bool
}

// Watcher sees the flows that are recorded while it watches.
type Watcher struct {
	Flows  <-chan egress.Flow
	send   chan egress.Flow
	missed atomic.Uint64
}

// Missed is how many flows this watcher was too slow for.
func (w *Watcher) Missed() uint64 { return w.missed.Load() }

// Watch returns a watcher until ctx is done, or nil when there are too many.
func (l *Log) Watch(ctx context.Context) *Watcher {
	c := make(chan egress.Flow, maxBehind)
	w := &Watcher{Flows: c, send: c}
	l.watch.mu.Lock()
	defer l.watch.mu.Unlock()
	if len(l.watch.all) >= maxWatchers {
		return nil
	}
	if l.watch.all == nil {
		l.watch.all = map[*Watcher]bool{}
	}
	l.watch.all[w] = true
	context.AfterFunc(ctx, func() {
		l.watch.mu.Lock()
		defer l.watch.mu.Unlock()
		delete(l.watch.all, w)
	})
	return w
}

func (ws *watchers) send(f egress.Flow) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.all {
		select {
		case w.send <- f:
		default:
			w.missed.Add(1)
		}
	}
}
