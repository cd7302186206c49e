package mirror

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// cluster puts an index of two platforms, and a signature of it, into an origin.
func cluster(o *origin) (index, amd64, arm64, signature ocispec.Descriptor) {
	o.t.Helper()
	amd64, _ = o.image("oss/coredns", "amd64", noise(1000, 1))
	arm64, _ = o.image("oss/coredns", "arm64", noise(1000, 2))
	amd64.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64", OSVersion: "ubuntu 22.04"}
	arm64.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	i := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{amd64, arm64}}
	i.SchemaVersion = 2
	index = o.push("oss/coredns", "v1", i.MediaType, i)
	sig := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.signature", Subject: &index,
		Config: o.blob("oss/coredns", []byte("{}")), Layers: []ocispec.Descriptor{o.blob("oss/coredns", []byte("signed"))}}
	sig.SchemaVersion = 2
	return index, amd64, arm64, o.push("oss/coredns", "", sig.MediaType, sig)
}

var coredns = Reference{Upstream: testName, Repository: "oss/coredns", Tag: "v1"}

func TestPullChoosesPlatforms(t *testing.T) {
	o := newOrigin(t)
	index, amd64, arm64, signature := cluster(o)
	for _, tt := range []struct {
		platforms []string
		referrers bool
		want      []ocispec.Descriptor // nil: an error
	}{
		{nil, true, []ocispec.Descriptor{index, amd64, arm64, signature}},
		{nil, false, []ocispec.Descriptor{index, amd64, arm64}},
		{[]string{"linux/amd64"}, false, []ocispec.Descriptor{index, amd64}},
		{[]string{"linux/amd64:ubuntu 22.04"}, false, []ocispec.Descriptor{index, amd64}},
		{[]string{"linux/arm64/v8", "linux/amd64"}, true, []ocispec.Descriptor{index, amd64, arm64, signature}},
		{[]string{"linux/amd64:ubuntu 24.04"}, false, nil},
		{[]string{"windows/amd64"}, false, nil},
	} {
		s := serveMirror(t, t.TempDir(), o.upstream())
		what := Preload{Referrers: tt.referrers, Keep: true}
		for _, p := range tt.platforms {
			parsed, err := ParsePlatform(p)
			if err != nil {
				t.Fatal(err)
			}
			what.Platforms = append(what.Platforms, parsed)
		}
		if _, err := s.Pull(t.Context(), coredns, what); (err == nil) != (tt.want != nil) {
			t.Errorf("%v: %v", tt.platforms, err)
		}
		for _, d := range []ocispec.Descriptor{index, amd64, arm64, signature} {
			_, err := s.Store.Size(d.Digest)
			wanted := slices.ContainsFunc(tt.want, func(w ocispec.Descriptor) bool { return w.Digest == d.Digest })
			if tt.want != nil && wanted != (err == nil) {
				t.Errorf("%v, referrers %v: %s: %v", tt.platforms, tt.referrers, d.MediaType, err)
			}
		}
		s.stop()
	}
}

