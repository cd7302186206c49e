package mirror

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// aged makes blobs of 1 MB, each an hour older than the one before, the first
// two hours old.
func aged(t *testing.T, s *Store, dir string, n int) []digest.Digest {
	t.Helper()
	var all []digest.Digest
	for i := range n {
		b := noise(1e6-overhead, uint64(i)+100)
		d := digest.FromBytes(b)
		if err := s.Put(d, b); err != nil {
			t.Fatal(err)
		}
		age(t, dir, d, time.Duration(i+2)*time.Hour)
		all = append(all, d)
	}
	return all
}

func age(t *testing.T, dir string, d digest.Digest, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	if err := os.Chtimes(filepath.Join(dir, blobPath(d)), at, at); err != nil {
		t.Fatal(err)
	}
}

func TestCollect(t *testing.T) {
	for _, tt := range []struct {
		why    string
		limit  int64
		before func(t *testing.T, s *Store, dir string, all []digest.Digest)
		taken  []int // of ten, which are older the larger the number
	}{
		{"there is room", 10e6, nil, nil},
		{"the least recently used first", 7e6, nil, []int{9, 8, 7}},
		{"all but none", 0, nil, []int{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
		{"not what was used just now", 7e6, func(t *testing.T, s *Store, _ string, all []digest.Digest) {
			f, _, err := s.Open(all[9])
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}, []int{8, 7, 6}},
		{"not what is in use, however old", 7e6, func(t *testing.T, s *Store, dir string, all []digest.Digest) {
			f, _, err := s.Open(all[9])
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			age(t, dir, all[9], 100*time.Hour)
		}, []int{8, 7, 6}},
		{"nothing younger than an hour", 0, func(t *testing.T, _ *Store, dir string, all []digest.Digest) {
			for _, d := range all[:8] {
				age(t, dir, d, 59*time.Minute)
			}
		}, []int{9, 8}},
	} {
		dir := t.TempDir()
		s, err := OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		all := aged(t, s, dir, 10)
		if tt.before != nil {
			tt.before(t, s, dir, all)
		}
		var want []digest.Digest
		for _, i := range tt.taken {
			want = append(want, all[i])
		}
		for _, dry := range []bool{true, false} {
			c, err := s.Collect(tt.limit, dry)
			if err != nil || !slices.Equal(c.Taken, want) || c.Before != 10e6 || c.After != int64(10-len(want))*1e6 {
				t.Errorf("%s: took %v of %d, %d left, %v", tt.why, c.Taken, c.Before, c.After, err)
			}
			left, err := s.blobs()
			if n := len(left); err != nil || dry && n != 10 || !dry && n != 10-len(want) {
				t.Errorf("%s: dry %v: %d blobs left, %v", tt.why, dry, n, err)
			}
		}
		s.Close()
	}
}

func TestCollectKeepsWholeImages(t *testing.T) {
	o := newOrigin(t)
	layer := noise(1e6, 1)
	kept, m := o.image("a/kept", "v1", layer)
	_, other := o.image("a/other", "v1", noise(1e6, 2))
	dir := t.TempDir()
	s := serveMirror(t, dir, o.upstream())
	for _, name := range []string{"a/kept", "a/other"} {
		r := Reference{Upstream: testName, Repository: name, Tag: "v1"}
		if _, err := s.Pull(t.Context(), r, Preload{Keep: name == "a/kept", Referrers: true}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Store.blobs()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		age(t, dir, b.digest, 100*time.Hour)
	}
	c, err := s.Store.Collect(0, false)
	if err != nil || len(c.Taken) != 2 || c.Kept != 3 { // the config is of both
		t.Fatalf("took %d, kept %d, %v", len(c.Taken), c.Kept, err)
	}
	s.Upstreams[0].Mode = Offline
	s.get(manifestURL("a/kept", "v1")).wants(t, "the kept image", 200, nil)
	s.get(blobURL("a/kept", m.Layers[0].Digest)).wants(t, "its layer", 200, layer)
	s.get(manifestURL("a/other", "v1")).wants(t, "the other image", 404, nil)
	s.get(blobURL("a/other", other.Layers[0].Digest)).wants(t, "its layer", 404, nil)
	s.get("/v2/_catalog?ns="+testName).wants(t, "the catalogue", 200, nil)

	// Once forgotten it goes like the others.
	if err := s.Forget(t.Context(), Reference{Upstream: testName, Repository: "a/kept", Digest: kept.Digest}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []digest.Digest{kept.Digest, m.Layers[0].Digest, m.Config.Digest} {
		age(t, dir, d, 100*time.Hour)
	}
	if c, err := s.Store.Collect(0, false); err != nil || len(c.Taken) != 3 || c.After != 0 {
		t.Errorf("took %d, %d left, %v", len(c.Taken), c.After, err)
	}
}

func TestTheMirrorMakesRoom(t *testing.T) {
	o := newOrigin(t)
	content := noise(1e6, 50)
	d := o.blob("a/b", content)
	dir := t.TempDir()
	s := serveMirror(t, dir, o.upstream())
	all := aged(t, s.Store, dir, 10)
	s.MaxBytes = 10e6
	s.get(blobURL("a/b", d.Digest)).wants(t, "an eleventh", 200, content)
	if _, err := s.Store.Size(all[9]); !os.IsNotExist(err) {
		t.Errorf("the oldest is still there: %v", err)
	}
	if used := s.Used(); used > s.MaxBytes {
		t.Errorf("%d bytes are used", used)
	}
}

func TestAbandonedTransfersAreSwept(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for name, old := range map[string]time.Duration{"sha256-new": time.Hour, "sha256-old": 25 * time.Hour, "tmp-old": 48 * time.Hour} {
		p := filepath.Join(dir, incomingDir, name)
		if err := os.WriteFile(p, []byte("abc"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-old)
		if err := os.Chtimes(p, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := s.Collect(1e9, false); err != nil || c.Abandoned != 2 || c.Before != 3 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	all := aged(t, s, dir, 3)
	if v, err := s.Verify(t.Context(), false); err != nil || v.Blobs != 3 || len(v.Damaged) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, blobPath(all[1])), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0, 1, 2, 3}, 500); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for range 2 {
		if v, err := s.Verify(t.Context(), false); err != nil || !slices.Equal(v.Damaged, all[1:2]) {
			t.Errorf("%+v, %v", v, err)
		}
	}
	if v, err := s.Verify(t.Context(), true); err != nil || len(v.Damaged) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := s.Verify(t.Context(), true); err != nil || v.Blobs != 2 || len(v.Damaged) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
}
