//go:build linux

package main

import (
	"fmt"
	"os"
)

// autogroup holds the scheduler's group of this session, where it makes groups of sessions (sched(7)).
const autogroup = "/proc/self/autogroup"

// first puts this session before all others until last is called. Where each session has its own share of the processors, a
// priority counts within its session alone: a compiler at nice 19 in another may take as much as all of the bench. Where
// there are no such groups it does nothing.
func first() (last func()) {
	b, err := os.ReadFile(autogroup)
	if err != nil {
		return func() {}
	}
	var number, was int
	if _, err := fmt.Sscanf(string(b), "/autogroup-%d nice %d", &number, &was); err != nil {
		return func() {}
	}
	put := func(nice int) { _ = os.WriteFile(autogroup, fmt.Appendln(nil, nice), 0) } // the rounds say what others used
	put(-20)
	return func() { put(was) }
}
