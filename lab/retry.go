//go:build linux

package lab

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// retryMark begins the random of a hello whose sender wants to be asked again.
var retryMark = []byte("LABRETRY")

// wantsRetry reports whether the first record's hello has the mark.
func wantsRetry(head []byte) bool {
	const random = 5 + 4 + 2 // record header, message header, version
	return len(head) > random && bytes.HasPrefix(head[random:], retryMark)
}

// serveRetry is a TLS server of the careless kind: it asks for a second hello (RFC 8446 section 4.1.4) and takes whatever
// comes, as OpenSSL does with another server name. What it got is in the record.
func (s *server) serveRetry(t *tap) {
	t.quiet.Store(true)
	hrr := sha256.Sum256([]byte("HelloRetryRequest")) // that is how the RFC chose the random
	if _, err := t.Write(serverHello(hrr[:], true)); err != nil {
		return
	}
	const header = 5
	first := header + int(binary.BigEndian.Uint16(t.ahead[3:])) // one record
	second := t.ahead[min(first, len(t.ahead)):]
	t.ahead = nil
	_ = t.SetReadDeadline(time.Now().Add(firstByteTimeout))
	for buf := make([]byte, 4096); !wholeHello(skipCCS(second)) && len(second) < maxSeenData; {
		n, err := t.Read(buf)
		if err != nil {
			return
		}
		second = append(second, buf[:n]...)
	}
	s.rec.add(Seen{Proto: "tls", Local: addrPort(t.LocalAddr()), Remote: addrPort(t.RemoteAddr()), Whole: true, Data: second})
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	_, _ = t.Write(serverHello(random, false))
}

// skipCCS drops a ChangeCipherSpec record, which a client may send before its second hello (RFC 8446 section D.4).
func skipCCS(b []byte) []byte {
	if ccs := []byte{0x14, 3, 3, 0, 1, 1}; bytes.HasPrefix(b, ccs) {
		return b[len(ccs):]
	}
	return b
}

// serverHello is a ServerHello in a record; with retry it asks for a key on P-256.
func serverHello(random []byte, retry bool) []byte {
	const serverHelloMessage = 2
	b := new(cryptobyte.Builder)
	b.AddUint8(serverHelloMessage)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(versionTLS12)
		b.AddBytes(random)
		b.AddUint8LengthPrefixed(func(*cryptobyte.Builder) {})
		b.AddUint16(0x1301)
		b.AddUint8(0)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			extension(b, extVersions, func(b *cryptobyte.Builder) { b.AddUint16(versionTLS13) })
			extension(b, extKeyShare, func(b *cryptobyte.Builder) {
				if b.AddUint16(groupP256); !retry {
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(make([]byte, 65)) })
				}
			})
		})
	})
	return records(b.BytesOrPanic(), maxRecordPayload)
}
