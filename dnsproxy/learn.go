package dnsproxy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"tidegate.io/tidegate/egress"
)

const (
	// learnWait is how long an answer waits for Learn. A client that has its
	// answer late retries; one that never has it is down.
	learnWait = 100 * time.Millisecond
	// learnLimit ends the context of a Learn that the answer no longer waits for.
	learnLimit = 5 * time.Second
	// learnAgain is how often a cached answer in use is reported, so that the
	// receiver can tell which bindings are in use when it must drop some.
	learnAgain = time.Minute
	// maxLessons bounds the calls of Learn under way: each was begun by a
	// question that waited, and may go on after its answer left.
	maxLessons = maxPending
)

// taught says until when a scope's clients may have an entry without a new
// report.
type taught struct {
	scope      string
	until      time.Time
	generation uint64
}

// ErrNoRoom is what Learn returns for an answer that clients could not use, because what it says found no room: they get
// SERVFAIL in its place. It may be wrapped.
var ErrNoRoom = errors.New("no room for what an answer says")

// lessons are the calls of Learn under way, one for an answer and a scope.
type lessons struct {
	generation atomic.Uint64 // counts calls of Relearn
	mu         sync.Mutex
	running    map[lesson]*learning
}

type lesson struct {
	*entry
	scope string
}

// over is the end of what is over.
var over = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// learning is a call of Learn.
type learning struct {
	done   chan struct{}
	noRoom bool // once it is done
}

// knows reports that nothing has to be learned before scope's clients get e:
// it costs a hit two loads and a comparison.
func (s *Server) knows(e *entry, scope string, now time.Time) bool {
	if s.Learn == nil || len(e.open) == 0 {
		return true
	}
	known := e.taught.Load()
	if known == nil {
		return false
	}
	generation := s.lessons.generation.Load()
	for i := range *known {
		if t := &(*known)[i]; t.scope == scope {
			return t.generation == generation && now.Before(t.until)
		}
	}
	return false
}

// teach reports e's addresses for scope and calls then, once, when they are
// programmed, but learnWait later at the longest. Those who ask meanwhile wait
// for the same call of Learn. Then is told whether there is room for them.
func (s *Server) teach(ctx context.Context, e *entry, scope string, expires time.Time, then func(usable bool)) {
	if s.knows(e, scope, s.now()) {
		then(true)
		return
	}
	l := lesson{e, scope}
	call, mine := s.startLesson(l)
	switch {
	case call == nil:
		s.counts.learnLate.Add(1)
		then(true)
	case !mine:
		then(s.attend(ctx, call))
	default:
		s.give(ctx, l, call, expires, then)
	}
}

// startLesson returns the call of Learn for l, and whether the caller has to
// make it; none if too many are under way.
func (s *Server) startLesson(l lesson) (call *learning, mine bool) {
	s.lessons.mu.Lock()
	defer s.lessons.mu.Unlock()
	if call := s.lessons.running[l]; call != nil {
		return call, false
	}
	if s.knows(l.entry, l.scope, s.now()) { // one that has ended meanwhile
		return &learning{done: over}, false
	}
	if len(s.lessons.running) >= maxLessons {
		return nil, false
	}
	if s.lessons.running == nil {
		s.lessons.running = map[lesson]*learning{}
	}
	call = &learning{done: make(chan struct{})}
	s.lessons.running[l] = call
	return call, true
}

// attend waits for another's call of Learn.
func (s *Server) attend(ctx context.Context, call *learning) (usable bool) {
	timer := time.NewTimer(learnWait)
	defer timer.Stop()
	select {
	case <-call.done:
		return !call.noRoom
	case <-timer.C:
		s.counts.learnLate.Add(1)
	case <-ctx.Done():
	}
	return true
}

// give calls Learn. It returns when that has returned and then was called.
func (s *Server) give(ctx context.Context, l lesson, call *learning, expires time.Time, then func(usable bool)) {
	told := make(chan struct{})
	late := time.AfterFunc(learnWait, func() {
		defer close(told)
		s.counts.learnLate.Add(1)
		then(true)
	})
	call.noRoom = errors.Is(s.learn(ctx, l, expires), ErrNoRoom)
	s.lessons.mu.Lock()
	delete(s.lessons.running, l)
	s.lessons.mu.Unlock()
	close(call.done)
	if late.Stop() {
		then(!call.noRoom)
	} else {
		<-told
	}
}

func (s *Server) learn(ctx context.Context, l lesson, expires time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, learnLimit)
	defer cancel()
	generation := s.lessons.generation.Load() // before: a Relearn meanwhile counts
	bindings := make([]egress.Binding, len(l.open))
	for i, a := range l.open {
		bindings[i] = egress.Binding{Scope: l.scope, Name: l.name, Addr: a, Expires: expires}
	}
	s.counts.learned.Add(1)
	if err := s.Learn(ctx, bindings); err != nil {
		s.counts.learnFailed.Add(1)
		return err
	}
	until := s.now().Add(learnAgain)
	if expires.Before(until) {
		until = expires
	}
	l.remember(taught{l.scope, until, generation})
	return nil
}

// remember replaces what is known for t's scope. Scopes are the configured
// clusters, so the list stays short.
func (e *entry) remember(t taught) {
	for {
		old := e.taught.Load()
		next := []taught{t}
		if old != nil {
			for _, o := range *old {
				if o.scope != t.scope {
					next = append(next, o)
				}
			}
		}
		if e.taught.CompareAndSwap(old, &next) {
			return
		}
	}
}

// Relearn has every cached answer reported again before it is next given: for
// a receiver that lost or dropped bindings. Safe at any time.
func (s *Server) Relearn() { s.lessons.generation.Add(1) }
