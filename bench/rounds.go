//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A round holds, for each mode, the sum of its two slices: one on the way out, one on the way back (plain, X, Y, Y, X,
// plain), so that whatever drifts meets all alike.
type round map[string]slice

// rounds measures every world in turn, n times, and returns the rounds in which others used no more of the machine than
// may be. It is an error that more than a third had to be discarded.
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
func (b *bench) roundsOf(n int, worlds []*world, d time.Duration, u unit, start func(*world) running) (kept []round, err error) {
	discarded := 0
	for i := range n {
		r, worst, err := b.round(worlds, d, u, start)
		if failed := new(peerError); errors.As(err, failed) && len(worlds) > 1 {
			b.say("%s: %s: left out: %v", b.test, failed.mode, err)
			b.results.Missing = append(b.results.Missing, fmt.Sprintf("%s in %s: %v", failed.mode, b.test, err))
			worlds = slices.DeleteFunc(slices.Clone(worlds), func(w *world) bool { return w.name == failed.mode })
			for _, r := range kept {
				delete(r, failed.mode)
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		if b.foreign < 1 && worst > b.foreign {
			discarded++
			b.say("%s: round %d of %d: others used %.0f %% of the machine: discarded", b.test, i+1, n, 100*worst)
			continue
		}
		b.worstForeign = max(b.worstForeign, worst)
		kept = append(kept, r)
		b.progress(i+1, n, worlds, u, r)
	}
	b.discarded += discarded
	if 3*discarded > n {
		return kept, fmt.Errorf("%d of %d rounds were discarded, because others used the machine: %w", discarded, n, errNoResult)
	}
	return kept, nil
}

func (b *bench) round(worlds []*world, d time.Duration, u unit, start func(*world) running) (r round, worst float64, err error) {
	r = round{}
	order := append(slices.Clone(worlds), worlds...)
	slices.Reverse(order[len(worlds):])
	for _, w := range order {
		s, err := b.measure(w, d, u, func() running { return start(w) })
		if errors.Is(err, errNothing) && !ours(w.name) {
			return nil, 0, peerError{w.name, err}
		}
		if err != nil {
			return nil, 0, err
		}
		worst = max(worst, s.foreign)
		r[w.name] = r[w.name].plus(s)
	}
	return r, worst, nil
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
	line := fmt.Sprintf("%s: %d/%d:", b.test, i, n)
	for _, w := range worlds {
		line += fmt.Sprintf(" %s %.1f", w.name, r[w.name].costOf(u))
	}
	b.say("%s (CPU µs each)", line)
}

// each returns a value of every round.
func each(rounds []round, value func(round) float64) Figure {
	var vs []float64
	for _, r := range rounds {
		vs = append(vs, value(r))
	}
	return figure(vs)
}
