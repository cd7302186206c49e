//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"tidegate.io/tidegate/bench/load"
)

// A slice is one mode's part of a round.
type slice struct {
	done    int64         // connections, or what else the load counts
	bytes   int64         // that the client received
	cpu     time.Duration // of everything together
	gateway time.Duration // of the mode's own processes
	wall    time.Duration
	foreign float64 // share of the machine that others used
	softirq float64 // share that the kernel's threads used, which is nobody's
	count   *load.Count
}

func (s slice) cost() float64 { return float64(s.cpu.Nanoseconds()) / 1e3 / float64(s.done) } // microseconds
func (s slice) rate() float64 { return float64(s.done) / s.wall.Seconds() }

// running is what is measured: a load of any kind.
type running interface {
	Done() int64
	Bytes() int64
	Stop() (*load.Count, error)
}

var errNothing = errors.New("nothing passed")

// settle is how long a load runs before it is measured.
const settle = 150 * time.Millisecond

// measure lets a load run in a world for d, and looks at what must be zero afterwards.
func (b *bench) measure(w *world, d time.Duration, u unit, start func() running) (s slice, err error) {
	before := w.zeros()
	l := start()
	time.Sleep(settle)
	usage := w.usage()
	done, bytes := l.Done(), l.Bytes()
	from, err := b.read()
	if err == nil {
		time.Sleep(d)
		// What is too slow for so short a time is measured for longer.
		for end := time.Now().Add(3 * time.Second); passed(l, u, done, bytes) == 0 && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
		var to reading
		to, err = b.read()
		s.done, s.bytes = l.Done()-done, l.Bytes()-bytes
		s.gateway = w.usage() - usage
		s.cpu, s.wall = to.own-from.own, to.at.Sub(from.at)
		s.foreign, s.softirq = foreign(from, to), float64(to.softirq-from.softirq)/float64(max(1, to.own-from.own))
	}
	count, stopErr := l.Stop()
	s.count = count
	if err := errors.Join(err, stopErr); err != nil {
		return s, fmt.Errorf("%s: %w", w.name, err)
	}
	b.check(w, count, before)
	if passed(l, u, done, bytes) == 0 {
		return s, fmt.Errorf("%s: %w: %s", w.name, errNothing, count)
	}
	return s, nil
}

func passed(l running, u unit, done, bytes int64) int64 {
	if u == megabytes {
		return l.Bytes() - bytes
	}
	return l.Done() - done
}

func (w *world) usage() (sum time.Duration) {
	for _, p := range w.procs {
		u, _ := p.group.usage()
		sum += u
	}
	return sum
}
