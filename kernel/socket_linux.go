package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a netlink socket of the network namespace in which it was opened.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	seq  uint32
	buf  []byte // of answers to requests
}

func openSocket(family int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind netlink socket: %w", err), unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), "netlink")
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink socket: %w", err), f.Close())
	}
	return &socket{file: f, raw: raw}, nil
}

// adoptSocket goes on with a socket that another process has opened. It owns f then.
func adoptSocket(f *os.File) (*socket, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take a netlink socket over: %w", err), f.Close())
	}
	return &socket{file: f, raw: raw}, nil
}

// drain throws away what another process was still to read.
func (s *socket) drain() error {
	buf := make([]byte, 1<<16)
	for {
		err := s.control(func(fd int) error {
			_, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
			return err
		})
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("netlink socket: %w", err)
		}
	}
}

// duplicate is the socket for another process to adopt. What the kernel has bound to it
// stays bound for as long as anybody has it open.
func (s *socket) duplicate() (*os.File, error) {
	var fd int
	err := s.control(func(own int) (err error) {
		fd, err = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("duplicate a netlink socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

func (s *socket) close() error { return s.file.Close() }

// interrupt ends the receive that runs, or the next.
func (s *socket) interrupt() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) }

// control runs f on the descriptor.
func (s *socket) control(f func(fd int) error) error {
	var err error
	if e := s.raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// noENOBUFS keeps the socket usable after a loss; what was lost is counted elsewhere.
func (s *socket) noENOBUFS() error {
	err := s.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1) })
	if err != nil {
		return fmt.Errorf("netlink socket: no ENOBUFS: %w", err)
	}
	return nil
}

// receiveBuffer asks for size bytes, beyond the system's limit where the process
// may (not in a user namespace).
func (s *socket) receiveBuffer(size int) { s.buffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, size) }

// sendBuffer is receiveBuffer for what is sent: one message at most.
func (s *socket) sendBuffer(size int) { s.buffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, size) }

func (s *socket) buffer(force, ask, size int) {
	_ = s.control(func(fd int) error {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) == nil {
			return nil
		}
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, ask, size)
	})
}

// send sends messages in one datagram.
func (s *socket) send(b []byte) error {
	return s.control(func(fd int) error {
		return unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	})
}

// sendNow is send without telling Go's scheduler. The kernel forwards the packets of the
// verdicts before it returns, which takes some 10 µs each: an ordinary system call of that
// length loses its processor to another thread, and keeps the scheduler's monitor awake.
// A batch is short enough to be waited for.
func (s *socket) sendNow(b []byte) error {
	return s.control(func(fd int) error {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
}

// receive reads one datagram, waiting until the deadline set before.
func (s *socket) receive(buf []byte) (n int, err error) {
	e := s.raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), buf, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	if e != nil {
		return 0, e
	}
	return n, err
}

// answerTimeout is how long the kernel may take for an answer, which it gives
// while the request is sent.
const answerTimeout = 10 * time.Second

// request sends one message or a batch, and waits for the answer to the last
// message that asks for one (NLM_F_ACK). The error is that of the first message
// that the kernel refused.
func (s *socket) request(b []byte) error {
	last := s.number(b)
	if err := s.send(b); err != nil {
		return err
	}
	if err := s.file.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	var first error
	if s.buf == nil {
		s.buf = make([]byte, 1<<16)
	}
	for {
		n, err := s.receive(s.buf)
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		for h, body := range headers(s.buf[:n]) {
			if h.Type != unix.NLMSG_ERROR || h.Seq < last.first || len(body) < 4 {
				continue
			}
			if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 && first == nil {
				first = &requestError{syscall.Errno(errno), int(h.Seq - last.first)}
			}
			if h.Seq == last.last {
				return first
			}
		}
	}
}

// requestError is the kernel's refusal of one message of a batch.
type requestError struct {
	errno syscall.Errno
	index int // of the message
}

func (e *requestError) Error() string { return e.errno.Error() }
func (e *requestError) Unwrap() error { return e.errno }

type sequence struct{ first, last uint32 }

// number gives each message in b its sequence number, and returns that of the
// first and that of the last which asks for an answer.
func (s *socket) number(b []byte) sequence {
	n := sequence{first: s.seq + 1}
	for len(b) >= headerLen {
		s.seq++
		binary.NativeEndian.PutUint32(b[8:], s.seq)
		if binary.NativeEndian.Uint16(b[6:])&unix.NLM_F_ACK != 0 {
			n.last = s.seq
		}
		b = b[align(int(binary.NativeEndian.Uint32(b))):]
	}
	return n
}

// dump sends a request for a list and calls each with the body of every answer.
func (s *socket) dump(b []byte, each func(typ uint16, body []byte) error) error {
	seq := s.number(b)
	if err := s.send(b); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	var failed error
	for {
		if err := s.file.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		n, err := s.receive(buf)
		if err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		for h, body := range headers(buf[:n]) {
			if h.Seq != seq.first {
				continue
			}
			switch h.Type {
			case unix.NLMSG_DONE:
				return failed
			case unix.NLMSG_ERROR:
				if len(body) >= 4 {
					return syscall.Errno(-int32(binary.NativeEndian.Uint32(body)))
				}
			default:
				if failed == nil {
					failed = each(h.Type, body)
				}
			}
		}
	}
}

// datagrams receives several datagrams in one system call.
type datagrams struct {
	headers []mmsghdr
	vectors []unix.Iovec
	bufs    [][]byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func newDatagrams(count, size int) *datagrams {
	d := &datagrams{make([]mmsghdr, count), make([]unix.Iovec, count), make([][]byte, count)}
	all := make([]byte, count*size)
	for i := range count {
		d.bufs[i] = all[i*size : (i+1)*size]
		d.vectors[i].Base = &d.bufs[i][0]
		d.vectors[i].SetLen(size)
		d.headers[i].hdr.Iov = &d.vectors[i]
		d.headers[i].hdr.SetIovlen(1)
	}
	return d
}

// receiveMany fills d with what is there, waiting for the first until the
// deadline, and returns how many datagrams it got.
func (s *socket) receiveMany(d *datagrams) (n int, err error) {
	e := s.raw.Read(func(fd uintptr) bool {
		r, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&d.headers[0])),
			uintptr(len(d.headers)), unix.MSG_DONTWAIT, 0, 0)
		n, err = int(r), nil
		if errno != 0 {
			n, err = 0, errno
		}
		return errno != unix.EAGAIN
	})
	if e != nil {
		return 0, e
	}
	return n, err
}

// datagram returns what the last receiveMany put into the i-th place.
func (d *datagrams) datagram(i int) []byte { return d.bufs[i][:d.headers[i].len] }
