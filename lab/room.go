//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
)

// A room is a thread that lives in a network namespace and a mount namespace of its own, for starting processes there.
// The kernel kills a process that asked for it (PR_SET_PDEATHSIG) when the thread that started it ends, so the thread
// has to stay for as long as the lab.
type room struct {
	work chan func()
	done chan struct{} // closed when the thread has ended
}

// newRoom opens a room in ns in which the files that are keys of instead have the contents of the files they lead to.
// A key that does not exist is left out.
func newRoom(ns *netns.NS, instead map[string]string) (*room, error) {
	r := &room{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		defer close(r.done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := enter(ns, instead)
		ready <- err
		if err != nil {
			return
		}
		for f := range r.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return r, nil
}

func enter(ns *netns.NS, instead map[string]string) error {
	if err := unix.Setns(int(ns.File().Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	if len(instead) == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	for file, with := range instead {
		file, err := filepath.EvalSymlinks(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = unix.Mount(with, file, "", unix.MS_BIND, "")
		}
		if err != nil {
			return fmt.Errorf("mount over %s: %w", file, err)
		}
	}
	return nil
}

// start starts cmd in the room. It dies with the lab, and in a session of its own it is out of reach of a terminal's
// signals: whoever starts it passes them on.
func (r *room) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setsid = true
	err := errors.New("the lab is closed")
	done := make(chan struct{})
	select {
	case r.work <- func() { err = cmd.Start(); close(done) }:
		<-done
	case <-r.done:
	}
	return err
}

// close ends the thread, and with it every process that it started.
func (r *room) close() {
	close(r.work)
	<-r.done
}
