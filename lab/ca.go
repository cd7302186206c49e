//go:build linux

package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"sync"
	"time"
)

// maxLeaves bounds the certificates kept: a client may show any number of names. When there are more all are forgotten.
const maxLeaves = 4096

// A CA signs for every name. It is made anew for each lab and its key never leaves the process, so trusting it is safe
// as long as the lab runs and useless afterwards.
type CA struct {
	// PEM is the root certificate, for a client's trust store.
	PEM []byte

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	leaf *ecdsa.PrivateKey // one key for all leaves: they differ in what they say, and making keys is slow

	mu     sync.Mutex
	leaves map[leafID]*tls.Certificate
}

type leafID struct {
	name string
	addr netip.Addr
}

// NewCA makes a root for one lab.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of the lab's CA: %w", err)
	}
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the servers' key: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Tidegate lab CA"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(30 * 24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign the lab's CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the lab's CA back: %w", err)
	}
	return &CA{
		PEM:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		cert:   cert,
		key:    key,
		leaf:   leaf,
		leaves: map[leafID]*tls.Certificate{},
	}, nil
}

// Pool returns a trust store that holds only this CA.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Leaf returns a certificate for name (none if empty) and addr, and for the names by which pods know their API server.
func (ca *CA) Leaf(name string, addr netip.Addr) (*tls.Certificate, error) {
	id := leafID{name, addr}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if c := ca.leaves[id]; c != nil {
		return c, nil
	}
	c, err := ca.Sign(name, addr)
	if err != nil {
		return nil, err
	}
	if len(ca.leaves) >= maxLeaves {
		clear(ca.leaves)
	}
	ca.leaves[id] = c
	return c, nil
}

// Sign makes a certificate such as Leaf's, for any number of addresses, and does not keep it.
func (ca *CA) Sign(name string, addrs ...netip.Addr) (*tls.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    ca.cert.NotBefore,
		NotAfter:     ca.cert.NotAfter,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
	}
	for _, a := range addrs {
		tmpl.IPAddresses = append(tmpl.IPAddresses, a.AsSlice())
	}
	if name != "" {
		tmpl.DNSNames = append(tmpl.DNSNames, name)
		tmpl.Subject.CommonName = name[:min(len(name), 64)]
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, &ca.leaf.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %q: %w", name, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: ca.leaf}, nil
}
