//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"tidegate.io/tidegate/bench/load"
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
	t := b.results.table("T4", "new connections beside established ones",
		Column{"established", ""}, Column{"CPU a connection", "µs"}, Column{"÷ none", ""}, Column{"memory of the process", "MB"}, Column{"bytes of the process a flow", ""})
	ts := targets(b.policy.hot(hotNames), mainHello)
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
		rounds, err := b.rounds(b.some(3), []*world{w}, b.slice, func(w *world) running { return b.closed(w, ts).Start() })
		if err != nil {
			return err
		}
		cost := each(rounds, func(r round) float64 { return r[w.name].cost() })
		held, memory := float64(h.Established()), w.residentMB()
		if first.Rounds == 0 {
			first, empty = cost, memory
		}
		f, mb, more := figure([]float64{held}), figure([]float64{memory}), Figure{cost.Median / first.Median, cost.Low / first.High, cost.High / first.Low, cost.Rounds}
		var bytes *Figure
		if held > 0 {
			v := figure([]float64{(memory - empty) * 1e6 / held})
			bytes = &v
			b.results.atMost("P8", fmt.Sprintf("CPU a connection beside %.0f established ÷ beside none", held), 1.1, "", more)
			b.results.atMost("P8", fmt.Sprintf("memory of the process a decided flow, with %.0f", held), 0, "bytes", v)
		}
		t.row(fmt.Sprintf("%d asked for", n), &f, &cost, &more, &mb, bytes)
	}
	return nil
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
