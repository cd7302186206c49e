//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// reloadEvery is the pause between reloads; they come one after the other.
const reloadEvery = 25 * time.Millisecond

// reloads is T11: the policy is loaded anew all the time while connections are opened.
func (b *bench) reloads() error {
	worlds := b.use("tidegate")
	if len(worlds) == 0 {
		return nil
	}
	w := worlds[0]
	ts := targets(b.policy.hot(hotNames), mainHello)
	t := b.results.table("T11", fmt.Sprintf("%d connections a second while the policy of 5,000 names is loaded anew", calm),
		Column{"p50", "µs"}, Column{"p99", "µs"}, Column{"longest", "µs"}, Column{"failed", ""}, Column{"reloads a second", ""})
	for _, reloading := range []bool{false, true} {
		var swaps, failed []float64
		rounds, err := b.rounds(b.some(3), worlds, b.long(), func(w *world) running {
			if !reloading {
				return b.open(w, ts, calm).Start()
			}
			stop := w.keepReloading()
			return &beside{b.open(w, ts, calm).Start(), func(d time.Duration) { swaps = append(swaps, float64(stop())/d.Seconds()) }, time.Now()}
		})
		if err != nil {
			return err
		}
		for _, r := range rounds {
			failed = append(failed, float64(r[w.name].count.Failed))
		}
		p50, p99, longest := each(rounds, quantile(w.name, 0.5)), each(rounds, quantile(w.name, 0.99)), each(rounds, quantile(w.name, 1))
		sum, rate := figure(failed), figure(swaps)
		title := "no reloads"
		if reloading {
			title = "reloads, one after the other"
			b.results.atMost("P10", "connections that fail while the policy is loaded anew all the time", 0, "", sum)
		}
		t.row(title, &p50, &p99, &longest, &sum, &rate)
	}
	return nil
}

// keepReloading reloads until stop is called, which returns how often it did.
func (w *world) keepReloading() (stop func() int64) {
	end := make(chan struct{})
	var n int64
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-end:
				return
			case <-time.After(reloadEvery):
			}
			var before, now status
			if w.fetch("/status", &before) != nil || w.procs[0].cmd.Process.Signal(syscall.SIGHUP) != nil {
				return
			}
			for range 400 {
				if w.fetch("/status", &now) == nil && now.Reloads.Applied > before.Reloads.Applied {
					n++
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
	return func() int64 { close(end); wait.Wait(); return n }
}

// changesTake bounds how long changes are looked at; a slow machine sees fewer.
const changesTake = time.Minute

// change is P10: how long it takes from the changed file's signal until a client can do what it could not.
func (b *bench) change() error {
	n, times := 100_000, 20
	switch {
	case b.quick:
		n, times = 10_000, 3
	case b.full:
		times = 100
	}
	base := setting{policy: newPolicy(n), flows: "flows.jsonl"}
	w, err := b.world(tidegateWith("change", fmt.Sprintf("%d names", n), base))
	if err != nil {
		return err
	}
	defer b.drop(w)
	var opened, closed []float64
	began := time.Now()
	for i := range times {
		if !b.full && i >= 3 && time.Since(began) > changesTake {
			break
		}
		name := fmt.Sprintf("changed-%d.example", i)
		with := base
		with.more = fmt.Sprintf("  - id: bench/changed\n    from: [prod]\n    why: measured\n    to: [\"https://%s:443\"]\n", name)
		open, err := w.inForce(with, name, true)
		if err != nil {
			return err
		}
		shut, err := w.inForce(base, name, false)
		if err != nil {
			return err
		}
		opened, closed = append(opened, open.Seconds()*1e3), append(closed, shut.Seconds()*1e3)
		b.say("%s: change %d of %d: %v until permitted, %v until refused", b.test, i+1, times, open.Round(time.Millisecond), shut.Round(time.Millisecond))
	}
	t := b.results.table("P10", fmt.Sprintf("one rule more, and one less, in a file of %d names", n), Column{"in force after, p50", "ms"}, Column{"longest", "ms"})
	for _, row := range []struct {
		title string
		times []float64
	}{{"permitted", opened}, {"refused again", closed}} {
		p50, worst := figure(row.times), figure([]float64{longest(row.times)})
		t.row(row.title, &p50, &worst)
	}
	b.results.atMost("P10", fmt.Sprintf("a change of one rule is in force, longest of %d, %d names", 2*len(opened), n), 100, "ms", figure([]float64{max(longest(opened), longest(closed))}))
	return nil
}

func longest(vs []float64) float64 {
	m := 0.0
	for _, v := range vs {
		m = max(m, v)
	}
	return m
}

// inForce writes the file, tells the gateway, and tries as a client until it is as wanted.
func (w *world) inForce(s setting, name string, want bool) (took time.Duration, err error) {
	if err := w.writeGatewayFile(s); err != nil {
		return 0, err
	}
	err = w.asking(false, func(ask func(string) error) error {
		began := time.Now()
		if err := w.procs[0].cmd.Process.Signal(syscall.SIGHUP); err != nil {
			return err
		}
		for time.Since(began) < 30*time.Second {
			got := false
			if ask(name) == nil { // the address is known to the gateway from then on
				got = w.connects(name)
			}
			if got == want {
				took = time.Since(began)
				return nil
			}
			time.Sleep(time.Millisecond)
		}
		return fmt.Errorf("%s: not as wanted (%v) within 30 s", name, want)
	})
	return took, err
}

// connects reports whether a hello for the name is answered. It is called inside the client's namespace.
func (w *world) connects(name string) bool {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: clientAddrs()[1].AsSlice()}, Timeout: time.Second}
	c, err := d.Dial("tcp", netip.AddrPortFrom(addressOf(name, false), 443).String())
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write(helloOf(name, 0)); err != nil {
		return false
	}
	_, err = io.ReadFull(c, make([]byte, 5))
	return err == nil
}

