//go:build linux

package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// address is a socket address in the form that the kernel reads, so that nothing is allocated to use it.
type address struct {
	raw [unix.SizeofSockaddrInet6]byte
	len uintptr
	v6  bool
}

func newAddress(a netip.AddrPort) (out address) {
	if a.Addr().Is4() {
		binary.NativeEndian.PutUint16(out.raw[:], unix.AF_INET)
		binary.BigEndian.PutUint16(out.raw[2:], a.Port())
		copy(out.raw[4:], a.Addr().AsSlice())
		out.len = unix.SizeofSockaddrInet4
		return out
	}
	binary.NativeEndian.PutUint16(out.raw[:], unix.AF_INET6)
	binary.BigEndian.PutUint16(out.raw[2:], a.Port())
	copy(out.raw[8:], a.Addr().AsSlice())
	out.len, out.v6 = unix.SizeofSockaddrInet6, true
	return out
}

func (a *address) family() int {
	if a.v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func call(trap uintptr, a, b, c uintptr) (int, error) {
	n, _, errno := unix.RawSyscall(trap, a, b, c)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func bind(fd int, a *address) error {
	_, err := call(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), a.len)
	return err
}

func connect(fd int, a *address) error {
	_, err := call(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), a.len)
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	return err
}

func accept(fd int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// discard takes what has arrived and drops it in the kernel: reading costs a client as little as it can. It works on TCP
// alone.
func discard(fd, n int) (int, error) {
	r, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, uintptr(n), unix.MSG_TRUNC|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

func write(fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	return call(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
}

func read(fd int, b []byte) (int, error) {
	return call(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
}

func closeFD(fd int) { _, _ = call(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func again(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) }

// poller is an epoll descriptor that says for each event which slot it is about.
type poller struct {
	fd     int
	events [256]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll descriptor: %w", err)
	}
	return &poller{fd: fd}, nil
}

func (p *poller) close() { closeFD(p.fd) }

func (p *poller) control(op, fd int, events uint32, slot int32) error {
	e := unix.EpollEvent{Events: events, Fd: slot}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (p *poller) add(fd int, events uint32, slot int32) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, events, slot)
}

// wait waits for events, at most for d, to the nanosecond.
func (p *poller) wait(d time.Duration) ([]unix.EpollEvent, error) {
	ts := unix.NsecToTimespec(int64(max(d, 0)))
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	runtime.KeepAlive(p)
	if errno == unix.EINTR {
		return nil, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("wait for events: %w", errno)
	}
	return p.events[:n], nil
}
