//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/stat.
const tick = 10 * time.Millisecond

// reading is what the machine and this bench have used up to a moment.
type reading struct {
	at      time.Time
	own     time.Duration // CPU time of the bench and all it started
	busy    time.Duration // CPU time of the whole machine
	softirq time.Duration // of that, kernel threads that work for everybody
}

func (b *bench) read() (r reading, err error) {
	r.at = time.Now()
	if r.own, err = b.group.usage(); err != nil {
		return r, err
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return r, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	for i, f := range strings.Fields(line) {
		n, _ := strconv.ParseInt(f, 10, 64)
		if i >= 1 && i <= 8 && i != 4 && i != 5 { // not idle, not waiting for a disk
			r.busy += time.Duration(n) * tick
		}
	}
	for _, pid := range b.softirqs {
		s, err := os.ReadFile("/proc/" + pid + "/schedstat")
		if err != nil {
			return r, err
		}
		n, _ := strconv.ParseInt(strings.Fields(string(s))[0], 10, 64)
		r.softirq += time.Duration(n)
	}
	return r, nil
}

// foreign is the share of the machine that others used between two readings.
func foreign(from, to reading) float64 {
	all := to.at.Sub(from.at) * time.Duration(runtime.NumCPU())
	return max(0, float64(to.busy-from.busy-(to.own-from.own)-(to.softirq-from.softirq))/float64(all))
}

// softirqThreads are the kernel's threads that take over when packets are too many; their time is nobody's.
func softirqThreads() []string {
	var pids []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		if name, err := os.ReadFile("/proc/" + e.Name() + "/comm"); err == nil && strings.HasPrefix(string(name), "ksoftirqd/") {
			pids = append(pids, e.Name())
		}
	}
	return pids
}

// Machine is where figures were taken.
type Machine struct {
	CPU      string `json:"cpu"`
	CPUs     int    `json:"cpus"`
	MemoryMB int    `json:"memoryMB"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
}

func thisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(cpu)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			m.CPU = strings.TrimSpace(v)
			break
		}
	}
	mem, _ := os.ReadFile("/proc/meminfo")
	var kb int
	_, _ = fmt.Sscanf(string(mem), "MemTotal: %d kB", &kb)
	m.MemoryMB = kb / 1024
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(release))
	return m
}
