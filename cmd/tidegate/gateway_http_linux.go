package main

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/httpproxy"
	"tidegate.io/tidegate/kernel"
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

// diverted is the listener of the connections that the kernel leads to the proxy: the own
// address of each is the one that its client dialled.
type diverted struct{ net.Listener }

// Accept leaves a connection whose destination cannot be told with the listener's address,
// from which the proxy refuses it.
func (d diverted) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, is := c.(*net.TCPConn)
	if !is {
		return c, nil
	}
	to, err := kernel.Dialled(tcp)
	if err != nil {
		return c, nil
	}
	return divertedConn{tcp, net.TCPAddrFromAddrPort(to)}, nil
}

type divertedConn struct {
	*net.TCPConn
	dialled net.Addr
}

func (c divertedConn) LocalAddr() net.Addr { return c.dialled }

// decideHTTP judges a request, with what DNS told the client's cluster.
func (b *box) decideHTTP(_ context.Context, c egress.Conn) egress.Flow {
	now, at := b.now.Load(), time.Now()
	f := egress.Flow{Time: at, Policy: now.policy.ID(), Conn: c}
	cluster := now.conf.Cluster(c.Src.Addr())
	switch {
	case cluster == nil: // a rule for everybody is one for every client
		f.Verdict = egress.Denied(egress.NoRule)
		return f
	case b.own.reserved(c.Dst.Addr()): // also where nothing else is refused: observing opens no door
		f.Cluster, f.Verdict = cluster.Name, egress.Denied(egress.GuardedAddress)
		return f
	}
	if c.Dst.Addr().IsValid() {
		// What was the API server's address when a tunnel began is not asked again.
		c.API = c.API || b.apis.Current(cluster.Name, c.Dst.Addr())
		if c.Bound == nil {
			c.Bound = b.bindings.Names(at, cluster.Name, c.Dst.Addr())
		}
	}
	f.Cluster, f.Conn, f.Verdict = cluster.Name, c, now.policy.Decide(c).Kept() // by a tunnel, for days
	f.Observed = cluster.Mode == config.Observe && f.Verdict.Action == egress.Deny
	return f
}

// ownAddrs knows the gateway's own addresses.
type ownAddrs struct {
	mu    sync.Mutex
	addrs map[netip.Addr]bool
	until time.Time
}

// ownFor is how long the gateway's addresses are believed to be the same.
const ownFor = 5 * time.Second

// platform is where Azure answers a machine about itself (and speaks of nobody else).
var platform = netip.MustParseAddr("168.63.129.16")

// reserved reports whether a is where the gateway must not be led by a client, whatever
// a rule says: itself, and what answers for its identity (169.254.169.254). The
// connection would be the gateway's, and not the client's.
func (o *ownAddrs) reserved(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return false
	}
	if a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() || a == platform {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if now := time.Now(); !now.Before(o.until) {
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return true
		}
		o.addrs, o.until = map[netip.Addr]bool{}, now.Add(ownFor)
		for _, p := range addrs {
			if p, err := netip.ParsePrefix(p.String()); err == nil {
				o.addrs[p.Addr().Unmap().WithZone("")] = true
			}
		}
	}
	return o.addrs[a]
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
	b.note(b.learn(ctx, bs))
	return addrs, nil
}
