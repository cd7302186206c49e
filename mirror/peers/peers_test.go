package peers

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// program is tidegate, as people have it.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tidegate-peers-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "tidegate")
	build := exec.Command("go", "build", "-o", program, "./cmd/tidegate")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// need finds a program of Debian's that scripts/setup-mirror installs. Where
// TIDEGATE_REQUIRE is set it has to be there.
func need(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/bin") {
		if p := filepath.Join(dir, name); exec.Command("test", "-x", p).Run() == nil {
			return p
		}
	}
	if os.Getenv("TIDEGATE_REQUIRE") != "" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed: scripts/setup-mirror does it", name)
	return ""
}

// origin is the registry behind the mirror. What it does wrong is a function.
type origin struct {
	*httptest.Server
	store ociregistry.Interface

	mu    sync.Mutex
	spoil http.Handler // nil: nothing
	blobs int          // requests for blobs
}

func newOrigin(t testing.TB) *origin {
	o := &origin{store: ocimem.New()}
	serve := ociserver.New(o.store, nil)
	o.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		spoil := o.spoil
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			o.blobs++
		}
		o.mu.Unlock()
		if spoil != nil && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			spoil.ServeHTTP(w, r)
			return
		}
		serve.ServeHTTP(w, r)
	}))
	o.Config.ErrorLog = log.New(io.Discard, "", 0) // mirrors are killed here
	o.StartTLS()
	t.Cleanup(o.Close)
	return o
}

func (o *origin) spoilt(h http.Handler) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spoil = h
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (o *origin) blob(t *testing.T, repo, mediaType string, b []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	must[ocispec.Descriptor](t)(o.store.PushBlob(t.Context(), repo, d, bytes.NewReader(b)))
	return d
}

func (o *origin) manifest(t *testing.T, repo, tag, mediaType string, m any) ocispec.Descriptor {
	t.Helper()
	b := must[[]byte](t)(json.Marshal(m))
	return must[ocispec.Descriptor](t)(o.store.PushManifest(t.Context(), repo, tag, b, mediaType))
}

// layer is a file system with one file that nobody can compress, packed as layers
// are, and the digest that it has unpacked.
func layer(t *testing.T, size int, seed uint64) (packed []byte, plain digest.Digest) {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(content)
	var whole, b bytes.Buffer
	w := tar.NewWriter(&whole)
	if err := w.WriteHeader(&tar.Header{Name: "pause", Mode: 0o755, Size: int64(size)}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(content)
	w.Close()
	z := gzip.NewWriter(&b)
	_, _ = z.Write(whole.Bytes())
	z.Close()
	return b.Bytes(), digest.FromBytes(whole.Bytes())
}

// images are what a node pulls first: an index of two platforms, told apart by
// architecture, and one of node packages, told apart by the version of the system.
type images struct {
	origin       *origin
	repo, tag    string
	index, image ocispec.Descriptor
	layer        ocispec.Descriptor
	content      []byte
}

func (o *origin) pause(t *testing.T, tag string, seed uint64) images {
	t.Helper()
	const repo = "oss/v2/kubernetes/pause"
	i := images{origin: o, repo: repo, tag: tag}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, arch := range []string{"arm64", "amd64"} {
		content, plain := layer(t, 1<<20, seed+uint64(len(arch)))
		l := o.blob(t, repo, ocispec.MediaTypeImageLayerGzip, content)
		config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{plain}}}
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{l},
			Config: o.blob(t, repo, ocispec.MediaTypeImageConfig, must[[]byte](t)(json.Marshal(config)))}
		m.SchemaVersion = 2
		d := o.manifest(t, repo, "", m.MediaType, m)
		d.Platform = &config.Platform
		index.Manifests = append(index.Manifests, d)
		i.image, i.layer, i.content = d, l, content
	}
	i.index = o.manifest(t, repo, tag, index.MediaType, index)
	return i
}

// kubelet is a node package: an artifact that is not an image, chosen by os.version.
func (o *origin) kubelet(t *testing.T, tag string) (repo string, want []byte) {
	t.Helper()
	repo = "aks/packages/kubernetes/kubelet"
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, version := range []string{"ubuntu 24.04", "ubuntu 22.04"} {
		want = []byte("kubelet for " + version)
		l := o.blob(t, repo, "application/vnd.deb", want)
		l.Annotations = map[string]string{ocispec.AnnotationTitle: "kubelet.deb"}
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.aks.package", Layers: []ocispec.Descriptor{l},
			Config: o.blob(t, repo, ocispec.MediaTypeEmptyJSON, []byte("{}"))}
		m.SchemaVersion = 2
		d := o.manifest(t, repo, "", m.MediaType, m)
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64", OSVersion: version}
		index.Manifests = append(index.Manifests, d)
	}
	o.manifest(t, repo, tag, index.MediaType, index)
	return repo, want
}

const (
	mcr    = "mcr.microsoft.com"
	prefix = "aks-managed-repository"
)

// mirror is the program, running.
type mirror struct {
	dir, address string
	process      *exec.Cmd
	log          bytes.Buffer
}

func (m *mirror) ca() string { return filepath.Join(m.dir, "store", "tls", "ca.crt") }

// startMirror runs a mirror of an origin on a folder, which may have been one before.
func startMirror(t testing.TB, dir string, o *origin) *mirror {
	t.Helper()
	return startMirrorIn(t, dir, o, "online")
}

func startMirrorIn(t testing.TB, dir string, o *origin, mode string) *mirror {
	t.Helper()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := &mirror{dir: dir, address: freeAddress(t)}
	write("origin.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw}))
	write("mirror.yaml", fmt.Appendf(nil, `apiVersion: tidegate.io/v1
kind: Mirror
store: store
listen: %s
management: 127.0.0.1:0
recheck: 0s
mode: %s
tls: {names: [localhost, 127.0.0.1]}
upstreams:
  - name: %s
    url: %s
    authorities: origin.pem
    prefixes: [%s]
    repositories: ["*"]
`, m.address, mode, mcr, o.URL, prefix))
	m.process = exec.Command(program, "mirror", "run", "-c", filepath.Join(dir, "mirror.yaml"))
	m.process.Stderr = &m.log
	if err := m.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.stop()
		if t.Failed() {
			log := m.log.String()
			t.Logf("the end of the mirror's log:\n%s", log[max(0, len(log)-4000):])
		}
	})
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", m.address)
		if err == nil {
			c.Close()
			return m
		}
		if time.Now().After(until) {
			t.Fatalf("the mirror does not listen: %v", err)
		}
	}
}

func (m *mirror) stop() {
	if m.process.ProcessState == nil {
		_ = m.process.Process.Signal(syscall.SIGTERM)
		_ = m.process.Wait()
	}
}

// kill is a crash.
func (m *mirror) kill() {
	_ = m.process.Process.Kill()
	_ = m.process.Wait()
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run runs a program to its end; its error has what it wrote.
func run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(name), err, bytes.TrimSpace(out))
	}
	return string(out), err
}
