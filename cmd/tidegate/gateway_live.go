package main

import (
	"net/netip"
	"sync"
	"time"
	"unique"

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
	by map[packed]remembered
}

// packed is a tuple without pointers, so that the garbage collector has nothing to do
// with a hundred thousand of them.
type packed struct {
	src, dst         [16]byte
	srcPort, dstPort uint16
	proto            egress.Proto
}

func (t tuple) packed() packed {
	return packed{t.src.Addr().As16(), t.dst.Addr().As16(), t.src.Port(), t.dst.Port(), t.proto}
}

func (p packed) tuple() tuple {
	return tuple{
		p.proto,
		netip.AddrPortFrom(netip.AddrFrom16(p.src).Unmap(), p.srcPort),
		netip.AddrPortFrom(netip.AddrFrom16(p.dst).Unmap(), p.dstPort),
	}
}

// remembered is a decision in few bytes: what connections have in common is kept once.
type remembered struct {
	decision unique.Handle[common]
	name     unique.Handle[egress.Name]
	at       int64 // Unix nanoseconds
}

// common is what a decision shares with many others.
type common struct {
	policy, cluster                string
	verdict                        egress.Verdict
	proto                          egress.Proto
	observed, literal, api, strict bool
}

func remember(f egress.Flow) remembered {
	return remembered{
		unique.Make(common{f.Policy, f.Cluster, f.Verdict, f.Conn.Proto, f.Observed, f.Conn.Literal, f.Conn.API, f.Conn.Strict}),
		unique.Make(f.Conn.Name),
		f.Time.UnixNano(),
	}
}

// flow is what was remembered of the connection key. Of the names that its address had it
// has the one by which the connection was allowed.
func (r remembered) flow(key packed) egress.Flow {
	d, t := r.decision.Value(), key.tuple()
	f := egress.Flow{
		Time: time.Unix(0, r.at), Policy: d.policy, Cluster: d.cluster, Verdict: d.verdict, Observed: d.observed,
		Conn: egress.Conn{Proto: d.proto, Src: t.src, Dst: t.dst, Name: r.name.Value(), Literal: d.literal, API: d.api, Strict: d.strict},
	}
	if d.verdict.Reason == egress.ByNameRule && !f.Conn.Name.IsZero() {
		f.Conn.Bound = []egress.Name{f.Conn.Name}
	}
	return f
}

// add remembers a decision, unless there are too many; one on the same ports before it
// is over. It reports that one, if there was one, and whether the new one is kept.
func (r *running) add(f egress.Flow) (before egress.Flow, had, kept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[packed]remembered{}
	}
	key := tupleOf(f.Conn).packed()
	old, had := r.by[key]
	if had {
		before = old.flow(key)
	} else if len(r.by) >= maxRunning {
		return before, false, false
	}
	r.by[key] = remember(f)
	return before, had, true
}

// keep forgets the connections decided before a time that do not live any more, and
// returns them.
func (r *running) keep(live map[tuple]bool, before time.Time) (over []egress.Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, kept := range r.by {
		if kept.at < before.UnixNano() && !live[key.tuple()] {
			delete(r.by, key)
			over = append(over, kept.flow(key))
		}
	}
	return over
}

// remove forgets a connection that has ended and returns what was decided.
func (r *running) remove(key tuple) (egress.Flow, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := key.packed()
	kept, ok := r.by[at]
	if !ok {
		return egress.Flow{}, false
	}
	delete(r.by, at)
	return kept.flow(at), true
}

// decided returns what was decided about a live connection.
func (r *running) decided(key tuple) (egress.Flow, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := key.packed()
	kept, ok := r.by[at]
	if !ok {
		return egress.Flow{}, false
	}
	return kept.flow(at), true
}

func (r *running) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.by)
}
