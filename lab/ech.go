//go:build linux

package lab

import (
	"crypto/ecdh"
	"crypto/rand"

	"golang.org/x/crypto/cryptobyte"
)

// echConfigList is a server's offer to hide names behind a public one (RFC 9849 section 4), for a key that nobody keeps:
// what a client sends with it, and to whom it shows which name, is the same.
func echConfigList(public string) ([]byte, error) {
	const (
		version, id                         = 0xfe0d, 7
		kemX25519, kdfSHA256, aeadAES128GCM = 0x0020, 1, 1
	)
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	b := new(cryptobyte.Builder)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(version)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint8(id)
			b.AddUint16(kemX25519)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(key.PublicKey().Bytes()) })
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint16(kdfSHA256); b.AddUint16(aeadAES128GCM) })
			b.AddUint8(0) // no maximum length of names
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(public)) })
			b.AddUint16(0) // no extensions
		})
	})
	return b.Bytes()
}
