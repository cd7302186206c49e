//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"tidegate.io/tidegate/egress"
)

// Attacks returns what somebody does who knows that the first bytes are judged: packets that the gateway takes for the
// client's and the server does not, a second hello that differs from the first, a connection that inherits another one's
// verdict. Each shows a permitted name where it is judged and an evil one where it is served. All of them must be
// stopped; without a gateway all of them must arrive.
func Attacks(z *Zone, policy *egress.Policy) []Case {
	m := &misses{boot: boot{zone: z, policy: policy}}
	m.https = append(names(policy, egress.HTTPS, 443), m.wildInstances()...)
	for _, name := range m.https {
		if len(name) > len(evilSuffix)+1 && len(z.Addrs(name)) > 1 && !m.isAPI(name) {
			m.decoys(name)
			m.retries(name)
			m.reusedPorts(name)
			break
		}
	}
	return m.cases
}

// desync are the reasons by which a play with sequence numbers may be found out: what it does to the bytes, or that
// the evil name is the one that is seen.
var desync = []egress.Reason{
	egress.ConflictingData, egress.UnconfirmedData, egress.InvalidPacket, egress.NameNotAllowed, egress.MalformedHello, egress.HelloTimeout, egress.NotTLS,
}

// twin is a hello for an evil name that is as long as one for name.
func twin(name string) []byte {
	evil := strings.Repeat("x", len(name)-len(evilSuffix)-1) + "." + evilSuffix
	return sni(evil).record()
}

// hopsToDie is a packet's life that ends behind the gateway and before the server: the virtual network, the gateway,
// the edge.
const hopsToDie = 3

// decoys: a packet with the permitted name that the server ignores, then the evil one in its place.
func (m *misses) decoys(name string) {
	send := func(c *rawTCP, segments ...segment) error {
		for _, s := range segments {
			if err := c.send(s); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond) // so that each is on its way before the next
		}
		return nil
	}
	for _, d := range []struct {
		what  string
		how   rawHow
		reset bool // it plays with a reset
		play  func(c *rawTCP, good, evil []byte) error
	}{
		{"that dies on the way", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{data: good, flags: flagPSH, ttl: hopsToDie}, segment{data: evil, flags: flagPSH})
		}},
		{"with a wrong checksum", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{data: good, flags: flagPSH, badSum: true}, segment{data: evil, flags: flagPSH})
		}},
		{"with an old timestamp", rawHow{stamps: true}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{data: good, flags: flagPSH, oldStamp: true}, segment{data: evil, flags: flagPSH})
		}},
		{"with an MD5 signature", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{data: good, flags: flagPSH, md5: true}, segment{data: evil, flags: flagPSH})
		}},
		{"with an MD5 signature and a FIN", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{data: good, flags: flagPSH | flagFIN, md5: true}, segment{data: evil, flags: flagPSH})
		}},
		{"with an acknowledgement that is too old", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{data: good, flags: flagPSH, ack: -70000}, segment{data: evil, flags: flagPSH})
		}},
		{"with an acknowledgement of what was never sent", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{data: good, flags: flagPSH, ack: 100000}, segment{data: evil, flags: flagPSH})
		}},
		{"without an acknowledgement", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{data: good, flags: flagPSH, noACK: true}, segment{data: evil, flags: flagPSH})
		}},
		{"before the window", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{at: -10000, data: good, flags: flagPSH}, segment{data: evil, flags: flagPSH})
		}},
		{"far ahead, with a FIN", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{at: 300000, data: good, flags: flagPSH | flagFIN}, segment{data: evil, flags: flagPSH})
		}},
		{"with a reset that dies on the way", rawHow{}, true, func(c *rawTCP, good, evil []byte) error {
			return send(c, segment{data: good, flags: flagPSH, ttl: hopsToDie}, segment{at: len(good), flags: flagRST, ttl: hopsToDie}, segment{data: evil, flags: flagPSH})
		}},
		{"that a later one overlaps", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			half := len(good) / 4 // the name is behind it
			return send(c,
				segment{at: half, data: good[half:], flags: flagPSH},       // out of order: the server keeps it
				segment{at: half - 1, data: evil[half-1:], flags: flagPSH}, // begins earlier: the server takes this one
				segment{data: evil[:half-1], flags: flagPSH},
			)
		}},
		{"in two halves, the second of which dies on the way", rawHow{}, false, func(c *rawTCP, good, evil []byte) error {
			half := len(good) / 4
			return send(c,
				segment{data: evil[:half], flags: flagPSH},
				segment{at: half, data: good[half:], flags: flagPSH, ttl: hopsToDie},
				segment{at: half, data: evil[half:], flags: flagPSH},
			)
		}},
		{"inside the SYN", rawHow{early: sni(name).record()}, false, func(c *rawTCP, _, evil []byte) error { // ignored without Fast Open
			return send(c, segment{data: evil, flags: flagPSH})
		}},
		{"of one byte that is urgent", rawHow{}, false, func(c *rawTCP, _, evil []byte) error {
			at := bytes.Index(evil, []byte("."+evilSuffix))
			with := append(append(bytes.Clone(evil[:at]), 'a'), evil[at:]...) // the server takes the urgent byte out
			return send(c, segment{data: with, flags: flagPSH | flagURG, urgent: uint16(at + 1)})
		}},
	} {
		for _, v6 := range []bool{false, true} {
			m.deny("decoys", fmt.Sprintf("sends %s a decoy %s over %s", name, d.what, family(v6)), desync, func(ctx context.Context, t *Try) error {
				c, err := t.dialRaw(ctx, t.target(ctx, name, v6, 443), d.how)
				if err != nil {
					return err
				}
				defer c.Close()
				good, evil := sni(name).record(), twin(name)
				t.prove(evil)
				if err := d.play(c, good, evil); err != nil {
					return err
				}
				return c.answer(ctx)
			})
			m.cases[len(m.cases)-1].Quiet = d.reset // the client itself has ended what was allowed
		}
	}
}

