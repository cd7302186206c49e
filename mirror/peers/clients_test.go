package peers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	oras "oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/retry"
)

// client pulls an image through a mirror into a folder of its own. It returns the
// digest of what it has, after it has checked that it is whole.
type client struct {
	name string
	pull func(t *testing.T, ctx context.Context, m *mirror, i images) (digest.Digest, error)
}

func clients(t *testing.T) []client {
	return append(containerds(t),
		client{"skopeo", skopeo},
		client{"crane", pullByCrane},
		client{"oras, by AKS's path", pullByORAS})
}

// trusting is a transport that trusts a mirror's own authority.
func trusting(t *testing.T, m *mirror) *http.Transport {
	t.Helper()
	pem := must[[]byte](t)(os.ReadFile(m.ca()))
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func craneOptions(t *testing.T, ctx context.Context, m *mirror) []crane.Option {
	return []crane.Option{crane.WithContext(ctx), crane.WithTransport(trusting(t, m)), crane.WithAuth(authn.Anonymous)}
}

// pullByCrane is crane pull, and validate of what came.
func pullByCrane(t *testing.T, ctx context.Context, m *mirror, i images) (digest.Digest, error) {
	at := fmt.Sprintf("%s/%s:%s", m.address, i.repo, i.tag)
	desc, err := crane.Get(at, craneOptions(t, ctx, m)...)
	if err != nil {
		return "", err
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return "", err
	}
	p, err := layout.Write(t.TempDir(), index)
	if err != nil {
		return "", err
	}
	local, err := p.ImageIndex()
	if err != nil {
		return "", err
	}
	if err := validate.Index(local); err != nil {
		return "", err
	}
	return digest.Digest(desc.Digest.String()), nil
}

func orasRepository(t *testing.T, m *mirror, repo string) *remote.Repository {
	t.Helper()
	r := must[*remote.Repository](t)(remote.NewRepository(m.address + "/" + prefix + "/" + repo))
	r.Client = &http.Client{Transport: trusting(t, m)} // no retries: what fails is to be seen
	return r
}

// pullByORAS is oras cp --to-oci-layout, as a node's bootstrap does it.
func pullByORAS(t *testing.T, ctx context.Context, m *mirror, i images) (digest.Digest, error) {
	store, err := oci.New(t.TempDir())
	if err != nil {
		return "", err
	}
	d, err := oras.Copy(ctx, orasRepository(t, m, i.repo), i.tag, store, i.tag, oras.DefaultCopyOptions)
	return d.Digest, err
}

func skopeo(t *testing.T, ctx context.Context, m *mirror, i images) (digest.Digest, error) {
	program := need(t, "skopeo")
	certs := t.TempDir()
	if err := os.Symlink(m.ca(), filepath.Join(certs, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "layout")
	if _, err := run(ctx, program, "--insecure-policy", "copy", "--all", "--retry-times", "0", "--src-cert-dir", certs,
		fmt.Sprintf("docker://%s/%s:%s", m.address, i.repo, i.tag), "oci:"+to+":x"); err != nil {
		return "", err
	}
	p, err := layout.FromPath(to)
	if err != nil {
		return "", err
	}
	index, err := p.ImageIndex()
	if err != nil {
		return "", err
	}
	if err := validate.Index(index); err != nil {
		return "", err
	}
	im, err := index.IndexManifest()
	if err != nil || len(im.Manifests) != 1 {
		return "", errors.Join(err, fmt.Errorf("%d images", len(im.Manifests)))
	}
	return digest.Digest(im.Manifests[0].Digest.String()), nil
}

// TestEveryClientPulls runs each client through what can happen to an upstream.
func TestEveryClientPulls(t *testing.T) {
	for _, c := range clients(t) {
		t.Run(c.name, func(t *testing.T) {
			o := newOrigin(t)
			dir := t.TempDir()
			m := startMirror(t, dir, o)
			pull := func(i images) error {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				d, err := c.pull(t, ctx, m, i)
				if err == nil && d != i.index.Digest {
					err = fmt.Errorf("pulled %s, want %s", d, i.index.Digest)
				}
				return err
			}
			works := func(what string, i images) {
				t.Helper()
				if err := pull(i); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			first := o.pause(t, "3.6", 1)
			works("online", first)

			second := o.pause(t, "3.7", 10)
			o.spoilt(cutting(second, 1))
			works("the upstream dies within a blob, once", second)

			third := o.pause(t, "3.8", 20)
			o.spoilt(trickling(third))
			works("the upstream is slow", third)

			fourth := o.pause(t, "3.9", 30)
			o.spoilt(corrupting(fourth))
			if err := pull(fourth); err == nil {
				t.Error("a corrupt layer was accepted")
			}
			o.spoilt(cutting(fourth, 1000))
			if err := pull(fourth); err == nil {
				t.Error("half a layer was accepted")
			}
			m.kill()
			m = startMirror(t, dir, o)
			if err := pull(fourth); err == nil {
				t.Error("half a layer was accepted after a restart")
			}
			o.spoilt(nil)
			works("the upstream has recovered", fourth)

			m.kill()
			o.Close()
			m = startMirror(t, dir, o)
			for _, i := range []images{first, second, third, fourth} {
				works("the upstream is dead, the mirror restarted, "+i.tag, i)
			}
		})
	}
}

// cutting serves half of the layer, a number of times.
func cutting(i images, times int) http.Handler {
	return serving(i, func(w http.ResponseWriter, r *http.Request) {
		if times--; times < 0 {
			serveBytes(w, r, i.content)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(i.content)))
		_, _ = w.Write(i.content[:len(i.content)/2])
		panic(http.ErrAbortHandler)
	})
}

func corrupting(i images) http.Handler {
	b := slices.Clone(i.content)
	b[len(b)/2] ^= 1
	return serving(i, func(w http.ResponseWriter, r *http.Request) { serveBytes(w, r, b) })
}

func trickling(i images) http.Handler {
	return serving(i, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(i.content)))
		for b := i.content; len(b) > 0; b = b[min(len(b), 100_000):] {
			_, _ = w.Write(b[:min(len(b), 100_000)])
			_ = http.NewResponseController(w).Flush()
			time.Sleep(30 * time.Millisecond)
		}
	})
}

