package mirror

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// origin is a registry that tests put images into, and spoil.
type origin struct {
	*httptest.Server
	t     *testing.T
	store ociregistry.Interface

	mu    sync.Mutex
	asked []string
	spoil func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

func newOrigin(t *testing.T) *origin {
	o := &origin{t: t, store: ocimem.New()}
	serve := ociserver.New(o.store, nil)
	o.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.asked = append(o.asked, r.Method+" "+r.URL.Path)
		spoil := o.spoil
		o.mu.Unlock()
		if spoil == nil || !spoil(w, r) {
			serve.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(o.Close)
	return o
}

// count is how often something was asked for, by a part of method and path.
func (o *origin) count(part string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, a := range o.asked {
		if strings.Contains(a, part) {
			n++
		}
	}
	return n
}

func (o *origin) spoilt(f func(w http.ResponseWriter, r *http.Request) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spoil = f
}

func (o *origin) blob(repo string, b []byte) ocispec.Descriptor {
	o.t.Helper()
	d, err := o.store.PushBlob(o.t.Context(), repo, ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b)), MediaType: "application/octet-stream"}, bytes.NewReader(b))
	if err != nil {
		o.t.Fatal(err)
	}
	return d
}

func (o *origin) push(repo, tag, mediaType string, manifest any) ocispec.Descriptor {
	o.t.Helper()
	b, ok := manifest.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(manifest); err != nil {
			o.t.Fatal(err)
		}
	}
	d, err := o.store.PushManifest(o.t.Context(), repo, tag, b, mediaType)
	if err != nil {
		o.t.Fatal(err)
	}
	return d
}

// image puts an image with one layer into a repository.
func (o *origin) image(repo, tag string, layer []byte) (image ocispec.Descriptor, m ocispec.Manifest) {
	o.t.Helper()
	m = ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	m.Config = o.blob(repo, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}`))
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	l := o.blob(repo, layer)
	l.MediaType = ocispec.MediaTypeImageLayer
	m.Layers = []ocispec.Descriptor{l}
	return o.push(repo, tag, m.MediaType, m), m
}

// noise is n bytes that nobody can guess or compress.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	_, _ = r.Read(b)
	return b
}

const testName = "registry.example"

// upstream is the origin as the mirror is told of it.
func (o *origin) upstream() *Upstream {
	u, err := url.Parse(o.URL)
	if err != nil {
		o.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(o.Certificate())
	return &Upstream{Name: testName, URL: u, Roots: roots, Allow: []Pattern{{"*"}}, Prefixes: []string{"aks-managed-repository"}}
}

// mirrored is a mirror that is being served.
type mirrored struct {
	*Mirror
	*httptest.Server
	t *testing.T
}

func serveMirror(t *testing.T, dir string, us ...*Upstream) *mirrored {
	t.Helper()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := &mirrored{Mirror: &Mirror{Store: s, Upstreams: us}, t: t}
	m.Server = httptest.NewUnstartedServer(m.Mirror)
	m.TLS = &tls.Config{}
	m.StartTLS()
	t.Cleanup(m.stop)
	return m
}

func (m *mirrored) stop() {
	if m.Server != nil {
		m.Server.Close()
		m.Mirror.Close()
		m.Store.Close()
		m.Server = nil
	}
}

// answer is what came back, with the error that reading it gave.
type answer struct {
	*http.Response
	body []byte
	err  error
}

func (m *mirrored) do(method, path string, head ...string) answer {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, m.URL+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for i := 0; i < len(head); i += 2 {
		r.Header.Add(head[i], head[i+1])
	}
	resp, err := m.Client().Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp, b, err}
}

func (m *mirrored) get(path string, head ...string) answer {
	m.t.Helper()
	return m.do(http.MethodGet, path, head...)
}

// wants fails the test unless an answer has a status and a body.
func (a answer) wants(t *testing.T, what string, status int, body []byte) {
	t.Helper()
	switch {
	case a.Response == nil:
		t.Errorf("%s: %v", what, a.err)
	case a.StatusCode != status:
		t.Errorf("%s: status %d, want %d: %s", what, a.StatusCode, status, a.body)
	case a.err != nil:
		t.Errorf("%s: %v", what, a.err)
	case body != nil && !bytes.Equal(a.body, body):
		t.Errorf("%s: %d other bytes than the %d that are right", what, len(a.body), len(body))
	}
}

func blobURL(repo string, d digest.Digest) string { return fmt.Sprintf("/v2/%s/blobs/%s", repo, d) }

func manifestURL(repo, ref string) string { return fmt.Sprintf("/v2/%s/manifests/%s", repo, ref) }
