package main

import (
	"context"
	"errors"
	"fmt"
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
		b.numbers.Reserve(carried(flows))
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
		l := live{gateway.Live{Conn: egress.Conn{Proto: k.Proto, Src: k.Src, Dst: k.Dst}, Rule: k.Mark.Rule()}, k}
		if f, ok := b.running.decided(tuple{k.Proto, k.Src, k.Dst}); ok {
			l.Conn = f.Conn
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

// renumber gives those that another rule permits now its number, while their names are
// known: after a restart, the number is all that speaks for them.
func (b *box) renumber(all []live) (first error) {
	policy := b.now.Load().policy
	for _, l := range all {
		if b.numbers.Holds(l.Rule) {
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
		f, known := b.running.decided(tuple{k.Proto, k.Src, k.Dst})
		if !known {
			f = b.byMark(k)
		}
		f.Time, f.Policy, f.Verdict, f.Observed = time.Now(), b.now.Load().policy.ID(), egress.Denied(egress.PolicyChanged), false
		b.report(f)
		b.provoke(k)
	}
	return err
}

// forget drops what is remembered of connections whose end was never told: the kernel
// reports ends as fast as they come, and counts those that nobody could read.
func (b *box) forget() error {
	if !b.enforcing() {
		return nil
	}
	b.changes.one.Lock()
	defer b.changes.one.Unlock()
	before := time.Now()
	flows, err := b.tracker.Flows()
	if err != nil {
		return errors.Join(errors.New("connections whose end was lost are not forgotten"), err)
	}
	live := make(map[tuple]bool, len(flows))
	for _, k := range flows {
		live[tuple{k.Proto, k.Src, k.Dst}] = true
	}
	for _, f := range b.running.keep(live, before) {
		b.unpin(f)
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

// carried are the rules' numbers in the marks of connections.
func carried(flows []kernel.Flow) map[uint32]bool {
	numbers := map[uint32]bool{}
	for _, k := range flows {
		numbers[k.Mark.Rule()] = true
	}
	return numbers
}
