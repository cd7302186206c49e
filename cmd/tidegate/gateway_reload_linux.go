package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/gateway"
	"tidegate.io/tidegate/kernel"
)

// releaseAfter is how long after the last change memory is given back: reading a large file takes
// several times what is kept of it.
const releaseAfter = 2 * time.Second

// uncut is an error behind the moment from which a new policy is in force: something
// that it denies may go on.
type uncut struct{ error }

// reload reads the file again and brings it into force: all of it, or nothing. One
// reload runs at a time, so that the file that was read last is what stays in force.
func (b *box) reload(ctx context.Context) error {
	b.changes.one.Lock()
	defer b.changes.one.Unlock()
	err := b.tryReload()
	if err != nil {
		b.changes.failed.Add(1)
		text := err.Error()
		b.changes.last.Store(&text)
		if !errors.As(err, new(uncut)) {
			b.log.Error("reload: the old policy stays in force", "err", err)
			return err
		}
		b.log.Error("reload", "err", err)
	} else {
		b.changes.last.Store(nil)
	}
	b.http.Recheck(ctx)
	now := b.now.Load()
	b.log.Info("reloaded", "policy", now.policy.ID(), "rules", len(now.conf.Rules))
	return err
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
	if err := b.apply(g); err != nil {
		return err
	}
	// What a queue was deciding meanwhile, by the old policy, is marked when it looks again.
	b.settle()
	return b.revoke()
}

// apply brings a configuration into force: the kernel first, in one transaction,
// then the process.
func (b *box) apply(g *config.Gateway) error {
	policy, err := g.Policy()
	if err != nil {
		return err
	}
	b.changes.Lock()
	defer b.changes.Unlock()
	if err := b.replace(g, policy); err != nil {
		return err
	}
	b.changes.applied.Add(1)
	if b.release != nil {
		b.release.Stop()
	}
	b.release = time.AfterFunc(releaseAfter, debug.FreeOSMemory)
	return nil
}

// replace is the part of apply during which nothing may be opened. What it keeps of g is
// what decides.
func (b *box) replace(g *config.Gateway, whole *egress.Policy) (err error) {
	was := b.now.Load()
	policy := whole.Slim()
	if was == nil && b.enforcing() {
		if err := b.reserve(policy); err != nil {
			return err
		}
	}
	if err := b.numbers.Assign(policy); err != nil {
		return err
	}
	defer func() {
		if err != nil && was != nil {
			_ = b.numbers.Assign(was.policy) // these had their numbers already
			b.bindings.Keep(was.policy)
		}
	}()
	if err := b.state.keepNumbers(b.numbers); err != nil {
		return err
	}
	var rules *kernel.Ruleset
	if b.enforcing() {
		if rules, err = kernel.Plan(whole.Whole(), b.settings(g)); err != nil {
			return err
		}
	}
	b.bindings.Keep(policy)
	at := time.Now()
	if err := b.program(rules, at); err != nil {
		if was != nil { // it may have failed behind the transaction: at a route, or a setting
			err = errors.Join(err, b.program(was.rules, at))
		}
		return err
	}
	b.now.Store(&inForce{conf: g.InForce(policy), policy: policy, rules: rules, loaded: at})
	for _, c := range g.Clusters {
		b.bindings.Say(c.Name, dnsPaths[c.DNS])
	}
	b.apis.Follow(policy.Clusters())
	b.dns.SetUpstreams(g.Upstream)
	b.dns.Flush()
	b.dns.Relearn()
	return nil
}

// program makes the kernel hold rules, with the addresses of all bindings.
func (b *box) program(rules *kernel.Ruleset, at time.Time) error {
	if !b.enforcing() {
		return nil
	}
	var known []egress.Binding
	for binding := range b.bindings.All(at) {
		known = append(known, binding)
	}
	return b.table.Apply(rules, opened(rules, known, at))
}

func (b *box) settings(g *config.Gateway) kernel.Settings {
	s := kernel.Settings{
		Number: b.numbers.Number, DNS: dnsPort, Asked: askedPort, Transparent: transparentPort, Explicit: g.Proxy.Port(), Management: g.Management,
		Queue: firstQueue, Queues: uint16(queueCount()), Observe: observeQueue, Log: logGroup,
		Masquerade: g.Masquerade, Features: b.features,
	}
	for _, c := range g.Clusters {
		s.Clusters = append(s.Clusters, kernel.Cluster{Name: c.Name, Internal: c.Internal, Observe: c.Mode == config.Observe})
	}
	return s
}

// dnsPaths are the file's words for a cluster's DNS, as the bindings know them.
var dnsPaths = map[config.DNS]gateway.Path{
	config.DNSShows: gateway.Unsaid, config.DNSGateway: gateway.Through, config.DNSElsewhere: gateway.Elsewhere,
}
