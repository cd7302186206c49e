//go:build linux

package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// midstreamTactics: what was decided about one connection is used for another, or one goes on of which nothing is known
// any more.
func midstreamTactics() []tactic {
	return append(append(reuseTactics(), twiceOpened()...),
		tactic{name: "goes on after the gateway has forgotten it", source: "nf_conntrack_tcp_loose", axes: byFamily, evil: forgotten(true), twin: forgotten(false)},
		tactic{name: "goes on after the gateway has forgotten it, in the middle of the hello", source: "nf_conntrack_tcp_loose", axes: byFamily | byHello,
			evil: forgottenHello, twin: plainly.truth()},
		tactic{name: "sends half of the hello, and a decoy of the rest from another port", source: "connections joined by their sequence numbers", axes: byFamily | byHello,
			evil: otherPort, twin: plainly.truth()},
	)
}

// reuseTactics end a permitted connection in such a way that its verdict may live on, and open another one on its ports.
func reuseTactics() []tactic {
	reused := func(honest bool, ends func(c *rawTCP, at int) error) play {
		return func(ctx context.Context, t *Try, s shape) error {
			good, evil, _ := t.hellos(s)
			if honest {
				h := sni(s.name)
				h.kind = s.kind
				evil = h.record() // another one
			}
			return t.onSamePorts(ctx, t.target(ctx, s.name, s.v6, 443), good, evil, ends)
		}
	}
	var all []tactic
	for _, e := range []struct {
		name, source string
		ends         func(c *rawTCP, at int) error
	}{
		{"a reset that the server alone takes", "RFC 5961 section 3.2", quietReset},
		{"a reset", "RFC 9293 section 3.5.2", func(c *rawTCP, at int) error { return c.send(segment{at: at, flags: flagRST}) }},
		{"a FIN and a reset", "RFC 9293 section 3.6", func(c *rawTCP, at int) error {
			return steps(func() error { return c.send(segment{at: at, flags: flagFIN}) }, func() error { return c.send(segment{at: at + 1, flags: flagRST}) })
		}},
	} {
		all = append(all, tactic{name: "ends a permitted connection with " + e.name + ", and shows another name on its ports", source: e.source,
			axes: byFamily | byHello, evil: reused(false, e.ends), twin: reused(true, e.ends)})
	}
	return all
}

// twiceOpened are two SYNs of which the server takes one: who counts from the other reads the permitted name.
func twiceOpened() []tactic {
	var all []tactic
	for _, second := range []int{-5000, 1 << 24} { // a SYN inside of its window would end what the server has
		side := wireSide{how: func(shape, []byte) rawHow { return rawHow{second: second} }, play: func(c *strand) error {
			return steps(
				func() error { return c.put(c.good, 0, len(c.good), func(s *segment) { s.at += second }) },
				func() error { time.Sleep(onItsWay); return nil },
				func() error { return c.put(c.evil, 0, len(c.evil), nil) })
		}}
		all = append(all, tactic{
			name:   fmt.Sprintf("opens with a second SYN, %+d bytes from the first, and shows the permitted name there", second),
			source: "Geneva, CCS 2019", axes: byFamily | byHello, evil: side.lie(), twin: plainly.truth(),
		})
	}
	return all
}

// quietReset ends the server's side alone: the sequence number is exact for the server, and conntrack has not seen it
// acknowledged.
func quietReset(c *rawTCP, at int) error {
	half := []byte{0x17, 3, 3} // the beginning of a record: the server waits for the rest
	return steps(
		func() error { return c.send(segment{at: at, data: half, flags: flagPSH}) },
		func() error { return c.send(segment{at: at}) },
		func() error { return c.send(segment{at: at + len(half), flags: flagRST}) })
}

