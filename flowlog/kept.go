package flowlog

import (
	"context"
	"slices"
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
	match  func(*egress.Flow) bool
	missed atomic.Uint64
}

// Missed is how many of the flows that match this watcher was too slow for.
func (w *Watcher) Missed() uint64 { return w.missed.Load() }

// Watch returns a watcher of the flows that match until ctx is done, or nil when there are
// too many. A nil match matches all; it is called for every flow, and must be quick.
func (l *Log) Watch(ctx context.Context, match func(*egress.Flow) bool) *Watcher {
	c := make(chan egress.Flow, maxBehind)
	w := &Watcher{Flows: c, send: c, match: match}
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
		if w.match != nil && !w.match(&f) {
			continue
		}
		select {
		case w.send <- f:
		default:
			w.missed.Add(1)
		}
	}
}

// maxBound is how many names of Conn.Bound are kept of a flow: large shared frontends have
// hundreds, which a flow in memory would hold on to.
const maxBound = 32

// clipBound bounds f.Conn.Bound. The name that was shown stays, for it decided.
func clipBound(f *egress.Flow) {
	bound := f.Conn.Bound
	if len(bound) <= maxBound {
		return
	}
	f.Conn.Bound = slices.Clone(bound[:maxBound])
	if slices.Index(bound, f.Conn.Name) >= maxBound {
		f.Conn.Bound[0] = f.Conn.Name
	}
}
