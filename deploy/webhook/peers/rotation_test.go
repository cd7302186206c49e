package peers

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

const day = 24 * time.Hour

// TestCertificateIsRenewedByAge: 90 days before its end a certificate is
// replaced, and not a day earlier, and pods are given the name all the while.
func TestCertificateIsRenewedByAge(t *testing.T) {
	c, r := installed(t)
	own := readAuthority(t, c.secret())
	stop := c.keepMaking()

	young := own.serving(t, 91*day)
	c.put(young)
	r.waitServes(young)
	if !bytes.Equal(c.secret()["tls.crt"], young["tls.crt"]) {
		t.Error("a certificate with 91 days to live was renewed")
	}
	old := own.serving(t, 89*day)
	c.put(old)
	renewed := c.waitOther("tls.crt", old)
	r.waitServes(renewed)

	if made, without := stop(); without > 0 || made == 0 {
		t.Errorf("of %d pods that were made meanwhile, %d were not given the name", made, without)
	}
	if end := parse(t, renewed["tls.crt"]).NotAfter; time.Until(end) < 364*day {
		t.Errorf("the new certificate ends at %s: want a year", end)
	}
	if !bytes.Equal(renewed["ca.crt"], old["ca.crt"]) {
		t.Error("with the certificate the authority was renewed too")
	}
}

// TestAuthorityIsRenewedByAge: an authority that ends in 90 days is replaced
// everywhere. While the API server has one and the webhook serves with the
// other, pods are made as they are.
func TestAuthorityIsRenewedByAge(t *testing.T) {
	c, r := installed(t)
	stop := c.keepMaking()
	old := newAuthority(t, 89*day).serving(t, 89*day)
	c.put(old)
	renewed := c.waitOther("ca.crt", old)
	r.waitServes(renewed)
	waitFor(t, func() bool { return c.authority() == base64.StdEncoding.EncodeToString(renewed["ca.crt"]) })
	c.waitPatched()
	made, without := stop()
	t.Logf("while the authority was renewed %d pods were made, %d of them without the name", made, without)
	if made == 0 {
		t.Error("no pods were made meanwhile")
	}
	if end := parse(t, renewed["ca.crt"]).NotAfter; time.Until(end) < 9*365*day {
		t.Errorf("the new authority ends at %s: want ten years", end)
	}
}

// keepMaking makes pods in scope, one after the other, until stop is called,
// which returns how many were made and how many of them without the name. All
// have to be made.
func (c *cluster) keepMaking() (stop func() (made, without int)) {
	done, ended := make(chan struct{}), make(chan struct{})
	made, without := 0, 0
	ask := c.asker()
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
			pod, err := ask("kube-system", smallPod)
			if err != nil {
				c.t.Errorf("a pod was not admitted: %v", err)
				return
			}
			if made++; len(podVariables(pod)) == 0 {
				without++
			}
		}
	}()
	return func() (int, int) { close(done); <-ended; return made, without }
}

// put writes the Secret, as if time had passed since it was made.
func (c *cluster) put(data map[string][]byte) {
	c.t.Helper()
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		c.t.Fatal(err)
	}
	c.kubectl("", "-n", namespace, "patch", "secret", "tidegate-webhook", "--type", "merge", "-p", string(patch))
}

// waitOther waits until the Secret has another file of this name.
func (c *cluster) waitOther(name string, than map[string][]byte) (data map[string][]byte) {
	c.t.Helper()
	waitFor(c.t, func() bool { data = c.secret(); return !bytes.Equal(data[name], than[name]) })
	return data
}

// waitServes waits until a new connection is shown this certificate.
func (r *replica) waitServes(data map[string][]byte) {
	r.c.t.Helper()
	want := parse(r.c.t, data["tls.crt"])
	waitFor(r.c.t, func() bool { got, err := r.served(data["ca.crt"]); return err == nil && got.Equal(want) })
}

// authority is one as the webhook makes it for itself.
type authority struct {
	certificate *x509.Certificate
	key         *rsa.PrivateKey
}

func newAuthority(t *testing.T, life time.Duration) authority {
	t.Helper()
	form := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "tidegate-webhook-ca"}, DNSNames: []string{"tidegate-webhook-ca"},
		NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(life), KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return authority{parse(t, toPEM("CERTIFICATE", der)), key}
}

func readAuthority(t *testing.T, secret map[string][]byte) authority {
	t.Helper()
	block, _ := pem.Decode(secret["ca.key"])
	if block == nil {
		t.Fatalf("no key in %q", secret["ca.key"])
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return authority{parse(t, secret["ca.crt"]), key}
}

// serving is the content of the Secret with a certificate that has so long to live.
func (a authority) serving(t *testing.T, life time.Duration) map[string][]byte {
	t.Helper()
	name := "tidegate-webhook." + namespace + ".svc"
	form := &x509.Certificate{
		SerialNumber: big.NewInt(int64(life)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, form, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"ca.crt": toPEM("CERTIFICATE", a.certificate.Raw), "ca.key": toPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(a.key)),
		"tls.crt": toPEM("CERTIFICATE", der), "tls.key": toPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)),
	}
}

func newKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func toPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func parse(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no certificate in %q", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
