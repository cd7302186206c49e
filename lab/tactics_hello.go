//go:build linux

package lab

import (
	"context"
	"crypto/tls"
	"net/netip"
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

// retryTactics: a server that was sent no key asks again (HelloRetryRequest), and OpenSSL then takes another name, against
// RFC 8446 section 4.1.2.
func retryTactics() []tactic {
	var all []tactic
	for _, r := range []struct {
		what   string
		second func(t *Try, s shape) []byte
		size   int // of a write
	}{
		{"another name", evilSecond, 1 << 16},
		{"another name, byte by byte", evilSecond, 1},
		{"another name, behind a change of cipher", func(t *Try, s shape) []byte { return append([]byte{0x14, 3, 3, 0, 1, 1}, evilSecond(t, s)...) }, 1 << 16},
		{"another name, over many records", func(t *Try, s shape) []byte { m := evilSecond(t, s)[5:]; return records(m, len(m)/12) }, 1 << 16},
		{"no name", func(_ *Try, s shape) []byte { return hello{kind: s.kind}.record() }, 1 << 16},
		{"two names", func(t *Try, s shape) []byte {
			return hello{kind: s.kind, names: [][]byte{[]byte(s.name), []byte(t.evilName(s.name))}}.record()
		}, 1 << 16},
		{"an encrypted name", func(_ *Try, s shape) []byte { h := sni(s.name); h.kind, h.ech = s.kind, true; return h.record() }, 1 << 16},
	} {
		all = append(all, tactic{
			name: "is asked again and shows " + r.what, source: "RFC 8446 section 4.1.2; OpenSSL 3.0", axes: byFamily | byHello, fits: notTLS12,
			evil: func(ctx context.Context, t *Try, s shape) error { return t.askedAgain(ctx, s, r.second(t, s), r.size) },
			twin: func(ctx context.Context, t *Try, s shape) error {
				h := sni(s.name)
				h.kind = s.kind
				return t.askedAgain(ctx, s, h.record(), r.size)
			},
		})
	}
	return all
}

func notTLS12(s shape) bool { return s.kind != tls12 }

func evilSecond(t *Try, s shape) []byte {
	h := sni(t.evilName(s.name))
	h.kind = s.kind
	return h.record()
}

// askedAgain sends a permitted hello without a key, and another one when it is asked for it.
func (t *Try) askedAgain(ctx context.Context, s shape, second []byte, size int) error {
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
	if _, err := c.Write(first.record()); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	if _, err := c.Read(buf); err != nil {
		return err
	}
	for len(second) > 0 {
		n, err := c.Write(second[:min(size, len(second))])
		if err != nil {
			return err
		}
		second = second[n:]
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