func TestPullRefuses(t *testing.T) {
	o := newOrigin(t)
	cluster(o)
	u := o.upstream()
	u.Allow = []Pattern{{"oss/*"}}
	s := serveMirror(t, t.TempDir(), u)
	for image, want := range map[string]string{
		testName + "/oss/coredns:v1@" + digest.FromString("x").String(): "the tag is sha256:",
		testName + "/oss/coredns:v9":                                    "404",
		testName + "/other/coredns:v1":                                  "not on the list",
		"evil.example/oss/coredns:v1":                                   "is no upstream",
	} {
		r, err := ParseReference(image)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Pull(t.Context(), r, Preload{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", image, err, want)
		}
	}
}

func TestExportAndImport(t *testing.T) {
	o := newOrigin(t)
	index, amd64, _, signature := cluster(o)
	there := serveMirror(t, t.TempDir(), o.upstream())
	linux, _ := ParsePlatform("linux/amd64")
	if _, err := there.Pull(t.Context(), coredns, Preload{Platforms: []Platform{linux}, Referrers: true}); err != nil {
		t.Fatal(err)
	}
	known, err := there.Known()
	if err != nil || !slices.Equal(known, []Reference{coredns}) {
		t.Fatalf("known: %v, %v", known, err)
	}
	var archive, again bytes.Buffer
	if err := there.Export(t.Context(), &archive, known); err != nil {
		t.Fatal(err)
	}
	if err := there.Export(t.Context(), &again, known); err != nil || !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Errorf("a second export differs: %v", err)
	}
	here := serveMirror(t, t.TempDir(), &Upstream{Name: testName, URL: o.upstream().URL, Mode: Offline, Allow: []Pattern{{"oss/*"}}})
	got, err := here.Import(t.Context(), &archive, true)
	want := []Imported{{Image: Reference{Upstream: testName, Repository: "oss/coredns", Digest: signature.Digest}}, {Image: coredns}}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	o.Close()
	here.get(manifestURL("oss/coredns", "v1")).wants(t, "the tag", 200, nil)
	here.get(manifestURL("oss/coredns", index.Digest.String())).wants(t, "the index", 200, nil)
	here.get(manifestURL("oss/coredns", amd64.Digest.String())).wants(t, "the image", 200, nil)
	if a := here.get("/v2/oss/coredns/referrers/" + index.Digest.String()); !strings.Contains(string(a.body), signature.Digest.String()) {
		t.Error("the signature did not come along")
	}
	if c, err := here.Store.Collect(0, true); err != nil || c.Kept < 5 {
		t.Errorf("%d blobs are kept, %v", c.Kept, err)
	}
}

func TestExportRefusesHalfAnImage(t *testing.T) {
	o := newOrigin(t)
	_, m := o.image("a/b", "v1", noise(1000, 1))
	s := serveMirror(t, t.TempDir(), o.upstream())
	s.get(manifestURL("a/b", "v1")).wants(t, "tag", 200, nil)
	s.get(blobURL("a/b", m.Config.Digest)).wants(t, "config", 200, nil)
	err := s.Export(t.Context(), &bytes.Buffer{}, []Reference{{Upstream: testName, Repository: "a/b", Tag: "v1"}})
	if err == nil || !strings.Contains(err.Error(), "preload the image first") {
		t.Error(err)
	}
}

