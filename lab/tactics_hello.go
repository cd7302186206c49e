//go:build linux

package lab

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// helloTactics: the name that counts is in a second hello, or encrypted.
//
// What no gateway can see without breaking TLS open stays: behind a permitted outer name of Encrypted ClientHello, another
// one may be meant. The cases here are those in which the outer name is not permitted, or changes.
func helloTactics() []tactic {
	all := retryTactics()
	grease := func(evil bool) play {
		return showing(func(t *Try, base string) hello {
			if evil {
				base = t.evilName(base)
			}
			h := sni(base)
			h.ech = true
			return h
		})
	}
	all = append(all,
		tactic{name: "greases with an encrypted hello that means nothing", source: "RFC 9849 section 6.2", axes: byFamily | byHello, fits: notTLS12, evil: grease(true), twin: grease(false)},
		tactic{name: "encrypts a permitted name behind a public one that is not", source: "RFC 9849", axes: byFamily, evil: encrypted, twin: handshakes(nil)},
	)
	for _, c := range []struct {
		name, source string
		how          func(*tlsClient)
	}{
		{"is asked again and shows the same name", "RFC 8446 section 4.1.4", func(h *tlsClient) { h.alpn = []string{retryALPN, "http/1.1"} }},
		{"offers many protocols", "RFC 7301", func(h *tlsClient) { h.alpn = manyProtocols(9 << 10) }},
		{"shakes hands with TLS 1.2 alone", "RFC 5246", func(h *tlsClient) { h.maxVersion = tls.VersionTLS12 }},
		{"shakes hands byte by byte", "RFC 9293", func(h *tlsClient) { h.bytes = true }},
		{"shakes hands over 15 records, byte by byte", "RFC 8446 section 5.1", func(h *tlsClient) { h.records, h.bytes = 15, true }},
	} {
		all = append(all, tactic{name: c.name, source: c.source, axes: byFamily, twin: handshakes(c.how)})
	}
	return all
}

// A secondHello is what a client shows when it is asked again.
type secondHello struct {
	what  string // reads on after "shows"
	bytes func(t *Try, s shape) []byte
	size  int  // of a write; 0 is all at once
	early bool // half of it comes with the first hello, before anybody has asked
}

// retryTactics: a server that was sent no key asks again (HelloRetryRequest), and OpenSSL then takes another name, against
// RFC 8446 section 4.1.2.
func retryTactics() []tactic {
	named := func(name string, s shape) hello { h := sni(name); h.kind = s.kind; return h }
	inRecords := func(payload int) func(t *Try, s shape) []byte {
		return func(t *Try, s shape) []byte { return records(evilSecond(t, s)[5:], payload) }
	}
	var all []tactic
	for _, r := range []secondHello{
		{what: "another name", bytes: evilSecond},
		{what: "another name, byte by byte", bytes: evilSecond, size: 1},
		{what: "another name, behind a change of cipher", bytes: func(t *Try, s shape) []byte { return append([]byte{0x14, 3, 3, 0, 1, 1}, evilSecond(t, s)...) }},
		{what: "another name, over many records", bytes: inRecords(40)},
		{what: "another name, in records of one byte", bytes: inRecords(1)},
		{what: "another name, behind 12 KB of padding", bytes: func(t *Try, s shape) []byte {
			h := named(t.evilName(s.name), s)
			h.padding = 12 << 10
			return h.record()
		}},
		{what: "another name, of which half was there before", bytes: evilSecond, early: true},
		{what: "no name", bytes: func(_ *Try, s shape) []byte { return hello{kind: s.kind}.record() }},
		{what: "two names", bytes: func(t *Try, s shape) []byte {
			return hello{kind: s.kind, names: [][]byte{[]byte(s.name), []byte(t.evilName(s.name))}}.record()
		}},
		{what: "its name and a dot", bytes: func(_ *Try, s shape) []byte { return named(s.name+".", s).record() }},
		{what: "an address as its name", bytes: func(_ *Try, s shape) []byte { return named("192.0.2.1", s).record() }},
		{what: "a name of another type", bytes: func(t *Try, s shape) []byte {
			h := named(t.evilName(s.name), s)
			h.nameType = 1
			return h.record()
		}},
		{what: "an encrypted name", bytes: func(_ *Try, s shape) []byte { h := named(s.name, s); h.ech = true; return h.record() }},
	} {
		all = append(all, tactic{
			name: "is asked again and shows " + r.what, source: "RFC 8446 section 4.1.2; OpenSSL 3.0", axes: byFamily | byHello, fits: notTLS12,
			evil: func(ctx context.Context, t *Try, s shape) error { return t.askedAgain(ctx, s, r, r.bytes(t, s)) },
			twin: func(ctx context.Context, t *Try, s shape) error {
				return t.askedAgain(ctx, s, secondHello{size: r.size}, named(s.name, s).record())
			},
		})
	}
	return all
}

