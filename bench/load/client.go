//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
)

// connectionTimeout is when a connection that has not ended counts as failed.
const connectionTimeout = 5 * time.Second

// A Target is where one kind of connection goes and what it says first.
type Target struct {
	To    netip.AddrPort
	Hello []byte
}

// TCP is a load of connections. Each sends its target's Hello, Requests times, one after the answer to the other, and is
// closed.
type TCP struct {
	NS       *netns.NS
	Sources  []netip.Addr // taken in turn
	Targets  []Target     // taken in turn, at another pace
	Answer   int64        // bytes that answer a Hello
	Requests int          // 0 is 1
	Refused  bool         // a connection is to be ended before it has an answer; an answer is a failure
	Endless  bool         // connections are cut off at Stop, which is no failure

	Threads  int
	InFlight int     // connections under way, for a closed load
	Rate     float64 // connections a second, for an open load; InFlight is then the bound
}

// A Count is what has become of connections.
type Count struct {
	Done, Bytes                       int64
	Failed                            int64 // all of the following
	Resets, Timeouts, Early, Unwanted int64 // a RST; no end in time; a FIN before the answer; an answer to what was to be refused
	Connecting, Local                 int64 // not connected; the machine itself did not permit it
	Late                              int64 // an open load could not start it, for so many were under way
	Connect, FirstByte, LastByte      Histogram
}

// Merge adds what o has counted.
func (c *Count) Merge(o *Count) {
	c.Done += o.Done
	c.Bytes += o.Bytes
	c.Failed += o.Failed
	c.Resets += o.Resets
	c.Timeouts += o.Timeouts
	c.Early += o.Early
	c.Unwanted += o.Unwanted
	c.Connecting += o.Connecting
	c.Local += o.Local
	c.Late += o.Late
	c.Connect.Merge(&o.Connect)
	c.FirstByte.Merge(&o.FirstByte)
	c.LastByte.Merge(&o.LastByte)
}

// A Running load has been started and not yet ended.
type Running struct {
	done, bytes, failed atomic.Int64
	stop                context.CancelFunc
	wait                sync.WaitGroup
	mu                  sync.Mutex
	sum                 Count
	err                 error
}

// Done is how many connections have ended well so far.
func (r *Running) Done() int64 { return r.done.Load() }

// Bytes is what all connections have received so far.
func (r *Running) Bytes() int64 { return r.bytes.Load() }

// Failed is how many connections have failed so far.
func (r *Running) Failed() int64 { return r.failed.Load() }

// Stop starts no more connections, waits for those under way and returns the sum of all since the start.
func (r *Running) Stop() (*Count, error) {
	r.stop()
	r.wait.Wait()
	return &r.sum, r.err
}

// Start starts the load; the caller stops it.
func (l TCP) Start() *Running {
	ctx, stop := context.WithCancel(context.Background())
	r := &Running{stop: stop}
	if l.Requests == 0 {
		l.Requests = 1
	}
	for i := range l.Threads {
		r.wait.Go(func() {
			t := &driver{load: l, shared: r}
			err := l.NS.Do(func() error { return t.run(ctx, i) })
			r.mu.Lock()
			defer r.mu.Unlock()
			r.sum.Merge(&t.count)
			r.err = errors.Join(r.err, err)
		})
	}
	return r
}

// driver is one thread of a load.
type driver struct {
	load   TCP
	shared *Running
	poll   *poller
	from   []address
	to     []address
	slots  []conn
	free   []int32
	next   int
	active int
	count  Count
}

// conn is one connection as the client sees it.
type conn struct {
	fd              int
	hello           []byte
	sent            int
	left            int64
	requests        int
	connected, used bool
	started         bool // an answer has begun
	due             time.Time
}

func (t *driver) run(ctx context.Context, number int) (err error) {
	if t.poll, err = newPoller(); err != nil {
		return err
	}
	defer t.poll.close()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // a connection is started when it is due
	for _, a := range t.load.Sources {
		t.from = append(t.from, newAddress(netip.AddrPortFrom(a, 0)))
	}
	for _, a := range t.load.Targets {
		t.to = append(t.to, newAddress(a.To))
	}
	n := max(1, t.load.InFlight/t.load.Threads)
	t.slots = make([]conn, n)
	for i := range t.slots {
		t.free = append(t.free, int32(i))
	}
	t.next = number * 7919
	return t.loop(ctx)
}

func (t *driver) loop(ctx context.Context) error {
	begin := time.Now()
	interval := time.Duration(0)
	if t.load.Rate > 0 {
		interval = time.Duration(float64(time.Second) * float64(t.load.Threads) / t.load.Rate)
	}
	due, swept := begin, begin
	for {
		now := time.Now()
		stopping := ctx.Err() != nil
		if stopping && t.load.Endless {
			t.cutOff()
		}
		if stopping && t.active == 0 {
			return nil
		}
		for !stopping {
			if interval > 0 && due.After(now) {
				break
			}
			if len(t.free) == 0 {
				if interval > 0 { // it stays due, and is late
					t.count.Late++
				}
				break
			}
			if interval == 0 {
				due = now
			}
			t.open(due)
			due = due.Add(interval)
		}
		patience := 20 * time.Millisecond
		if interval > 0 && !stopping && len(t.free) > 0 {
			patience = min(patience, time.Until(due))
		}
		events, err := t.poll.wait(patience)
		if err != nil {
			return err
		}
		for _, e := range events {
			t.event(e.Fd)
		}
		if now.Sub(swept) > 100*time.Millisecond {
			swept = now
			t.sweep(now)
		}
	}
}

