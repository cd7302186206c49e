package mirror

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// raw sends a request whose target is written as it is: what a client library
// would clean away arrives.
func (m *mirrored) raw(method, target string, head ...string) (status int, body string) {
	m.t.Helper()
	c, err := tls.Dial("tcp", strings.TrimPrefix(m.URL, "https://"), m.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: mirror.example\r\nConnection: close\r\n", method, target)
	for i := 0; i < len(head); i += 2 {
		fmt.Fprintf(c, "%s: %s\r\n", head[i], head[i+1])
	}
	_, _ = io.WriteString(c, "\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// files lists what is in a folder, with its parent's other folders.
func files(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(filepath.Dir(dir), func(p string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, "\n")
}

func TestRequestsThatAreRefused(t *testing.T) {
	o := newOrigin(t)
	o.image("oss/a", "v1", noise(100, 1))
	o.image("private/a", "v1", noise(100, 2))
	u := o.upstream()
	u.Allow = []Pattern{{"oss/*"}, {"one"}}
	dir := filepath.Join(t.TempDir(), "store")
	s := serveMirror(t, dir, u)
	hex := strings.Repeat("a", 64)
	before, asked := files(t, dir), o.count("")
	for _, tt := range []struct {
		why, method, target string
		status              int
	}{
		{"out of the repository's folder", "GET", "/v2/../../etc/blobs/sha256:" + hex, 400},
		{"out of it, further in", "GET", "/v2/oss/../../etc/manifests/v1", 400},
		{"out of it, escaped", "GET", "/v2/oss/%2e%2e/%2e%2e/etc/manifests/v1", 400},
		{"escaped slashes", "GET", "/v2/oss%2f..%2f..%2fetc/manifests/v1", 400},
		{"a repository that is a folder of ours", "GET", "/v2/oss/a/_manifests/manifests/v1", 400},
		{"a hidden folder", "GET", "/v2/oss/.a/manifests/v1", 400},
		{"no repository", "GET", "/v2//manifests/v1", 400},
		{"an empty part", "GET", "/v2/oss//a/manifests/v1", 400},
		{"capital letters", "GET", "/v2/OSS/a/manifests/v1", 400},
		{"a backslash", "GET", `/v2/oss\..\a/manifests/v1`, 400},
		{"a zero byte", "GET", "/v2/oss/a%00/manifests/v1", 400},
		{"another alphabet", "GET", "/v2/oss/%C3%A4/manifests/v1", 400},
		{"a very long name", "GET", "/v2/oss/" + strings.Repeat("a", 300) + "/manifests/v1", 400},
		{"a digest that is a path", "GET", "/v2/oss/a/blobs/sha256:../../../../etc/passwd", 404},
		{"a digest that is a path, escaped", "GET", "/v2/oss/a/blobs/sha256:%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404},
		{"a digest of dots", "GET", "/v2/oss/a/blobs/..", 400},
		{"a digest in capitals", "GET", "/v2/oss/a/blobs/sha256:" + strings.Repeat("A", 64), 400},
		{"a short digest", "GET", "/v2/oss/a/blobs/sha256:" + hex[1:], 400},
		{"a long digest", "GET", "/v2/oss/a/blobs/sha256:" + hex + "a", 400},
		{"a digest without its algorithm", "GET", "/v2/oss/a/blobs/" + hex, 400},
		{"an algorithm that is broken", "GET", "/v2/oss/a/blobs/md5:" + hex[:32], 400},
		{"an algorithm that is a path", "GET", "/v2/oss/a/blobs/..:" + hex, 400},
		{"no digest", "GET", "/v2/oss/a/blobs/", 400},
		{"a manifest by a digest that is none", "GET", "/v2/oss/a/manifests/sha256:..", 404},
		{"referrers of what is no digest", "GET", "/v2/oss/a/referrers/..", 400},
		{"a tag that is a path", "GET", "/v2/oss/a/manifests/..", 404},
		{"a tag that is hidden", "GET", "/v2/oss/a/manifests/.v1", 404},
		{"a tag that is another client's", "GET", "/v2/oss/a/manifests/v1+m", 404},
		{"a tag with a line's end", "GET", "/v2/oss/a/manifests/v1%0a", 404},
		{"a very long tag", "GET", "/v2/oss/a/manifests/" + strings.Repeat("a", 129), 404},
		{"an upload's address", "GET", "/v2/oss/a/blobs/uploads/abc", 400},
		{"not the API", "GET", "/etc/passwd", 404},
		{"not on the list", "GET", "/v2/private/a/manifests/v1", 403},
		{"not on the list, by prefix", "GET", "/v2/aks-managed-repository/private/a/manifests/v1", 403},
		{"not on the list, by ns", "GET", "/v2/private/a/manifests/v1?ns=" + testName, 403},
		{"not on the list, tags", "GET", "/v2/private/a/tags/list", 403},
		{"not on the list, referrers", "GET", "/v2/private/a/referrers/sha256:" + hex, 403},
		{"not on the list, a blob", "HEAD", "/v2/private/a/blobs/sha256:" + hex, 403},
		{"begins like one on the list", "GET", "/v2/ossx/a/manifests/v1", 403},
		{"the top of one on the list", "GET", "/v2/oss/manifests/v1", 403},
		{"below one on the list", "GET", "/v2/one/more/manifests/v1", 403},
		{"another registry", "GET", "/v2/oss/a/manifests/v1?ns=evil.example", 404},
		{"another registry, for the catalogue", "GET", "/v2/_catalog?ns=evil.example", 404},
		{"a registry that is a path", "GET", "/v2/oss/a/manifests/v1?ns=../../etc", 404},
		{"a registry that is a URL", "GET", "/v2/oss/a/manifests/v1?ns=http://169.254.169.254", 404},
		{"a registry with a password", "GET", "/v2/oss/a/manifests/v1?ns=a@" + testName, 404},
		{"a push", "PUT", "/v2/oss/a/manifests/v1", 405},
		{"an upload", "POST", "/v2/oss/a/blobs/uploads/", 405},
		{"an upload's piece", "PATCH", "/v2/oss/a/blobs/uploads/abc", 405},
		{"a deletion", "DELETE", "/v2/oss/a/manifests/v1", 405},
		{"a deletion of a blob", "DELETE", "/v2/oss/a/blobs/sha256:" + hex, 405},
		{"what may be done", "OPTIONS", "/v2/", 405},
		{"an echo", "TRACE", "/v2/", 405},
		{"a verb of its own", "SMASH", "/v2/", 405},
	} {
		status, body := s.raw(tt.method, tt.target)
		if status != tt.status {
			t.Errorf("%s: %s %s: status %d, want %d: %s", tt.why, tt.method, tt.target, status, tt.status, body)
		}
		if tt.method != "HEAD" && !strings.HasPrefix(body, `{"errors":[{"code":"`) {
			t.Errorf("%s: not an error of the API: %q", tt.why, body)
		}
		if strings.Contains(body, dir) {
			t.Errorf("%s: shows where the store is: %s", tt.why, body)
		}
	}
	if after := files(t, dir); after != before {
		t.Errorf("files were made: %s", after)
	}
	if o.count("") != asked {
		t.Errorf("the upstream was asked %d times", o.count("")-asked)
	}
}

func TestClientsAreAskedWhoTheyAre(t *testing.T) {
	o := newOrigin(t)
	o.image("a/b", "v1", noise(100, 1))
	s := serveMirror(t, t.TempDir(), o.upstream())
	var err error
	if s.Clients, err = ReadClients("clients", []byte("# nodes\nbasic node:password1\n\nbearer 0123456789abcdef\n")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		why, authorization string
		status             int
	}{
		{"nothing", "", 401},
		{"another password", "Basic bm9kZTpwYXNzd29yZDI=", 401},
		{"another name", "Basic bm9kZjpwYXNzd29yZDE=", 401},
		{"the password alone", "Basic cGFzc3dvcmQx", 401},
		{"no base64", "Basic node:password1", 401},
		{"half a token", "Bearer 01234567", 401},
		{"an empty token", "Bearer ", 401},
		{"a token as a password", "Basic 0123456789abcdef", 401},
		{"two at once", "Bearer 0123456789abcdef, Basic bm9kZTpwYXNzd29yZDI=", 401},
		{"the password", "Basic bm9kZTpwYXNzd29yZDE=", 200},
		{"the password, in small letters", "basic bm9kZTpwYXNzd29yZDE=", 200},
		{"the token", "Bearer 0123456789abcdef", 200},
	} {
		a := s.get(manifestURL("a/b", "v1"), "Authorization", tt.authorization)
		a.wants(t, tt.why, tt.status, nil)
		if tt.status == 401 && a.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: is not told how to sign in", tt.why)
		}
	}
	for _, text := range []string{"", "node:password1\n", "basic node\n", "basic :password1\n", "basic node:short\n", "bearer short\n", "digest 0123456789abcdef\n"} {
		if _, err := ReadClients("clients", []byte(text)); err == nil {
			t.Errorf("%q: is taken for a list of clients", text)
		} else if strings.Contains(err.Error(), "password1") {
			t.Errorf("%q: the error shows a secret: %v", text, err)
		}
	}
}

// TestManifestsThatAreRefused has an upstream say what no registry should.
func TestManifestsThatAreRefused(t *testing.T) {
	o := newOrigin(t)
	s := serveMirror(t, t.TempDir(), o.upstream())
	oci := ocispec.MediaTypeImageManifest
	config := `"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"` + digest.FromString("{}").String() + `"}`
	layer := func(more string) string {
		return `{"schemaVersion":2,` + config + `,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":3,"digest":"` + digest.FromString("abc").String() + `"` + more + `}]}`
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(strings.Repeat(" ", 100<<20) + layer("")))
	z.Close()
	for _, tt := range []struct {
		why, mediaType, text string
		head                 []string
	}{
		{"larger than any manifest", oci, strings.Repeat(" ", maxManifest+1) + layer(""), nil},
		{"larger, without saying so", oci, strings.Repeat(" ", maxManifest+1) + layer(""), []string{"Transfer-Encoding", "chunked"}},
		{"a bomb that unpacks to a hundred megabytes", oci, packed.String(), []string{"Content-Encoding", "gzip"}},
		{"another encoding", oci, layer(""), []string{"Content-Encoding", "br"}},
		{"another digest than it says", oci, layer(""), []string{"Docker-Content-Digest", digest.FromString("x").String()}},
		{"a digest that is a path", oci, layer(""), []string{"Docker-Content-Digest", "sha256:../../../etc/passwd"}},
		{"a weak digest", oci, layer(""), []string{"Docker-Content-Digest", "md5:d41d8cd98f00b204e9800998ecf8427e"}},
		{"a layer at another URL", oci, layer(`,"urls":["https://evil.example/layer"]`), nil},
		{"a layer at a file's URL", oci, layer(`,"urls":["file:///etc/passwd"]`), nil},
		{"a layer's digest that is a path", oci, strings.Replace(layer(""), digest.FromString("abc").String(), "sha256:../../etc/passwd", 1), nil},
		{"a layer of a negative size", oci, strings.Replace(layer(""), `"size":3`, `"size":-3`, 1), nil},
		{"a layer of an endless size", oci, strings.Replace(layer(""), `"size":3`, `"size":99999999999999999999`, 1), nil},
		{"seventeen thousand layers", oci, strings.Replace(layer(""), `"layers":[`, `"layers":[`+strings.Repeat(`{"digest":"`+digest.FromString("abc").String()+`"},`, maxEntries), 1), nil},
		{"a depth without end", oci, strings.Repeat(`{"annotations":`, 100_000), nil},
		{"a sign-in page", "text/html", "<html>Sign in to this network</html>", nil},
		{"a sign-in page that says it is a manifest", oci, "<html>Sign in to this network</html>", nil},
		{"nothing", oci, "", nil},
		{"a list", oci, "[]", nil},
		{"Docker's first schema", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`, nil},
		{"an index that says it is an image", oci, `{"schemaVersion":2,"manifests":[]}`, nil},
		{"an image that says it is an index", ocispec.MediaTypeImageIndex, layer(""), nil},
		{"both", oci, strings.Replace(layer(""), `"layers"`, `"manifests":[],"layers"`, 1), nil},
		{"two media types", oci, strings.Replace(layer(""), `"schemaVersion":2`, `"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageIndex+`"`, 1), nil},
		{"a program", "application/wasm", layer(""), nil},
	} {
		tt.text = strings.Replace(tt.text, `"schemaVersion":2`, fmt.Sprintf(`"annotations":{"why":%q},"schemaVersion":2`, tt.why), 1)
		o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", tt.mediaType)
			for i := 0; i < len(tt.head); i += 2 {
				if tt.head[i] == "Transfer-Encoding" {
					_ = http.NewResponseController(w).Flush()
					continue
				}
				w.Header().Set(tt.head[i], tt.head[i+1])
			}
			_, _ = io.WriteString(w, tt.text)
			return true
		})
		refs := []string{"v1", digest.FromString(tt.text).String()}
		if len(tt.head) > 0 && tt.head[0] == "Docker-Content-Digest" {
			refs = refs[:1] // by its own digest it is right, whatever the header says
		}
		for _, ref := range refs {
			a := s.get(manifestURL("a/b", ref))
			if a.Response == nil || a.StatusCode < 400 || !strings.HasPrefix(string(a.body), `{"errors":[{"code":"`) {
				t.Errorf("%s, by %s: %d %v %.100s", tt.why, ref, a.StatusCode, a.err, a.body)
			}
			if strings.Contains(string(a.body), "Sign in") {
				t.Errorf("%s: what a stranger wrote is shown: %s", tt.why, a.body)
			}
		}
	}
	all, err := s.Store.blobs()
	if err != nil || len(all) > 0 {
		t.Errorf("%d of them were kept, %v", len(all), err)
	}
}

// elsewhere is a server that blobs are fetched from, and that tells what it was shown.
func elsewhere(t *testing.T, serve http.HandlerFunc) (*httptest.Server, *[]http.Header) {
	var seen []http.Header
	e := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Clone())
		serve(w, r)
	}))
	t.Cleanup(e.Close)
	return e, &seen
}

func TestRedirectsThatAreRefused(t *testing.T) {
	o := newOrigin(t)
	content := noise(100, 1)
	d := o.blob("a/b", content)
	var back string
	far, seen := elsewhere(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/back":
			http.Redirect(w, r, back, http.StatusFound)
		case "/blob":
			_, _ = w.Write(content)
		}
	})
	back = o.URL + blobURL("a/b", d.Digest)
	host := strings.TrimPrefix(far.URL, "https://")
	port := host[strings.LastIndex(host, ":"):]
	for _, tt := range []struct {
		why, to string
		listed  bool // under redirects
		ok      bool
	}{
		{"without encryption", "http://" + host + "/blob", true, false},
		{"to the machine itself", far.URL + "/blob", false, false},
		{"to the machine itself, by name", "https://localhost" + port + "/blob", false, false},
		{"to the machine itself, in IPv6", "https://[::1]" + port + "/blob", false, false},
		{"to the machine itself, mapped", "https://[::ffff:127.0.0.1]" + port + "/blob", false, false},
		{"to the machine itself, through NAT64", "https://[64:ff9b::7f00:1]" + port + "/blob", false, false},
		{"to the machine itself, as zero", "https://0.0.0.0" + port + "/blob", false, false},
		{"to what lends identities", "https://169.254.169.254/metadata/identity", false, false},
		{"to what lends identities, in the clear", "http://169.254.169.254/metadata/identity", false, false},
		{"to Azure's wire server", "https://168.63.129.16/machine", false, false},
		{"to a private network", "https://10.0.0.4/blob", false, false},
		{"to a file", "file:///etc/passwd", true, false},
		{"to another protocol", "gopher://" + host + "/blob", true, false},
		{"with a password", "https://user:password@" + host + "/blob", true, false},
		{"nowhere", "", true, false},
		{"to no URL", "https://%zz/", true, false},
		{"in a circle", far.URL + "/loop", true, false},
		{"back to the registry, which would be shown its token", far.URL + "/back", true, false},
		{"off the list", "https://other.example/blob", true, false},
		{"on the list", far.URL + "/blob", true, true},
	} {
		u := o.upstream()
		u.Credentials = func() (string, string, error) { return "me", "secret", nil }
		u.Roots.AddCert(far.Certificate())
		if tt.listed {
			u.Redirects = []string{host}
		}
		o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			if r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", "Basic")
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			w.Header()["Location"] = []string{tt.to}
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		})
		s := serveMirror(t, t.TempDir(), u)
		before := o.count("/blobs/")
		for _, method := range []string{"HEAD", "GET"} {
			a := s.do(method, blobURL("a/b", d.Digest))
			if tt.ok {
				a.wants(t, tt.why, 200, nil)
			} else {
				a.wants(t, tt.why, 502, nil)
			}
		}
		if n := o.count("/blobs/") - before; n > 2*2*maxTries {
			t.Errorf("%s: the registry was asked %d times", tt.why, n)
		}
		s.stop()
	}
	for _, h := range *seen {
		if h.Get("Authorization") != "" || h.Get("Cookie") != "" {
			t.Errorf("another host was shown %v", h)
		}
	}
	if len(*seen) == 0 {
		t.Error("nothing was asked of the other host")
	}
}

