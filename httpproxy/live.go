package httpproxy

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"

	"tidegate.io/tidegate/egress"
)

// live is a permitted exchange or tunnel until it is over.
type live struct {
	flow egress.Flow
	cut  func()      // ends it at once
	gone atomic.Bool // the policy changed, and no longer permits it
}

// begin reports the decision f and enters it among the live ones; the caller calls end.
// epoch is the one before the decision was made: when there has been a Recheck since, it has
// missed this one.
func (s *Server) begin(ctx context.Context, f egress.Flow, epoch uint64, cut func()) *live {
	s.Report(f)
	l := &live{flow: f, cut: cut}
	s.mu.Lock()
	if s.live == nil {
		s.live = map[*live]struct{}{}
	}
	s.live[l] = struct{}{}
	s.mu.Unlock()
	if s.rechecks.Load() != epoch {
		s.recheck(ctx, l)
	}
	return l
}

// end reports that l is over.
func (s *Server) end(l *live, sent, received uint64) {
	s.mu.Lock()
	delete(s.live, l)
	s.mu.Unlock()
	f := l.flow
	if l.gone.Load() {
		f.Verdict = egress.Denied(egress.PolicyChanged)
	}
	f.End, f.Sent, f.Received, f.Duration = true, sent, received, s.now().Sub(f.Time)
	s.Report(f)
}

// Recheck asks Decide about each exchange and tunnel that is under way and cuts those that it
// no longer lets pass. Call it after the policy has changed.
func (s *Server) Recheck(ctx context.Context) (cut int) {
	s.rechecks.Add(1)
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.live))
	s.mu.Unlock()
	for _, l := range all {
		if s.recheck(ctx, l) {
			cut++
		}
	}
	return cut
}

func (s *Server) recheck(ctx context.Context, l *live) (cut bool) {
	if passes(s.Decide(ctx, l.flow.Conn)) {
		return false
	}
	l.gone.Store(true)
	l.cut()
	return true
}