// open starts a connection that was due at a time.
func (t *driver) open(due time.Time) {
	i := t.free[len(t.free)-1]
	t.next++
	from, target := &t.from[t.next%len(t.from)], (t.next/len(t.from)+t.next)%len(t.to)
	fd, err := call(unix.SYS_SOCKET, uintptr(from.family()), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = start(fd, from, &t.to[target])
		if err == nil {
			err = t.poll.add(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLRDHUP|unix.EPOLLET, i)
		}
		if err != nil {
			closeFD(fd)
		}
	}
	if err != nil {
		t.fail(&t.count.Local)
		return
	}
	t.free = t.free[:len(t.free)-1]
	t.active++
	t.slots[i] = conn{fd: fd, hello: t.load.Targets[target].Hello, left: t.load.Answer, requests: t.load.Requests, used: true, due: due}
}

func start(fd int, from, to *address) error {
	// The port is chosen when the other end is known, so that each pair of addresses has all of them.
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		bind(fd, from),
		connect(fd, to))
}

func (t *driver) fail(why *int64) {
	*why++
	t.count.Failed++
	t.shared.failed.Add(1)
}

// end takes a connection out. why is the counter of its failure, or nil.
func (t *driver) end(i int32, why *int64) {
	c := &t.slots[i]
	closeFD(c.fd)
	c.used = false
	t.active--
	t.free = append(t.free, i)
	if why != nil {
		t.fail(why)
		return
	}
	t.count.Done++
	t.shared.done.Add(1)
}

func (t *driver) event(i int32) {
	c := &t.slots[i]
	if !c.used {
		return
	}
	if !c.connected {
		switch n, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); {
		case err == nil && n == 0:
			c.connected = true
			t.count.Connect.Add(time.Since(c.due))
		case t.load.Refused && (unix.Errno(n) == unix.ECONNREFUSED || unix.Errno(n) == unix.ECONNRESET):
			t.end(i, nil)
			return
		default:
			t.end(i, &t.count.Connecting)
			return
		}
	}
	if !t.send(i, c) {
		return
	}
	t.receive(i, c)
}

func (t *driver) send(i int32, c *conn) bool {
	for c.sent < len(c.hello) {
		n, err := write(c.fd, c.hello[c.sent:])
		if err != nil && again(err) {
			return true
		}
		if err != nil {
			t.broken(i, err)
			return false
		}
		c.sent += n
	}
	return true
}

func (t *driver) broken(i int32, err error) {
	switch {
	case t.load.Refused:
		t.end(i, nil)
	case errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE):
		t.end(i, &t.count.Resets)
	default:
		t.end(i, &t.count.Connecting)
	}
}

func (t *driver) receive(i int32, c *conn) {
	for {
		n, err := discard(c.fd, 4<<20)
		switch {
		case err != nil && again(err):
			return
		case err != nil:
			t.broken(i, err)
			return
		case n == 0 && t.load.Refused:
			t.end(i, nil)
			return
		case n == 0:
			t.end(i, &t.count.Early)
			return
		case t.load.Refused:
			t.end(i, &t.count.Unwanted)
			return
		}
		if !c.started {
			c.started = true
			t.count.FirstByte.Add(time.Since(c.due))
		}
		c.left -= int64(n)
		t.count.Bytes += int64(n)
		t.shared.bytes.Add(int64(n))
		if c.left > 0 {
			continue
		}
		t.count.LastByte.Add(time.Since(c.due))
		if c.requests--; c.requests == 0 {
			t.end(i, nil)
			return
		}
		c.left, c.sent, c.started, c.due = t.load.Answer, 0, false, time.Now()
		if !t.send(i, c) {
			return
		}
	}
}

// cutOff closes all that is under way.
func (t *driver) cutOff() {
	for i := range t.slots {
		if c := &t.slots[i]; c.used {
			closeFD(c.fd)
			c.used = false
			t.active--
		}
	}
}

// sweep ends what takes too long.
func (t *driver) sweep(now time.Time) {
	for i := range t.slots {
		if c := &t.slots[i]; c.used && !t.load.Endless && now.Sub(c.due) > connectionTimeout {
			t.end(int32(i), &t.count.Timeouts)
		}
	}
}

// String says what went wrong, and is empty where nothing did.
func (c *Count) String() string {
	if c.Failed == 0 {
		return ""
	}
	return fmt.Sprintf("%d failed (%d reset, %d timed out, %d closed early, %d answered, %d not connected, %d local)",
		c.Failed, c.Resets, c.Timeouts, c.Early, c.Unwanted, c.Connecting, c.Local)
}
