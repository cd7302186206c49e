//go:build linux

package lab

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"net"
	"sync/atomic"

	"golang.org/x/crypto/cryptobyte"
)

// A helloKind is which version of TLS a hello is for, and so how long it is and what it holds.
type helloKind uint8

// The kinds. A post-quantum hello offers X25519MLKEM768 as well, and does not fit into one packet.
const (
	tls13 helloKind = iota
	tls12
	postQuantum

	numHelloKinds
)

// String returns the words.
func (k helloKind) String() string {
	return [...]string{"TLS 1.3", "TLS 1.2", "TLS 1.3 with a post-quantum key"}[k]
}

// A hello describes a ClientHello to be made by hand, where a TLS library would refuse to make it. The zero hello has no
// server name and is otherwise what any TLS 1.3 server accepts.
type hello struct {
	names      [][]byte // one server_name extension with these entries
	nameType   uint8    // of the entries; 0 is a host name
	more       [][]byte // further server_name extensions, one name each
	extensions []uint16 // further extensions, empty
	padding    int      // bytes of padding before the server name, to move it back
	retry      bool     // ask the lab's servers for a HelloRetryRequest
	kind       helloKind
	noShare    bool // no key at all: a TLS 1.3 server has to send a HelloRetryRequest (RFC 8446 section 4.2.8)
	ech        bool // an encrypted_client_hello extension that means nothing: GREASE (RFC 9849 section 6.2)
}

// sni is a hello for one name.
func sni(name string) hello { return hello{names: [][]byte{[]byte(name)}} }

const (
	extServerName    = 0
	extGroups        = 10
	extSignatures    = 13
	extPadding       = 21
	extVersions      = 43
	extKeyShare      = 51
	extECH           = 0xfe0d
	groupX25519      = 0x001d
	groupX25519MLKEM = 0x11ec
	groupP256        = 0x0017
	versionTLS12     = 0x0303
	versionTLS13     = 0x0304
	helloMessage     = 1
	maxRecordPayload = 1 << 14
)

// message returns the handshake message (RFC 8446 section 4.1.2), without record headers.
func (h hello) message() []byte {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		panic(err) // the system has no random numbers
	}
	random := make([]byte, 64)
	_, _ = rand.Read(random) // never fails: crypto/rand.Read crashes instead
	if h.retry {
		copy(random, retryMark)
	}
	b := new(cryptobyte.Builder)
	b.AddUint8(helloMessage)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(versionTLS12)
		b.AddBytes(random[:32])
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(random[32:]) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, suite := range h.suites() {
				b.AddUint16(suite)
			}
		})
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint8(0) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { h.addExtensions(b, key.PublicKey().Bytes()) })
	})
	return b.BytesOrPanic()
}

// suites are what the kind offers: all that a TLS 1.2 server would choose from, for any key.
func (h hello) suites() []uint16 {
	if h.kind == tls12 {
		return []uint16{0xc02b, 0xc02f, 0xc02c, 0xc030}
	}
	return []uint16{0x1301, 0x1302, 0x1303}
}

func (h hello) addExtensions(b *cryptobyte.Builder, share []byte) {
	if h.padding > 0 {
		extension(b, extPadding, func(b *cryptobyte.Builder) { b.AddBytes(make([]byte, h.padding)) })
	}
	lists := [][][]byte{}
	if h.names != nil {
		lists = append(lists, h.names)
	}
	for _, name := range h.more {
		lists = append(lists, [][]byte{name})
	}
	for _, names := range lists {
		extension(b, extServerName, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, name := range names {
					b.AddUint8(h.nameType)
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(name) })
				}
			})
		})
	}
	list16 := func(values ...uint16) func(*cryptobyte.Builder) {
		return func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, v := range values {
					b.AddUint16(v)
				}
			})
		}
	}
	groups := []uint16{groupX25519}
	switch h.kind {
	case postQuantum:
		groups = []uint16{groupX25519MLKEM, groupX25519}
	case tls12:
		groups = append(groups, groupP256) // the servers' certificates are on it
	}
	extension(b, extGroups, list16(groups...))
	extension(b, extSignatures, list16(0x0403, 0x0804, 0x0401))
	if h.kind != tls12 {
		extension(b, extVersions, func(b *cryptobyte.Builder) {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint16(versionTLS13) })
		})
		extension(b, extKeyShare, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { h.addShares(b, share) })
		})
	}
	if h.ech {
		extension(b, extECH, addGrease)
	}
	for _, e := range h.extensions {
		extension(b, e, func(*cryptobyte.Builder) {})
	}
}

// addShares writes the keys that the kind offers, genuine ones: servers answer them.
func (h hello) addShares(b *cryptobyte.Builder, x25519 []byte) {
	add := func(group uint16, key []byte) {
		b.AddUint16(group)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(key) })
	}
	if h.noShare {
		return
	}
	if h.kind == postQuantum {
		key, err := mlkem.GenerateKey768()
		if err != nil {
			panic(err) // the system has no random numbers
		}
		add(groupX25519MLKEM, append(key.EncapsulationKey().Bytes(), x25519...))
	}
	add(groupX25519, x25519)
}

// addGrease is an outer encrypted_client_hello as clients make it up that have no key for it (RFC 9849 section 6.2).
func addGrease(b *cryptobyte.Builder) {
	const outer, hkdfSHA256, aes128GCM, config = 0, 1, 1, 0x5a
	key, payload := make([]byte, 32), make([]byte, 144)
	_, _ = rand.Read(key) // never fails
	_, _ = rand.Read(payload)
	b.AddUint8(outer)
	b.AddUint16(hkdfSHA256)
	b.AddUint16(aes128GCM)
	b.AddUint8(config)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(key) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(payload) })
}

func extension(b *cryptobyte.Builder, kind uint16, body cryptobyte.BuilderContinuation) {
	b.AddUint16(kind)
	b.AddUint16LengthPrefixed(body)
}

// records puts a handshake message into records of at most size bytes each.
func records(message []byte, size int) []byte {
	b := new(cryptobyte.Builder)
	for len(message) > 0 {
		n := min(size, len(message))
		b.AddUint8(recordHandshake)
		b.AddUint16(0x0301)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(message[:n]) })
		message = message[n:]
	}
	return b.BytesOrPanic()
}

// record is the hello as a client would send it.
func (h hello) record() []byte { return records(h.message(), maxRecordPayload) }

// A Shaper changes how a real TLS client's ClientHello goes out, not what is in it, and remembers what was sent.
type Shaper struct {
	net.Conn
	Records int  // split the hello over this many records, if more than one
	Bytes   bool // one write, and so usually one segment, a byte

	Hello []byte // the bytes sent until the first answer was read
	read  atomic.Bool
}

func (s *Shaper) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if n > 0 {
		s.read.Store(true)
	}
	return n, err
}

func (s *Shaper) Write(b []byte) (int, error) {
	if s.read.Load() {
		return s.Conn.Write(b)
	}
	out := b
	if s.Records > 1 && len(b) > 5 && b[0] == recordHandshake {
		out = records(b[5:], (len(b)-5+s.Records-1)/s.Records)
	}
	s.Hello = append(s.Hello, out...)
	step := len(out)
	if s.Bytes {
		step = 1
	}
	for len(out) > 0 {
		n, err := s.Conn.Write(out[:min(step, len(out))])
		if err != nil {
			return 0, err
		}
		out = out[n:]
	}
	return len(b), nil
}
