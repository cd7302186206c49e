// Package wiretest builds ClientHellos for tests: as clients send them, and as no client
// does. It promises that [Client] and what is changed in it a little gets an answer from a
// real TLS server; the handshake itself cannot be completed, for the keys are made up. It
// checks nothing, and is never linked into the program.
package wiretest

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"

	"golang.org/x/crypto/cryptobyte"
)

// Extension is one extension of a hello.
type Extension struct {
	ID   uint16
	Data []byte
}

// Hello is a ClientHello as its fields; the zero value of each is written as it is, unless
// said otherwise.
type Hello struct {
	Version      uint16 // 0 is 0x0303, as TLS 1.2 and 1.3 send
	Session      []byte
	Suites       []uint16
	Compressions []byte
	Extensions   []Extension // nil leaves out the list and its length
}

// Named groups, as [KeyShare] and [Groups] take them.
const (
	X25519         uint16 = 0x001d
	P256           uint16 = 0x0017
	X25519MLKEM768 uint16 = 0x11ec // the client's share has 1,216 bytes
)

// Client is the hello of a TLS 1.3 client that asks for name. More extensions, or
// replacements of those with the same ID, follow.
func Client(name string, more ...Extension) Hello {
	h := Hello{
		Session:      bytes.Repeat([]byte{0x5e}, 32),
		Suites:       []uint16{0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f},
		Compressions: []byte{0},
		Extensions: []Extension{
			ServerName(name),
			Groups(X25519, P256),
			SignatureAlgorithms(),
			Versions(0x0304, 0x0303),
			KeyShare(X25519, 32),
		},
	}
	return h.With(more...)
}

// PostQuantum is [Client] with the key share that makes a hello too long for one packet.
func PostQuantum(name string) Hello {
	shares := Extension{ID: 51}
	both := append(KeyShare(X25519MLKEM768, 1216).Data[2:], KeyShare(X25519, 32).Data[2:]...)
	shares.Data = prefixed16(both)
	return Client(name, Groups(X25519MLKEM768, X25519), shares)
}

// With is h with extensions replaced by those that have the same ID, the others added.
func (h Hello) With(more ...Extension) Hello {
	out := append([]Extension{}, h.Extensions...)
next:
	for _, e := range more {
		for i := range out {
			if out[i].ID == e.ID {
				out[i] = e
				continue next
			}
		}
		out = append(out, e)
	}
	h.Extensions = out
	return h
}

// Also is h with extensions added, whatever is there: for duplicates.
func (h Hello) Also(more ...Extension) Hello {
	h.Extensions = append(append([]Extension{}, h.Extensions...), more...)
	return h
}

// Without is h without the extensions of that ID: Without(0) names no server.
func (h Hello) Without(id uint16) Hello {
	out := []Extension{}
	for _, e := range h.Extensions {
		if e.ID != id {
			out = append(out, e)
		}
	}
	h.Extensions = out
	return h
}

// PadTo is h with a padding extension (RFC 7685) that makes the message size bytes long, at
// the front, so that the name comes last; or h itself when it is longer already.
func (h Hello) PadTo(size int) Hello {
	n := size - len(h.Message()) - 4
	if n < 0 {
		return h
	}
	h.Extensions = append([]Extension{{ID: 21, Data: make([]byte, n)}}, h.Extensions...)
	return h
}

// Message is the handshake message, header included.
func (h Hello) Message() []byte {
	var b cryptobyte.Builder
	version := h.Version
	if version == 0 {
		version = 0x0303
	}
	b.AddUint8(1)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(version)
		b.AddBytes(bytes.Repeat([]byte{0xa5}, 32))
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(h.Session) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, s := range h.Suites {
				b.AddUint16(s)
			}
		})
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(h.Compressions) })
		if h.Extensions == nil {
			return
		}
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, e := range h.Extensions {
				b.AddUint16(e.ID)
				b.AddBytes(prefixed16(e.Data))
			}
		})
	})
	return b.BytesOrPanic()
}

// Bytes is the hello in records of up to 2^14 bytes.
func (h Hello) Bytes() []byte { return Records(h.Message(), 1<<14) }

// Records cuts msg into handshake records of the given sizes; the last size is used for all
// that remains.
func Records(msg []byte, sizes ...int) []byte {
	var out []byte
	for len(msg) > 0 {
		n := min(sizes[0], len(msg))
		out = append(out, Record(22, 0x0301, msg[:n])...)
		msg = msg[n:]
		if len(sizes) > 1 {
			sizes = sizes[1:]
		}
	}
	return out
}

// Record is one record of any type and version.
func Record(kind uint8, version uint16, content []byte) []byte {
	out := []byte{kind, byte(version >> 8), byte(version)}
	return append(out, prefixed16(content)...)
}

// ServerName is the extension with an entry for each name.
func ServerName(names ...string) Extension {
	var list []byte
	for _, name := range names {
		list = append(append(list, 0), prefixed16([]byte(name))...)
	}
	return Extension{ID: 0, Data: prefixed16(list)}
}

// Groups is the supported_groups extension.
func Groups(ids ...uint16) Extension {
	return Extension{ID: 10, Data: prefixed16(words(ids))}
}

// SignatureAlgorithms is the extension with what servers commonly have.
func SignatureAlgorithms() Extension {
	return Extension{ID: 13, Data: prefixed16(words([]uint16{0x0403, 0x0804, 0x0401, 0x0807}))}
}

// Versions is the supported_versions extension.
func Versions(v ...uint16) Extension {
	w := words(v)
	return Extension{ID: 43, Data: append([]byte{byte(len(w))}, w...)}
}

// KeyShare is the extension with one share of n bytes, which is no valid key of most groups.
func KeyShare(group uint16, n int) Extension {
	share := append(words([]uint16{group}), prefixed16(bytes.Repeat([]byte{9}, n))...)
	return Extension{ID: 51, Data: prefixed16(share)}
}

// NoKeyShare is the extension with an empty list, which asks a server of TLS 1.3 for a
// HelloRetryRequest (RFC 8446, section 4.2.8).
func NoKeyShare() Extension { return Extension{ID: 51, Data: []byte{0, 0}} }

// ALPN is the extension with these protocols.
func ALPN(protocols ...string) Extension {
	var list []byte
	for _, p := range protocols {
		list = append(append(list, byte(len(p))), p...)
	}
	return Extension{ID: 16, Data: prefixed16(list)}
}

// ECH is an encrypted_client_hello extension of the outer form, of no meaning to anybody.
func ECH() Extension {
	data := append([]byte{0, 0, 1, 0, 1, 7}, prefixed16(make([]byte, 32))...)
	return Extension{ID: 0xfe0d, Data: append(data, prefixed16(make([]byte, 64))...)}
}

// Dialled is the hello that crypto/tls sends with config, which must have a ServerName or
// InsecureSkipVerify.
func Dialled(config *tls.Config) []byte {
	var r recorder
	// The error is the end of the silent server, and expected.
	_ = tls.Client(&r, config).HandshakeContext(context.Background())
	return r.Bytes()
}

// recorder is a connection to a server that closes at once. Its net.Conn is nil: crash on
// any unexpected use.
type recorder struct {
	net.Conn
	bytes.Buffer
}

func (r *recorder) Read([]byte) (int, error)    { return 0, io.EOF }
func (r *recorder) Write(b []byte) (int, error) { return r.Buffer.Write(b) }
func (r *recorder) Close() error                { return nil }

func prefixed16(b []byte) []byte {
	return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...)
}

func words(w []uint16) []byte {
	var b []byte
	for _, v := range w {
		b = append(b, byte(v>>8), byte(v))
	}
	return b
}
