//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tidegate.io/tidegate/bench/load"
	"tidegate.io/tidegate/lab"
)

// Both ends of the connections that stay: addresses that nobody has.
var (
	holderClients = netip.MustParsePrefix("10.225.0.0/16")
	holderServers = netip.MustParsePrefix("20.51.0.0/16")
)

// heldServers is how many servers they go to, each with a name: behind one address of the gateway a server's port can
// have no more than 64,000.
const heldServers = 16

func heldName(i int) string { return fmt.Sprintf("held-%d.example", i) }

func heldAddr(i int) netip.Addr {
	a := holderServers.Addr().As4()
	a[3] = byte(i + 1)
	return netip.AddrFrom4(a)
}

// openRate is how many connections are begun a second: what the gateway decides beside the bench on two cores.
const openRate = 3000

// established is T4: new connections beside many that are there already, and what those cost in memory.
func (b *bench) established() error {
	s := b.usual()
	var names []string
	hellos := map[netip.Addr][]byte{}
	for i := range heldServers {
		names = append(names, heldName(i))
		hellos[heldAddr(i)] = helloOf(heldName(i), 0)
	}
	s.more = "  - id: bench/held\n    from: [prod]\n    why: measured\n    to: [\"https://" + strings.Join(names, ":443\", \"https://") + ":443\"]\n"
	w, err := b.world(tidegateWith("flows", "Tidegate", s))
	if err != nil {
		return err
	}
	defer b.drop(w)
	if err := w.routeHolders(); err != nil {
		return err
	}
	h := &load.Holders{Client: w.client, Server: w.serve, Device: "eth0", Hello: func(a netip.Addr) []byte { return hellos[a] }, Answer: serverHello()}
	if err := h.Start(holderServers, holderClients); err != nil {
		return err
	}
	defer h.Close()
	if err := w.ask(names); err != nil {
		return err
	}
	return b.measureFlows(w, h)
}

func (b *bench) measureFlows(w *world, h *load.Holders) error {
	limit, _ := readNumber("/proc/sys/net/netfilter/nf_conntrack_max")
	room := int(limit) * 3 / 4 // from there on entries of others would be dropped early
	t := b.results.table("T4", "new connections beside established ones", Column{"established", ""}, Column{"CPU a connection", "µs"}, Column{"÷ none", ""},
		Column{"heap after a collection", "MB"}, Column{"bytes of it a flow", ""}, Column{"memory of the process", "MB"})
	load := func(w *world) running { return b.closed(w, targets(b.policy.hot(hotNames), mainHello)).Start() }
	if err := b.fill(w, load); err != nil {
		return err
	}
	have, first, empty := 0, Figure{}, 0.0
	for _, n := range b.flowCounts() {
		if n > room {
			t.Note = fmt.Sprintf("This kernel tracks at most %d connections, a setting of the whole machine; beyond three quarters of it (%d) nothing was measured.", limit, room)
			n = room
		}
		if n <= have && n > 0 {
			break
		}
		b.say("%s: %d connections are opened", b.test, n-have)
		h.Open(holderPair, have, n-have, openRate)
		have = n
		time.Sleep(time.Second)
		rounds, err := b.rounds(b.some(3), []*world{w}, b.slice, load)
		if err != nil {
			return err
		}
		used := figure([]float64{w.residentMB()})
		m, err := w.memory()
		if err != nil {
			return err
		}
		cost, held := each(rounds, func(r round) float64 { return r[w.name].cost() }), float64(h.Established())
		if first.Rounds == 0 {
			first, empty = cost, m.Heap
		}
		f, heap, more := figure([]float64{held}), figure([]float64{m.Heap / 1e6}), Figure{cost.Median / first.Median, cost.Low / first.High, cost.High / first.Low, cost.Rounds}
		var bytes *Figure
		if held > 0 {
			v := figure([]float64{(m.Heap - empty) / held})
			bytes = &v
			b.results.atMost("P8", fmt.Sprintf("CPU a connection beside %.0f established ÷ beside none", held), 1.1, "", more)
			if n >= enoughFlows {
				b.results.atMost("P8", fmt.Sprintf("heap a decided flow, with %.0f: less than a pointer to it", held), pointer, "bytes", v)
			}
		}
		t.row(fmt.Sprintf("%d asked for", n), &f, &cost, &more, &heap, bytes, &used)
	}
	return nil
}

const (
	pointer = 8 // bytes

	// enoughFlows is how many make a pointer to each more than what two looks at a heap differ by anyway.
	enoughFlows = 100_000
)

// fill lets connections come and go until the process has filled what has a bound, such as what it remembers of those that
// have just ended, so that it does not count as what the flows cost that are opened next.
func (b *bench) fill(w *world, load func(*world) running) error {
	const still = 1.01
	for last := 0.0; ; {
		if _, err := b.measure(w, 2*time.Second, connectionsDone, func() running { return load(w) }); err != nil {
			return err
		}
		m, err := w.memory()
		if err != nil || m.Heap < last*still {
			return err
		}
		last = m.Heap
	}
}

// memory is what the gateway needs; what is free it has given back.
func (w *world) memory() (lab.Memory, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return lab.AskMemory(ctx, filepath.Join(w.dir, "state"))
}

func (b *bench) flowCounts() []int {
	if b.quick {
		return []int{0, 2000}
	}
	return []int{0, 10_000, 100_000, 1_000_000}
}

// holderPair are the ends of a connection: each client has one, as many pods do.
func holderPair(i int) (from, to netip.AddrPort) {
	c := holderClients.Addr().As4()
	c[2], c[3] = byte(i>>8), byte(i)
	return netip.AddrPortFrom(netip.AddrFrom4(c), uint16(20000+i>>16)), netip.AddrPortFrom(heldAddr(i%heldServers), 443)
}

func (w *world) routeHolders() error {
	return w.gateway.Route(holderClients, netip.MustParseAddr("10.100.0.1"))
}

func readNumber(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}