// retries: the server asks for a second hello (HelloRetryRequest), and that names another server. RFC 8446 section
// 4.1.2 forbids it; OpenSSL answers it all the same.
func (m *misses) retries(name string) {
	why := []egress.Reason{egress.ServerNameChanged, egress.NameNotAllowed, egress.NoServerName, egress.MalformedHello}
	for _, r := range []struct {
		what   string
		second func() []byte
		bytes  bool
	}{
		{"another name", func() []byte { return twin(name) }, false},
		{"another name, in 1-byte writes", func() []byte { return twin(name) }, true},
		{"another name, behind a change of cipher", func() []byte { return append([]byte{0x14, 3, 3, 0, 1, 1}, twin(name)...) }, false},
		{"another name, over many records", func() []byte { return records(twin(name)[5:], 20) }, false},
		{"no name", func() []byte { return hello{}.record() }, false},
		{"two names", func() []byte { return hello{names: [][]byte{[]byte(name), []byte("vm." + evilSuffix)}}.record() }, false},
	} {
		for _, v6 := range []bool{false, true} {
			m.deny("second hellos", fmt.Sprintf("is asked again by %s and shows %s over %s", name, r.what, family(v6)), why, func(ctx context.Context, t *Try) error {
				return t.retry(ctx, t.target(ctx, name, v6, 443), name, r.second(), r.bytes)
			})
		}
	}
}

// retry sends a hello to which the lab's servers answer with a HelloRetryRequest, and then the second.
func (t *Try) retry(ctx context.Context, to netip.AddrPort, name string, second []byte, byteWise bool) error {
	c, err := t.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * silence))
	t.prove(second)
	first := sni(name)
	first.retry = true
	if _, err := c.Write(first.record()); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	if _, err := c.Read(buf); err != nil {
		return err
	}
	out := &Shaper{Conn: c, Bytes: byteWise}
	if _, err := out.Write(second); err != nil {
		return err
	}
	_, err = c.Read(buf)
	return err
}

// reusedPorts: a permitted connection is ended so that the server notices and conntrack does not; another one on the same
// ports then finds the entry of the first, with whatever was decided about it.
func (m *misses) reusedPorts(name string) {
	why := []egress.Reason{egress.NameNotAllowed, egress.InvalidPacket, egress.ConflictingData}
	for _, v6 := range []bool{false, true} {
		for again := range 2 {
			m.deny("re-used ports", fmt.Sprintf("shows %s, and then another on the same ports, over %s (%d)", name, family(v6), again+1), why, func(ctx context.Context, t *Try) error {
				return t.reusePorts(ctx, t.target(ctx, name, v6, 443), sni(name).record(), twin(name))
			})
		}
	}
}

func (t *Try) reusePorts(ctx context.Context, to netip.AddrPort, good, evil []byte) error {
	c, err := t.dialRaw(ctx, to, rawHow{})
	if err != nil {
		return err
	}
	defer c.Close()
	t.prove(evil)
	if err := c.send(segment{data: good, flags: flagPSH}); err != nil {
		return err
	}
	if err := c.answer(ctx); err != nil {
		return fmt.Errorf("the permitted connection: %w", err)
	}
	time.Sleep(100 * time.Millisecond) // so that its verdict stands
	half := []byte{0x17, 3, 3}         // the beginning of a record: the server waits for the rest
	err = errors.Join(
		c.send(segment{at: len(good), data: half, flags: flagPSH}),
		c.send(segment{at: len(good), ack: 0, data: nil}),          // conntrack's last packet is another
		c.send(segment{at: len(good) + len(half), flags: flagRST}), // exact for the server, unacknowledged for conntrack
	)
	if err != nil {
		return err
	}
	time.Sleep(20 * time.Millisecond)
	if err := c.handshake(ctx); err != nil {
		return fmt.Errorf("on the same ports: %w", err)
	}
	if err := c.send(segment{data: evil, flags: flagPSH}); err != nil {
		return err
	}
	return c.answer(ctx)
}
