//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A round holds, for each mode, the sum of its two slices: one on the way out, one on the way back (plain, X, Y, Y, X,
// plain), so that whatever drifts meets all alike.
type round map[string]slice

// rounds measures every world in turn, n times. Rounds in which others used more of the machine than may be are repeated, as
// many as n; where that was not enough, the quietest are kept, and it is told how loud they were.
func (b *bench) rounds(n int, worlds []*world, d time.Duration, start func(*world) running) ([]round, error) {
	return b.roundsOf(n, worlds, d, connectionsDone, start)
}

// A unit is what a load is counted in.
type unit int

const (
	connectionsDone unit = iota
	megabytes
)

// roundsOf is rounds for a load that is counted in something else.
func (b *bench) roundsOf(n int, worlds []*world, d time.Duration, u unit, start func(*world) running) ([]round, error) {
	var all []round
	for quiet := 0; quiet < n && len(all) < 2*n; {
		r, err := b.round(worlds, d, u, start)
		if failed := new(peerError); errors.As(err, failed) && len(worlds) > 1 {
			b.say("%s: %s: left out: %v", b.test, failed.mode, err)
			b.results.Missing = append(b.results.Missing, fmt.Sprintf("%s in %s: %v", failed.mode, b.test, err))
			worlds = slices.DeleteFunc(slices.Clone(worlds), func(w *world) bool { return w.name == failed.mode })
			for _, r := range all {
				delete(r, failed.mode)
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, r)
		b.progress(len(all), n, worlds, u, r)
		if b.foreign >= 1 || r.foreign() <= b.foreign {
			quiet++
		}
	}
	kept := quietest(all, n)
	b.discarded += len(all) - len(kept)
	for _, r := range kept {
		b.results.heard(b.test, r.foreign())
	}
	return kept, nil
}

// quietest are the n rounds in which others used least of the machine, in the order in which they were measured.
func quietest(all []round, n int) []round {
	order := slices.Clone(all)
	slices.SortStableFunc(order, func(x, y round) int { return cmp.Compare(x.foreign(), y.foreign()) })
	limit := order[min(n, len(order))-1].foreign()
	kept := slices.DeleteFunc(all, func(r round) bool { return r.foreign() > limit })
	return kept[:min(n, len(kept))]
}

// foreign is the share of the machine that others used in the loudest slice.
func (r round) foreign() (most float64) {
	for _, s := range r {
		most = max(most, s.foreign)
	}
	return most
}

func (b *bench) round(worlds []*world, d time.Duration, u unit, start func(*world) running) (round, error) {
	r := round{}
	order := append(slices.Clone(worlds), worlds...)
	slices.Reverse(order[len(worlds):])
	for _, w := range order {
		s, err := b.measure(w, d, u, func() running { return start(w) })
		if errors.Is(err, errNothing) && !ours(w.name) {
			return nil, peerError{w.name, err}
		}
		if err != nil {
			return nil, err
		}
		r[w.name] = r[w.name].plus(s)
	}
	return r, nil
}

// A peerError is a peer that lets nothing through; the others are measured without it.
type peerError struct {
	mode string
	error
}

func (s slice) plus(o slice) slice {
	if s.count != nil {
		o.count.Merge(s.count)
	}
	return slice{
		done: s.done + o.done, bytes: s.bytes + o.bytes, cpu: s.cpu + o.cpu, gateway: s.gateway + o.gateway, wall: s.wall + o.wall,
		foreign: max(s.foreign, o.foreign), softirq: max(s.softirq, o.softirq), count: o.count,
	}
}

// some is how many rounds a measurement gets that is one of part like it; all of them where the whole matrix is wanted.
func (b *bench) some(part int) int {
	switch {
	case b.full:
		return b.options.rounds
	case b.quick:
		return max(1, b.options.rounds/part)
	}
	return max(3, b.options.rounds/part)
}

// long is how long a load is measured that is slow or disturbed on purpose.
func (b *bench) long() time.Duration {
	if b.quick {
		return b.slice
	}
	return max(b.slice, time.Second)
}

// progress tells how a round went.
func (b *bench) progress(i, n int, worlds []*world, u unit, r round) {
	line := fmt.Sprintf("%s: round %d for %d:", b.test, i, n)
	for _, w := range worlds {
		line += fmt.Sprintf(" %s %.1f", w.name, r[w.name].costOf(u))
	}
	b.say("%s (CPU µs each; others used %.0f %% of the machine)", line, 100*r.foreign())
}

// each returns a value of every round.
func each(rounds []round, value func(round) float64) Figure {
	var vs []float64
	for _, r := range rounds {
		vs = append(vs, value(r))
	}
	return figure(vs)
}
