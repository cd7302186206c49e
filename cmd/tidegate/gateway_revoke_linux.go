package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/gateway"
	"tidegate.io/tidegate/kernel"
)

// settleWithin bounds the wait for the queues: a look is due every 10 ms.
const settleWithin = time.Second

// settle returns when every queue has looked up since, so that what it decided by an
// older policy is in the connections' marks, and it decides by the new one. A queue
// that does not answer decides nothing.
func (b *box) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), settleWithin)
	defer cancel()
	for _, q := range b.queues {
		_, _ = q.size(ctx)
	}
}

// revoke ends the live connections that the policy in force does not permit.
func (b *box) revoke() error {
	if !b.enforcing() {
		return nil
	}
	flows, err := b.tracker.Flows()
	if err == nil {
		numbers := carried(flows)
		b.numbers.Reserve(numbers)
		b.names.Reserve(numbers)
		live := b.subjects(flows)
		err = errors.Join(b.cut(b.revoked(live)), b.renumber(live))
	}
	if err != nil {
		return uncut{fmt.Errorf("the policy is in force, but not all that it denies is cut: %w", err)}
	}
	return nil
}

// live is a connection about which a new policy has a say.
type live struct {
	gateway.Live
	flow kernel.Flow
}

// subjects are those of the marked connections, with what is known of them.
func (b *box) subjects(flows []kernel.Flow) (all []live) {
	for _, k := range flows {
		if !b.subject(k) {
			continue
		}
		l := live{gateway.Live{Conn: egress.Conn{Proto: k.Proto, Src: k.Src, Dst: k.Dst}, Rule: numberOf(k.Mark)}, k}
		if d, ok := b.names.Decided(l.Rule); ok {
			l.Conn = d.Conn(l.Conn)
		}
		all = append(all, l)
	}
	return all
}

// revoked returns those that the policy does not permit.
func (b *box) revoked(all []live) (cut []kernel.Flow) {
	known := make([]gateway.Live, len(all))
	byTuple := make(map[tuple]kernel.Flow, len(all))
	for i, l := range all {
		known[i] = l.Live
		byTuple[tupleOf(l.Conn)] = l.flow
	}
	for _, l := range gateway.Cut(b.now.Load().policy, b.numbers.Holds, known) {
		cut = append(cut, byTuple[tupleOf(l.Conn)])
	}
	return cut
}

// renumber gives those that another rule permits now its number, where the number stands for
// a rule and not for a name, which can be judged by any policy.
func (b *box) renumber(all []live) (first error) {
	policy := b.now.Load().policy
	for _, l := range all {
		if l.Conn.Proto.Named() || b.numbers.Holds(l.Rule) {
			continue
		}
		v := policy.Decide(l.Conn)
		if v.Action != egress.Allow || policy.Cluster(l.Conn.Src.Addr()) == nil {
			continue
		}
		if err := b.tracker.Renumber(l.flow, b.numbers.Of(v.Rule)); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// subject reports whether a new policy has a say about a live connection: not
// about one that is only observed, nor about one of the HTTP proxy, which asks
// for itself.
func (b *box) subject(k kernel.Flow) bool {
	switch k.Mark.State() {
	case kernel.Allowed:
		return true
	case kernel.Passed, kernel.Watched: // it began while its cluster was only observed
		c := b.now.Load().conf.Cluster(k.Src.Addr())
		return c == nil || c.Mode != config.Observe
	}
	return false
}

// cut ends connections that the policy in force does not permit, both ends told.
func (b *box) cut(flows []kernel.Flow) error {
	err := b.tracker.Cut(flows...)
	for _, k := range flows {
		f := b.byMark(k)
		f.Time, f.Policy, f.Verdict, f.Observed = time.Now(), b.now.Load().policy.ID(), egress.Denied(egress.PolicyChanged), false
		b.report(f)
		b.provoke(k)
	}
	return err
}

// look tells those that keep something for live connections which ones there are.
func (b *box) look() error {
	b.changes.one.Lock()
	defer b.changes.one.Unlock()
	flows, err := b.tracker.Flows()
	if err != nil {
		return err
	}
	b.bindings.Age()
	policy, running := b.now.Load().policy, 0
	for _, k := range flows {
		number := numberOf(k.Mark)
		if number >= gateway.FirstName {
			running++
		}
		d, named := b.names.Decided(number)
		if c := policy.Cluster(k.Src.Addr()); named && c != nil && d.Reason == egress.ByNameRule && k.Mark.State() != kernel.Cut {
			b.bindings.Use(c.Name, d.Name, k.Dst.Addr())
		}
	}
	b.running.Store(int64(running))
	if err := b.names.Forget(carried(flows), b.state.renewNames); err != nil {
		return fmt.Errorf("names of connections: %w", err)
	}
	return nil
}

// reserve keeps the numbers that live connections carry from the rules that are about to get
// one. Where none is, that can wait for revoke: to list the connections takes some µs each,
// and until then nobody new is served.
func (b *box) reserve(p *egress.Policy) error {
	if b.numbers.Knows(p) {
		return nil
	}
	flows, err := b.tracker.Flows()
	if err != nil {
		return err
	}
	b.numbers.Reserve(carried(flows))
	return nil
}

// carried are the numbers in the marks of connections.
func carried(flows []kernel.Flow) map[uint32]bool {
	numbers := map[uint32]bool{}
	for _, k := range flows {
		numbers[numberOf(k.Mark)] = true
	}
	return numbers
}

// numberOf is the number of the rule, or of the name, that a connection was allowed by; 0 is none.
func numberOf(m kernel.Mark) uint32 {
	switch m.State() {
	case kernel.Allowed, kernel.Passed, kernel.Cut:
		return m.Rule()
	}
	return 0
}

// tuple is what tells live connections apart.
type tuple struct {
	proto    egress.Proto // TCP or UDP
	src, dst netip.AddrPort
}

func tupleOf(c egress.Conn) tuple { return tuple{c.Proto.Transport(), c.Src, c.Dst} }
