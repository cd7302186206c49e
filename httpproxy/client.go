package httpproxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// readers are kept because a connection needs two of 16 KiB, and most are short.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, wire.MaxHead) }}

func newReader(r io.Reader) *bufio.Reader {
	br := readers.Get().(*bufio.Reader)
	br.Reset(r)
	return br
}

func freeReader(br *bufio.Reader) {
	br.Reset(nil)
	readers.Put(br)
}

// client is one client connection. Its methods run in one goroutine, but for the copying of
// a request body.
type client struct {
	*Server
	conn     *meter
	br       *bufio.Reader // of conn
	src, dst netip.AddrPort
	explicit bool    // an explicit proxy's client: dst is the proxy
	origin   *origin // the server of the last request, still open; nil for none
	epoch    uint64  // rechecks when the request was read
	cut      func()  // closes conn and the origin's connection
	head     bool    // the request was HEAD, so no answer has a body
	out      []byte  // reused for heads
}

func newClient(s *Server, conn net.Conn, src, dst netip.AddrPort, explicit bool, cut func()) *client {
	c := &client{Server: s, conn: &meter{Conn: conn}, src: src, dst: dst, explicit: explicit, cut: cut}
	c.br = newReader(c.conn)
	return c
}

// serve serves one request after the other.
func (c *client) serve(ctx context.Context) {
	defer freeReader(c.br)
	defer c.dropOrigin()
	for first := true; c.await(first); first = false {
		req, err := c.readRequest()
		c.epoch = c.rechecks.Load()
		switch {
		case err != nil:
			c.unreadable(err)
			return
		case c.explicit && req.Form == wire.Connect:
			c.connect(ctx, req)
			return
		case !c.exchange(ctx, req):
			return
		}
	}
}

// await waits for the first byte of a request, and reports whether there is one. When the
// origin closes meanwhile, so is the client's connection: the client would have seen that
// without the proxy, and not have sent it a request that cannot be repeated.
func (c *client) await(first bool) bool {
	if c.br.Buffered() > 0 {
		return true
	}
	wait := IdleTimeout
	if first {
		wait = HeadTimeout
	}
	c.conn.within(wait)
	stop := c.origin.watch(func() { c.conn.until(past) })
	_, err := c.br.Peek(1)
	if stop() {
		c.dropOrigin()
	}
	if first && isTimeout(err) { // the client waits for the server to speak first
		c.refused(c.conned(egress.HTTP), egress.NotHTTP)
	}
	return err == nil
}

// conned is what is known of the connection before a request is read.
func (c *client) conned(p egress.Proto) egress.Conn {
	return egress.Conn{Proto: p, Src: c.src, Dst: c.dst}
}

// readRequest reads a head, whose first byte is there.
func (c *client) readRequest() (*wire.Request, error) {
	c.conn.within(HeadTimeout)
	if b, err := c.br.Peek(1); err == nil && (b[0] <= ' ' || b[0] > '~') {
		return nil, wire.ErrMethod // another protocol, whose first line may never end
	}
	return wire.ReadRequest(c.br)
}

// isTimeout reports whether one of our deadlines has passed; a connection that the kernel gave up
// is another matter.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// origin is an open connection to a server, used by one client only.
type origin struct {
	conn   *meter
	br     *bufio.Reader // of conn
	name   egress.Name   // that the client asked for
	dst    netip.AddrPort
	forget func() bool // takes back the closing at the end of the context
}

// reach returns a connection to f's destination: the one of the last request if it leads
// there, else a new one.
func (c *client) reach(ctx context.Context, to egress.Conn) (o *origin, reused bool, err error) {
	if c.origin != nil && c.origin.dst == to.Dst {
		return c.origin, true, nil
	}
	c.dropOrigin()
	dialling, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	conn, err := c.Dial(dialling, to)
	if err != nil {
		return nil, false, err
	}
	o = &origin{conn: &meter{Conn: conn, patient: true}, name: to.Name, dst: to.Dst}
	o.br = newReader(o.conn)
	o.forget = context.AfterFunc(ctx, func() { conn.Close() })
	c.origin = o
	return o, false, nil
}

// dropOrigin closes the server's connection.
func (c *client) dropOrigin() {
	if o := c.origin; o != nil {
		o.forget()
		o.conn.Close()
		freeReader(o.br)
		c.origin = nil
	}
}

// watch calls gone when the server closes the connection, or sends what nobody asked for.
// The returned function ends the watching and reports whether that happened. A nil origin is
// never gone.
func (o *origin) watch(gone func()) (stop func() bool) {
	if o == nil {
		return func() bool { return false }
	}
	o.conn.patient = false
	o.conn.until(time.Time{})
	result := make(chan bool, 1)
	go func() {
		_, err := o.br.Peek(1)
		quiet := isTimeout(err)
		if !quiet {
			gone()
		}
		result <- !quiet
	}()
	return func() bool {
		o.conn.until(past)
		left := <-result
		o.conn.patient = true
		return left
	}
}
