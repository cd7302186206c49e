//go:build linux

package fault

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// capMemory puts the gateway's process into a memory group with a limit, and returns what it used at most.
func (s *Site) capMemory(limit int64) (peak func() int64, err error) {
	dir, limitFile, err := memoryGroup()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, notHere("no memory group can be made: %v", err)
	}
	pid := s.GatewayPID()
	s.later(func() error {
		_ = os.WriteFile(filepath.Join(filepath.Dir(dir), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) // unless it is dead
		time.Sleep(50 * time.Millisecond)
		return os.Remove(dir)
	})
	if err := os.WriteFile(filepath.Join(dir, limitFile), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
		return nil, notHere("the memory group takes no limit: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return nil, notHere("the memory group takes no process: %v", err)
	}
	var most atomic.Int64
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			most.Store(max(most.Load(), resident(pid)))
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	s.later(func() error { close(stop); <-done; return nil })
	return most.Load, nil
}

// memoryGroup is where a group below this process's own would be, and the name of its limit: there are two versions of
// control groups.
func memoryGroup() (dir, limit string, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", "", notHere("control groups cannot be read: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		root, limit := "/sys/fs/cgroup", "memory.max"
		if part[1] == "memory" {
			root, limit = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if part[1] != "" {
			continue
		}
		own := filepath.Join(root, part[2])
		if _, err := os.Stat(filepath.Join(own, "cgroup.procs")); err != nil {
			continue
		}
		if limit == "memory.max" {
			enabled, err := os.ReadFile(filepath.Join(own, "cgroup.subtree_control"))
			if err != nil || !strings.Contains(string(enabled), "memory") {
				continue
			}
		}
		return filepath.Join(own, "tidegate-fault-"+strconv.Itoa(os.Getpid())+"-"+strconv.FormatInt(time.Now().UnixNano(), 36)), limit, nil
	}
	return "", "", notHere("there is no control group whose memory can be limited")
}

// resident is the memory of a process, in bytes; 0 if it is not there.
func resident(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
