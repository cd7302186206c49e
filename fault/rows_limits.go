//go:build linux

package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/lab"
)

// limitRows are what the process can run out of.
func limitRows() []Row {
	return []Row{
		{
			Number: 19, Name: "descriptors", Fault: "no descriptor is left, and 200 clients of the HTTP proxy want one each",
			Expect: "what the kernel and the queue decide goes on; the status is there again afterwards",
			Inject: exhaustDescriptors, Undo: undone, For: 3 * time.Second, Times: 2, Quick: 1, MayFail: true,
			Check: func(ctx context.Context, s *Site) error {
				_, err := s.status(ctx)
				return err
			},
		},
		{
			Number: 21, Name: "disk-full", Fault: "the file system of state and log has no room left",
			Expect: "forwarding goes on; every record is written or counted",
			Disk:   4 << 20, File: func(f string) string { return strings.Replace(f, lab.FlowLogFile, "state/"+lab.FlowLogFile, 1) },
			Inject: fillDisk, Undo: undone, For: 5 * time.Second, Times: 2, Quick: 1, Slowdown: 5,
			Check: countLines,
		},
		{
			Number: 22, Name: "log-stuck", Fault: "the reader of the flow log stops reading for 10 s",
			Expect: "nothing waits for it; what does not fit is counted",
			File:   func(f string) string { return strings.Replace(f, lab.FlowLogFile, sinkFile, 1) },
			Inject: func(_ context.Context, s *Site) error { s.sink.hold(true); return nil },
			Undo:   func(_ context.Context, s *Site) error { s.sink.hold(false); return nil },
			For:    10 * time.Second, Times: 1, Slowdown: 5,
			Check: func(ctx context.Context, s *Site) error {
				st, err := s.status(ctx)
				s.figure("records", "%d written, %d lost and counted", st.Flows.Written, st.Flows.Lost+st.Flows.Unwritten)
				return err
			},
		},
	}
}

// exhaustDescriptors lowers the running process's limit to what it has, and connects to its proxy.
func exhaustDescriptors(ctx context.Context, s *Site) error {
	pid := s.GatewayPID()
	have, err := descriptors(pid)
	if err != nil {
		return err
	}
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		return notHere("the gateway's limits cannot be read: %v", err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(have + 2), Max: old.Max}, nil); err != nil {
		return notHere("the gateway's limits cannot be changed: %v", err)
	}
	s.later(func() error { return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil) })
	const clients = 200
	for range clients {
		c, err := s.Node(1).Dial(ctx, "tcp", netip.AddrPortFrom(s.new.addrs[webName][0], 80))
		if err != nil {
			continue
		}
		s.later(func() error { _ = c.Close(); return nil })
	}
	s.figure("descriptors it may have", "%d", have+2)
	if !until(ctx, time.Second, func() bool { n, err := descriptors(pid); return err == nil && n >= have+2 }) {
		s.notMade("the process has descriptors left")
	}
	return nil
}

// descriptors counts a process's.
func descriptors(pid int) (int, error) {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(all), err
}

// fillDisk writes until there is no room.
func fillDisk(_ context.Context, s *Site) error {
	path := filepath.Join(s.dir, "state", "filler")
	s.later(func() error { return os.Remove(path) })
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return nil
}

// countLines holds what is in the log against what the gateway says that it wrote.
func countLines(ctx context.Context, s *Site) error {
	if err := pause(ctx, 2*time.Second); err != nil { // the records of the last second
		return err
	}
	if err := s.SignalGateway(syscall.SIGHUP); err != nil { // what is in its buffer
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	st, err := s.status(ctx)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "state", lab.FlowLogFile))
	if err != nil {
		return err
	}
	whole, broken := 0, 0
	for line := range bytes.Lines(text) {
		if json.Valid(line) {
			whole++
		} else {
			broken++
		}
	}
	s.figure("records", "%d whole lines in the log; %d written, %d lost and counted by the gateway", whole, st.Flows.Written, st.Flows.Lost+st.Flows.Unwritten)
	if uint64(whole) < st.Flows.Written {
		return fmt.Errorf("the gateway says that it wrote %d lines, and %d are in the log", st.Flows.Written, whole)
	}
	if broken > 2 { // where the room ended, once each time
		return fmt.Errorf("%d lines of the log are broken", broken)
	}
	return nil
}

// sinkFile is a pipe in the place of the flow log.
const sinkFile = "flows.pipe"

// A sink reads the flow log from a pipe, or not.
type sink struct {
	file *os.File
	held atomic.Bool
}

// openSink makes the pipe, where the gateway's file names it.
func (s *Site) openSink() error {
	if !strings.Contains(s.file, sinkFile) {
		return nil
	}
	path := filepath.Join(s.dir, sinkFile)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.sink = &sink{file: f}
	go s.sink.run()
	s.closing = append(s.closing, f.Close)
	return nil
}

// run reads until the pipe is closed.
func (k *sink) run() {
	for buf := make([]byte, 64<<10); ; {
		if k.held.Load() {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		_ = k.file.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // to look whether it is held
		if _, err := k.file.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

func (k *sink) hold(on bool) { k.held.Store(on) }

// shrinkBuffers makes the gateway's netfilter sockets small, as they are where nobody may make them large.
func (s *Site) shrinkBuffers(size int) error {
	pid := s.GatewayPID()
	handle, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return notHere("no handle of the gateway's process: %v", err)
	}
	defer func() { _ = unix.Close(handle) }()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	n := 0
	for _, entry := range all {
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err != nil {
			continue
		}
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || !strings.HasPrefix(to, "socket:") {
			continue
		}
		ours, err := unix.PidfdGetfd(handle, fd, 0)
		if err != nil {
			return notHere("the gateway's sockets cannot be reached: %v", err)
		}
		domain, _ := unix.GetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_DOMAIN)
		protocol, _ := unix.GetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if domain != unix.AF_NETLINK || protocol != unix.NETLINK_NETFILTER {
			_ = unix.Close(ours)
			continue
		}
		was, err := unix.GetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_RCVBUF)
		if err == nil {
			err = unix.SetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
		}
		if err != nil {
			_ = unix.Close(ours)
			return err
		}
		n++
		s.later(func() error {
			defer func() { _ = unix.Close(ours) }()
			if unix.SetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, was/2) == nil { // the kernel doubles what it is told
				return nil
			}
			return unix.SetsockoptInt(ours, unix.SOL_SOCKET, unix.SO_RCVBUF, was/2)
		})
	}
	s.figure("sockets made small", "%d", n)
	if n == 0 {
		return errors.New("the gateway has no netfilter sockets")
	}
	return nil
}
