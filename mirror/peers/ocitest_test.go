package peers

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociclient"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"cuelabs.dev/go/oci/ociregistry/ocitest"
	"github.com/go-quicktest/qt"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	mirrored "tidegate.io/tidegate/mirror"
)

// TestLibrary holds the mirror against the tests of the library that speaks the
// protocol for it: what is pushed into a registry comes out of its mirror.
func TestLibrary(t *testing.T) {
	origin := ocimem.New()
	up := httptest.NewServer(ociserver.New(origin, nil))
	defer up.Close()
	content := ocitest.NewRegistry(t, origin).MustPushContent(ocitest.RegistryContent{
		"foo/bar": {
			Blobs: map[string]string{"a": "{}", "b": "hello", "c": strings.Repeat("x", 200_000)},
			Manifests: map[string]ociregistry.Manifest{
				"m": {MediaType: ocispec.MediaTypeImageManifest, Config: ociregistry.Descriptor{Digest: "a"}, Layers: []ociregistry.Descriptor{{Digest: "b"}, {Digest: "c"}}},
				"s": {MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "a/signature", Config: ociregistry.Descriptor{Digest: "a"}, Layers: []ociregistry.Descriptor{{Digest: "b"}}, Subject: &ociregistry.Descriptor{Digest: "m"}},
			},
			Tags: map[string]string{"v1": "m", "v2": "m"},
		},
	})["foo/bar"]
	store, err := mirrored.OpenStore(t.TempDir())
	qt.Assert(t, qt.IsNil(err))
	defer store.Close()
	at, err := url.Parse(up.URL)
	qt.Assert(t, qt.IsNil(err))
	all, err := mirrored.ParsePattern("*")
	qt.Assert(t, qt.IsNil(err))
	m := &mirrored.Mirror{Store: store, Upstreams: []*mirrored.Upstream{{Name: "registry.example", URL: at, Allow: []mirrored.Pattern{all}}}}
	defer m.Close()
	server := httptest.NewServer(m)
	defer server.Close()
	r, err := ociclient.New(strings.TrimPrefix(server.URL, "http://"), &ociclient.Options{Insecure: true, Transport: http.DefaultTransport})
	qt.Assert(t, qt.IsNil(err))

	check := func() {
		t.Helper()
		ctx := t.Context()
		for id, want := range map[string]string{"a": "{}", "b": "hello", "c": strings.Repeat("x", 200_000)} {
			desc := content.Blobs[id]
			b, err := r.GetBlob(ctx, "foo/bar", desc.Digest)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, ocitest.HasContent(b, []byte(want), ""))
			b.Close()
			got, err := r.ResolveBlob(ctx, "foo/bar", desc.Digest)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(got.Size, desc.Size))
		}
		for id, desc := range content.Manifests {
			b, err := r.GetManifest(ctx, "foo/bar", desc.Digest)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, ocitest.HasContent(b, content.ManifestData[id], desc.MediaType))
			b.Close()
		}
		for _, tag := range []string{"v1", "v2"} {
			b, err := r.GetTag(ctx, "foo/bar", tag)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, ocitest.HasContent(b, content.ManifestData["m"], ocispec.MediaTypeImageManifest))
			b.Close()
		}
		part, err := r.GetBlobRange(ctx, "foo/bar", content.Blobs["b"].Digest, 1, 3)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(part.Descriptor().Size, 5))
		part.Close()
		tags, err := ociregistry.All(r.Tags(ctx, "foo/bar", ""))
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(tags, []string{"v1", "v2"}))
		about, err := ociregistry.All(r.Referrers(ctx, "foo/bar", content.Manifests["m"].Digest, "a/signature"))
		qt.Check(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(about, 1))
		qt.Check(t, qt.Equals(about[0].Digest, content.Manifests["s"].Digest))
		_, err = r.GetTag(ctx, "foo/bar", "v3")
		qt.Check(t, qt.ErrorIs(err, ociregistry.ErrManifestUnknown))
		_, err = r.PushManifest(ctx, "foo/bar", "v4", content.ManifestData["m"], ocispec.MediaTypeImageManifest)
		qt.Check(t, qt.ErrorMatches(err, ".*can only be read.*"))
	}
	check()
	m.Upstreams[0].Mode = mirrored.Offline
	up.Close()
	check()
}
