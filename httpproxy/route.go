package httpproxy

import (
	"context"
	"net/http"
	"net/netip"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// maxAddrs is the most addresses of a name that are judged and tried.
const maxAddrs = 16

// judge decides about a connection to one address, and says whether it may be made.
type judge func(context.Context, egress.Conn) (egress.Flow, bool)

// judgeRequest is the judge of a request.
func (c *client) judgeRequest(ctx context.Context, at egress.Conn) (egress.Flow, bool) {
	f := c.decide(ctx, at)
	return f, passes(f)
}

func (c *client) decide(ctx context.Context, at egress.Conn) egress.Flow {
	ctx, cancel := context.WithTimeout(ctx, LookupTimeout)
	defer cancel()
	return c.Decide(ctx, at)
}

// route finds where the client may go for host, and connects there. The flow it returns is yet
// to be reported. Otherwise it reports and refuses, and returns a nil server.
func (c *client) route(ctx context.Context, at egress.Conn, host wire.Authority, ok judge) (f egress.Flow, server *origin, reused bool) {
	addrs, f := c.destinations(ctx, &at, host)
	tried := false
	for _, at.Dst = range addrs {
		g, permitted := c.judgeAt(ctx, at, ok)
		switch {
		case permitted:
			var err error
			if server, reused, err = c.reach(ctx, g.Conn); err == nil {
				return g, server, reused
			}
			f, tried = g, true
			f.Verdict = egress.Denied(egress.UpstreamUnreachable)
		case !tried:
			f = g
		}
	}
	c.Report(f)
	status, why := http.StatusForbidden, "denied: "+f.Verdict.Reason.String()
	if f.Verdict.Reason == egress.UpstreamUnreachable {
		status, why = http.StatusBadGateway, "the destination does not answer"
	}
	c.refuse(f, status, why)
	return f, nil, false
}

// judgeAt judges one address; its own is refused before, for a proxy that connects to itself
// does so until it runs out of connections.
func (c *client) judgeAt(ctx context.Context, at egress.Conn, ok judge) (egress.Flow, bool) {
	if c.explicit && at.Dst == c.dst {
		return c.denied(at, egress.GuardedAddress), false
	}
	return ok(ctx, at)
}

// denied is a denial by the proxy itself, yet to be reported.
func (s *Server) denied(at egress.Conn, r egress.Reason) egress.Flow {
	return egress.Flow{Time: s.now(), Conn: at, Verdict: egress.Denied(r)}
}

// destinations returns where host may be, and otherwise a denial: the address that a diverted
// client dialled, or for the explicit proxy a literal or what the name resolves to. It completes
// at with the port and the names that lead there.
func (c *client) destinations(ctx context.Context, at *egress.Conn, host wire.Authority) ([]netip.AddrPort, egress.Flow) {
	if !c.explicit {
		return []netip.AddrPort{c.dst}, egress.Flow{}
	}
	port := host.Port
	if port == 0 {
		port = 80
	}
	at.Dst = netip.AddrPortFrom(netip.Addr{}, port)
	if host.Literal {
		addr := host.Addr().Unmap()
		if !addr.IsValid() { // 0177.0.0.1: programs disagree which address that is
			return nil, c.denied(*at, egress.AddressAsName)
		}
		return []netip.AddrPort{netip.AddrPortFrom(addr, port)}, egress.Flow{}
	}
	if o := c.origin; o != nil && o.name == at.Name && o.dst.Port() == port {
		at.Bound = []egress.Name{at.Name}
		return []netip.AddrPort{o.dst}, egress.Flow{}
	}
	return c.resolve(ctx, at, port)
}

// resolve looks up the name of at, unless no rule speaks of it: a query for a denied name would
// carry data out by itself.
func (c *client) resolve(ctx context.Context, at *egress.Conn, port uint16) ([]netip.AddrPort, egress.Flow) {
	if c.Permits == nil || !c.Permits(c.src.Addr(), at.Name) {
		if f := c.decide(ctx, *at); !passes(f) {
			return nil, f
		}
	}
	looking, cancel := context.WithTimeout(ctx, LookupTimeout)
	defer cancel()
	addrs, err := c.Lookup(looking, c.src.Addr(), at.Name)
	if err != nil || len(addrs) == 0 {
		return nil, c.denied(*at, egress.UpstreamUnreachable)
	}
	at.Bound = []egress.Name{at.Name}
	places := make([]netip.AddrPort, 0, maxAddrs)
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		places = append(places, netip.AddrPortFrom(a.Unmap().WithZone(""), port))
	}
	return places, egress.Flow{}
}
