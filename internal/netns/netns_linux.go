// Package netns makes unnamed network namespaces: whole little networks inside
// one process, for the lab and for tests of what only Linux can say.
//
// A namespace lives as long as somebody holds it: an open [NS], a process that
// [NS.Start] put inside, or a socket. Nothing is mounted and nothing has a
// name, so a crash leaves nothing behind. The package works as root, and without
// it in a process that [Rootless] started. It never touches the namespace that
// the process itself is in.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"
)

// NS is a network namespace. Its methods may be called from many goroutines at
// once. Whoever made it closes it.
type NS struct {
	file   *os.File
	handle *netlink.Handle // route netlink inside
}

// New makes an empty namespace with its loopback device up.
func New() (*NS, error) {
	var f *os.File
	err := onOwnThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		f, err = openCurrent()
		return err
	})
	if err != nil {
		return nil, err
	}
	n, err := open(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := errors.Join(n.up("lo"), n.noDAD()); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func open(f *os.File) (*NS, error) {
	h, err := netlink.NewHandleAt(vnetns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink in a namespace: %w", err)
	}
	return &NS{file: f, handle: h}, nil
}

// Close gives the namespace up. The kernel removes it with its devices once no
// process and no socket is left inside.
func (n *NS) Close() error {
	n.handle.Close()
	return n.file.Close()
}

func (n *NS) fd() int { return int(n.file.Fd()) }

// File is the descriptor of the namespace, for a child process to inherit. It
// stays owned by n.
func (n *NS) File() *os.File { return n.file }

// Do runs f on a thread inside the namespace. Sockets that f opens stay inside
// for good, listeners and connections may be used outside Do. Goroutines that f
// starts are not inside: neither is a dialer that starts its own (net.Dialer
// does for names and for two address families; a plain address is dialled by
// its caller).
func (n *NS) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(n.fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// Start starts cmd inside the namespace; everything else is as in [exec.Cmd.Start].
func (n *NS) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Sysctl writes a setting of the namespace, such as
// Sysctl("net/ipv4/ip_forward", "1").
func (n *NS) Sysctl(key, value string) error {
	return n.Do(func() error {
		// /proc/sys/net shows the namespace of the thread that looks.
		if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl: %w", err)
		}
		return nil
	})
}

// noDAD makes the IPv6 addresses of devices usable at once. Without a link-local
// address a router cannot ask for its neighbours, and detection of duplicates
// keeps it from having one for two seconds.
func (n *NS) noDAD() error {
	err := n.Sysctl("net/ipv6/conf/default/accept_dad", "0")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no IPv6
	}
	return errors.Join(err, n.Sysctl("net/ipv6/conf/default/dad_transmits", "0"))
}

// onOwnThread runs f on a goroutine whose thread is its own and comes back to
// where it was. A thread that cannot be brought back ends with its goroutine,
// so that no other code ever runs in the wrong namespace.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		finished := false
		defer func() {
			if !finished { // f has called runtime.Goexit, as t.Fatal does
				done <- errors.New("f did not return")
			}
		}()
		runtime.LockOSThread()
		home, err := openCurrent()
		if err != nil {
			finished = true
			done <- err
			return
		}
		defer home.Close()
		err = f()
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		}
		finished = true
		done <- err
	}()
	return <-done
}

func openCurrent() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the current network namespace: %w", err)
	}
	return f, nil
}
