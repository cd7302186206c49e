package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/dnsproxy"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/gateway"
	"tidegate.io/tidegate/kernel"
)

// nameServer joins the DNS server to the policy, and its answers to the bindings,
// the journal and the kernel.
func (b *box) nameServer() *dnsproxy.Server {
	return &dnsproxy.Server{
		Client:     b.dnsClient,
		MayResolve: b.mayResolve,
		Internal:   b.mayBeInside,
		Learn:      b.learn,
		Denied:     b.dnsDenied,
		Stale:      func(n egress.Name) bool { return b.now.Load().policy.Spells(n) },
	}
}

func (b *box) dnsClient(client netip.Addr) (scope string, ok bool) {
	c := b.now.Load().conf.Cluster(client)
	if c == nil {
		return "", false
	}
	b.bindings.See(c.Name)
	return c.Name, true
}

// mayResolve is another question than may connect: besides the names of rules a
// client may ask for its cluster's own names and for the zones of dns.also. Of a
// cluster that is only observed everything is asked, and what would be refused
// is reported.
func (b *box) mayResolve(client netip.Addr, n egress.Name) bool {
	now := b.now.Load()
	c := now.conf.Cluster(client)
	if c == nil {
		return false
	}
	if now.policy.Permits(client, n) || matches(now.conf.Also, n) || matches(c.Resolvable, n) {
		return true
	}
	if c.Mode != config.Observe {
		return false
	}
	b.report(egress.Flow{
		Time: time.Now(), Policy: now.policy.ID(), Cluster: c.Name, Observed: true,
		Conn:    egress.Conn{Proto: egress.UDP, Src: netip.AddrPortFrom(client, 0), Dst: netip.AddrPortFrom(netip.Addr{}, 53), Name: n},
		Verdict: egress.Denied(egress.NameNotResolvable),
	})
	return true
}

func matches(ps []egress.Pattern, n egress.Name) bool {
	for _, p := range ps {
		if p.Match(n) {
			return true
		}
	}
	return false
}

// mayBeInside reports whether an answer may hold a guarded address: a cluster's
// own name may, and every name may have an address inside the cluster's network (a
// private endpoint). Such an address is answered and opens nothing. Where every
// cluster is only observed all addresses are answered, and what would be taken
// out is reported; answers are shared, so one enforced cluster decides for all.
func (b *box) mayBeInside(n egress.Name, a netip.Addr) bool {
	now := b.now.Load()
	conf := now.conf
	if inside(conf, n, a) {
		return true
	}
	if slices.ContainsFunc(conf.Clusters, func(c config.Cluster) bool { return c.Mode != config.Observe }) {
		return false
	}
	b.report(egress.Flow{
		Time: time.Now(), Policy: now.policy.ID(), Observed: true,
		Conn:    egress.Conn{Proto: egress.UDP, Dst: netip.AddrPortFrom(a, 53), Name: n},
		Verdict: egress.Denied(egress.GuardedAddress),
	})
	return true
}

func inside(conf *config.Gateway, n egress.Name, a netip.Addr) bool {
	if matches(conf.Also, n) {
		return true
	}
	for _, c := range conf.Clusters {
		if matches(c.Resolvable, n) {
			return true
		}
		for _, p := range c.Internal {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// learn makes an answer count before it leaves: for the followers, for the next
// process, and for the kernel's sets. Only the last waits for a change under way. An
// answer that the followers would not know is not given.
func (b *box) learn(_ context.Context, answers []egress.Binding) error {
	at := time.Now()
	if err := b.bindings.Learn(at, answers); err != nil {
		return fmt.Errorf("%w: %w", dnsproxy.ErrNoRoom, err)
	}
	if err := b.state.record(&b.bindings, at, answers); err != nil {
		b.log.Error("bindings journal: a restart would forget some", "err", err) // that is no reason to deny now
	}
	if !b.enforcing() {
		return nil
	}
	b.changes.RLock()
	defer b.changes.RUnlock()
	if open := opened(b.now.Load().rules, answers, at); len(open) > 0 {
		return b.table.Open(open)
	}
	return nil
}

// opened is what the kernel has to open for bindings; they go on as long as the
// followers' do.
func opened(rules *kernel.Ruleset, bindings []egress.Binding, at time.Time) []kernel.Element {
	var open []kernel.Element
	for _, binding := range bindings {
		binding.Expires = binding.Expires.Add(gateway.Grace)
		open = append(open, rules.Learn(binding, at)...)
	}
	return open
}

func (b *box) dnsDenied(scope string, c egress.Conn, r egress.Reason) {
	b.report(egress.Flow{Time: time.Now(), Policy: b.now.Load().policy.ID(), Cluster: scope, Conn: c, Verdict: egress.Denied(r)})
}

// lookupTimeout bounds the gateway's own look-ups: a held hello waits no longer.
const lookupTimeout = 4 * time.Second

func (b *box) lookupAPI(ctx context.Context, n egress.Name) ([]netip.Addr, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return b.dns.Lookup(ctx, n)
}

func (b *box) apiChanged(cluster string, addrs []netip.Addr) {
	b.apiAddrs.set(cluster, addrs)
	b.log.Info("API server", "cluster", cluster, "addresses", addrs)
}

func (b *box) apiFailed(cluster string, n egress.Name, err error) {
	b.log.Warn("API server", "cluster", cluster, "name", n, "err", err)
}
