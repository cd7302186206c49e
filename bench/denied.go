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
	calm      = 1000 // connections a second of the others: a tenth of what the machine can do
	synRate   = 10000
	evilRate  = 1000
	scanPorts = 60000
)

// floods keeps a steady load of the others going and looks at it alone, and beside each flood. The generator of a flood
// needs the same two cores, so conntrack + SNAT shows what that alone does.
func (b *bench) floods() error {
	worlds := b.use("snat", "tidegate")
	for _, w := range worlds {
		defer b.drop(w) // its table of connections is full of the flood's, for minutes
	}
	allowed := targets(b.policy.hot(hotNames), mainHello)
	kinds := []struct {
		title string
		begin func(*world) (stop func() int64, err error)
	}{
		{"alone", func(*world) (func() int64, error) { return func() int64 { return 0 }, nil }},
		{fmt.Sprintf("beside %d SYNs a second to one port", synRate), func(w *world) (func() int64, error) { return floodSYN(w, false) }},
		{fmt.Sprintf("beside a scan of %d ports, as fast", scanPorts), func(w *world) (func() int64, error) { return floodSYN(w, true) }},
		{fmt.Sprintf("beside %d connections a second that are refused", evilRate), b.floodDenied},
	}
	t := b.results.table("T9", fmt.Sprintf("%d connections a second of 64 clients, beside one that floods", calm),
		Column{"kept", ""}, Column{"failed of them", "%"}, Column{"p50", "µs"}, Column{"p99", "µs"}, Column{"flood a second", ""})
	var alone []round
	for _, k := range kinds {
		var rates []float64
		for _, w := range worlds {
			w.flooded = k.title != "alone"
		}
		rounds, err := b.rounds(b.some(5), worlds, b.long(), func(w *world) running {
			stop, err := k.begin(w)
			if err != nil {
				b.say("%s: %v", k.title, err)
				stop = func() int64 { return 0 }
			}
			return &beside{b.open(w, allowed, calm).Start(), func(d time.Duration) { rates = append(rates, float64(stop())/d.Seconds()) }, time.Now()}
		})
		for _, w := range worlds {
			w.flooded = false
		}
		if err != nil {
			return err
		}
		if alone == nil {
			alone = rounds
		}
		rate := figure(rates)
		for _, w := range worlds {
			kept := each(rounds, func(r round) float64 { return r[w.name].rate() / calm })
			p50, p99 := each(rounds, quantile(w.name, 0.5)), each(rounds, quantile(w.name, 0.99))
			failed := each(rounds, func(r round) float64 {
				c := r[w.name].count
				return 100 * float64(c.Failed) / float64(max(1, c.Failed+c.Done))
			})
			t.row(w.title+", "+k.title, &kept, &failed, &p50, &p99, &rate)
		}
		if has(rounds, "tidegate") && k.title != "alone" {
			b.results.atLeast("P11", "connections of others that are kept, "+k.title, 0.9, "", each(rounds, func(r round) float64 { return r["tidegate"].rate() / calm }))
			var vs []float64
			for i := range min(len(alone), len(rounds)) {
				vs = append(vs, quantile("tidegate", 0.99)(rounds[i])/quantile("tidegate", 0.99)(alone[i]))
			}
			b.results.atMost("P11", "their p99 ÷ that without a flood, "+k.title, 2, "", figure(vs))
		}
	}
	return nil
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

func (b *bench) floodDenied(w *world) (func() int64, error) {
	l := b.open(w, b.forbidden(), evilRate)
	l.Sources, l.Refused, l.Threads = []netip.Addr{flooder}, true, 1
	r := l.Start()
	return func() int64 { c, _ := r.Stop(); return c.Done + c.Unwanted }, nil
}

// floodSYN sends SYNs from the flooder's ports in turn, to one port or to all.
func floodSYN(w *world, scan bool) (func() int64, error) {
	out, err := rawSocket(w.client)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan int64)
	go func() {
		var n int64
		var buf []byte
		for begin := time.Now(); ctx.Err() == nil; n++ {
			if ahead := time.Duration(n)*time.Second/synRate - time.Since(begin); ahead > 0 {
				time.Sleep(ahead)
			}
			p := wire.Packet{
				Src: netip.AddrPortFrom(flooder, uint16(1024+n%60000)), Dst: netip.AddrPortFrom(serverAddrs()[n%serverCount], 443),
				Proto: wire.TCP, Flags: wire.SYN, Seq: rand.Uint32(), Window: 64000,
			}
			if scan {
				p.Dst = netip.AddrPortFrom(serverAddrs()[0], uint16(n%scanPorts))
			}
			buf = wire.AppendPacket(buf[:0], p)
			_ = unix.Sendto(out, buf, 0, &unix.SockaddrInet4{Addr: p.Dst.Addr().As4()})
		}
		_ = unix.Close(out)
		done <- n
	}()
	return func() int64 { stop(); return <-done }, nil
}

func rawSocket(ns *netns.NS) (fd int, err error) {
	err = ns.Do(func() error {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	return fd, err
}