// onSamePorts shows a permitted hello, ends the connection, and shows another hello on one with the same ports.
func (t *Try) onSamePorts(ctx context.Context, to netip.AddrPort, good, evil []byte, ends func(c *rawTCP, at int) error) error {
	c, err := t.dialRaw(ctx, to, rawHow{})
	if err != nil {
		return err
	}
	defer c.Close()
	t.prove(evil)
	if err := c.whole(good); err != nil {
		return err
	}
	if err := c.answer(ctx); err != nil {
		return fmt.Errorf("the permitted connection: %w", err)
	}
	time.Sleep(afterwards) // its verdict stands
	if err := ends(c, len(good)); err != nil {
		return err
	}
	time.Sleep(20 * time.Millisecond)
	if err := c.handshake(ctx); err != nil {
		return fmt.Errorf("on the same ports: %w", err)
	}
	if err := c.whole(evil); err != nil {
		return err
	}
	return c.answer(ctx)
}

// whole sends a hello in as many segments as it takes.
func (c *rawTCP) whole(b []byte) error {
	return (&strand{rawTCP: c}).put(b, 0, len(b), nil)
}

// forgotten is a permitted tunnel that is open, of which the gateway's conntrack loses its entry.
func forgotten(flush bool) play {
	return func(ctx context.Context, t *Try, s shape) error {
		c, err := t.Dial(ctx, "tcp", netip.AddrPortFrom(echoAddr[bit(s.v6)], echoPort))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := pingPong(c, "before"); err != nil {
			return err
		}
		if flush {
			if err := t.flush(); err != nil {
				return err
			}
		}
		t.prove([]byte(t.Token))
		_ = c.SetDeadline(time.Now().Add(2 * silence))
		if _, err := c.Write([]byte(t.Token)); err != nil {
			return err
		}
		got := make([]byte, len(t.Token))
		for n := 0; n < len(got); {
			k, err := c.Read(got[n:])
			if err != nil {
				return err
			}
			n += k
		}
		if !bytes.Equal(got, []byte(t.Token)) {
			return fmt.Errorf("%q came back", got)
		}
		return nil
	}
}

// forgottenHello sends half of a hello, and the rest once the gateway has lost the connection.
func forgottenHello(ctx context.Context, t *Try, s shape) error {
	_, evil, at := t.hellos(s)
	raw, err := t.dialRaw(ctx, t.target(ctx, s.name, s.v6, 443), rawHow{})
	if err != nil {
		return err
	}
	defer raw.Close()
	c := &strand{rawTCP: raw, evil: evil, at: at, shape: s}
	t.prove(evil)
	return steps(
		func() error { return c.put(evil, 0, at, nil) },
		func() error { time.Sleep(afterwards); return nil },
		t.flush,
		func() error { return c.put(evil, at, len(evil), nil) },
		func() error { return raw.helloAnswered(ctx) })
}

// otherPort sends half of a hello from one port and the rest, with the right sequence numbers, from another as well: a
// filter that joins what it should not would see another hello. What is served is the evil one.
func otherPort(ctx context.Context, t *Try, s shape) error {
	good, evil, at := t.hellos(s)
	to := t.target(ctx, s.name, s.v6, 443)
	raw, err := t.dialRaw(ctx, to, rawHow{})
	if err != nil {
		return err
	}
	defer raw.Close()
	c := &strand{rawTCP: raw, good: good, evil: evil, at: at, shape: s}
	other := &rawTCP{src: netip.AddrPortFrom(raw.src.Addr(), raw.src.Port()^0x400), dst: to, node: t.Node, pc: raw.pc, first: raw.first, next: raw.next}
	t.prove(evil)
	return steps(
		func() error { return c.put(evil, 0, at, nil) },
		func() error { return (&strand{rawTCP: other}).put(good, at, len(good), nil) },
		func() error { return c.put(evil, at, len(evil), nil) },
		func() error { return raw.helloAnswered(ctx) })
}

// flush makes the gateway's conntrack forget the try's connections, as a full table or `conntrack -F` does.
func (t *Try) flush() error {
	return t.Lab.DoGateway(func() error {
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, ownFlows{t}); err != nil {
				return fmt.Errorf("flush the gateway's conntrack: %w", err)
			}
		}
		return nil
	})
}

// ownFlows is a filter for the entries of a try's connections.
type ownFlows struct{ *Try }

// MatchConntrackFlow reports whether f is one of them.
func (t ownFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	src, _ := netip.AddrFromSlice(f.Forward.SrcIP)
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Contains(t.sources, netip.AddrPortFrom(src.Unmap(), f.Forward.SrcPort))
}
