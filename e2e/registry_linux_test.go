package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// The images of the lab's mcr.microsoft.com. Both hold the same program.
const (
	pauseImage = "mcr.microsoft.com/oss/v2/kubernetes/pause:3.10"
	appImage   = "mcr.microsoft.com/tidegate/app:1"
)

// A registry is Microsoft's, as far as a pull goes: manifests come from mcr.microsoft.com, and blobs from wherever that
// redirects to, a data host of some region. It has an image of every name; they share their one layer, and each has a
// configuration of its own.
type registry struct {
	t               testing.TB
	layer, unpacked string // digests

	mu        sync.Mutex
	blobs     map[string][]byte // by digest, manifests too
	manifests map[string]string // digests, by the image's path and tag or digest
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// newRegistry makes images of a static program.
func newRegistry(t testing.TB, program string) *registry {
	t.Helper()
	r := &registry{t: t, blobs: map[string][]byte{}, manifests: map[string]string{}}
	layer, unpacked := layerOf(t, program)
	r.layer, r.unpacked = digest(layer), unpacked
	r.blobs[r.layer] = layer
	return r
}

// image is the manifest of an image, which is made if it is not there yet.
func (r *registry) image(path string) (dgst string, text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, reference := filepath.Split(path); r.blobs[reference] != nil { // asked for by digest
		return reference, r.blobs[reference]
	}
	if r.manifests[path] == "" {
		type blob struct {
			MediaType string `json:"mediaType"`
			Digest    string `json:"digest"`
			Size      int    `json:"size"`
		}
		put := func(mediaType string, b []byte) blob {
			d := digest(b)
			r.blobs[d] = b
			return blob{mediaType, d, len(b)}
		}
		config := put("application/vnd.oci.image.config.v1+json", toJSON(r.t, map[string]any{
			"architecture": runtime.GOARCH, "os": "linux",
			"config": map[string]any{"Entrypoint": []string{"/app"}, "Labels": map[string]string{"path": path}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{r.unpacked}},
		}))
		r.manifests[path] = put(manifestType, toJSON(r.t, map[string]any{
			"schemaVersion": 2, "mediaType": manifestType, "config": config,
			"layers": []blob{{"application/vnd.oci.image.layer.v1.tar+gzip", r.layer, len(r.blobs[r.layer])}},
		})).Digest
	}
	return r.manifests[path], r.blobs[r.manifests[path]]
}

// blob is one that has been mentioned, or nil.
func (r *registry) blob(dgst string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobs[dgst]
}

// layerOf packs the program as /app, and returns the digest of what is inside the gzip too.
func layerOf(t testing.TB, program string) (layer []byte, unpacked string) {
	t.Helper()
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	for _, dir := range []string{"etc/", "proc/", "sys/", "dev/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Mode: 0o755, Typeflag: tar.TypeDir}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if _, err := z.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes(), digest(plain.Bytes())
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// serve answers as the registry and its data hosts; false for other hosts and requests.
func (r *registry) serve(w http.ResponseWriter, req *http.Request) bool {
	kind, reference := filepath.Split(req.URL.Path)
	blob := r.blob(reference)
	switch {
	case strings.HasSuffix(req.Host, ".data.mcr.microsoft.com") && blob != nil:
		send(w, req, "application/octet-stream", blob)
	case req.Host != "mcr.microsoft.com":
		return false
	case strings.HasSuffix(kind, "/blobs/") && blob != nil:
		http.Redirect(w, req, "https://eastus.data.mcr.microsoft.com/docker/registry/v2/"+reference, http.StatusTemporaryRedirect)
	case strings.HasSuffix(kind, "/referrers/"): // nobody signs these
		send(w, req, "application/vnd.oci.image.index.v1+json",
			[]byte(`{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}`))
	case strings.HasSuffix(kind, "/manifests/"):
		dgst, text := r.image(req.URL.Path)
		w.Header().Set("Docker-Content-Digest", dgst)
		send(w, req, manifestType, text)
	default:
		return false
	}
	return true
}

func send(w http.ResponseWriter, req *http.Request, contentType string, b []byte) {
	w.Header().Set("Content-Type", contentType)
	http.ServeContent(w, req, "", noTime, bytes.NewReader(b))
}
