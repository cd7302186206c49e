//go:build linux

package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"tidegate.io/tidegate/bench/load"
)

// all are the tests, by the names that the method gives them.
func (b *bench) all() []struct {
	name string
	run  func() error
} {
	return []struct {
		name string
		run  func() error
	}{
		{"T1", b.connections},
		{"T2", b.bulk},
		{"T3", b.latency},
		{"T5", b.web},
		{"T7", b.resolve},
		{"T8", b.datagrams},
		{"T9", b.denied},
		{"T10", b.sizes},
		{"T11", b.reloads},
		{"P10", b.change},
		{"P13", b.records},
		{"T4", b.established},
	}
}

// tests runs what was asked for. A test without a result does not keep others from running.
func (b *bench) tests() (err error) {
	for _, t := range b.all() {
		if b.only != "" && !slices.Contains(strings.Split(b.only, ","), t.name) {
			continue
		}
		b.test = t.name
		n, goals := len(b.results.Tables), len(b.results.Goals)
		if e := t.run(); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", t.name, e))
			b.say("%s: %v", t.name, e)
			b.results.Missing = append(b.results.Missing, fmt.Sprintf("the rest of %s: %v", t.name, e))
		}
		for i := range b.results.Goals[goals:] {
			b.results.Goals[goals+i].Test = t.name
		}
		for _, table := range b.results.Tables[n:] {
			b.print(table)
		}
	}
	return err
}

// workers is how many connections a closed load keeps under way.
const workers = 32

// closed is a load of connections that say hello to the hot names, are answered and closed.
func (b *bench) closed(w *world, ts []load.Target) load.TCP {
	return load.TCP{
		NS: w.client, Sources: clientAddrs(), Targets: ts, Answer: int64(len(*b.server.Reply.Load())),
		Threads: runtime.NumCPU(), InFlight: workers,
	}
}
