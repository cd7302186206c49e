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

// revoke ends the live connections that the policy in force does not permit, and renumbers those
// that another rule permits now. It keeps a list of these alone while the kernel tells all of them.
func (b *box) revoke() error {
	if !b.enforcing() {
		return nil
	}
	policy := b.now.Load().policy
	var denied []kernel.Flow
	var moved []renumbered
	numbers := map[uint32]bool{}
	err := b.tracker.Each(func(k kernel.Flow) {
		numbers[numberOf(k.Mark)] = true
		if !b.subject(k) {
			return
		}
		l := b.live(k)
		if !l.Permitted(policy, b.numbers.Holds) {
			denied = append(denied, k)
		} else if rule := b.permits(policy, l); rule != nil {
			moved = append(moved, renumbered{k, b.numbers.Of(rule)})
		}
	})
	b.numbers.Reserve(numbers)
	b.names.Reserve(numbers)
	if err = errors.Join(err, b.cut(denied), b.renumber(moved)); err != nil {
		return uncut{fmt.Errorf("the policy is in force, but not all that it denies is cut: %w", err)}
	}
	return nil
}

// live is what is known of a connection that runs: what its number tells.
func (b *box) live(k kernel.Flow) gateway.Live {
	l := gateway.Live{Conn: egress.Conn{Proto: k.Proto, Src: k.Src, Dst: k.Dst}, Rule: numberOf(k.Mark)}
	if d, ok := b.names.Decided(l.Rule); ok {
		l.Conn = d.Conn(l.Conn)
	}
	return l
}

// renumbered is a connection that gets another rule's number.
type renumbered struct {
	flow kernel.Flow
	rule uint32
}

// permits returns the rule that permits a connection in the place of the one whose number it
// carries, and nil where that need not be known: where its number stands for a name, which can be
// judged by any policy, and where the rule is as it was.
func (b *box) permits(p *egress.Policy, l gateway.Live) *egress.Rule {
	if l.Conn.Proto.Named() || b.numbers.Holds(l.Rule) {
		return nil
	}
	return p.Decide(l.Conn).Rule
}

// renumber gives connections their numbers.
func (b *box) renumber(moved []renumbered) (first error) {
	for _, m := range moved {
		if err := b.tracker.Renumber(m.flow, m.rule); err != nil && first == nil {
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
	policy, running, numbers := b.now.Load().policy, 0, map[uint32]bool{}
	b.bindings.Age()
	err := b.tracker.Each(func(k kernel.Flow) {
		number := numberOf(k.Mark)
		numbers[number] = true
		if number >= gateway.FirstName {
			running++
		}
		d, named := b.names.Decided(number)
		if c := policy.Cluster(k.Src.Addr()); named && c != nil && d.Reason == egress.ByNameRule && k.Mark.State() != kernel.Cut {
			b.bindings.Use(c.Name, d.Name, k.Dst.Addr())
		}
	})
	if err != nil {
		return err
	}
	b.running.Store(int64(running))
	if err := b.names.Forget(numbers, b.state.renewNames); err != nil {
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
	numbers, err := b.carried()
	if err == nil {
		b.numbers.Reserve(numbers)
	}
	return err
}

// carried are the numbers in the marks of live connections.
func (b *box) carried() (map[uint32]bool, error) {
	numbers := map[uint32]bool{}
	err := b.tracker.Each(func(k kernel.Flow) { numbers[numberOf(k.Mark)] = true })
	return numbers, err
}

// numberOf is the number of the rule, or of the name, that a connection was allowed by; 0 is none.
func numberOf(m kernel.Mark) uint32 {
	switch m.State() {
	case kernel.Allowed, kernel.Passed, kernel.Cut:
		return m.Rule()
	}
	return 0
}