// SecondHellos are the tactics of second hellos against OpenSSL alone, which takes another name, over and over.
func SecondHellos(times int) Kind {
	return Kind{Name: "second hellos", tactics: func() (all []tactic) {
		for i := range times {
			for _, t := range retryTactics() {
				t.name = fmt.Sprintf("%s, time %d", t.name, i+1)
				t.fits = func(s shape) bool { return notTLS12(s) && serverOf(s.name) == serverOpenSSL }
				all = append(all, t)
			}
		}
		return all
	}}
}

func notTLS12(s shape) bool { return s.kind != tls12 }

func evilSecond(t *Try, s shape) []byte {
	h := sni(t.evilName(s.name))
	h.kind = s.kind
	return h.record()
}

// askedAgain sends a permitted hello without a key, and a second one in r's way when it is asked for it.
func (t *Try) askedAgain(ctx context.Context, s shape, r secondHello, second []byte) error {
	c, err := t.Dial(ctx, "tcp", t.target(ctx, s.name, s.v6, 443))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * silence))
	t.prove(second)
	first := sni(s.name)
	first.kind, first.noShare = s.kind, true
	if serverOf(s.name) == serverGo { // which refuses what these show; the lab's careless server takes all
		first.retry = true
	}
	out := first.record()
	if r.early {
		n := len(second) / 2
		out, second = append(out, second[:n]...), second[n:]
	}
	if _, err := c.Write(out); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	if _, err := c.Read(buf); err != nil {
		return err
	}
	size := r.size
	if size == 0 {
		size = len(second)
	}
	for part := range slices.Chunk(second, size) {
		if _, err := c.Write(part); err != nil {
			return err
		}
	}
	_, err = c.Read(buf)
	return err
}

// handshakes is a whole handshake of a real client.
func handshakes(change func(*tlsClient)) play {
	return func(ctx context.Context, t *Try, s shape) error {
		how := tlsClient{alpn: []string{"http/1.1"}}
		if change != nil {
			change(&how)
		}
		c, err := t.handshake(ctx, netip.AddrPortFrom(t.target(ctx, frontDoors[0], s.v6, 443).Addr(), 443), frontDoors[0], how)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// encrypted is a real client of Encrypted ClientHello whose public name nobody permits.
func encrypted(ctx context.Context, t *Try, s shape) error {
	list, err := echConfigList("vm." + evilSuffix)
	if err != nil {
		return err
	}
	raw, err := t.Dial(ctx, "tcp", t.target(ctx, frontDoors[0], s.v6, 443))
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	shaper := &Shaper{Conn: raw}
	err = tls.Client(shaper, &tls.Config{
		RootCAs: t.Lab.CA.Pool(), ServerName: frontDoors[0], MinVersion: tls.VersionTLS13, EncryptedClientHelloConfigList: list,
	}).HandshakeContext(ctx)
	t.prove(shaper.Hello)
	return err
}
