package httpproxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// tunnel is a CONNECT that got its 200.
type tunnel struct {
	*client
	server *origin
	flow   egress.Flow // as judged so far
	held   []byte      // read from the client, not sent yet
	hello  wire.ClientHello
}

// run carries the tunnel to its end. Nothing reaches the server before the verdict.
func (t *tunnel) run(ctx context.Context) {
	inspect := t.flow.Verdict.Action != egress.Deny && t.flow.Conn.Proto == egress.HTTPS || t.flow.Verdict.Action == egress.Wait
	if inspect {
		t.flow = t.judgeHello(ctx)
		if !passes(t.flow) {
			t.Report(t.flow)
			t.alert()
			return
		}
	}
	l := t.begin(ctx, t.flow, t.epoch, t.cut)
	defer func() { t.end(l, t.server.conn.written.Load(), t.server.conn.read.Load()) }()
	if inspect && t.flow.Verdict.Action == egress.Allow {
		goes, r := t.confirm()
		if r != egress.Unreasoned {
			l.flow.Verdict = egress.Denied(r)
			t.Report(l.flow)
			t.alert()
		}
		if !goes {
			return
		}
	}
	t.carry()
}

// alert tells the client that the name was refused (RFC 6066, section 3), as a server would.
func (t *tunnel) alert() {
	if t.hello.Len > 0 {
		const fatal, unrecognizedName = 2, 112
		_, _ = t.conn.Write([]byte{21, 3, 3, 0, 2, fatal, unrecognizedName}) // when it has gone there is nobody to tell
	}
	t.linger()
}

// judgeHello reads the ClientHello and returns the final verdict.
func (t *tunnel) judgeHello(ctx context.Context) egress.Flow {
	f := t.flow
	h, err := t.readHello(wire.ReadClientHello)
	if err != nil {
		f.Verdict = egress.Denied(helloMeans(err))
		return f
	}
	t.hello = h
	at := f.Conn
	at.Proto, at.Literal = egress.HTTPS, false
	shown, err := egress.ParseName(h.ServerName)
	switch {
	case h.ServerName == "":
	case errors.Is(err, egress.ErrAddress):
		at.Literal = true
	case err != nil:
		f.Verdict = egress.Denied(egress.MalformedHello)
		return f
	case shown == f.Conn.Name: // what was judged
		return f
	}
	if !f.Conn.API {
		f.Verdict = egress.Denied(egress.HostMismatch)
		return f
	}
	at.Name = shown
	g := t.decide(ctx, at)
	if g.Verdict.Action == egress.Allow && g.Verdict.Reason != egress.ByAPIServerAddress {
		g.Verdict = egress.Denied(egress.HostMismatch)
	}
	return g
}

// readHello reads a hello into held.
func (t *tunnel) readHello(read func([]byte) (wire.ClientHello, error)) (wire.ClientHello, error) {
	t.conn.within(HelloTimeout)
	for {
		h, err := read(t.held)
		if !errors.Is(err, wire.ErrMore) {
			return h, err
		}
		if t.held, err = readMore(t.br, t.held); err != nil {
			return h, err
		}
	}
}

// readMore appends what one read gives.
func readMore(br *bufio.Reader, b []byte) ([]byte, error) {
	b = slices.Grow(b, 4<<10)
	n, err := br.Read(b[len(b):cap(b)])
	if n > 0 {
		err = nil
	}
	return b[:len(b)+n], err
}

// helloMeans turns what reading a hello said into the policy's word.
func helloMeans(err error) egress.Reason {
	var fault wire.Fault
	switch {
	case isTimeout(err):
		return egress.HelloTimeout
	case !errors.As(err, &fault) || fault == wire.ErrNotTLS || fault == wire.ErrVersion:
		return egress.TunnelNotTLS
	case fault == wire.ErrHelloSize || fault == wire.ErrRecords:
		return egress.HelloTooLarge
	}
	return egress.MalformedHello
}

// confirm sends the hello and waits until the server has taken it. A server may ask for a
// second one instead (HelloRetryRequest), and there are servers that take the name from that:
// so it must show the same name before it goes on, or an allowed name opens the way for a
// denied one. goes says that the tunnel goes on; a reason, that it was denied.
func (t *tunnel) confirm() (goes bool, denied egress.Reason) {
	hello := t.hello
	var answer []byte
	for tries := 0; ; tries++ {
		if err := t.sendHeld(hello.Len); err != nil {
			return false, egress.Unreasoned
		}
		said, n, err := t.readAnswer(&answer)
		switch {
		case err != nil:
			return false, egress.Unreasoned
		case said == wire.RetryHello && tries == 0:
		case said == wire.ServerHello, said == wire.AnswerAlert:
			_, err := t.conn.Write(answer)
			return err == nil, egress.Unreasoned
		default:
			return false, egress.ServerNotTLS
		}
		if _, err := t.conn.Write(answer[:n]); err != nil {
			return false, egress.Unreasoned
		}
		answer = answer[n:]
		second, err := t.readHello(wire.ReadSecondHello)
		switch {
		case err != nil:
			return false, helloMeans(err)
		case !hello.SameServer(second):
			return false, egress.ServerNameChanged
		}
		hello = second
	}
}

// sendHeld sends the first n bytes of what is held.
func (t *tunnel) sendHeld(n int) error {
	_, err := t.server.conn.Write(t.held[:n])
	t.held = t.held[n:]
	return err
}

// readAnswer reads what the server says to a hello into answer. n is the length of a
// HelloRetryRequest.
func (t *tunnel) readAnswer(answer *[]byte) (said wire.Answer, n int, err error) {
	t.server.conn.patient = false
	t.server.conn.within(AnswerTimeout)
	for {
		said, n = wire.ReadAnswer(*answer)
		switch {
		case said != wire.AnswerMore:
			return said, n, nil
		case len(*answer) > wire.MaxAnswer:
			return wire.AnswerOther, 0, nil
		}
		if *answer, err = readMore(t.server.br, *answer); err != nil {
			return said, 0, err
		}
	}
}

// carry copies both ways until both have ended, or one has failed.
func (t *tunnel) carry() {
	defer t.conn.Close()
	defer time.AfterFunc(TunnelMax, t.cut).Stop()
	if err := t.sendHeld(len(t.held)); err != nil {
		return
	}
	t.server.conn.patient = false
	var moved atomic.Int64
	var up sync.WaitGroup
	up.Go(func() { carryOneWay(t.server.conn, t.conn, t.br, &moved, t.cut) })
	carryOneWay(t.conn, t.server.conn, t.server.br, &moved, t.cut)
	up.Wait()
}

// carryOneWay copies from src, whose reader is br, to dst, and passes its end on. moved is when a
// byte last moved in either direction. fail ends the other direction too.
func carryOneWay(dst, src *meter, br *bufio.Reader, moved *atomic.Int64, fail func()) {
	buf := copyBuffers.Get().(*[16 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		src.within(TunnelIdle)
		n, err := br.Read(buf[:])
		if n > 0 {
			moved.Store(time.Now().UnixNano())
			if _, err := dst.Write(buf[:n]); err != nil {
				fail()
				return
			}
		}
		switch {
		case err == nil:
		case isTimeout(err) && time.Since(time.Unix(0, moved.Load())) < TunnelIdle: // the other direction is busy
		case err == io.EOF:
			dst.closeWrite()
			return
		default:
			fail()
			return
		}
	}
}