// records is P13: what the flow log costs, and that a reader who has stopped reading stops nothing.
func (b *bench) records() error {
	kinds := []struct{ name, title, flows string }{
		{"log-off", "no flow log", ""}, {"log-on", "flow log", "flows.jsonl"}, {"log-stalled", "flow log that nobody reads", "flows.pipe"},
	}
	var worlds []*world
	for _, k := range kinds {
		s := b.usual()
		s.flows = k.flows
		m := tidegateWith(k.name, k.title, s)
		if k.flows == "flows.pipe" {
			run := m.setUp
			m.setUp = func(w *world) error { return errors.Join(w.pipe(k.flows), run(w)) }
		}
		w, err := b.world(m)
		if err != nil {
			return err
		}
		defer b.drop(w)
		worlds = append(worlds, w)
	}
	ts := targets(b.policy.hot(hotNames), mainHello)
	stalled := worlds[2]
	stalled.mayLose = true
	rounds, err := b.rounds(b.some(2), worlds, b.slice, func(w *world) running { return b.closed(w, ts).Start() })
	if err != nil {
		return err
	}
	t := b.results.table("P13", "new connections, with and without the flow log", Column{"CPU a connection", "µs"}, Column{"÷ none", ""}, Column{"rate ÷ none", ""})
	cost := func(mode string) func(round) float64 { return func(r round) float64 { return r[mode].cost() } }
	for _, w := range worlds {
		own := each(rounds, cost(w.name))
		t.row(w.title, &own, ratio(rounds, w.name, worlds[0].name, cost), ratioOfRates(rounds, w.name, worlds[0].name))
	}
	var st status
	if err := stalled.fetch("/status", &st); err != nil {
		return err
	}
	t.Note = fmt.Sprintf("Behind the reader that had stopped, %d records were counted as lost and no connection failed.", st.Flows.Lost+st.Flows.Unwritten)
	if f := ratio(rounds, worlds[1].name, worlds[0].name, cost); f != nil {
		b.results.atMost("P13", "CPU a connection with the flow log ÷ without", 1.05, "", *f)
	}
	return nil
}

// pipe makes a named pipe that is held open and never read.
func (w *world) pipe(name string) error {
	path := filepath.Join(w.dir, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	w.closers = append(w.closers, func() { _ = f.Close() })
	return nil
}
