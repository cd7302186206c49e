package dnsproxy

import (
	"sync"
	"testing"
)

// TestNoJobWaitsForAnother: more jobs than workers stay are done at once, again and again, and all before the end.
func TestNoJobWaitsForAnother(t *testing.T) {
	w, rounds := newWorkers(), 0
	for range 3 {
		var all, done sync.WaitGroup
		all.Add(3 * maxIdle)
		for range 3 * maxIdle {
			done.Add(1)
			w.do(func() {
				all.Done()
				all.Wait()
				done.Done()
			})
		}
		done.Wait()
		rounds++
	}
	w.do(func() { rounds++ })
	w.end()
	if rounds != 4 || len(w.idle) > 0 {
		t.Errorf("%d rounds, %d workers are left", rounds, len(w.idle))
	}
}