func serveBytes(w http.ResponseWriter, r *http.Request, b []byte) {
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(b)))
}

// TestNodeBootstrap does what a node of a network isolated cluster does first.
func TestNodeBootstrap(t *testing.T) {
	o := newOrigin(t)
	repo, want := o.kubelet(t, "v1.34.1")
	dir := t.TempDir()
	m := startMirror(t, dir, o)
	bootstrap := func() {
		t.Helper()
		// oras repo ls: is an anonymous client welcome?
		reg := must[*remote.Registry](t)(remote.NewRegistry(m.address))
		reg.Client = &http.Client{Transport: retry.NewTransport(trusting(t, m))}
		if err := reg.Repositories(t.Context(), "", func([]string) error { return nil }); err != nil {
			t.Errorf("repo ls: %v", err)
		}
		// oras pull --platform "linux/amd64:ubuntu 22.04"
		store := must[*oci.Store](t)(oci.New(t.TempDir()))
		options := oras.DefaultCopyOptions
		options.WithTargetPlatform(&ocispec.Platform{OS: "linux", Architecture: "amd64", OSVersion: "ubuntu 22.04"})
		d, err := oras.Copy(t.Context(), orasRepository(t, m, repo), "v1.34.1", store, "x", options)
		if err != nil {
			t.Fatalf("pull: %v", err)
		}
		if ok, err := store.Exists(t.Context(), ocispec.Descriptor{MediaType: "application/vnd.deb", Digest: digest.FromBytes(want), Size: int64(len(want))}); err != nil || !ok {
			t.Errorf("%s is not what this system needs, %v", d.Digest, err)
		}
	}
	bootstrap()
	m.kill()
	o.Close()
	m = startMirror(t, dir, o)
	bootstrap()
}

func TestCraneLists(t *testing.T) {
	o := newOrigin(t)
	i := o.pause(t, "3.6", 1)
	m := startMirror(t, t.TempDir(), o)
	if _, err := pullByCrane(t, t.Context(), m, i); err != nil {
		t.Fatal(err)
	}
	repos, err := crane.Catalog(m.address, craneOptions(t, t.Context(), m)...)
	if err != nil || !slices.Equal(repos, []string{prefix + "/" + i.repo, mcr + "/" + i.repo}) {
		t.Errorf("catalog: %v, %v", repos, err)
	}
	for _, name := range append(repos, i.repo) {
		tags, err := crane.ListTags(m.address+"/"+name, craneOptions(t, t.Context(), m)...)
		if err != nil || !slices.Equal(tags, []string{"3.6"}) {
			t.Errorf("tags of %s: %v, %v", name, tags, err)
		}
	}
	image, err := crane.Pull(m.address+"/"+i.repo+"@"+i.image.Digest.String(), craneOptions(t, t.Context(), m)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := crane.Push(image, m.address+"/"+i.repo+":mine", craneOptions(t, t.Context(), m)...); err == nil || !strings.Contains(err.Error(), "can only be read") {
		t.Errorf("push: %v", err)
	}
}
