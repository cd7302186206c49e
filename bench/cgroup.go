//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A group is a control group whose CPU time is counted, that of the groups below it included. Where the machine counts
// in version 1 (cpuacct) that is used, else version 2.
type group struct {
	dir string
	v1  bool
}

// newGroup makes a group below the one that this process is in.
func newGroup(name string) (*group, error) {
	base, v1, err := ownGroup()
	if err != nil {
		return nil, err
	}
	g := &group{filepath.Join(base, name), v1}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	_, err = g.usage()
	return g, err
}

func (g *group) child(name string) (*group, error) {
	c := &group{filepath.Join(g.dir, name), g.v1}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	return c, nil
}

// add moves a process with all its threads into the group.
func (g *group) add(pid int) error {
	return os.WriteFile(filepath.Join(g.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

// pids are the processes in the group.
func (g *group) pids() (pids []int) {
	b, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// usage is the CPU time that the group has used.
func (g *group) usage() (time.Duration, error) {
	if g.v1 {
		b, err := os.ReadFile(filepath.Join(g.dir, "cpuacct.usage"))
		if err != nil {
			return 0, fmt.Errorf("read a control group: %w", err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return time.Duration(n), err
	}
	b, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("read a control group: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "usage_usec" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, errors.New("read a control group: no usage_usec")
}

// remove removes the group once its processes have left.
func (g *group) remove() {
	entries, _ := os.ReadDir(g.dir)
	for _, e := range entries {
		if e.IsDir() {
			(&group{filepath.Join(g.dir, e.Name()), g.v1}).remove()
		}
	}
	_ = os.Remove(g.dir)
}

// ownGroup finds the directory of the group that this process is in.
func ownGroup() (dir string, v1 bool, err error) {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", false, err
	}
	defer mounts.Close()
	var acct, unified string
	for s := bufio.NewScanner(mounts); s.Scan(); {
		switch f := strings.Fields(s.Text()); {
		case f[2] == "cgroup" && strings.Contains(f[3], "cpuacct"):
			acct = f[1]
		case f[2] == "cgroup2":
			unified = f[1]
		}
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case acct != "" && strings.Contains(f[1], "cpuacct"):
			return filepath.Join(acct, f[2]), true, nil
		case acct == "" && unified != "" && f[1] == "":
			return filepath.Join(unified, f[2]), false, nil
		}
	}
	return "", false, errors.New("no control group counts CPU time here")
}
