//go:build linux

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"tidegate.io/tidegate/bench/load"
)

// zeros are counters of a world that must not rise while it is measured.
type zeros map[string]int64

// zeros reads what the kernel counts in the gateway's namespace, and what Tidegate counts itself.
func (w *world) zeros() zeros {
	z := zeros{}
	_ = w.gateway.Do(func() error {
		queues, _ := os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
		for line := range strings.Lines(string(queues)) {
			if f := strings.Fields(line); len(f) > 6 {
				z.add("dropped by a queue", f[5])
				z.add("lost before a reader", f[6])
			}
		}
		tracked, _ := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
		names := []string{}
		for i, line := range strings.Split(strings.TrimSpace(string(tracked)), "\n") {
			f := strings.Fields(line)
			if i == 0 {
				names = f
				continue
			}
			for j, name := range names {
				if (name == "drop" || name == "insert_failed" || name == "early_drop") && j < len(f) {
					n, _ := strconv.ParseInt(f[j], 16, 64)
					z["conntrack "+name] += n
				}
			}
		}
		return nil
	})
	if w.gatewayRuns {
		var st status
		if err := w.fetch("/status", &st); err == nil {
			if !w.mayLose {
				z["records lost"], z["records unwritten"] = st.Flows.Lost, st.Flows.Unwritten
			}
			z["resets lost"] = st.ResetsLost
			z["reports lost in the kernel"] = st.Flows.KernelLost
		}
	}
	return z
}

func (z zeros) add(name, value string) {
	n, _ := strconv.ParseInt(value, 10, 64)
	z[name] += n
}

// check compares with before, and notes everything that is not as it must be.
func (b *bench) check(w *world, c *load.Count, before zeros) {
	if w.flooded {
		return
	}
	if c != nil && c.Failed > 0 {
		b.violation(w, c.String())
	}
	after := w.zeros()
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if d := after[name] - before[name]; d > 0 {
			b.violation(w, fmt.Sprintf("%d %s", d, name))
		}
	}
}

// maxTold bounds what is noted of one mode in one test: more says nothing new.
const maxTold = 3

// violation notes what must not have happened. Of a peer it is told; of Tidegate and of the bare kernel it makes the
// run a failure.
func (b *bench) violation(w *world, what string) {
	told := 0
	for _, v := range b.violations {
		if v.Test == b.test && v.Mode == w.name {
			told++
		}
	}
	if told < maxTold {
		b.violations = append(b.violations, Violation{b.test, w.name, what})
	}
	b.say("%s: %s: NOT ZERO: %s", b.test, w.name, what)
}
