package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/gateway"
	"tidegate.io/tidegate/kernel"
)

// estate is what a process has of its predecessor, by name, and what it will leave to the next.
// Its zero value is that of a process without a predecessor.
type estate struct {
	files     map[string]*os.File // that nobody has taken yet
	followers map[uint16]*gateway.Saved
	from      *net.UnixConn    // waits to be told that all is taken
	probed    *kernel.Features // before that, for it takes the kernel a tenth of a second

	inUse  map[string]syscall.Conn
	paused []pauser
	left   *estate // after errTakenBack
}

// logName is the name of the log of denials.
const logName = "denials"

func queueName(number uint16) string { return fmt.Sprintf("queue %d", number) }

func (e *estate) add(name string, fd int) {
	if e.files == nil {
		e.files = map[string]*os.File{}
	}
	e.files[name] = os.NewFile(uintptr(fd), name)
}

// take returns what the predecessor had by a name, or nil. Who takes it closes it.
func (e *estate) take(name string) *os.File {
	f := e.files[name]
	delete(e.files, name)
	return f
}

// leave remembers a socket that the next process will want.
func (e *estate) leave(name string, c syscall.Conn) {
	if e.inUse == nil {
		e.inUse = map[string]syscall.Conn{}
	}
	e.inUse[name] = c
}

// saved is what the predecessor's follower of a queue has saved.
func (e *estate) saved(number uint16) *gateway.Saved { return e.followers[number] }

// drop closes what nobody has taken.
func (e *estate) drop() {
	for name, f := range e.files {
		f.Close()
		delete(e.files, name)
	}
	if e.from != nil {
		_ = e.from.Close()
	}
}

// taken tells the predecessor that it may end, and closes what it had and nobody wants.
func (e *estate) taken() {
	for name, f := range e.files {
		f.Close()
		delete(e.files, name)
	}
	if e.from == nil {
		return
	}
	_, _ = e.from.Write([]byte(ready)) // one that is dead needs no word
	_ = e.from.Close()
	e.from = nil
	e.followers = nil
}

// estateFor duplicates all that the next process wants, and names it in h.
func (b *box) estateFor(h *handover) (*estate, error) {
	left := &estate{files: map[string]*os.File{}, followers: h.Followers}
	for name, c := range b.inUse {
		fd, err := duplicate(c)
		if err != nil {
			left.drop()
			return nil, fmt.Errorf("hand %s over: %w", name, err)
		}
		left.add(name, fd)
	}
	for _, q := range b.queues {
		f, err := q.queue.File()
		if err != nil {
			left.drop()
			return nil, err
		}
		left.files[queueName(q.number)] = f
	}
	if b.denials != nil {
		f, err := b.denials.File()
		if err != nil {
			left.drop()
			return nil, err
		}
		left.files[logName] = f
	}
	if b.enforcing() {
		f, err := b.table.File()
		if err != nil {
			left.drop()
			return nil, err
		}
		left.files[tableName] = f
	}
	for name := range left.files {
		h.Sockets = append(h.Sockets, name)
	}
	return left, nil
}

func duplicate(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	failed := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(failed, err)
}

// inherit asks the gateway that runs with g for everything. Without one there is nothing to
// be had. Whatever can be found wrong is, before it asks.
func inherit(ctx context.Context, g *config.Gateway, how runMode) (*estate, error) {
	if _, err := g.Policy(); err != nil {
		return nil, err
	}
	var features *kernel.Features
	if !how.proxyOnly {
		f, err := kernel.Probe()
		if err != nil {
			return nil, err
		}
		features = &f
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(g.State, takeoverFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return &estate{probed: features}, nil
	} else if err != nil {
		return nil, fmt.Errorf("take over: %w", err)
	}
	c := conn.(*net.UnixConn)
	_ = c.SetDeadline(time.Now().Add(answersWithin + readyWithin))
	if _, err := c.Write([]byte(greeting)); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("take over: %w", err)
	}
	h, e, err := receive(c)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("take over: the gateway that runs hands nothing over: %w", err)
	}
	e.followers, e.from, e.probed = h.Followers, c, features
	return e, nil
}

// pauser is a socket whose clients can be left to the next process.
type pauser interface{ pause() }

// pauseClients leaves what comes from here on in the sockets.
func (b *box) pauseClients() {
	for _, p := range b.paused {
		p.pause()
	}
	b.dns.Pause()
}

// pausable is a listener that stops to accept without an error. What it has accepted goes on.
type pausable struct {
	*net.TCPListener
	paused, closed chan struct{}
	once           sync.Once
}

func (p *pausable) pause() {
	close(p.paused)
	_ = p.SetDeadline(time.Unix(1, 0))
}

// Accept waits for a client, and once it is paused for Close.
func (p *pausable) Accept() (net.Conn, error) {
	c, err := p.TCPListener.Accept()
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return c, err
	}
	<-p.closed
	return nil, net.ErrClosed
}

// Close closes this process's descriptor alone.
func (p *pausable) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.TCPListener.Close()
}

// listener opens a listener of TCP.
func listener(network, address string) func() (net.Listener, error) {
	return func() (net.Listener, error) { return net.Listen(network, address) }
}

// listenTCP takes the predecessor's listener, or opens one.
func (b *box) listenTCP(name string, open func() (net.Listener, error)) (net.Listener, error) {
	name = "tcp " + name
	if f := b.take(name); f != nil {
		defer f.Close()
		open = func() (net.Listener, error) { return net.FileListener(f) }
	}
	l, err := open()
	if err != nil {
		return nil, err
	}
	p := &pausable{TCPListener: l.(*net.TCPListener), paused: make(chan struct{}), closed: make(chan struct{})}
	b.leave(name, p)
	b.paused = append(b.paused, p)
	return p, nil
}

// listenUDP is listenTCP for datagrams. The DNS server closes what it is given, so the next process gets a copy: in blocking
// mode, lest Go's poller watch the socket by it.
func (b *box) listenUDP(name, network string, at netip.AddrPort, open *closers) error {
	name = "udp " + name
	var c *net.UDPConn
	if f := b.take(name); f != nil {
		defer f.Close()
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return err
		}
		c = pc.(*net.UDPConn)
	} else {
		var err error
		if c, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
	}
	open.add(c)
	b.dns.UDP = append(b.dns.UDP, c)
	fd, err := duplicate(c)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	kept := os.NewFile(uintptr(fd), name)
	open.add(kept)
	b.leave(name, kept)
	return nil
}
