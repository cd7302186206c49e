package dnsproxy

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A waiter waits for a socket that Go's poller does not watch: there, each datagram that comes while the reader is busy would
// wake it. It watches an epoll instance that holds the socket in its place, and that takes notice of it only while somebody
// waits.
type waiter struct {
	epoll *os.File
	conn  syscall.RawConn // epoll's
	fd    int             // the socket
}

func newWaiter(fd int) (*waiter, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(epoll, true); err != nil { // which has os.NewFile give it to the poller
		return nil, errors.Join(err, unix.Close(epoll))
	}
	w := &waiter{epoll: os.NewFile(uintptr(epoll), "epoll"), fd: fd}
	if w.conn, err = w.epoll.SyscallConn(); err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLET})
	}
	if err != nil {
		return nil, errors.Join(err, w.epoll.Close())
	}
	return w, nil
}

// wait waits until the socket can be read. It is for one goroutine.
func (w *waiter) wait() error {
	var err error
	asked := false
	failed := w.conn.Read(func(epoll uintptr) bool {
		if asked {
			err = errors.Join(w.notice(epoll, 0), forget(epoll))
			return true
		}
		asked = true
		err = w.notice(epoll, unix.EPOLLIN) // of what is there already, too
		return err != nil
	})
	return errors.Join(failed, err)
}

func (w *waiter) notice(epoll uintptr, events uint32) error {
	return unix.EpollCtl(int(epoll), unix.EPOLL_CTL_MOD, w.fd, &unix.EpollEvent{Events: events | unix.EPOLLET})
}

// forget takes the socket from those that the instance has noticed: of one that is there, it would not tell again.
func forget(epoll uintptr) error {
	var event unix.EpollEvent
	const most, timeout = 1, 0
	if _, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&event)), most, timeout, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// interrupt ends this wait and all that follow with an error; any goroutine may.
func (w *waiter) interrupt() { _ = w.epoll.SetReadDeadline(time.Unix(1, 0)) }

// close is called when nobody waits any more.
func (w *waiter) close() { w.epoll.Close() }
