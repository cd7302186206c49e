package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rogpeppe/go-internal/testscript"

	"tidegate.io/tidegate/mirror"
)

// pushImage puts an image for linux/amd64, and an index of it, into a registry.
func pushImage(r ociregistry.Interface, repo, tag, layer string) error {
	ctx := context.Background()
	push := func(mediaType, text string) (ocispec.Descriptor, error) {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(text), Size: int64(len(text))}
		_, err := r.PushBlob(ctx, repo, d, strings.NewReader(text))
		return d, err
	}
	config, err := push(ocispec.MediaTypeImageConfig, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}`)
	if err != nil {
		return err
	}
	content, err := push(ocispec.MediaTypeImageLayer, layer)
	if err != nil {
		return err
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{content}}
	m.SchemaVersion = 2
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	image, err := r.PushManifest(ctx, repo, "", b, m.MediaType)
	if err != nil {
		return err
	}
	image.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{image}}
	index.SchemaVersion = 2
	if b, err = json.Marshal(index); err != nil {
		return err
	}
	_, err = r.PushManifest(ctx, repo, tag, b, index.MediaType)
	return err
}

// startRegistry serves two images, and writes a mirror's file for it into a folder.
func startRegistry(dir string) (*httptest.Server, error) {
	r := ocimem.New()
	for _, tag := range []string{"3.6", "3.10"} {
		if err := pushImage(r, "oss/kubernetes/pause", tag, "pause "+tag); err != nil {
			return nil, err
		}
	}
	s := httptest.NewTLSServer(ociserver.New(r, nil))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "upstream.pem"), ca, 0o600); err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`apiVersion: tidegate.io/v1
kind: Mirror
store: store
size: 1GiB
listen: 127.0.0.1:0
management: 127.0.0.1:0
tls: {names: [mirror.example, 127.0.0.1]}
upstreams:
  - name: mcr.microsoft.com
    url: %s
    authorities: upstream.pem
    prefixes: [aks-managed-repository]
`, s.URL)
	return s, os.WriteFile(filepath.Join(dir, "mirror.yaml"), []byte(text), 0o600)
}

// setupMirror gives the mirror's scripts a registry to mirror.
func setupMirror(e *testscript.Env) error {
	if !strings.HasPrefix(filepath.Base(e.WorkDir), "script-mirror") {
		return nil
	}
	s, err := startRegistry(e.WorkDir)
	if err != nil {
		return err
	}
	e.Defer(s.Close)
	return nil
}

// startMirror runs a mirror of a registry until the test ends.
func startMirror(t *testing.T, dir string) (s *mirrorServer, registry, management string) {
	t.Helper()
	c, err := readMirror(filepath.Join(dir, "mirror.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := mirror.OpenStore(c.Store)
	if err != nil {
		t.Fatal(err)
	}
	own := ownCertificate{dir: filepath.Join(c.Store, "tls"), names: c.Names}
	if err := own.make(time.Now()); err != nil {
		t.Fatal(err)
	}
	s = &mirrorServer{config: c, log: slog.New(slog.DiscardHandler), mirror: &mirror.Mirror{Store: store, Upstreams: c.Upstreams, MaxBytes: c.MaxBytes}}
	r, m := listenLocal(t), listenLocal(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	certificate, key := own.files()
	go func() { done <- s.run(ctx, r, m, certificate, key) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		s.mirror.Close()
		store.Close()
	})
	return s, "https://" + r.Addr().String(), "http://" + m.Addr().String()
}

// node is a client that trusts what a mirror wrote.
func node(t *testing.T, ca string) *http.Client {
	t.Helper()
	roots, err := readRoots(ca)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func TestMirrorServesWithItsOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	upstream, err := startRegistry(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()
	s, registry, management := startMirror(t, dir)
	untilNil(t, "ready", func() error { return get(management+"/readyz", "ok\n") })
	client := node(t, filepath.Join(dir, "store", "tls", "ca.crt"))
	pull := func(path string, want int) []byte {
		t.Helper()
		r, err := client.Get(registry + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != want || r.ProtoMajor != 1 {
			t.Fatalf("%s: %s %s, %v: %s", path, r.Proto, r.Status, err, b)
		}
		return b
	}
	layer := []byte("pause 3.6")
	pull("/v2/aks-managed-repository/oss/kubernetes/pause/manifests/3.6?ns=mcr.microsoft.com", 200)
	for range 2 {
		if got := pull("/v2/oss/kubernetes/pause/blobs/"+digest.FromBytes(layer).String(), 200); !bytes.Equal(got, layer) {
			t.Errorf("%q", got)
		}
	}
	pull("/v2/private/a/manifests/v1", 403)

	metrics := newMirrorMetrics(s.mirror, func() time.Time { return time.Unix(1, 0) })
	problems, err := testutil.GatherAndLint(metrics)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint of metrics: %v, %v", problems, err)
	}
	want := `# HELP tidegate_mirror_requests_total Requests of clients, by what became of them.