// TestSecretsStayWithTheirHost has a registry send the mirror elsewhere to sign in.
func TestSecretsStayWithTheirHost(t *testing.T) {
	o := newOrigin(t)
	o.image("a/b", "v1", noise(100, 1))
	far, seen := elsewhere(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"t"}`) })
	host := strings.TrimPrefix(far.URL, "https://")
	for _, tt := range []struct {
		why, challenge string
		tokens         []string
		ok             bool
	}{
		{"a realm elsewhere", `Bearer realm="` + far.URL + `/token"`, nil, false},
		{"a realm elsewhere in the clear", `Bearer realm="http://` + host + `/token"`, []string{host}, false},
		{"a realm that lends identities", `Bearer realm="http://169.254.169.254/metadata/identity/oauth2/token"`, nil, false},
		{"a realm with a password", `Bearer realm="https://a:b@` + host + `/token"`, []string{host}, false},
		{"a realm that is a file", `Bearer realm="file:///etc/passwd"`, nil, false},
		{"no realm", `Bearer service="x"`, nil, false},
		{"a name that only begins like the registry's", `Bearer realm="` + o.URL + `.evil.example/token"`, nil, false},
		{"a realm that is listed", `Bearer realm="` + far.URL + `/token"`, []string{host}, true},
	} {
		u := o.upstream()
		u.Roots.AddCert(far.Certificate())
		u.Credentials = func() (string, string, error) { return "me", "secret", nil }
		u.Tokens = tt.tokens
		o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == "Bearer t" {
				return false
			}
			w.Header().Set("WWW-Authenticate", tt.challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		s := serveMirror(t, t.TempDir(), u)
		before := len(*seen)
		for _, path := range []string{manifestURL("a/b", "v1"), "/v2/a/b/tags/list"} {
			a := s.get(path)
			if ok := a.Response != nil && a.StatusCode == 200; ok != tt.ok {
				t.Errorf("%s: %s: %v %s", tt.why, path, a.err, a.body)
			}
			if strings.Contains(string(a.body), "secret") {
				t.Errorf("%s: the client is shown a secret: %s", tt.why, a.body)
			}
		}
		if !tt.ok && len(*seen) != before {
			t.Errorf("%s: another host was shown %v", tt.why, (*seen)[before:])
		}
		s.stop()
	}
}

func TestListsStayWithTheirHost(t *testing.T) {
	o := newOrigin(t)
	o.image("a/b", "v1", noise(100, 1))
	far, seen := elsewhere(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"tags":["evil"]}`) })
	u := o.upstream()
	u.Roots.AddCert(far.Certificate())
	s := serveMirror(t, t.TempDir(), u)
	s.get(manifestURL("a/b", "v1")).wants(t, "tag", 200, nil)
	many := make([]string, 1000)
	for i := range many {
		many[i] = strconv.Itoa(i)
	}
	for why, spoil := range map[string]func(w http.ResponseWriter, r *http.Request){
		"a link elsewhere": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", `<`+far.URL+`/v2/a/b/tags/list?last=1>; rel="next"`)
			fmt.Fprintf(w, `{"name":"a/b","tags":["%s"]}`, strings.Join(many, `","`))
		},
		"a redirect elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, far.URL+"/tags", http.StatusFound)
		},
		"a list without end": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<`+r.URL.Path+`?last=1>; rel="next"`)
			fmt.Fprintf(w, `{"name":"a/b","tags":["%s"]}`, strings.Join(many, `","`))
		},
		"a page without end": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"tags":["`+strings.Repeat("a", maxAPIBody+100)+`"]}`)
		},
	} {
		o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/tags/list") {
				return false
			}
			spoil(w, r)
			return true
		})
		s.get("/v2/a/b/tags/list").wants(t, why, 200, []byte(`{"name":"a/b","tags":["v1"]}`))
	}
	if len(*seen) > 0 {
		t.Errorf("another host was asked: %v", *seen)
	}
}

