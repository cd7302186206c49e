//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sync/errgroup"
)

// addressTactics: the name is permitted, and the address is one that DNS did not give for it. Whoever owns the address
// can answer to any name, so only the binding of address and name protects.
func addressTactics() []tactic {
	var all []tactic
	add := func(name, source string, axes axes, to func(ctx context.Context, t *Try, s shape) netip.AddrPort) {
		all = append(all, tactic{name: "shows a permitted name " + name, source: source, axes: axes,
			evil: func(ctx context.Context, t *Try, s shape) error { return t.showAt(ctx, s, to(ctx, t, s)) },
			twin: func(ctx context.Context, t *Try, s shape) error {
				return t.showAt(ctx, s, t.target(ctx, s.name, s.v6, 443))
			},
		})
	}
	of := func(name string) func(context.Context, *Try, shape) netip.AddrPort {
		return func(_ context.Context, t *Try, s shape) netip.AddrPort {
			return netip.AddrPortFrom(t.Lab.Zone.addr(name, s.v6), 443)
		}
	}
	add("to the attacker's own server", "sec-poc: SNI spoofing", byFamily|byHello, of("vm."+evilSuffix))
	add("to another permitted name's server", "Cilium toFQDNs and SNI", byFamily|byHello, func(ctx context.Context, t *Try, s shape) netip.AddrPort {
		return t.target(ctx, otherDoor, s.v6, 443)
	})
	add("to a server whose name the node looked up in vain", "DNS refused", byFamily|byHello, func(ctx context.Context, t *Try, s shape) netip.AddrPort {
		_, _ = t.resolve(ctx, t.Token+"."+evilSuffix, s.v6) // refused, and so not learned
		return netip.AddrPortFrom(t.Lab.Zone.addr(t.Token+"."+evilSuffix, s.v6), 443)
	})
	add("to a server whose name another resolver told", "foreign resolvers", byFamily|byHello, func(ctx context.Context, t *Try, s shape) netip.AddrPort {
		_, _ = t.Node.Ask(ctx, "tcp", netip.MustParseAddrPort("8.8.8.8:53"), "vm3."+evilSuffix, addressType(s.v6))
		return netip.AddrPortFrom(t.Lab.Zone.addr("vm3."+evilSuffix, s.v6), 443)
	})
	add("to the attacker's name below a permitted wildcard", "bring your own storage account", byFamily|byHello, func(ctx context.Context, t *Try, s shape) netip.AddrPort {
		return t.target(ctx, t.Token+wildDoor, s.v6, 443)
	})
	for _, addr := range embedded {
		a := netip.MustParseAddr(addr)
		add("to "+addr, "RFC 6890", rotating3, func(context.Context, *Try, shape) netip.AddrPort { return netip.AddrPortFrom(a, 443) })
	}
	for _, addr := range guardedTargets {
		a := netip.MustParseAddr(addr)
		all = append(all, tactic{
			name: "follows a name below a permitted wildcard to " + addr, source: "DNS rebinding; RFC 6890", axes: rotating3,
			evil: func(ctx context.Context, t *Try, s shape) error {
				s.name = leadingTo(a)
				if _, err := t.resolve(ctx, s.name, a.Is6()); err != nil && !errors.Is(err, errNoSuchName) {
					return err
				}
				return t.showAt(ctx, s, netip.AddrPortFrom(a, 443))
			},
			twin: func(ctx context.Context, t *Try, s shape) error {
				s.name = "twin" + wildDoor
				return t.showAt(ctx, s, t.target(ctx, s.name, a.Is6(), 443))
			},
		})
	}
	for part := range 12 {
		all = append(all, tactic{
			name: fmt.Sprintf("connects to what 30 answers of a name with 1,000 addresses say (part %d)", part+1), source: "content networks; FortiGate and Cilium caps",
			axes: byFamily, twin: rotates,
		})
	}
	return all
}

// embedded are IPv6 addresses that hold the attacker's IPv4 one, and addresses that many networks treat as their own.
var embedded = []string{
	"2002:1442:4242::1", "64:ff9b::1442:4242", "2001:0:1442:4242::1", "20.66.66.66", "8.8.8.8", "1.1.1.1", "168.63.129.16", "2606:4700::1111",
}

// guardedTargets are addresses that no name may lead to.
var guardedTargets = []string{
	"169.254.169.254", "168.63.129.16", "100.64.0.1", "172.16.0.1", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1",
	"198.51.100.1", "203.0.113.1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1", "2001:db8::1",
}

// leadingTo is a name below the permitted wildcard that has this very address.
func leadingTo(a netip.Addr) string {
	if a.Is4() {
		return "a-" + strings.ReplaceAll(a.String(), ".", "-") + wildDoor
	}
	return fmt.Sprintf("h-%x", a.As16()) + wildDoor
}

// showAt shows the shape's name to an address.
func (t *Try) showAt(ctx context.Context, s shape, to netip.AddrPort) error {
	h := sni(s.name)
	h.kind = s.kind
	b := h.record()
	return t.write(ctx, to, b, len(b))
}

// rotates resolves a name whose answers hold other addresses each time, and connects to all that it gets.
func rotates(ctx context.Context, t *Try, s shape) error {
	const answers = 30
	seen := map[netip.Addr]bool{}
	for range answers {
		addrs, err := t.Node.Lookup(ctx, manyAddresses, s.v6)
		if err != nil {
			return err
		}
		var g errgroup.Group
		for _, a := range addrs {
			seen[a] = true
			g.Go(func() error {
				h := sni(manyAddresses).record()
				if err := t.write(ctx, netip.AddrPortFrom(a, 443), h, len(h)); err != nil {
					return fmt.Errorf("to %s: %w", a, err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	if len(seen) < 2*answers {
		return fmt.Errorf("%d answers hold %d addresses: they do not rotate", answers, len(seen))
	}
	return nil
}
