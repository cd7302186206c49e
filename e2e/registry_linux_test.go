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
	"testing"
)

// The images of the lab's mcr.microsoft.com. Both hold the same program.
const (
	pauseImage = "mcr.microsoft.com/oss/v2/kubernetes/pause:3.10"
	appImage   = "mcr.microsoft.com/tidegate/app:1"
)

// A registry is Microsoft's, as far as a pull goes: manifests come from mcr.microsoft.com, and blobs from wherever that
// redirects to, a data host of some region.
type registry struct {
	manifest string            // the digest
	blobs    map[string][]byte // by digest, the manifest too
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// newRegistry makes an image of a static program.
func newRegistry(t testing.TB, program string) *registry {
	t.Helper()
	r := &registry{blobs: map[string][]byte{}}
	layer, unpacked := layerOf(t, program)
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
	config := put("application/vnd.oci.image.config.v1+json", toJSON(t, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Entrypoint": []string{"/app"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{unpacked}},
	}))
	r.manifest = put(manifestType, toJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config,
		"layers": []blob{put("application/vnd.oci.image.layer.v1.tar+gzip", layer)},
	})).Digest
	return r
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
	switch {
	case strings.HasSuffix(req.Host, ".data.mcr.microsoft.com") && r.blobs[reference] != nil:
		send(w, req, "application/octet-stream", r.blobs[reference])
	case req.Host != "mcr.microsoft.com":
		return false
	case strings.HasSuffix(kind, "/blobs/") && r.blobs[reference] != nil:
		http.Redirect(w, req, "https://eastus.data.mcr.microsoft.com/docker/registry/v2/"+reference, http.StatusTemporaryRedirect)
	case strings.HasSuffix(kind, "/manifests/"):
		w.Header().Set("Docker-Content-Digest", r.manifest)
		send(w, req, manifestType, r.blobs[r.manifest])
	default:
		return false
	}
	return true
}

func send(w http.ResponseWriter, req *http.Request, contentType string, b []byte) {
	w.Header().Set("Content-Type", contentType)
	http.ServeContent(w, req, "", noTime, bytes.NewReader(b))
}