# TYPE tidegate_mirror_requests_total counter
tidegate_mirror_requests_total{result="failed",upstream="mcr.microsoft.com"} 0
tidegate_mirror_requests_total{result="hit",upstream="mcr.microsoft.com"} 1
tidegate_mirror_requests_total{result="miss",upstream="mcr.microsoft.com"} 2
tidegate_mirror_requests_total{result="refused",upstream="mcr.microsoft.com"} 1
tidegate_mirror_requests_total{result="stale",upstream="mcr.microsoft.com"} 0
# HELP tidegate_mirror_fetches_total Blobs whose fetching was begun.
# TYPE tidegate_mirror_fetches_total counter
tidegate_mirror_fetches_total{upstream="mcr.microsoft.com"} 1
`
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "tidegate_mirror_requests_total", "tidegate_mirror_fetches_total"); err != nil {
		t.Error(err)
	}
	if err := get(management+"/livez", "ok\n"); err != nil {
		t.Error(err)
	}
}

// TestMirrorServerLetsAnswersTakeLong: no deadline of the server's ends what is
// sent while it arrives.
func TestMirrorServerLetsAnswersTakeLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := mirrorHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for range 10 {
				select {
				case <-r.Context().Done():
					t.Error("the request was given up")
				case <-time.After(5 * mirrorHeader):
				}
				fmt.Fprintln(w, "more")
				_ = http.NewResponseController(w).Flush()
			}
		}), nil, slog.New(slog.DiscardHandler))
		here, there := net.Pipe()
		l := &oneConn{conn: there, done: make(chan struct{})}
		go func() { _ = server.Serve(l) }()
		fmt.Fprint(here, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		b, err := io.ReadAll(here)
		if n := bytes.Count(b, []byte("more")); err != nil || n != 10 {
			t.Errorf("%d parts, %v", n, err)
		}
		_ = server.Close()
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func TestClientListIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clients")
	write := func(text string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	write("bearer first-token-of-all\n", now)
	l := &clientList{file: file, log: slog.New(slog.DiscardHandler)}
	if err := l.read(now); err != nil {
		t.Fatal(err)
	}
	later := func(what string, first, second bool) {
		t.Helper()
		l.looked = time.Time{}
		if a, b := l.permits("Bearer first-token-of-all"), l.permits("Bearer second-token-of-all"); a != first || b != second {
			t.Errorf("%s: %v %v, want %v %v", what, a, b, first, second)
		}
	}
	later("at first", true, false)
	write("bearer second-token-of-all\n", now.Add(time.Second))
	later("replaced", false, true)
	write("nonsense\n", now.Add(2*time.Second))
	later("a mistake", false, true)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	later("gone", false, true)
}

func TestOwnCertificate(t *testing.T) {
	now := time.Now()
	own := ownCertificate{dir: filepath.Join(t.TempDir(), "tls"), names: []string{"mirror.example", "10.0.0.4", "fd00::4"}}
	load := func() (leaf, ca *x509.Certificate) {
		t.Helper()
		certificate, key := own.files()
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			t.Fatal(err)
		}
		authority, err := tls.LoadX509KeyPair(filepath.Join(own.dir, "ca.crt"), filepath.Join(own.dir, "ca.key"))
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf, authority.Leaf
	}
	makeAt := func(at time.Time) (leaf, ca *x509.Certificate) {
		t.Helper()
		if err := own.make(at); err != nil {
			t.Fatal(err)
		}
		return load()
	}
	leaf, ca := makeAt(now)
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for _, name := range own.names {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, file := range []string{"ca.key", "tls.key"} {
		if info, err := os.Stat(filepath.Join(own.dir, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	if again, _ := makeAt(now.Add(certificateFor - renewBefore - time.Minute)); !again.Equal(leaf) {
		t.Error("made anew without need")
	}
	renewed, same := makeAt(now.Add(certificateFor - renewBefore + time.Minute))
	if renewed.Equal(leaf) || !same.Equal(ca) {
		t.Error("not renewed in time, or with its authority")
	}
	// A stolen key of the authority is of no use for another name.
	pair, err := tls.LoadX509KeyPair(filepath.Join(own.dir, "ca.crt"), filepath.Join(own.dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{DNSNames: []string{"mcr.microsoft.com"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	stolen := filepath.Join(t.TempDir(), "a")
	if err := writePair(stolen, stolen+".key", form, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)); err != nil {
		t.Fatal(err)
	}
	forged, err := tls.LoadX509KeyPair(stolen, stolen+".key")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := forged.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "mcr.microsoft.com"}); err == nil {
		t.Error("the authority speaks for mcr.microsoft.com")
	}
	own.names = []string{"other.example"}
	other, otherCA := makeAt(now)
	if otherCA.Equal(ca) || other.VerifyHostname("other.example") != nil {
		t.Error("an authority for other names was not made")
	}
	if _, err := other.Verify(x509.VerifyOptions{Roots: roots, DNSName: "other.example"}); err == nil {
		t.Error("the first authority speaks for another name")
	}
}
