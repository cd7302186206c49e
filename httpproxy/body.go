package httpproxy

import (
	"io"
	"sync"
	"time"

	"tidegate.io/tidegate/wire"
)

// copyBuffers are for bodies and tunnels.
var copyBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// copyBody copies piece by piece, so that each has a deadline of its own.
func copyBody(w io.Writer, r io.Reader) error {
	buf := copyBuffers.Get().(*[16 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// requestBody is the sending of a request's body, in a goroutine of its own: a server may
// answer before it has read it all, and a client may wait for that (100-continue).
type requestBody struct {
	done chan struct{}
	read error // what reading from the client said; nil for the end
	sent bool  // all of it
}

func (x *exchange) sendBody() *requestBody {
	b := &requestBody{done: make(chan struct{})}
	x.conn.patient = true
	go func() {
		defer close(b.done)
		body := &noted{Reader: x.req.Body(x.br)}
		var err error
		if x.req.Framing == wire.Chunked {
			_, err = wire.CopyChunked(x.server.conn, body)
		} else {
			err = copyBody(x.server.conn, body)
		}
		b.read, b.sent = body.err, err == nil
		if body.err != nil { // the server must not wait for what never comes
			x.server.conn.Close()
		}
	}()
	return b
}

// noted remembers the error of a reader.
type noted struct {
	io.Reader
	err error
}

func (n *noted) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	if err != io.EOF {
		n.err = err
	}
	return k, err
}

// over reports whether all of the body is sent. The goroutine that sent the last byte may be a
// moment behind the server that has answered to it.
func (b *requestBody) over() bool {
	const moment = 20 * time.Millisecond
	select {
	case <-b.done:
		return b.sent
	case <-time.After(moment):
		return false
	}
}

// failure returns why the client's bytes could not be read. b has ended, or is nil.
func (b *requestBody) failure() error {
	if b == nil {
		return nil
	}
	return b.read
}

// finishBody ends the sending and reports whether all of the body was sent, so that the next
// byte begins another request.
func (x *exchange) finishBody() bool {
	if x.body == nil {
		return true
	}
	whole := x.body.over()
	if !whole {
		x.conn.interrupt()
	}
	<-x.body.done
	x.conn.patient = false
	return whole
}
