//go:build linux

package lab

import (
	"context"
	"fmt"
	"time"
)

// A strand is a connection made by hand with two hellos at hand: the one to be judged and the one to be served. The
// two are alike to the byte but for the name, so that nothing else gives a lie away.
type strand struct {
	*rawTCP
	good, evil []byte
	at         int // where the names begin
	shape      shape
}

// Pauses between what is sent by hand.
const (
	onItsWay   = 2 * time.Millisecond   // the packet before is ahead on the wire
	afterwards = 150 * time.Millisecond // the verdict on what was sent before has fallen
)

// A wireSide is what a client does on a strand; how it shook hands may depend on the shape.
type wireSide struct {
	how  func(s shape, good []byte) rawHow // nil is the plainest handshake
	play func(c *strand) error
}

// lie carries a wire side out with an evil name in the end.
func (w wireSide) lie() play { return w.carryOut(false) }

// truth carries it out with the permitted name in both places.
func (w wireSide) truth() play { return w.carryOut(true) }

func (w wireSide) carryOut(honest bool) play {
	return func(ctx context.Context, t *Try, s shape) error {
		good, evil, at := t.hellos(s)
		if honest {
			evil = good
		}
		how := rawHow{}
		if w.how != nil {
			how = w.how(s, good)
		}
		raw, err := t.dialRaw(ctx, t.target(ctx, s.name, s.v6, 443), how)
		if err != nil {
			return err
		}
		defer raw.Close()
		t.prove(evil)
		if err := w.play(&strand{raw, good, evil, at, s}); err != nil {
			return err
		}
		return raw.helloAnswered(ctx)
	}
}

// helloAnswered waits for the beginning of a server's answer to a hello, which is no alert.
func (c *rawTCP) helloAnswered(ctx context.Context) error {
	if err := c.answer(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.got[0] != recordHandshake {
		return fmt.Errorf("the server answers with a record of type %d", c.got[0])
	}
	return nil
}

// plainly sends the hello as any client does.
var plainly = wireSide{play: func(c *strand) error { return c.put(c.evil, 0, len(c.evil), nil) }}

// maxByHand leaves room for all options within a packet of 1,500 bytes.
const maxByHand = 1300

// put sends part of a hello where it belongs, in as many segments as it takes; mark, if not nil, changes each.
func (c *strand) put(b []byte, from, to int, mark func(*segment)) error {
	for from < to {
		end := min(from+maxByHand, to)
		s := segment{at: from, data: b[from:end], flags: flagPSH}
		if mark != nil {
			mark(&s)
		}
		if err := c.send(s); err != nil {
			return err
		}
		time.Sleep(onItsWay)
		from = end
	}
	return nil
}

// parts sends n parts of a hello in the order that the numbers say.
func (c *strand) parts(b []byte, n int, order func(i int) int, mark func(*segment)) error {
	for i := range n {
		k := order(i)
		if err := c.put(b, k*len(b)/n, (k+1)*len(b)/n, mark); err != nil {
			return err
		}
	}
	return nil
}

func forwards(i int) int { return i }

func backwards(n int) func(int) int { return func(i int) int { return n - 1 - i } }
