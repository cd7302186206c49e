package main

import (
	"context"
	"net"
	"net/netip"
	"time"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/httpproxy"
)

var everyone = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// proxy joins the HTTP proxy to the policy.
func (b *box) proxy() *httpproxy.Server {
	dialer := net.Dialer{Timeout: httpproxy.DialTimeout}
	return &httpproxy.Server{
		Decide: b.decideHTTP,
		Dial: func(ctx context.Context, c egress.Conn) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", c.Dst.String())
		},
		Report: b.report,
		Permits: func(client netip.Addr, n egress.Name) bool {
			now := b.now.Load()
			return now.conf.Cluster(client) != nil && now.policy.Permits(client, n)
		},
		Lookup: b.lookupHTTP,
		From:   everyone, // clusters change with a reload; the kernel lets only their clients in
	}
}

// decideHTTP judges a request, with what DNS told the client's cluster.
func (b *box) decideHTTP(_ context.Context, c egress.Conn) egress.Flow {
	now, at := b.now.Load(), time.Now()
	f := egress.Flow{Time: at, Policy: now.policy.ID()}
	if cluster := now.conf.Cluster(c.Src.Addr()); cluster != nil {
		f.Cluster = cluster.Name
		f.Observed = cluster.Mode == config.Observe
		if c.Dst.Addr().IsValid() {
			c.API = b.apis.Current(cluster.Name, c.Dst.Addr())
			if c.Bound == nil {
				c.Bound = b.bindings.Names(at, cluster.Name, c.Dst.Addr())
			}
		}
	}
	f.Conn, f.Verdict = c, now.policy.Decide(c)
	f.Observed = f.Observed && f.Verdict.Action == egress.Deny
	return f
}

// lookupHTTP resolves for the explicit proxy. What it finds is bound to the name
// for the client's cluster, as if the client had asked itself.
func (b *box) lookupHTTP(ctx context.Context, client netip.Addr, n egress.Name) ([]netip.Addr, error) {
	addrs, ttl, err := b.dns.Lookup(ctx, n)
	if err != nil {
		return nil, err
	}
	c := b.now.Load().conf.Cluster(client)
	if c == nil {
		return addrs, nil
	}
	var bs []egress.Binding
	for _, a := range addrs {
		if !egress.Guarded(a) {
			bs = append(bs, egress.Binding{Scope: c.Name, Name: n, Addr: a, Expires: time.Now().Add(ttl)})
		}
	}
	return addrs, b.learn(ctx, bs)
}
