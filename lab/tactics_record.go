//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
)

// recordTactics: a hello may be cut into records anywhere (RFC 8446 section 5.1), and TLS servers join them. The first of
// these are legal; the others are such that servers differ, or refuse them.
func recordTactics() []tactic {
	var all []tactic
	legal := func(name, source string, cut func(message []byte, at int) [][]byte) {
		all = append(all, tactic{name: name, source: source, axes: byFamily | byHello, evil: inRecords(false, cut), twin: inRecords(true, cut)})
	}
	odd := func(name, source string, shape func(record []byte) []byte) {
		all = append(all, tactic{name: name, source: source, axes: byFamily | byHello, evil: reshaped(shape), twin: inRecords(true, whole)})
	}
	sizes := func(n int) func([]byte, int) [][]byte {
		return func(m []byte, _ int) [][]byte { return pieces(m, n) }
	}
	legal("cuts the name over two records", "DPYProxy; Niere et al., USENIX 2025", func(m []byte, at int) [][]byte { return [][]byte{m[:at+5], m[at+5:]} })
	legal("cuts the message's header over two records", "Niere et al., USENIX 2025", func(m []byte, _ int) [][]byte { return [][]byte{m[:2], m[2:]} })
	legal("puts the first byte into a record of its own", "GoodbyeDPI; zapret: tlsrec", func(m []byte, _ int) [][]byte { return [][]byte{m[:1], m[1:]} })
	legal("cuts the extension's header over two records", "zapret: tlsrec sniext", func(m []byte, at int) [][]byte { return [][]byte{m[:at-7], m[at-7:]} })
	legal("puts the last byte into a record of its own", "RFC 8446 section 5.1", func(m []byte, _ int) [][]byte { return [][]byte{m[:len(m)-1], m[len(m)-1:]} })
	legal("cuts the hello over 3 records", "RFC 8446 section 5.1", sizes(3))
	legal("cuts the hello over 15 records", "RFC 8446 section 5.1", sizes(15))
	legal("begins with four records of one byte", "RFC 8446 section 5.1", func(m []byte, _ int) [][]byte {
		return [][]byte{m[:1], m[1:2], m[2:3], m[3:4], m[4:]}
	})
	odd("cuts the hello over 60 records", "RFC 8446 section 5.1", func(r []byte) []byte { return records(r[5:], (len(r)-5)/59) })
	odd("sends an empty record before the hello", "RFC 8446 section 5.1", func(r []byte) []byte { return append([]byte{recordHandshake, 3, 1, 0, 0}, r...) })
	odd("sends a warning before the hello", "RFC 5246 section 7.2", func(r []byte) []byte { return append([]byte{0x15, 3, 1, 0, 2, 1, 0x5a}, r...) })
	odd("sends a change of cipher before the hello", "RFC 8446 section 5", func(r []byte) []byte { return append([]byte{0x14, 3, 1, 0, 1, 1}, r...) })
	odd("sends a second hello behind the first", "RFC 8446 section 4.1.2", func(r []byte) []byte { return append(sni(frontDoors[0]).record(), r...) })
	odd("sends early data and a hello behind the first", "RFC 8446 section 4.2.10", func(r []byte) []byte {
		return append(append(sni(frontDoors[0]).record(), 0x17, 3, 3, 0, 4, 1, 2, 3, 4), r...)
	})
	odd("says SSL 3.0 in the record", "RFC 8446 appendix E.5", func(r []byte) []byte { r[2] = 0; return r })
	return all
}

func whole(m []byte, _ int) [][]byte { return [][]byte{m} }

// pieces cuts a message into n parts.
func pieces(m []byte, n int) [][]byte {
	parts := make([][]byte, n)
	for i := range parts {
		parts[i] = m[i*len(m)/n : (i+1)*len(m)/n]
	}
	return parts
}

// inRecords sends a hello whose message is cut into records.
func inRecords(honest bool, cut func(message []byte, at int) [][]byte) play {
	return func(ctx context.Context, t *Try, s shape) error {
		const recordHeader = 5
		good, evil, at := t.hellos(s)
		if honest {
			evil = good
		}
		var out []byte
		for _, part := range cut(evil[recordHeader:], at-recordHeader) {
			out = append(out, records(part, len(part))...)
		}
		return t.write(ctx, t.target(ctx, s.name, s.v6, 443), out, len(out))
	}
}

// reshaped sends the evil hello after a change to its bytes.
func reshaped(change func(record []byte) []byte) play {
	return func(ctx context.Context, t *Try, s shape) error {
		_, evil, _ := t.hellos(s)
		out := change(evil)
		return t.write(ctx, t.target(ctx, s.name, s.v6, 443), out, len(out))
	}
}

// write connects, writes b in pieces of size bytes, and wants the beginning of a handshake for an answer. The proof is
// all of b.
func (t *Try) write(ctx context.Context, to netip.AddrPort, b []byte, size int) error {
	c, err := t.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	t.prove(b)
	for len(b) > 0 {
		n, err := c.Write(b[:min(size, len(b))])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	answer := make([]byte, 1)
	if _, err := c.Read(answer); err != nil {
		return err
	}
	if answer[0] != recordHandshake {
		return fmt.Errorf("the server answers with a record of type %d", answer[0])
	}
	return nil
}
