package mirror

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tagIs asks what a tag is.
func (m *mirrored) tagIs(t *testing.T, what, tag string, want digest.Digest, accept ...string) {
	t.Helper()
	var head []string
	for _, a := range accept {
		head = append(head, "Accept", a)
	}
	a := m.do(http.MethodHead, manifestURL("a/b", tag), head...)
	if want == "" {
		a.wants(t, what, 404, nil)
		return
	}
	a.wants(t, what, 200, nil)
	if a.Response != nil && a.Header.Get("Docker-Content-Digest") != want.String() {
		t.Errorf("%s: %s, want %s", what, a.Header.Get("Docker-Content-Digest"), want)
	}
}

func TestTagsMoveByMode(t *testing.T) {
	o := newOrigin(t)
	first, _ := o.image("a/b", "v1", noise(100, 1))
	dir := t.TempDir()
	online := o.upstream()
	s := serveMirror(t, dir, online)
	s.tagIs(t, "online", "v1", first.Digest)
	second, _ := o.image("a/b", "v1", noise(100, 2))
	online.Recheck = time.Hour
	s.tagIs(t, "asked a moment ago", "v1", first.Digest)
	online.Recheck = 0
	online.Mode = Pinned
	s.tagIs(t, "pinned", "v1", first.Digest)
	third, _ := o.image("a/b", "v2", noise(100, 3))
	s.tagIs(t, "pinned, a new tag", "v2", third.Digest)
	online.Mode = Offline
	before := o.count("")
	s.tagIs(t, "offline", "v1", first.Digest)
	s.tagIs(t, "offline, an unknown tag", "v3", "")
	s.get(blobURL("a/b", digest.FromString("x"))).wants(t, "offline, an unknown blob", 404, nil)
	s.get("/v2/a/b/tags/list").wants(t, "offline, the tags", 200, []byte(`{"name":"a/b","tags":["v1","v2"]}`))
	s.get("/v2/a/b/tags/list?n=1").wants(t, "offline, one tag", 200, []byte(`{"name":"a/b","tags":["v1"]}`))
	s.get("/v2/a/b/tags/list?n=5&last=v1").wants(t, "offline, the tags behind one", 200, []byte(`{"name":"a/b","tags":["v2"]}`))
	s.get("/v2/a/b/referrers/"+first.Digest.String()).wants(t, "offline, referrers", 200, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`))
	if o.count("") != before {
		t.Errorf("offline, the upstream was asked %d times", o.count("")-before)
	}
	online.Mode = Online
	s.tagIs(t, "online again", "v1", second.Digest)
}

func TestATagThatTheUpstreamDroppedIsUnknown(t *testing.T) {
	o := newOrigin(t)
	first, _ := o.image("a/b", "v1", noise(100, 1))
	u := o.upstream()
	s := serveMirror(t, t.TempDir(), u)
	s.tagIs(t, "online", "v1", first.Digest)
	if err := o.store.DeleteTag(t.Context(), "a/b", "v1"); err != nil {
		t.Fatal(err)
	}
	s.tagIs(t, "dropped", "v1", "")
	u.Mode = Offline
	s.tagIs(t, "dropped, offline", "v1", first.Digest)
}

func TestASilentUpstreamCostsTheBudgetOnce(t *testing.T) {
	o := newOrigin(t)
	first, _ := o.image("a/b", "v1", noise(100, 1))
	u := o.upstream()
	s := serveMirror(t, t.TempDir(), u)
	s.tagIs(t, "online", "v1", first.Digest)
	silent := make(chan struct{})
	defer close(silent)
	o.spoilt(func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-silent:
		case <-r.Context().Done():
		}
		return true
	})
	before := o.count("")
	for range 20 {
		s.tagIs(t, "silent", "v1", first.Digest)
	}
	if n := o.count("") - before; n != 1 {
		t.Errorf("the upstream was waited for %d times", n)
	}
	if n := u.Counts.Requests(Stale); n != 20 {
		t.Errorf("%d answers are counted as stale", n)
	}
}

func TestAnUpstreamThatRefusesIsLastKnown(t *testing.T) {
	o := newOrigin(t)
	first, _ := o.image("a/b", "v1", noise(100, 1))
	s := serveMirror(t, t.TempDir(), o.upstream())
	s.tagIs(t, "online", "v1", first.Digest)
	for _, status := range []int{401, 403, 429, 500, 502, 503} {
		o.spoilt(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return true })
		s.tagIs(t, http.StatusText(status), "v1", first.Digest)
	}
}

func TestPinsHoldATag(t *testing.T) {
	o := newOrigin(t)
	first, _ := o.image("a/b", "v1", noise(100, 1))
	_, _ = o.image("a/b", "v1", noise(100, 2))
	u := o.upstream()
	u.Pins = map[string]digest.Digest{"a/b:v1": first.Digest}
	s := serveMirror(t, t.TempDir(), u)
	s.tagIs(t, "pinned to what it was", "v1", first.Digest)
	if a := s.get(manifestURL("a/b", "v1")); digest.FromBytes(a.body) != first.Digest {
		t.Errorf("GET gave another manifest: %s", a.body)
	}
}

func TestNegotiation(t *testing.T) {
	const dockerList, dockerImage = "application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json"
	o := newOrigin(t)
	image, _ := o.image("a/b", "image", noise(100, 1))
	image.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64", OSVersion: "ubuntu 22.04"}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{image}}
	index.SchemaVersion = 2
	list := o.push("a/b", "v1", index.MediaType, index)
	// As Docker Hub does, the upstream has another form for clients that read no index.
	o.spoilt(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/manifests/v1") && !strings.Contains(r.Header.Get("Accept"), ocispec.MediaTypeImageIndex) {
			r.URL.Path = strings.TrimSuffix(r.URL.Path, "v1") + "image"
		}
		return false
	})
	u := o.upstream()
	s := serveMirror(t, t.TempDir(), u)
	for _, mode := range []Mode{Online, Offline} {
		u.Mode = mode
		s.tagIs(t, "no wish", "v1", list.Digest)
		s.tagIs(t, "everything", "v1", list.Digest, "*/*")
		s.tagIs(t, "containerd", "v1", list.Digest, dockerImage+", "+dockerList+", "+ocispec.MediaTypeImageManifest+", "+ocispec.MediaTypeImageIndex+", */*")
		s.tagIs(t, "indexes", "v1", list.Digest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest)
		s.tagIs(t, "images only", "v1", image.Digest, ocispec.MediaTypeImageManifest)
		s.tagIs(t, "no indexes, by weight", "v1", image.Digest, ocispec.MediaTypeImageManifest+", "+ocispec.MediaTypeImageIndex+";q=0")
		s.tagIs(t, "what there is not", "v1", "", dockerImage)
	}
}

func TestParseAccept(t *testing.T) {
	for _, tt := range []struct{ header, want string }{
		{"", ""},
		{"text/html", ""},
		{"*/*", ""},
		{ocispec.MediaTypeImageManifest, "m"},
		{ocispec.MediaTypeImageManifest + ";q=0.5," + ocispec.MediaTypeImageIndex, "im"},
		{ocispec.MediaTypeImageManifest + ";q=0.000," + ocispec.MediaTypeImageIndex, "i"},
		{ocispec.MediaTypeImageManifest + ",;;,\x00", "m"},
		{ocispec.MediaTypeImageManifest + ", application/*", ""},
	} {
		if got := ParseAccept([]string{tt.header}); string(got) != tt.want {
			t.Errorf("%q: %q, want %q", tt.header, got, tt.want)
		}
	}
}

func TestADamagedManifestIsFetchedAnew(t *testing.T) {
	o := newOrigin(t)
	image, _ := o.image("a/b", "v1", noise(100, 1))
	dir := t.TempDir()
	s := serveMirror(t, dir, o.upstream())
	right := s.get(manifestURL("a/b", "v1"))
	right.wants(t, "at first", 200, nil)
	for _, ref := range []string{"v1", image.Digest.String()} {
		if err := os.WriteFile(filepath.Join(dir, blobPath(image.Digest)), []byte(`{"schemaVersion":2}`), 0o600); err != nil {
			t.Fatal(err)
		}
		s.get(manifestURL("a/b", ref)).wants(t, "damaged", 502, nil)
		s.get(manifestURL("a/b", ref)).wants(t, "fetched anew", 200, right.body)
	}
}
