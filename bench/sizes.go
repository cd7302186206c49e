//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"tidegate.io/tidegate/bench/load"
)

// sizes is T10: what the number of names costs, and the number of learned addresses.
func (b *bench) sizes() error {
	if err := b.sizesOfNames(); err != nil {
		return err
	}
	return b.sizesOfSets()
}

func (b *bench) sizesOfNames() error {
	counts := []int{100, 10_000, 100_000, 1_000_000}
	if b.quick {
		counts = counts[:2]
	}
	var worlds []*world
	for _, n := range counts {
		b.say("%s: a policy of %d names is loaded", b.test, n)
		w, err := b.world(tidegateWith(fmt.Sprintf("names-%d", n), fmt.Sprintf("%d names", n), setting{policy: newPolicy(n), flows: "flows.jsonl"}))
		if err != nil {
			b.results.Missing = append(b.results.Missing, fmt.Sprintf("%d names: %v", n, err))
			b.say("%d names: %v", n, err)
			continue
		}
		defer b.drop(w)
		worlds = append(worlds, w)
	}
	if len(worlds) == 0 {
		return nil
	}
	rounds, err := b.rounds(b.some(2), worlds, b.slice, func(w *world) running {
		return b.closed(w, targets(newPolicy(counts[indexOf(worlds, w)]).hot(hotNames), mainHello)).Start()
	})
	if err != nil {
		return err
	}
	t := b.results.table("T10", "new connections, by the number of names in the policy",
		Column{"CPU a connection", "µs"}, Column{"÷ the fewest", ""}, Column{"p99", "µs"}, Column{"ready after", "s"}, Column{"memory", "MB"})
	first, last := worlds[0], worlds[len(worlds)-1]
	cost := func(mode string) func(round) float64 { return func(r round) float64 { return r[mode].cost() } }
	for _, w := range worlds {
		own, p99 := each(rounds, cost(w.name)), each(rounds, quantile(w.name, 0.99))
		loaded, memory := figure([]float64{w.loaded.Seconds()}), figure([]float64{w.residentMB()})
		t.row(w.title, &own, ratio(rounds, w.name, first.name, cost), &p99, &loaded, &memory)
	}
	if f := ratio(rounds, last.name, first.name, cost); f != nil {
		b.results.atMost("P6", "CPU a connection with "+last.title+" ÷ with "+first.title, 1.03, "", *f)
		b.results.atMost("P6", "p99 of the first byte, likewise", 1.1, "", *quantileRatio(rounds, last.name, first.name, 0.99))
		n := float64(counts[len(counts)-1])
		b.results.atMost("P6", "ready with "+last.title, 5, "s", figure([]float64{last.loaded.Seconds()}))
		b.results.atMost("P6", "memory a name", 250, "bytes", figure([]float64{(last.residentMB() - first.residentMB()) * 1e6 / n}))
	}
	return nil
}

func indexOf(worlds []*world, w *world) int {
	for i := range worlds {
		if worlds[i] == w {
			return i
		}
	}
	return -1
}

// residentMB is the memory of the gateway's process.
func (w *world) residentMB() float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.procs[0].cmd.Process.Pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1000
		}
	}
	return 0
}

// poolRange is where the names of TCP rules are, one address each.
var poolRange = netip.MustParsePrefix("20.64.0.0/12")

func poolAddr(i int) netip.Addr {
	base := poolRange.Addr().As4()
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(base[:])+uint32(i)+1)))
}

// sizesOfSets lets clients resolve many names of TCP rules, whose addresses go to the kernel's sets before each answer.
func (b *bench) sizesOfSets() error {
	n := 100_000 // what a gateway keeps of one cluster's names, rounded down
	if b.quick {
		n = 1000
	}
	var more strings.Builder
	for i := 0; i < n; i += 500 {
		to := make([]string, 0, 500)
		for j := i; j < min(n, i+500); j++ {
			to = append(to, fmt.Sprintf("\"tcp://pool-%d.example:%d\"", j, poolPort))
		}
		fmt.Fprintf(&more, "  - id: bench/pool-%d\n    from: [prod]\n    why: measured\n    to: [%s]\n", i/500, strings.Join(to, ", "))
	}
	var worlds []*world
	for _, name := range []string{"sets-0", "sets-full"} {
		s := b.usual()
		s.more = more.String()
		title := fmt.Sprintf("none of %d addresses learned", n)
		if name == "sets-full" {
			title = fmt.Sprintf("%d addresses learned", n)
		}
		w, err := b.world(tidegateWith(name, title, s))
		if err != nil {
			return err
		}
		defer b.drop(w)
		worlds = append(worlds, w)
	}
	var took load.Histogram
	if err := worlds[1].learnPool(n, &took); err != nil {
		return err
	}
	ts := targets(b.policy.hot(hotNames), mainHello)
	rounds, err := b.rounds(b.some(2), worlds, b.slice, func(w *world) running { return b.closed(w, ts).Start() })
	if err != nil {
		return err
	}
	t := b.results.table("T10", "new connections, by the learned addresses in the kernel's sets", Column{"CPU a connection", "µs"}, Column{"÷ none", ""})
	cost := func(mode string) func(round) float64 { return func(r round) float64 { return r[mode].cost() } }
	for _, w := range worlds {
		own := each(rounds, cost(w.name))
		t.row(w.title, &own, ratio(rounds, w.name, worlds[0].name, cost))
	}
	micro := func(q float64) Figure {
		return figure([]float64{float64(took.Quantile(q)) / float64(time.Microsecond)})
	}
	t.Note = fmt.Sprintf("An answer whose address had to be put into a set first took %s µs (p50) and %s µs (p99), upstream included.", number(micro(0.5).Median), number(micro(0.99).Median))
	if f := ratio(rounds, worlds[1].name, worlds[0].name, cost); f != nil {
		b.results.atMost("P7", fmt.Sprintf("CPU a connection with %d learned addresses ÷ with none", n), 1.05, "", *f)
	}
	b.results.atMost("P7", "an answer that adds an address, p50, upstream included", 1000, "µs", micro(0.5))
	return nil
}

// learnPool asks for n names of TCP rules and notes how long each answer took.
func (w *world) learnPool(n int, took *load.Histogram) error {
	return w.asking(false, func(ask func(string) error) error {
		for i := range n {
			began := time.Now()
			if err := ask(fmt.Sprintf("pool-%d.example", i)); err != nil {
				return err
			}
			took.Add(time.Since(began))
		}
		return nil
	})
}
