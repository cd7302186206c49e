package main

import (
	"context"
	"fmt"
	"time"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/gateway"
	"tidegate.io/tidegate/kernel"
)

// reload reads the file again and brings it into force: all of it, or nothing.
func (b *box) reload(ctx context.Context) error {
	err := b.tryReload()
	if err != nil {
		b.changes.failed.Add(1)
		text := err.Error()
		b.changes.last.Store(&text)
		b.log.Error("reload: the old policy stays in force", "err", err)
		return err
	}
	b.changes.last.Store(nil)
	b.http.Recheck(ctx)
	now := b.now.Load()
	b.log.Info("reloaded", "policy", now.policy.ID(), "rules", len(now.conf.Rules))
	return nil
}

func (b *box) tryReload() error {
	g, err := readGateway(b.path)
	if err != nil {
		return err
	}
	was := b.now.Load().conf
	if g.State != was.State || g.Management != was.Management || g.Proxy != was.Proxy || g.FlowLog != was.FlowLog || fmt.Sprint(g.Listen) != fmt.Sprint(was.Listen) {
		return fmt.Errorf("%s: state, log, management, proxy and dns.listen change at a restart only", b.path)
	}
	return b.apply(g)
}

// apply brings a configuration into force: the kernel first, in one transaction,
// then the process, then the connections that it no longer permits.
func (b *box) apply(g *config.Gateway) error {
	policy, err := g.Policy()
	if err != nil {
		return err
	}
	b.changes.Lock()
	cut, err := b.replace(g, policy)
	b.changes.Unlock()
	if err != nil {
		return err
	}
	b.changes.applied.Add(1)
	return b.cut(cut)
}

// replace is the part of apply during which nothing may be opened. It returns the
// connections to be cut.
func (b *box) replace(g *config.Gateway, policy *egress.Policy) (cut []kernel.Flow, err error) {
	if err := b.numbers.Assign(policy); err != nil {
		return nil, err
	}
	defer func() {
		if was := b.now.Load(); err != nil && was != nil {
			_ = b.numbers.Assign(was.policy) // these had their numbers already
		}
	}()
	if err := b.state.keepNumbers(b.numbers); err != nil {
		return nil, err
	}
	rules, err := kernel.Plan(policy, b.settings(g))
	if err != nil {
		return nil, err
	}
	b.bindings.Keep(policy)
	at := time.Now()
	var known []egress.Binding
	for binding := range b.bindings.All(at) {
		known = append(known, binding)
	}
	if err := b.table.Apply(rules, opened(rules, known, at)); err != nil {
		return nil, err
	}
	b.now.Store(&inForce{conf: g, policy: policy, rules: rules, exact: spelledOut(g.Rules), loaded: at})
	b.apis.Follow(policy.Clusters())
	b.dns.SetUpstreams(g.Upstream)
	b.dns.Flush()
	b.dns.Relearn()
	return b.revoked(policy)
}

func (b *box) settings(g *config.Gateway) kernel.Settings {
	s := kernel.Settings{
		Number: b.numbers.Number, DNS: dnsPort, Transparent: transparentPort, Explicit: g.Proxy.Port(), Management: g.Management,
		Queue: firstQueue, Queues: uint16(queueCount()), Observe: observeQueue, Log: logGroup,
		Masquerade: g.Masquerade, Features: b.features,
	}
	for _, c := range g.Clusters {
		s.Clusters = append(s.Clusters, kernel.Cluster{Name: c.Name, Internal: c.Internal, Observe: c.Mode == config.Observe})
	}
	return s
}

func spelledOut(rules []egress.Rule) map[egress.Name]bool {
	exact := map[egress.Name]bool{}
	for _, r := range rules {
		for _, e := range r.To {
			if p, ok := e.Host.(egress.Pattern); ok {
				if n, ok := p.Exact(); ok {
					exact[n] = true
				}
			}
		}
	}
	return exact
}

// revoked returns the live connections that the policy no longer permits.
func (b *box) revoked(policy *egress.Policy) ([]kernel.Flow, error) {
	flows, err := b.tracker.Flows()
	if err != nil {
		return nil, err
	}
	var live []gateway.Live
	byTuple := map[tuple]kernel.Flow{}
	for _, k := range flows {
		if !b.subject(k) {
			continue
		}
		key := tuple{k.Proto, k.Src, k.Dst}
		byTuple[key] = k
		l := gateway.Live{Conn: egress.Conn{Proto: k.Proto, Src: k.Src, Dst: k.Dst}, Rule: k.Mark.Rule()}
		if f, ok := b.running.decided(key); ok {
			l.Conn = f.Conn
		}
		live = append(live, l)
	}
	var cut []kernel.Flow
	for _, l := range gateway.Cut(policy, b.numbers.Holds, live) {
		cut = append(cut, byTuple[tupleOf(l.Conn)])
	}
	return cut, nil
}

// subject reports whether a new policy has a say about a live connection: not
// about one that is only observed, nor about one of the HTTP proxy, which asks
// for itself.
func (b *box) subject(k kernel.Flow) bool {
	switch k.Mark.State() {
	case kernel.Allowed:
		return true
	case kernel.Passed: // it began while its cluster was only observed
		c := b.now.Load().conf.Cluster(k.Src.Addr())
		return c == nil || c.Mode != config.Observe
	}
	return false
}

// cut ends connections that the policy in force does not permit, both ends told.
func (b *box) cut(flows []kernel.Flow) error {
	for _, k := range flows {
		f, known := b.running.decided(tuple{k.Proto, k.Src, k.Dst})
		if !known {
			f = b.byMark(k)
		}
		f.Time, f.Policy, f.Verdict = time.Now(), b.now.Load().policy.ID(), egress.Denied(egress.PolicyChanged)
		b.report(f)
	}
	if err := b.tracker.Cut(flows...); err != nil {
		return err
	}
	for _, k := range flows {
		b.provoke(k)
	}
	return nil
}
