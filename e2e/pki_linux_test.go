package e2e

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
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"
)

// A pki is the cluster's own authority: it says who the clients are. What the API server shows is signed by the lab's.
type pki struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e cluster CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pki{t, cert, key, pemOf("CERTIFICATE", der)}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate for a user of some groups who may also be a server at addrs and names.
func (p *pki) sign(user string, groups []string, names []string, addrs ...netip.Addr) (certPEM, keyPEM []byte) {
	p.t.Helper()
	key := newKey(p.t)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		p.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: user, Organization: groups},
		NotBefore: p.cert.NotBefore, NotAfter: p.cert.NotAfter, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, a := range addrs {
		tmpl.IPAddresses = append(tmpl.IPAddresses, net.IP(a.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, p.cert, &key.PublicKey, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return pemOf("CERTIFICATE", der), keyPEMOf(p.t, key)
}

func keyPEMOf(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("PRIVATE KEY", der)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// identify writes NAME.crt, NAME.key and NAME.kubeconfig for a user who finds the API server at url under the cluster's name.
func (c *cluster) identify(name, url, user string, groups ...string) {
	c.t.Helper()
	cert, key := c.pki.sign(user, groups, nil)
	c.write(name+".crt", cert)
	c.write(name+".key", key)
	c.write(name+".kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: %q, tls-server-name: %q, certificate-authority: %q}}]
users: [{name: me, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: lab, context: {cluster: lab, user: me}}]
current-context: lab
`, url, c.name, c.path("ca.pem"), c.path(name+".crt"), c.path(name+".key")))
}

// serverFiles writes what the API server shows: a certificate of the lab's authority for its name, and for those by
// which pods know it.
func (c *cluster) serverFiles() (cert, key string) {
	c.t.Helper()
	leaf, err := c.CA.Sign(c.name, c.addr, serviceAddr.Addr())
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("api.crt", chain(leaf))
	c.write("api.key", keyPEMOf(c.t, leaf.PrivateKey))
	return c.path("api.crt"), c.path("api.key")
}

// accountFiles writes the key by which tokens of service accounts are signed and, for who checks them, its public half.
func (c *cluster) accountFiles() {
	c.t.Helper()
	key := newKey(c.t)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("accounts.key", keyPEMOf(c.t, key))
	c.write("accounts.pub", pemOf("PUBLIC KEY", public))
}

func chain(leaf *tls.Certificate) (text []byte) {
	for _, der := range leaf.Certificate {
		text = append(text, pemOf("CERTIFICATE", der)...)
	}
	return text
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }
