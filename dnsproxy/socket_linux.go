package dnsproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// nameSpace holds a socket address of either family.
	nameSpace = unix.SizeofSockaddrInet6
	// queryControl holds the control messages of both families.
	queryControl = 128
	// answerControl holds the one that says where an answer comes from.
	answerControl = unix.SizeofCmsghdr + (unix.SizeofInet6Pktinfo+7)&^7
	// sendWait is for how many milliseconds an answer waits for room to be sent.
	sendWait = 100
)

// A socket reads queries and sends answers, many by one system call: the calls are what costs, finding an answer takes a
// tenth of one. Sending does not tell Go's scheduler, because the kernel delivers the datagrams before the call returns: an
// ordinary call of that length loses its processor, and keeps the scheduler's monitor awake. All but sendTo and interrupt are for one goroutine.
type socket struct {
	fd      int // a copy of the connection's
	waiter  *waiter
	stopped atomic.Bool

	queries [batchLen]slot
	in, out [batchLen]mmsghdr
	vectors [2 * batchLen]unix.Iovec

	waiting int // answers to send
}

// slot is what the kernel writes a query to. Its name and its control message serve for the answer as well.
type slot struct {
	name    [nameSpace]byte
	control [queryControl]byte
	data    [maxQuery]byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// openSocket takes the socket of conn, and closes conn. It has the kernel tell with each query where it was sent to: one of
// the families fails, and does not occur on the socket.
func openSocket(conn *net.UDPConn) (*socket, error) {
	defer func() { _ = conn.Close() }() // which takes it from the poller
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{}
	failed := raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(failed, err); err != nil {
		return nil, fmt.Errorf("copy a descriptor: %w", err)
	}
	if s.waiter, err = newWaiter(s.fd); err != nil {
		return nil, errors.Join(fmt.Errorf("open an epoll instance: %w", err), unix.Close(s.fd))
	}
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	for i := range batchLen {
		q, in, out := &s.queries[i], &s.in[i].hdr, &s.out[i].hdr
		s.vectors[i].Base = &q.data[0]
		s.vectors[i].SetLen(maxQuery)
		in.Name, in.Control = &q.name[0], &q.control[0]
		in.Iov, out.Iov = &s.vectors[i], &s.vectors[batchLen+i]
		in.SetIovlen(1)
		out.SetIovlen(1)
	}
	return s, nil
}

// close gives the socket up, when nobody uses it any more.
func (s *socket) close() {
	s.waiter.close()
	_ = unix.Close(s.fd)
}

// interrupt ends the reading; answers can still be sent.
func (s *socket) interrupt() {
	s.stopped.Store(true)
	s.waiter.interrupt()
}

// read waits for queries and returns how many have come, or net.ErrClosed after interrupt.
func (s *socket) read() (int, error) {
	for i := range s.in {
		h := &s.in[i].hdr
		h.Namelen = nameSpace
		h.SetControllen(queryControl)
	}
	for !s.stopped.Load() {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.in)), batchLen, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
			if err := s.waiter.wait(); err != nil && !s.stopped.Load() {
				return 0, err
			}
		default:
			return 0, errno
		}
	}
	return 0, net.ErrClosed
}

// query returns the i-th query and who sent it; it is valid until the next read.
func (s *socket) query(i int) (msg []byte, from netip.AddrPort) {
	return s.queries[i].data[:s.in[i].len], addrPort(&s.queries[i].name)
}

// addrPort reads a socket address; one of no family that is known is no address.
func addrPort(name *[nameSpace]byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(name[2:])
	switch binary.NativeEndian.Uint16(name[:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(name[4:])), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(name[8:])).Unmap(), port)
	}
	return netip.AddrPort{}
}

// answer has msg sent to who sent the i-th query, by the next send; msg must not change until then.
func (s *socket) answer(i int, msg []byte) {
	in, out := &s.in[i].hdr, &s.out[s.waiting].hdr
	out.Name, out.Namelen = in.Name, in.Namelen
	from := replyFrom(s.queries[i].control[:in.Controllen])
	out.Control = unsafe.SliceData(from)
	out.SetControllen(len(from))
	v := &s.vectors[batchLen+s.waiting]
	v.Base = unsafe.SliceData(msg)
	v.SetLen(len(msg))
	s.waiting++
}

// send sends the answers and returns how many were lost.
func (s *socket) send() (lost int) {
	for sent := 0; sent < s.waiting; {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.out[sent])), uintptr(s.waiting-sent), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			sent += int(n)
		case errno == unix.EAGAIN && s.awaitRoom():
		default: // it is the first of them
			lost++
			sent++
		}
	}
	s.waiting = 0
	return lost
}

// awaitRoom waits until something can be sent, and reports whether it can.
func (s *socket) awaitRoom() bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, sendWait)
	return n > 0 || err == unix.EINTR
}

// destination is where an answer goes, and where it comes from.
type destination struct {
	name    [nameSpace]byte
	control [answerControl]byte
	nameLen uint32
	from    int // bytes of control
}

// destination is where the answer to the i-th query goes.
func (s *socket) destination(i int) (d destination) {
	d.name, d.nameLen = s.queries[i].name, s.in[i].hdr.Namelen
	d.from = copy(d.control[:], replyFrom(s.queries[i].control[:s.in[i].hdr.Controllen]))
	return d
}

// sendTo sends one answer; any goroutine may.
func (s *socket) sendTo(d *destination, msg []byte) error {
	v := unix.Iovec{Base: unsafe.SliceData(msg)}
	v.SetLen(len(msg))
	h := unix.Msghdr{Name: &d.name[0], Namelen: d.nameLen, Iov: &v}
	h.SetIovlen(1)
	if d.from > 0 {
		h.Control = &d.control[0]
		h.SetControllen(d.from)
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT)
		switch {
		case errno == 0:
			return nil
		case errno != unix.EAGAIN || !s.awaitRoom():
			return errno
		}
	}
}

// replyFrom turns the control message of a query into the one that sends its
// answer from where the query was sent to, in place (ip(7), IP_PKTINFO; RFC
// 3542, section 6.1). Nil leaves the choice to the kernel.
func replyFrom(oob []byte) []byte {
	for rest := oob; len(rest) > 0; {
		h, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return nil
		}
		msg := rest[:len(rest)-len(next)]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			binary.NativeEndian.PutUint32(data, 0) // any interface: routes may be asymmetric
			copy(data[4:8], data[8:12])            // ipi_spec_dst = ipi_addr
			return msg
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if !net.IP(data[:16]).IsLinkLocalUnicast() { // those need their interface
				binary.NativeEndian.PutUint32(data[16:], 0)
			}
			return msg
		}
		rest = next
	}
	return nil
}
