package peers

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// suite builds the conformance tests of the OCI distribution specification.
func suite(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "conformance")
	if out, err := run(t.Context(), "go", "build", "-o", program, "github.com/opencontainers/distribution-spec/conformance"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

var verdictLine = regexp.MustCompile(`(?m)^\s*(OCI Conformance Test\S*(?: \S+)*): (Pass|FAIL|Error)$`)

// conformance runs the suite, and returns how many of its tests passed, and those
// that did not, by name, the sum of those of a name. Its status is not used: where
// it may not push it crashes after its report, over data that it did not make.
func conformance(t *testing.T, program, address, authority string, settings ...string) (passed int, failed []string, report string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "OCI_REGISTRY="+address, "OCI_TLS=enabled", "SSL_CERT_FILE="+authority, "OCI_RESULTS_DIR="+cmd.Dir,
		"OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false", "OCI_API_BLOBS_DIGEST_HEADER=true",
		// What the registry behind the mirror does not take in these tests.
		"OCI_DATA_SHA512=false", "OCI_DATA_NONDISTRIBUTABLE=false")
	cmd.Env = append(cmd.Env, settings...)
	out, _ := cmd.CombinedOutput()
	for _, m := range verdictLine.FindAllStringSubmatch(string(out), -1) {
		if m[2] == "Pass" {
			passed++
		} else if !slices.Contains(failed, m[1]) {
			failed = append(failed, m[1])
		}
	}
	if passed == 0 {
		t.Errorf("the suite did not run:\n%s", out)
	}
	return passed, failed, string(out)
}

// TestConformanceOfAReadOnlyRegistry runs what the suite has for registries that
// can only be read, with the upstream and without.
func TestConformanceOfAReadOnlyRegistry(t *testing.T) {
	program := suite(t)
	o := newOrigin(t)
	i := o.pause(t, "3.6", 1)
	second := o.pause(t, "3.10", 5)
	signature := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example.signature", Subject: &i.index,
		Config: o.blob(t, i.repo, ocispec.MediaTypeEmptyJSON, []byte("{}")), Layers: []ocispec.Descriptor{o.blob(t, i.repo, "text/plain", []byte("signed"))}}
	signature.SchemaVersion = 2
	signed := o.manifest(t, i.repo, "", signature.MediaType, signature)
	empty := o.blob(t, i.repo, "application/octet-stream", nil)
	dir := t.TempDir()
	m := startMirror(t, dir, o)
	check := func(what string) {
		t.Helper()
		passed, failed, report := conformance(t, program, m.address, m.ca(), "OCI_API_PUSH=false", "OCI_REPO1="+i.repo, "OCI_REPO2="+prefix+"/"+i.repo,
			"OCI_RO_DATA_TAGS="+i.tag+" "+second.tag,
			"OCI_RO_DATA_MANIFESTS="+strings.Join([]string{i.index.Digest.String(), i.image.Digest.String(), signed.Digest.String()}, " "),
			"OCI_RO_DATA_BLOBS="+strings.Join([]string{i.layer.Digest.String(), empty.Digest.String()}, " "),
			"OCI_RO_DATA_REFERRERS="+i.index.Digest.String())
		if len(failed) > 0 {
			t.Errorf("%s: %s\n%s", what, strings.Join(failed, "\n"), report)
		}
		t.Logf("%s: %d passed", what, passed)
	}
	check("with the upstream")
	m.kill()
	o.Close()
	m = startMirrorIn(t, dir, o, "offline")
	check("without the upstream")
}

// TestConformanceOfWhatIsPushedUpstream has the suite push its own data, of every
// kind, to the registry, and pull it from the mirror. What the registry alone does
// not pass says nothing of the mirror.
func TestConformanceOfWhatIsPushedUpstream(t *testing.T) {
	program := suite(t)
	o := newOrigin(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	alone, ofAlone, _ := conformance(t, program, strings.TrimPrefix(o.URL, "https://"), ca, "OCI_REPO1=alone/a", "OCI_REPO2=alone/b")

	m := startMirror(t, t.TempDir(), o)
	front := newFront(t, o, m)
	passed, failed, report := conformance(t, program, strings.TrimPrefix(front.URL, "https://"), ca, "OCI_REPO1=conformance/a", "OCI_REPO2=conformance/b")
	for _, name := range failed {
		if !slices.Contains(ofAlone, name) {
			t.Errorf("%s: passes without the mirror\n", name)
		}
	}
	if t.Failed() {
		t.Log(report)
	}
	t.Logf("%d passed with the mirror, %d without; failed with:\n%s\nwithout:\n%s", passed, alone, strings.Join(failed, "\n"), strings.Join(ofAlone, "\n"))
}

// newFront sends what writes to the registry, and what reads to the mirror.
func newFront(t *testing.T, o *origin, m *mirror) *httptest.Server {
	t.Helper()
	proxy := func(to string, transport http.RoundTripper) *httputil.ReverseProxy {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		return &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = u.Host },
			ModifyResponse: func(r *http.Response) error {
				if l := r.Header.Get("Location"); strings.HasPrefix(l, to) {
					r.Header.Set("Location", strings.TrimPrefix(l, to))
				}
				return nil
			}}
	}
	write := proxy(o.URL, o.Client().Transport)
	read := proxy("https://"+m.address, trusting(t, m))
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if (r.Method == http.MethodGet || r.Method == http.MethodHead) && !strings.Contains(r.URL.Path, "/blobs/uploads/") {
			read.ServeHTTP(w, r)
			return
		}
		write.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}
