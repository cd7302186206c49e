package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// parts is where scripts/test-bin puts the API server.
const parts = "../../bin/parts"

// TestWebhookRenewsItsCertificateInTime: nobody touches the Secret, time passes, and the certificate in it is another
// one; every review on the way is answered, on new connections and on one that was there before. A certificate lives for
// twelve seconds here, not for a year, and is renewed eight before its end, not 90 days.
func TestWebhookRenewsItsCertificateInTime(t *testing.T) {
	config := startAPIServer(t)
	dir := t.TempDir()
	s, reviews, management := newWebhook(t, dir)
	s.cluster = config
	rotator, err := newRotator("tidegate-webhook/tidegate-webhook", dir)
	if err != nil {
		t.Fatal(err)
	}
	rotator.ServerCertDuration, rotator.LookaheadInterval, rotator.RotationCheckFrequency = 12*time.Second, 8*time.Second, 200*time.Millisecond
	s.rotator = rotator
	runWebhook(t, s, reviews, management)
	authority := mountSecret(t, config, dir)
	untilNil(t, "ready", func() error { return get("http://"+management.Addr().String()+"/readyz", "ok\n") })

	url := "https://" + reviews.Addr().String() + "/mutate"
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority())
	old := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: serving}}
	defer old.CloseIdleConnections()
	seen := map[time.Time]bool{} // the ends of certificates
	untilNil(t, "the fourth certificate", func() error {
		if _, err := askReview(old, url); err != nil {
			t.Fatalf("on the connection that was there before: %v", err)
		}
		one := &http.Transport{TLSClientConfig: old.TLSClientConfig.Clone(), DisableKeepAlives: true}
		end, err := askReview(one, url)
		if err != nil {
			t.Fatalf("on a new connection: %v", err)
		}
		if seen[end] = true; len(seen) < 4 {
			return fmt.Errorf("so far %d", len(seen))
		}
		return nil
	})
}

// askReview asks for one, and returns when the certificate ends that its connection was made with.
func askReview(transport *http.Transport, url string) (time.Time, error) {
	r, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Post(url, "application/json", strings.NewReader(kubeSystemPod))
	if err != nil {
		return time.Time{}, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && !strings.Contains(string(b), `"allowed":true,"patch":`) {
		err = fmt.Errorf("%s: %s", r.Status, b)
	}
	return r.TLS.PeerCertificates[0].NotAfter, err
}

// startAPIServer starts etcd and the API server, in which the webhook's manifests have been applied.
func startAPIServer(t *testing.T) *rest.Config {
	t.Helper()
	dir, err := filepath.Abs(parts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "kube-apiserver")); err != nil {
		if os.Getenv("TIDEGATE_E2E") == "required" {
			t.Fatalf("not built (make test-bin): %v", err)
		}
		t.Skip("SKIPPED: no API server has been built (make test-bin); TIDEGATE_E2E=required makes this an error")
	}
	ctrllog.SetLogger(logr.Discard())
	env := &envtest.Environment{BinaryAssetsDirectory: dir, ControlPlaneStartTimeout: 2 * time.Minute}
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = env.Stop() })
	admin, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := admin.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}
	manifests, err := exec.Command("tidegate", "webhook", "manifests", "--api-server", "demo-abc123.hcp.westeurope.azmk8s.io", "--image", "registry.example/tidegate:1").Output()
	if err != nil {
		t.Fatal(err)
	}
	apply := exec.Command(filepath.Join(dir, "kubectl"), "--kubeconfig", file, "apply", "-f", "-")
	apply.Stdin = strings.NewReader(string(manifests))
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	return config
}

// mountSecret shows the webhook's Secret in dir, whatever it is at the moment, as the kubelet does. It returns what
// returns the authority in it.
func mountSecret(t *testing.T, config *rest.Config, dir string) (authority func() []byte) {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	read := func(ctx context.Context) (version string, files map[string][]byte) {
		s, err := client.CoreV1().Secrets("tidegate-webhook").Get(ctx, "tidegate-webhook", metav1.GetOptions{})
		if err != nil || len(s.Data) == 0 {
			return "", nil
		}
		return s.ResourceVersion, s.Data
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for shown := ""; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			if version, files := read(ctx); files != nil && version != shown {
				show(t, dir, shown, version, files)
				shown = version
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func() []byte {
		_, files := read(ctx)
		return files["ca.crt"]
	}
}
