//go:build linux

package main

import (
	"errors"
	"fmt"

	"tidegate.io/tidegate/bench/load"
)

// mainHello is the size of the hello that browsers and new TLS libraries send: with a post-quantum key share.
const mainHello = 1522

// connections is T1: what a new connection costs.
func (b *bench) connections() error {
	n := b.options.rounds
	all := []string{"plain", "snat", "tidegate", "haproxy", "nginx", "sniproxy", "squid"}
	few := []string{"plain", "snat", "tidegate", "haproxy"}
	if err := b.connectionsOf(mainHello, b.use(all...), kind{}, n); err != nil {
		return err
	}
	if b.quick {
		return nil
	}
	for _, size := range []int{277, 517, 4096, 16384} {
		if err := b.connectionsOf(size, b.use(few...), kind{}, b.some(3)); err != nil {
			return err
		}
	}
	if err := b.connectionsOf(mainHello, b.use(few[:3]...), kind{v6: true}, b.some(3)); err != nil {
		return err
	}
	var wire []mode
	for _, m := range modes() {
		wire = append(wire, onTheWire(m))
	}
	worlds := b.useModes(wire, "plain"+wireSuffix, "snat"+wireSuffix, "tidegate"+wireSuffix, "haproxy"+wireSuffix)
	for _, w := range worlds {
		defer b.drop(w)
	}
	return b.connectionsOf(mainHello, worlds, kind{suffix: wireSuffix}, b.some(3))
}

// onTheWire is a mode whose packets are no larger than a wire's: offloads are off at every end, so a long hello is
// more than one packet.
func onTheWire(m mode) mode {
	return mode{m.name + wireSuffix, m.title, func(w *world) error { return errors.Join(w.offloadsOff(), m.setUp(w)) }}
}

const wireSuffix = "-wire"

// A kind of connections: suffix ends the names of their worlds.
type kind struct {
	suffix string
	v6     bool
}

// connectionsOf measures connections whose hello has a size.
func (b *bench) connectionsOf(size int, worlds []*world, k kind, n int) error {
	suffix := k.suffix
	ts := targetsOf(b.policy.hot(hotNames), size, k.v6)
	rounds, err := b.rounds(n, worlds, b.slice, func(w *world) running {
		l := b.closed(w, ts)
		if k.v6 {
			l.Sources = clientAddrs6()
		}
		return l.Start()
	})
	if err != nil {
		return err
	}
	title := fmt.Sprintf("new connections, ClientHello of %d bytes", len(ts[0].Hello))
	if suffix == wireSuffix {
		title += ", packets as on a wire (no segmentation offload)"
	}
	if k.v6 {
		title += ", IPv6"
	}
	t := b.results.table("T1", title,
		Column{"CPU a connection", "µs"}, Column{"added to plain", "µs"}, Column{"added to SNAT", "µs"}, Column{"rate ÷ plain", ""}, Column{"rate ÷ SNAT", ""}, Column{"connections a second", ""})
	for _, w := range worlds {
		cost := each(rounds, func(r round) float64 { return r[w.name].cost() })
		rate := each(rounds, func(r round) float64 { return r[w.name].rate() })
		t.row(w.title, &cost, b.added(rounds, w.name, "plain"+suffix), b.added(rounds, w.name, "snat"+suffix),
			ratioOfRates(rounds, w.name, "plain"+suffix), ratioOfRates(rounds, w.name, "snat"+suffix), &rate)
	}
	if size == mainHello && k == (kind{}) {
		t.Note = fmt.Sprintf("sniproxy tries its names in turn, so it has the %d that are asked for and not all of the policy.", hotNames)
		b.connectionGoals(rounds)
	}
	return nil
}

// has reports whether a mode was measured.
func has(rounds []round, mode string) bool {
	return len(rounds) > 0 && rounds[0][mode].wall > 0
}

// added is what a mode costs more than another, in pairs; nil where one was not measured.
func (b *bench) added(rounds []round, mode, base string) *Figure {
	if mode == base || !has(rounds, mode) || !has(rounds, base) {
		return nil
	}
	f := each(rounds, func(r round) float64 { return r[mode].cost() - r[base].cost() })
	return &f
}

func ratioOfRates(rounds []round, mode, base string) *Figure {
	if mode == base || !has(rounds, mode) || !has(rounds, base) {
		return nil
	}
	f := each(rounds, func(r round) float64 { return r[mode].rate() / r[base].rate() })
	return &f
}

func (b *bench) connectionGoals(rounds []round) {
	goal := func(f *Figure, put func(Figure)) {
		if f != nil {
			put(*f)
		}
	}
	r := &b.results
	goal(b.added(rounds, "tidegate", "plain"), func(f Figure) {
		r.atMost("P1", "CPU that a TLS connection adds to plain forwarding, everything on", 30, "µs", f)
	})
	goal(b.added(rounds, "tidegate", "snat"), func(f Figure) {
		r.atMost("P1", "CPU that a TLS connection adds to conntrack + SNAT", 20, "µs", f)
	})
	for _, p := range []struct {
		mode, title   string
		share, faster float64
	}{{"haproxy", "HAProxy", 0.5, 1.4}, {"squid", "Squid", 0.15, 3}} {
		if !has(rounds, p.mode) || !has(rounds, "tidegate") || !has(rounds, "plain") {
			continue
		}
		r.atMost("P1", "added CPU ÷ that of "+p.title, p.share, "", each(rounds, func(r round) float64 {
			return (r["tidegate"].cost() - r["plain"].cost()) / (r[p.mode].cost() - r["plain"].cost())
		}))
		goal(ratioOfRates(rounds, "tidegate", p.mode), func(f Figure) {
			r.atLeast("P2", "connections a second ÷ those of "+p.title, p.faster, "", f)
		})
	}
	goal(ratioOfRates(rounds, "tidegate", "snat"), func(f Figure) {
		r.atLeast("P2", "connections a second ÷ those of conntrack + SNAT", 0.85, "", f)
	})
}

var _ running = (*load.Running)(nil)
