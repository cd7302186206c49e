//go:build linux

package main

import (
	"fmt"
	"time"

	"tidegate.io/tidegate/bench/load"
)

// latency is T3: how long a client waits for the first byte, with one connection at a time and at shares of what the mode
// can do itself.
func (b *bench) latency() error {
	peers := []string{"plain", "snat", "tidegate", "haproxy", "squid"}
	if b.quick {
		peers = peers[:4]
	}
	worlds := b.use(peers...)
	ts := targets(b.policy.hot(hotNames), mainHello)
	n := b.some(5)
	most, err := b.rounds(1, worlds, b.slice, func(w *world) running { return b.closed(w, ts).Start() })
	if err != nil {
		return err
	}
	t := b.results.table("T3", "time from the moment a connection is due to the first byte of the answer",
		Column{"p50", "µs"}, Column{"p99", "µs"}, Column{"p99.9", "µs"}, Column{"longest", "µs"}, Column{"connections a second", ""})
	one, err := b.rounds(n, worlds, b.slice, func(w *world) running {
		l := b.closed(w, ts)
		l.InFlight, l.Threads = 1, 1
		return l.Start()
	})
	if err != nil {
		return err
	}
	latencyRows(t, worlds, one, "one at a time")
	b.latencyGoals(one)
	for _, share := range b.shares() {
		some, err := b.rounds(n, worlds, b.slice, func(w *world) running { return b.open(w, ts, share*most[0][w.name].rate()).Start() })
		if err != nil {
			return err
		}
		latencyRows(t, worlds, some, fmt.Sprintf("at %.0f %% of its most", 100*share))
		if f := quantileRatio(some, "tidegate", "plain", 0.99); share == 0.5 && f != nil {
			b.results.atMost("P3", "p99 of the first byte at half of its most ÷ that of plain forwarding", 2, "", *f)
		}
	}
	return nil
}

func (b *bench) shares() []float64 {
	if b.quick {
		return []float64{0.5}
	}
	return []float64{0.25, 0.5, 0.75}
}

// open is a load of connections that are due at a rate.
func (b *bench) open(w *world, ts []load.Target, rate float64) load.TCP {
	l := b.closed(w, ts)
	l.Rate, l.InFlight = rate, 2048
	return l
}

func quantile(mode string, q float64) func(round) float64 {
	return func(r round) float64 {
		if r[mode].count == nil {
			return 0
		}
		return float64(r[mode].count.FirstByte.Quantile(q)) / float64(time.Microsecond)
	}
}

func quantileRatio(rounds []round, mode, base string, q float64) *Figure {
	return ratio(rounds, mode, base, func(m string) func(round) float64 { return quantile(m, q) })
}

func latencyRows(t *Table, worlds []*world, rounds []round, how string) {
	for _, w := range worlds {
		var fs []*Figure
		for _, q := range []float64{0.5, 0.99, 0.999, 1} {
			f := each(rounds, quantile(w.name, q))
			fs = append(fs, &f)
		}
		rate := each(rounds, func(r round) float64 { return r[w.name].rate() })
		t.row(w.title+", "+how, append(fs, &rate)...)
	}
}

func (b *bench) latencyGoals(one []round) {
	if !has(one, "tidegate") || !has(one, "plain") {
		return
	}
	added := func(mode string) func(round) float64 {
		return func(r round) float64 { return quantile(mode, 0.5)(r) - quantile("plain", 0.5)(r) }
	}
	b.results.atMost("P3", "time to the first byte that is added to plain forwarding, one at a time, p50", 50, "µs", each(one, added("tidegate")))
	if has(one, "haproxy") {
		b.results.atMost("P3", "the same ÷ what HAProxy adds", 0.5, "", each(one, func(r round) float64 { return added("tidegate")(r) / added("haproxy")(r) }))
	}
}
