package main

import (
	"net/netip"
	"sync"
	"time"

	"tidegate.io/tidegate/egress"
)

// maxRunning bounds the connections whose names are remembered. Those beyond it
// run as well; what a new policy means for them is told by their rule alone.
const maxRunning = 1 << 18

// tuple is what tells live connections apart.
type tuple struct {
	proto    egress.Proto // TCP or UDP
	src, dst netip.AddrPort
}

func tupleOf(c egress.Conn) tuple { return tuple{c.Proto.Transport(), c.Src, c.Dst} }

// running remembers the decisions about live connections: for their end's record,
// and for a new policy, which has to know their names. The zero value is ready.
type running struct {
	mu sync.Mutex
	by map[tuple]egress.Flow
}

// add remembers a decision, unless there are too many; one on the same ports before it
// is over. It reports that one, if there was one, and whether the new one is kept.
func (r *running) add(f egress.Flow) (before egress.Flow, had, kept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[tuple]egress.Flow{}
	}
	key := tupleOf(f.Conn)
	before, had = r.by[key]
	if !had && len(r.by) >= maxRunning {
		return before, false, false
	}
	f.Conn.Bound = proven(f)
	r.by[key] = f
	return before, had, true
}

// keep forgets the connections decided before a time that do not live any more, and
// returns them.
func (r *running) keep(live map[tuple]bool, before time.Time) (over []egress.Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, f := range r.by {
		if !live[key] && f.Time.Before(before) {
			delete(r.by, key)
			over = append(over, f)
		}
	}
	return over
}

// remove forgets a connection that has ended and returns what was decided.
func (r *running) remove(key tuple) (egress.Flow, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.by[key]
	delete(r.by, key)
	return f, ok
}

// decided returns what was decided about a live connection.
func (r *running) decided(key tuple) (egress.Flow, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.by[key]
	return f, ok
}

func (r *running) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.by)
}

// proven is what has to be known again of the names that the address had: that it
// had the one by which the connection was allowed.
func proven(f egress.Flow) []egress.Name {
	if f.Verdict.Reason == egress.ByNameRule && !f.Conn.Name.IsZero() {
		return []egress.Name{f.Conn.Name}
	}
	return nil
}
