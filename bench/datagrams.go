//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"runtime"

	"tidegate.io/tidegate/bench/load"
)

// datagrams is T8: UDP that an address rule permits, there and back.
func (b *bench) datagrams() error {
	worlds := b.use("plain", "snat", "tidegate")
	t := b.results.table("T8", "UDP by an address rule, a datagram there and back", Column{"CPU", "µs"}, Column{"÷ SNAT", ""}, Column{"exchanges a second", ""})
	sizes := []int{64, 512, 1400}
	if b.quick {
		sizes = sizes[:1]
	}
	for _, size := range sizes {
		rounds, err := b.rounds(b.some(3), worlds, b.slice, func(w *world) running {
			bufs := make([][]byte, runtime.NumCPU())
			for i := range bufs {
				bufs[i] = make([]byte, size)
			}
			return load.UDP{
				NS: w.client, Sources: clientAddrs(), To: netip.AddrPortFrom(serverAddrs()[0], echoPort),
				Next: func(i int) []byte { return bufs[i] }, Threads: len(bufs), Sockets: workers,
			}.Start()
		})
		if err != nil {
			return err
		}
		cost := func(mode string) func(round) float64 { return func(r round) float64 { return r[mode].cost() } }
		for _, w := range worlds {
			own := each(rounds, cost(w.name))
			rate := each(rounds, func(r round) float64 { return r[w.name].rate() })
			t.row(fmt.Sprintf("%s, %d bytes", w.title, size), &own, ratio(rounds, w.name, "snat", cost), &rate)
		}
		if f := ratio(rounds, "tidegate", "snat", cost); f != nil {
			b.results.atMost("P5", fmt.Sprintf("CPU of a datagram of %d bytes there and back ÷ that of conntrack + SNAT", size), 1.05, "", *f)
		}
	}
	return nil
}
