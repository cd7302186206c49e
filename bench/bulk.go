//go:build linux

package main

import (
	"fmt"
)

// endless is more than any slice transfers.
const endless = 1 << 40

// bulk is T2: what a megabyte costs behind the decision.
func (b *bench) bulk() error {
	b.server.Size.Store(endless)
	defer b.server.Size.Store(0)
	for _, flows := range []int{8, 1} {
		modes := []string{"plain", "snat", "tidegate", "haproxy", "nginx", "squid"}
		if flows == 1 || b.quick {
			modes = []string{"snat", "tidegate", "haproxy"}
		}
		if err := b.bulkOf(flows, modes); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) bulkOf(flows int, modes []string) error {
	worlds := b.use(modes...)
	ts := targets(b.policy.hot(hotNames), mainHello)
	rounds, err := b.roundsOf(b.some(2), worlds, b.slice, megabytes, func(w *world) running {
		l := b.closed(w, ts)
		l.Answer, l.Endless, l.InFlight, l.Threads = endless, true, flows, min(flows, l.Threads)
		return l.Start()
	})
	if err != nil {
		return err
	}
	t := b.results.table("T2", fmt.Sprintf("after the decision, %d flows", flows),
		Column{"CPU a megabyte", "µs"}, Column{"÷ SNAT", ""}, Column{"rate ÷ SNAT", ""}, Column{"rate", "Gbit/s"})
	cost := func(mode string) func(round) float64 { return func(r round) float64 { return r[mode].costPerMB() } }
	for _, w := range worlds {
		own := each(rounds, cost(w.name))
		gbits := each(rounds, func(r round) float64 { return float64(r[w.name].bytes) * 8 / 1e9 / r[w.name].wall.Seconds() })
		t.row(w.title, &own, ratio(rounds, w.name, "snat", cost), ratio(rounds, w.name, "snat", func(m string) func(round) float64 {
			return func(r round) float64 { return float64(r[m].bytes) / r[m].wall.Seconds() }
		}), &gbits)
	}
	if f := ratio(rounds, "tidegate", "snat", cost); f != nil {
		b.results.atMost("P4", fmt.Sprintf("CPU a megabyte of %d flows ÷ that of conntrack + SNAT", flows), 1.02, "", *f)
	}
	if f := ratio(rounds, "haproxy", "tidegate", cost); f != nil && flows > 1 {
		b.results.atLeast("P4", "megabytes a CPU second ÷ those of HAProxy with splice", 2, "", *f)
	}
	return nil
}

func (s slice) costOf(u unit) float64 {
	if u == megabytes {
		return s.costPerMB()
	}
	return s.cost()
}

func (s slice) costPerMB() float64 {
	return float64(s.cpu.Nanoseconds()) / 1e3 / (float64(s.bytes) / 1e6)
}

// ratio is a value of one mode divided by that of another, in pairs; nil where one was not measured.
func ratio(rounds []round, mode, base string, value func(string) func(round) float64) *Figure {
	if mode == base || !has(rounds, mode) || !has(rounds, base) {
		return nil
	}
	f := each(rounds, func(r round) float64 { return value(mode)(r) / value(base)(r) })
	return &f
}