func TestBlobsThatAreRefused(t *testing.T) {
	o := newOrigin(t)
	content := noise(100_000, 1)
	d := o.blob("a/b", content)
	u := o.upstream()
	s := serveMirror(t, t.TempDir(), u)
	s.MaxBlob = 1 << 20
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write(content)
	z.Close()
	for why, spoil := range map[string]func(w http.ResponseWriter){
		"larger than may be": func(w http.ResponseWriter) { w.Header().Set("Content-Length", "1048577") },
		"as large as a disk": func(w http.ResponseWriter) { w.Header().Set("Content-Length", "9223372036854775807") },
		"of a size it does not say": func(w http.ResponseWriter) {
			_ = http.NewResponseController(w).Flush()
			_, _ = w.Write(content)
		},
		"packed": func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(packed.Bytes())
		},
		"headers without end": func(w http.ResponseWriter) { w.Header().Set("X", strings.Repeat("a", 2*maxHeader)) },
		"part of it, unasked": func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 5-99999/100000")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content[5:])
		},
		"part of something without end": func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 0-99999/*")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(content)
		},
	} {
		o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			spoil(w)
			return true
		})
		a := s.get(blobURL("a/b", d.Digest))
		if a.err == nil && a.StatusCode < 400 {
			t.Errorf("%s: was given: %d bytes", why, len(a.body))
		}
	}
	if all, err := s.Store.blobs(); err != nil || len(all) > 0 {
		t.Errorf("%d of them were kept, %v", len(all), err)
	}
	o.spoilt(nil)
	s.get(blobURL("a/b", d.Digest)).wants(t, "the right one", 200, content)
}
