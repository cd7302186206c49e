//go:build linux

package load

import (
	"math/bits"
	"time"
)

// subBuckets is how finely a power of two is divided: values are known to 1/32.
const (
	subBits    = 5
	subBuckets = 1 << subBits
)

// A Histogram counts durations, to 3 % of each. The zero value is empty. It is not for many goroutines at once.
type Histogram struct {
	counts [64 * subBuckets]uint32
	n      uint64
	max    time.Duration
}

// Add counts d; negative durations count as 0.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// Merge adds what other has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, c := range other.counts {
		h.counts[i] += c
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// Len is how many durations were counted.
func (h *Histogram) Len() uint64 { return h.n }

// Quantile is the duration that the share q of all do not exceed; 0 of an empty histogram, and 1 is the greatest, exactly.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	if q >= 1 {
		return h.max
	}
	rest := uint64(q * float64(h.n))
	for i, c := range h.counts {
		if uint64(c) > rest {
			return time.Duration(middle(i))
		}
		rest -= uint64(c)
	}
	return h.max
}

func bucket(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)*subBuckets + int(v>>shift) - subBuckets
}

func middle(i int) uint64 {
	if i < subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	low := uint64(i%subBuckets+subBuckets) << shift
	return low + (1<<shift)/2
}
