package mirror

import (
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestABlobByAnotherAlgorithm(t *testing.T) {
	o := newOrigin(t)
	content := noise(200_000, 1)
	d := digest.SHA512.FromBytes(content)
	o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, d.String()) {
			return false
		}
		_, _ = w.Write(content)
		return true
	})
	s := serveMirror(t, t.TempDir(), o.upstream())
	s.get(blobURL("a/b", d)).wants(t, "without a length", 502, nil)
	o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "200000")
		_, _ = w.Write(content)
		return true
	})
	for range 2 {
		s.get(blobURL("a/b", d)).wants(t, "sha512", 200, content)
	}
	if n := s.Upstreams[0].Counts.Fetches(); n != 2 {
		t.Errorf("%d fetches", n)
	}
}

func TestPullThroughAndWithoutUpstream(t *testing.T) {
	o := newOrigin(t)
	layer := noise(3<<20, 1)
	image, m := o.image("oss/kubernetes/pause", "3.6", layer)
	dir := t.TempDir()
	check := func(s *mirrored) {
		t.Helper()
		for _, where := range []struct{ prefix, query string }{{"", ""}, {"", "?ns=" + testName}, {"aks-managed-repository/", ""}, {testName + "/", ""}, {"aks-managed-repository/", "?ns=" + testName}} {
			repo := where.prefix + "oss/kubernetes/pause"
			head := s.do(http.MethodHead, manifestURL(repo, "3.6")+where.query)
			head.wants(t, "HEAD tag", 200, nil)
			if got := head.Header.Get("Docker-Content-Digest"); got != image.Digest.String() || head.Header.Get("Content-Type") != image.MediaType {
				t.Errorf("tag: %s %s", got, head.Header.Get("Content-Type"))
			}
			s.get(manifestURL(repo, "3.6")+where.query).wants(t, "GET tag", 200, nil)
			s.get(manifestURL(repo, image.Digest.String())+where.query).wants(t, "GET manifest", 200, nil)
			s.do(http.MethodHead, blobURL(repo, m.Layers[0].Digest)+where.query).wants(t, "HEAD layer", 200, nil)
			s.get(blobURL(repo, m.Layers[0].Digest)+where.query).wants(t, "GET layer", 200, layer)
			s.get(blobURL(repo, m.Config.Digest)+where.query).wants(t, "GET config", 200, nil)
			s.get(blobURL(repo, m.Layers[0].Digest)+where.query, "Range", "bytes=100-199").wants(t, "GET range", 206, layer[100:200])
			s.get("/v2/"+repo+"/tags/list"+where.query).wants(t, "tags", 200, []byte(`{"name":"`+repo+`","tags":["3.6"]}`))
			s.get("/v2/"+repo+"/referrers/"+image.Digest.String()+where.query).wants(t, "referrers", 200, nil)
		}
		s.get("/v2/").wants(t, "ping", 200, nil)
		s.get("/v2/_catalog").wants(t, "catalog", 200, []byte(`{"repositories":["aks-managed-repository/oss/kubernetes/pause","registry.example/oss/kubernetes/pause"]}`))
		s.get("/v2/_catalog?ns="+testName).wants(t, "catalog", 200, []byte(`{"repositories":["oss/kubernetes/pause"]}`))
	}
	s := serveMirror(t, dir, o.upstream())
	check(s)
	if n := o.count("GET /v2/oss/kubernetes/pause/blobs/" + m.Layers[0].Digest.String()); n != 1 {
		t.Errorf("the layer was fetched %d times", n)
	}
	s.stop()
	o.Close()
	check(serveMirror(t, dir, o.upstream()))
}
