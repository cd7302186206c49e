//go:build linux

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
)

// answerTimeout is when a datagram counts as lost.
const answerTimeout = time.Second

// UDP is a closed load of datagrams: each socket sends one, waits for its answer and sends the next. The first two bytes
// are a number, made anew for each.
type UDP struct {
	NS      *netns.NS
	Sources []netip.Addr
	To      netip.AddrPort
	Next    func(thread int) []byte // the next datagram; the bytes are written to
	DNS     bool                    // only a positive DNS answer is one; else everything is
	Threads int
	Sockets int // of all threads
}

// Start starts the load; the caller stops it.
func (l UDP) Start() *Running {
	ctx, stop := context.WithCancel(context.Background())
	r := &Running{stop: stop}
	for i := range l.Threads {
		r.wait.Go(func() {
			t := &datagrams{load: l, shared: r, number: i}
			err := l.NS.Do(func() error { return t.run(ctx) })
			r.mu.Lock()
			defer r.mu.Unlock()
			r.sum.Merge(&t.count)
			r.err = errors.Join(r.err, err)
		})
	}
	return r
}

// datagrams is one thread of a load.
type datagrams struct {
	load   UDP
	shared *Running
	number int
	poll   *poller
	slots  []asked
	id     uint16
	count  Count
	in     [4096]byte
}

// asked is one socket and what it waits for.
type asked struct {
	fd      int
	number  uint16
	since   time.Time
	waiting bool
}

func (t *datagrams) run(ctx context.Context) (err error) {
	if t.poll, err = newPoller(); err != nil {
		return err
	}
	defer t.poll.close()
	defer func() {
		for _, s := range t.slots {
			closeFD(s.fd)
		}
	}()
	to := newAddress(t.load.To)
	for i := range max(1, t.load.Sockets/t.load.Threads) {
		fd, err := unix.Socket(to.family(), unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.slots = append(t.slots, asked{fd: fd})
		from := newAddress(netip.AddrPortFrom(t.load.Sources[(i*t.load.Threads+t.number)%len(t.load.Sources)], 0))
		if err := errors.Join(bind(fd, &from), connect(fd, &to), t.poll.add(fd, unix.EPOLLIN, int32(i))); err != nil {
			return err
		}
	}
	return t.loop(ctx)
}

func (t *datagrams) loop(ctx context.Context) error {
	for i := range t.slots {
		t.send(&t.slots[i])
	}
	swept := time.Now()
	for {
		events, err := t.poll.wait(20 * time.Millisecond)
		if err != nil {
			return err
		}
		stopping := ctx.Err() != nil
		for _, e := range events {
			t.receive(&t.slots[e.Fd], stopping)
		}
		if now := time.Now(); now.Sub(swept) > 100*time.Millisecond {
			swept = now
			t.sweep(now, stopping)
		}
		if stopping && !t.waiting() {
			return nil
		}
	}
}

func (t *datagrams) waiting() bool {
	for i := range t.slots {
		if t.slots[i].waiting {
			return true
		}
	}
	return false
}

func (t *datagrams) send(s *asked) {
	b := t.load.Next(t.number)
	t.id++
	s.number, s.since, s.waiting = t.id, time.Now(), true
	binary.BigEndian.PutUint16(b, t.id)
	_, _ = write(s.fd, b) // what is not sent is not answered
}

func (t *datagrams) receive(s *asked, stopping bool) {
	n, err := read(s.fd, t.in[:])
	if err != nil && again(err) {
		return
	}
	if err != nil { // an ICMP error came for it
		if s.waiting {
			t.fail(&t.count.Resets)
		}
	} else {
		b := t.in[:n]
		if !s.waiting || n < 2 || binary.BigEndian.Uint16(b) != s.number {
			return // late: it was counted as lost
		}
		if t.load.DNS && !answers(b, s.number) {
			t.fail(&t.count.Unwanted)
		} else {
			t.count.FirstByte.Add(time.Since(s.since))
			t.count.Done++
			t.count.Bytes += int64(n)
			t.shared.done.Add(1)
			t.shared.bytes.Add(int64(n))
		}
	}
	if s.waiting = false; !stopping {
		t.send(s)
	}
}

func (t *datagrams) fail(why *int64) {
	*why++
	t.count.Failed++
	t.shared.failed.Add(1)
}

func (t *datagrams) sweep(now time.Time, stopping bool) {
	for i := range t.slots {
		s := &t.slots[i]
		if !s.waiting || now.Sub(s.since) < answerTimeout {
			continue
		}
		t.fail(&t.count.Timeouts)
		if s.waiting = false; !stopping {
			t.send(s)
		}
	}
}

// Echo sends datagrams back to where they came from, until ctx is done. It opens its socket in the namespace of the calling
// thread, and stays on it.
func Echo(ctx context.Context, at netip.AddrPort) error {
	addr := newAddress(at)
	fd, err := unix.Socket(addr.family(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	patience := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience), bind(fd, &addr)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	var from [unix.SizeofSockaddrInet6]byte
	for ctx.Err() == nil {
		size := uint32(len(from))
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
		if errno == 0 {
			_, _, _ = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), n, 0, uintptr(unsafe.Pointer(&from)), uintptr(size))
		}
	}
	return nil
}