// packed is an archive as an attacker writes it.
func packed(t *testing.T, entries ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h, ok := e.(*tar.Header)
		text := ""
		if !ok {
			pair := e.([2]string)
			h, text = &tar.Header{Name: pair[0], Mode: 0o644, Size: int64(len(pair[1]))}, pair[1]
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

func TestArchivesThatAreRefused(t *testing.T) {
	text := "hello"
	blob := [2]string{blobPath(digest.FromString(text)), text}
	index := func(d digest.Digest, name string) [2]string {
		i := ocispec.Index{Manifests: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 5, Annotations: map[string]string{containerdName: name}}}}
		i.SchemaVersion = 2
		b, err := json.Marshal(i)
		if err != nil {
			t.Fatal(err)
		}
		return [2]string{"index.json", string(b)}
	}
	good := index(digest.FromString(text), testName+"/oss/a:v1")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(packed(t, blob, good))
	z.Close()
	for _, tt := range []struct {
		why  string
		b    []byte
		want string // of the error, or of an image's
	}{
		{"no archive", []byte("hello"), "unexpected EOF"},
		{"packed, which could unpack to anything", zipped.Bytes(), "compressed; unpack it first"},
		{"no index", packed(t, blob), "not an OCI image layout"},
		{"out of the folder", packed(t, [2]string{"../../etc/cron.d/x", text}, good), "not part of an OCI image layout"},
		{"out of the folder of blobs", packed(t, [2]string{"blobs/sha256/../../../x", text}, good), "not part of an OCI image layout"},
		{"an absolute path", packed(t, [2]string{"/etc/passwd", text}, good), "not part of an OCI image layout"},
		{"a blob that is called a path", packed(t, [2]string{"blobs/sha256/..", text}, good), "not part of an OCI image layout"},
		{"an algorithm that is a path", packed(t, [2]string{"blobs/../" + digest.FromString(text).Encoded(), text}, good), "not part of an OCI image layout"},
		{"a file of ours", packed(t, [2]string{"refs/registry.example/oss/a/_tags/v1", text}, good), "not part of an OCI image layout"},
		{"a link", packed(t, &tar.Header{Name: blob[0], Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, good), "neither a file nor a folder"},
		{"a hard link", packed(t, &tar.Header{Name: blob[0], Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}, good), "neither a file nor a folder"},
		{"a device", packed(t, &tar.Header{Name: blob[0], Typeflag: tar.TypeChar, Devmajor: 1}, good), "neither a file nor a folder"},
		{"another digest", packed(t, [2]string{blob[0], "hellO"}, good), "digest does not match"},
		{"an index without end", packed(t, [2]string{"index.json", strings.Repeat(" ", maxManifest+1)}), "more than"},
		{"an index of images that are not there", packed(t, good), "no such file"},
		{"a blob that is no manifest", packed(t, blob, good), "manifest"},
		{"another registry", packed(t, blob, index(digest.FromString(text), "evil.example/oss/a:v1")), "is no upstream"},
		{"not on the list", packed(t, blob, index(digest.FromString(text), testName+"/private/a:v1")), "not on the list"},
		{"no name", packed(t, blob, index(digest.FromString(text), "")), "is called by no registry's name"},
		{"a name that is a path", packed(t, blob, index(digest.FromString(text), testName+"/../../etc:v1")), "is called by no registry's name"},
		{"a pinned tag", packed(t, blob, index(digest.FromString(text), testName+"/oss/pinned:v1")), "pinned to"},
		{"larger than may be", packed(t, [2]string{blobPath(digest.FromString("x")), strings.Repeat("x", 2000)}), "larger than"},
	} {
		dir := filepath.Join(t.TempDir(), "store")
		s := serveMirror(t, dir, &Upstream{Name: testName, Mode: Offline, Allow: []Pattern{{"oss/*"}},
			Pins: map[string]digest.Digest{"oss/pinned:v1": digest.FromString("y")}})
		s.MaxBlob = 1000
		got, err := s.Import(t.Context(), bytes.NewReader(tt.b), true)
		if err == nil && len(got) == 1 {
			err = got[0].Err
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.why, err, tt.want)
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "x")); err == nil {
			t.Errorf("%s: a file outside the store was written", tt.why)
		}
		if all, err := s.Known(); err != nil || len(all) > 0 {
			t.Errorf("%s: %v are served now, %v", tt.why, all, err)
		}
		s.stop()
	}
}

// FuzzImport: whatever is imported, the store holds only what it says.
func FuzzImport(f *testing.F) {
	text := "{}"
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range map[string]string{blobPath(digest.FromString(text)): text, "index.json": fmt.Sprintf(`{"manifests":[{"digest":%q}]}`, digest.FromString(text))} {
		_ = w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text))})
		_, _ = w.Write([]byte(text))
	}
	w.Close()
	f.Add(b.Bytes())
	f.Add([]byte(nil))
	dir := f.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		f.Fatal(err)
	}
	m := &Mirror{Store: s, Upstreams: []*Upstream{{Name: testName, Mode: Offline, Allow: []Pattern{{"*"}}}}}
	f.Fuzz(func(t *testing.T, archive []byte) {
		if _, err := m.Import(t.Context(), bytes.NewReader(archive), true); err != nil {
			return
		}
		if v, err := s.Verify(t.Context(), true); err != nil || len(v.Damaged) > 0 {
			t.Errorf("%v, %v", v, err)
		}
	})
}
