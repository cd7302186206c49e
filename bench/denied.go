//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/bench/load"
	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/wire"
)

// denied is T9: what a refusal costs, and what one client that floods does to the others.
func (b *bench) denied() error {
	if err := b.denials(); err != nil {
		return err
	}
	return b.floods()
}

// forbidden are hellos to addresses that other names have, for names that no rule has.
func (b *bench) forbidden() []load.Target {
	ts := targets(b.policy.hot(hotNames), mainHello)
	for i := range ts {
		ts[i].Hello = helloOf(fmt.Sprintf("host-%d.elsewhere.example", i), mainHello)
	}
	return ts
}

func (b *bench) denials() error {
	worlds := b.use("plain", "tidegate", "haproxy", "nginx")
	allowed, forbidden := targets(b.policy.hot(hotNames), mainHello), b.forbidden()
	n := b.some(2)
	yes, err := b.rounds(n, worlds, b.slice, func(w *world) running { return b.closed(w, allowed).Start() })
	if err != nil {
		return err
	}
	refusing := worlds
	if len(worlds) > 0 && worlds[0].name == "plain" {
		refusing = worlds[1:]
	}
	no, err := b.rounds(n, refusing, b.slice, func(w *world) running {
		l := b.closed(w, forbidden)
		l.Refused = true
		return l.Start()
	})
	if err != nil {
		return err
	}
	t := b.results.table("T9", "connections that are refused by their name", Column{"CPU a refusal", "µs"}, Column{"÷ an allowed connection", ""}, Column{"refusals a second", ""})
	cost := func(rounds []round, mode string) Figure {
		return each(rounds, func(r round) float64 { return r[mode].cost() })
	}
	for _, w := range refusing {
		own, rate := cost(no, w.name), each(no, func(r round) float64 { return r[w.name].rate() })
		t.row(w.title, &own, acrossRounds(no, yes, w.name, w.name), &rate)
	}
	if f := acrossRounds(no, yes, "tidegate", "tidegate"); f != nil {
		b.results.atMost("P11", "CPU of a refusal ÷ that of an allowed connection", 1, "", *f)
	}
	if f := acrossRounds(no, no, "tidegate", "haproxy"); f != nil {
		b.results.atMost("P11", "CPU of a refusal ÷ that of one by HAProxy", 1, "", *f)
	}
	return nil
}

// acrossRounds divides costs of two series of rounds, one by one.
func acrossRounds(a, c []round, mode, base string) *Figure {
	if !has(a, mode) || !has(c, base) {
		return nil
	}
	var vs []float64
	for i := range min(len(a), len(c)) {
		vs = append(vs, a[i][mode].cost()/c[i][base].cost())
	}
	f := figure(vs)
	return &f
}

// flooder is the one client that does what it should not.
var flooder = netip.MustParseAddr("10.224.0.200")

const (
	calm      = 1000  // connections a second of the others: a tenth of what the machine can do
	floodRate = 10000 // SYNs, or connections, a second of the flooder
	scanPorts = 60000

	// salvo is what a flood begins with, at once: as many as one client may open (freshBurst in the kernel's rules), so that
	// what is measured is a flood that goes on and not its first seconds.
	salvo = 20000

	// backlog is more than what a salvo leaves in the queue takes.
	backlog = time.Second
)

// A flood is what one client does beside the others. It runs from begin until stop, which says how much of it there was.
type flood struct {
	title string
	begin func(*world) (stop func() int64, err error)
}

func (b *bench) allFloods() []flood {
	return []flood{
		{fmt.Sprintf("beside %d SYNs a second to one port", floodRate), floodSYN},
		{fmt.Sprintf("beside a scan of %d ports, as fast", scanPorts), floodScan},
		{fmt.Sprintf("beside %d connections a second that are to be refused", floodRate), b.floodRefused},
	}
}

// floods keeps a steady load of the others going and looks at it alone, and beside each flood. The generator of a flood
// needs the same two cores, so conntrack + SNAT shows what that alone does.
func (b *bench) floods() error {
	worlds := b.use("snat", "tidegate")
	for _, w := range worlds {
		defer b.drop(w) // its table of connections is full of the flood's, for minutes
	}
	t := b.results.table("T9", fmt.Sprintf("%d connections a second of %d clients, beside one that floods", calm, clientCount),
		Column{"kept", ""}, Column{"failed of them", "%"}, Column{"p50", "µs"}, Column{"p99", "µs"}, Column{"flood a second", ""})
	others := targets(b.policy.hot(hotNames), mainHello)
	alone, err := b.rounds(b.some(5), worlds, b.long(), func(w *world) running { return b.open(w, others, calm).Start() })
	if err != nil {
		return err
	}
	floodRows(t, worlds, alone, "alone", nil)
	for _, f := range b.allFloods() {
		rates := map[string][]float64{}
		for _, w := range worlds {
			w.flooded = true
		}
		rounds, err := b.rounds(b.some(5), worlds, b.long(), func(w *world) running {
			stop, err := f.begin(w)
			if err != nil {
				b.say("%s: %v", f.title, err)
				stop = func() int64 { return 0 }
			}
			began := time.Now()
			time.Sleep(backlog)
			return &beside{b.open(w, others, calm).Start(), func(d time.Duration) { rates[w.name] = append(rates[w.name], float64(stop())/d.Seconds()) }, began}
		})
		for _, w := range worlds {
			w.flooded = false
		}
		if err != nil {
			return err
		}
		floodRows(t, worlds, rounds, f.title, rates)
		b.floodGoals(f.title, alone, rounds)
	}
	return nil
}

