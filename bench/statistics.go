//go:build linux

package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// A Figure is the median of paired values, one of each round, with the interval that 95 of 100 resamplings of the rounds
// leave it in.
type Figure struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Rounds int     `json:"rounds"`
}

const resamplings = 2000

// figure is the Figure of values, without what is not a number; of none it is zero.
func figure(values []float64) Figure {
	values = slices.DeleteFunc(slices.Clone(values), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
	if len(values) == 0 {
		return Figure{}
	}
	r := rand.New(rand.NewPCG(1, 2)) // the same values give the same interval
	medians := make([]float64, resamplings)
	again := make([]float64, len(values))
	for i := range medians {
		for j := range again {
			again[j] = values[r.IntN(len(values))]
		}
		medians[i] = median(again)
	}
	slices.Sort(medians)
	return Figure{median(values), medians[resamplings*25/1000], medians[resamplings*975/1000], len(values)}
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}
