package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/webhook"
)

const serving = "tidegate-webhook.tidegate-webhook.svc"

// show puts one version of files into dir, as the kubelet does: all change at
// once, by a link, and those of the version before go.
func show(t *testing.T, dir, before, version string, files map[string][]byte) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, ".."+version), 0o700); err != nil {
		t.Error(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, ".."+version, name), b, 0o600); err != nil {
			t.Error(err)
		}
	}
	link := func(to, name string) {
		_ = os.Remove(name + ".new")
		if err := os.Symlink(to, name+".new"); err != nil {
			t.Error(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Error(err)
		}
	}
	link(".."+version, filepath.Join(dir, "..data"))
	for name := range files {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			link(filepath.Join("..data", name), filepath.Join(dir, name))
		}
	}
	if before == "" {
		return
	}
	if err := os.RemoveAll(filepath.Join(dir, ".."+before)); err != nil {
		t.Error(err)
	}
}

// writeCertificate puts a new certificate for serving into dir, and returns it.
func writeCertificate(t *testing.T, dir string, serial int64, end time.Time) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: serving}, DNSNames: []string{serving},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	show(t, dir, fmt.Sprint(serial-1), fmt.Sprint(serial), map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	})
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// startWebhook runs a webhook with the certificate in dir until the test ends.
func startWebhook(t *testing.T, dir string) (s *webhookServer, reviews, management string) {
	t.Helper()
	s, r, m := newWebhook(t, dir)
	runWebhook(t, s, r, m)
	return s, "https://" + r.Addr().String(), "http://" + m.Addr().String()
}

func newWebhook(t *testing.T, dir string) (s *webhookServer, reviews, management net.Listener) {
	t.Helper()
	name, err := egress.ParseName("demo-abc123.hcp.westeurope.azmk8s.io")
	if err != nil {
		t.Fatal(err)
	}
	s = &webhookServer{log: slog.New(slog.DiscardHandler), certDir: dir}
	s.metrics = newWebhookMetrics(s)
	s.reviews = &webhook.Handler{APIServer: name, Scope: webhook.Scope{Namespaces: webhook.SystemNamespaces()}, Done: s.metrics.done}
	return s, listenLocal(t), listenLocal(t)
}

func runWebhook(t *testing.T, s *webhookServer, reviews, management net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx, reviews, management) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// apiServer is a client that trusts one certificate, as the API server does.
func apiServer(t *testing.T, c *x509.Certificate) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(c)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: serving}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

const kubeSystemPod = `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","resource":{"version":"v1","resource":"pods"},
	"namespace":"kube-system","operation":"CREATE","object":{"spec":{"containers":[{"name":"a"}]}}}}`

func TestWebhookServesAndReadsItsCertificateAgain(t *testing.T) {
	dir := t.TempDir()
	first := writeCertificate(t, dir, 1, time.Now().Add(time.Hour))
	_, reviews, management := startWebhook(t, dir)
	untilNil(t, "ready", func() error { return get(management+"/readyz", "ok\n") })

	ask := func(c *x509.Certificate) error {
		r, err := apiServer(t, c).Post(reviews+"/mutate", "application/json", strings.NewReader(kubeSystemPod))
		if err != nil {
			return err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Contains(b, []byte(`"uid":"u","allowed":true,"patch":`)) || r.ProtoMajor != 2 {
			return fmt.Errorf("%s %s: %s, %w", r.Proto, r.Status, b, err)
		}
		return nil
	}
	if err := ask(first); err != nil {
		t.Fatal(err)
	}
	second := writeCertificate(t, dir, 2, time.Now().Add(2*time.Hour))
	untilNil(t, "the second certificate", func() error { return ask(second) })
	if err := ask(first); err == nil {
		t.Error("the first certificate is still served")
	}
}

func TestWebhookMetrics(t *testing.T) {
	dir := t.TempDir()
	end := time.Now().Add(time.Hour)
	c := writeCertificate(t, dir, 1, end)
	s, reviews, management := startWebhook(t, dir)
	untilNil(t, "ready", func() error { return get(management+"/livez", "ok\n") })
	for _, body := range []string{kubeSystemPod, kubeSystemPod, "nonsense"} {
		r, err := apiServer(t, c).Post(reviews+"/mutate", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
	problems, err := testutil.GatherAndLint(s.metrics.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint of metrics: %v, %v", problems, err)
	}
	want := fmt.Sprintf(`# HELP tidegate_webhook_certificate_expiry_timestamp_seconds When the certificate that is being served ends; 0 while there is none.
# TYPE tidegate_webhook_certificate_expiry_timestamp_seconds gauge
tidegate_webhook_certificate_expiry_timestamp_seconds %v
# HELP tidegate_webhook_reviews_total Admission reviews, by what became of them.
# TYPE tidegate_webhook_reviews_total counter
tidegate_webhook_reviews_total{result="bad-review"} 1
tidegate_webhook_reviews_total{result="busy"} 0
tidegate_webhook_reviews_total{result="out-of-scope"} 0
tidegate_webhook_reviews_total{result="patched"} 2
tidegate_webhook_reviews_total{result="unchanged"} 0
tidegate_webhook_reviews_total{result="unreadable"} 0
`, float64(end.Unix()))
	if err := testutil.GatherAndCompare(s.metrics.registry, strings.NewReader(want),
		"tidegate_webhook_reviews_total", "tidegate_webhook_certificate_expiry_timestamp_seconds"); err != nil {
		t.Error(err)
	}
}

func TestWebhookIsNotReadyWithAnExpiredCertificate(t *testing.T) {
	dir := t.TempDir()
	writeCertificate(t, dir, 1, time.Now().Add(-time.Minute))
	_, _, management := startWebhook(t, dir)
	untilNil(t, "not ready", func() error {
		r, err := http.Get(management + "/readyz")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusServiceUnavailable || !bytes.Contains(b, []byte("certificate: expired at ")) {
			return fmt.Errorf("%s: %s, %w", r.Status, b, err)
		}
		return nil
	})
}

// TestSparing: whoever fails to shake hands a thousand times does not fill the log.
func TestSparing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		w := &sparing{to: &out}
		for range 1000 {
			fmt.Fprintln(w, "handshake")
		}
		time.Sleep(time.Minute)
		fmt.Fprintln(w, "last")
		want := strings.Repeat("handshake\n", linesAMinute) + "and 990 more such lines since 2000-01-01T00:00:00Z\nlast\n"
		if out.String() != want {
			t.Errorf("log:\n%s\nwant:\n%s", out.String(), want)
		}
	})
}

func get(url, want string) error {
	r, err := http.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if b, err := io.ReadAll(r.Body); err != nil || string(b) != want {
		return fmt.Errorf("%s: %q, %w", r.Status, b, err)
	}
	return nil
}

// untilNil waits for what happens beside the test; long, since it only ends
// early.
func untilNil(t *testing.T, what string, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}