func floodRows(t *Table, worlds []*world, rounds []round, title string, rates map[string][]float64) {
	for _, w := range worlds {
		rate := figure(rates[w.name])
		kept := each(rounds, func(r round) float64 { return r[w.name].rate() / calm })
		failed := each(rounds, func(r round) float64 {
			c := r[w.name].count
			return 100 * float64(c.Failed) / float64(max(1, c.Failed+c.Done))
		})
		p50, p99 := each(rounds, quantile(w.name, 0.5)), each(rounds, quantile(w.name, 0.99))
		t.row(w.title+", "+title, &kept, &failed, &p50, &p99, &rate)
	}
}

// floodGoals says what the machine does to itself beside what the gateway does.
func (b *bench) floodGoals(title string, alone, flooded []round) {
	if !has(flooded, "tidegate") || !has(alone, "tidegate") {
		return
	}
	b.results.atLeast("P11", "connections of others that are kept, "+title, 0.9, "", each(flooded, func(r round) float64 { return r["tidegate"].rate() / calm }))
	slower := func(mode string) Figure {
		var vs []float64
		for i := range min(len(alone), len(flooded)) {
			vs = append(vs, quantile(mode, 0.99)(flooded[i])/quantile(mode, 0.99)(alone[i]))
		}
		return figure(vs)
	}
	text := "their p99 ÷ that without a flood, " + title
	if has(flooded, "snat") {
		text += fmt.Sprintf("; with conntrack + SNAT it is %s", slower("snat"))
	}
	b.results.atMost("P11", text, 2, "", slower("tidegate"))
}

// beside is a load with a flood beside it, which ends first.
type beside struct {
	running
	stop  func(time.Duration)
	since time.Time
}

func (r *beside) Stop() (*load.Count, error) {
	r.stop(time.Since(r.since))
	return r.running.Stop()
}

// floodRefused opens connections for names that no rule has.
func (b *bench) floodRefused(w *world) (func() int64, error) {
	stop, err := floodSYN(w)
	if err != nil {
		return nil, err
	}
	stop() // behind its salvo
	l := b.open(w, b.forbidden(), floodRate)
	l.Sources, l.Refused, l.Endless, l.Threads = []netip.Addr{flooder}, true, true, 1
	l.InFlight = 8192 // for what is dropped waits a second before it is sent again
	r := l.Start()
	return func() int64 { c, _ := r.Stop(); return c.Done + c.Unwanted }, nil
}

// floodSYN sends SYNs to one port of all servers.
func floodSYN(w *world) (func() int64, error) {
	return sendSYNs(w, func(n int64) netip.AddrPort { return netip.AddrPortFrom(serverAddrs()[n%serverCount], 443) })
}

// floodScan sends SYNs to all ports of one server.
func floodScan(w *world) (func() int64, error) {
	return sendSYNs(w, func(n int64) netip.AddrPort { return netip.AddrPortFrom(serverAddrs()[0], uint16(n%scanPorts)) })
}

// sendSYNs sends SYNs from the flooder's ports in turn, first a salvo, for which it waits, and then floodRate a second. Stop
// returns how many of these there were.
func sendSYNs(w *world, to func(n int64) netip.AddrPort) (stop func() int64, err error) {
	out, err := rawSocket(w.client)
	if err != nil {
		return nil, err
	}
	var buf []byte
	send := func(n int64) {
		p := wire.Packet{
			Src: netip.AddrPortFrom(flooder, uint16(1024+n%60000)), Dst: to(n),
			Proto: wire.TCP, Flags: wire.SYN, Seq: rand.Uint32(), Window: 64000,
		}
		buf = wire.AppendPacket(buf[:0], p)
		_ = unix.Sendto(out, buf, 0, &unix.SockaddrInet4{Addr: p.Dst.Addr().As4()})
	}
	for n := range int64(salvo) {
		send(n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int64)
	go func() {
		var n int64
		for begin := time.Now(); ctx.Err() == nil; n++ {
			if ahead := time.Duration(n)*time.Second/floodRate - time.Since(begin); ahead > 0 {
				time.Sleep(ahead)
			}
			send(salvo + n)
		}
		_ = unix.Close(out)
		done <- n
	}()
	return func() int64 { cancel(); return <-done }, nil
}

func rawSocket(ns *netns.NS) (fd int, err error) {
	err = ns.Do(func() error {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	return fd, err
}
