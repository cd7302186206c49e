package mirror

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

const confHead = "apiVersion: tidegate.io/v1\nkind: Mirror\n"

const confGood = confHead + `store: images
size: 200GiB
blobSize: 20GB
listen: "[::]:443"
management: 127.0.0.1:9000
tls: {names: [mirror.example, 10.0.0.4]}
clients: clients
recheck: 1m
proxy: http://10.0.0.5:3128
pins:
  - mcr.microsoft.com/oss/kubernetes/pause:3.6@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
upstreams:
  - name: mcr.microsoft.com
    prefixes: [aks-managed-repository]
  - name: docker.io
    repositories: ["library/*", bitnami/nginx]
    credentials: hub
    mode: pinned
  - name: team.azurecr.io
    repositories: ["*"]
    redirects: ["*.data.azurecr.io"]
    authorities: ca.pem
    hosts: [images.corp.example]
    mode: offline
`

func TestReadConfig(t *testing.T) {
	c, err := ReadConfig("mirror.yaml", []byte(confGood))
	if err != nil {
		t.Fatal(err)
	}
	mcr, hub, team := c.Upstreams[0], c.Upstreams[1], c.Upstreams[2]
	if c.Store != "images" || c.MaxBytes != 200<<30 || c.MaxBlob != 20e9 || c.Listen != "[::]:443" || c.ClientsFile != "clients" || len(c.Names) != 2 ||
		c.CredentialFiles["docker.io"] != "hub" || c.AuthorityFiles["team.azurecr.io"] != "ca.pem" {
		t.Errorf("%+v", c)
	}
	if mcr.Mode != Online || hub.Mode != Pinned || team.Mode != Offline || mcr.Recheck != time.Minute || mcr.Proxy.Host != "10.0.0.5:3128" {
		t.Errorf("%+v %+v %+v", mcr, hub, team)
	}
	if hub.URL.Host != "registry-1.docker.io" || len(hub.Tokens) != 1 || mcr.URL.String() != "https://mcr.microsoft.com" {
		t.Errorf("%s %v %s", hub.URL, hub.Tokens, mcr.URL)
	}
	if len(mcr.Pins) != 1 || mcr.Pins["oss/kubernetes/pause:3.6"] != digest.Digest("sha256:"+strings.Repeat("a", 64)) {
		t.Errorf("pins: %v", mcr.Pins)
	}
	for repo, u := range map[string]*Upstream{"oss/v2/kubernetes/coredns": mcr, "aks/packages/kubernetes/kubelet": mcr, "azuremonitor/containerinsights/ciprod": mcr,
		"azure-policy/policy-kubernetes-addon-prod": mcr, "containernetworking/v2/azure-cns": mcr, "library/nginx": hub, "bitnami/nginx": hub, "any/thing": team} {
		if !u.allows(repo) {
			t.Errorf("%s/%s is not permitted", u.Name, repo)
		}
	}
	for repo, u := range map[string]*Upstream{"windows/servercore": mcr, "dotnet/sdk": mcr, "aks": mcr, "bitnami/nginx/x": hub, "libraryx/nginx": hub} {
		if u.allows(repo) {
			t.Errorf("%s/%s is permitted", u.Name, repo)
		}
	}
}

func TestReadConfigRefuses(t *testing.T) {
	one := confHead + "upstreams:\n  - name: mcr.microsoft.com\n"
	sum := strings.Repeat("a", 64)
	for _, tt := range []struct{ why, text, want string }{
		{"nothing", "", "nothing in it"},
		{"no YAML", "a: [", "line 1"},
		{"another kind", "apiVersion: tidegate.io/v1\nkind: Gateway\n", `kind "Gateway"`},
		{"another version", "apiVersion: v2\nkind: Mirror\n", `apiVersion "v2"`},
		{"an unknown key", one + "mdoe: online\n", "line 5: unknown key mdoe"},
		{"an unknown key below", one + "    mdoe: online\n", "line 5: unknown key mdoe"},
		{"a doubled key", one + "    name: docker.io\n", "line 5"},
		{"a second document", one + "---\na: b\n", "second document"},
		{"no upstreams", confHead, "upstreams: 0"},
		{"an upstream without a name", confHead + "upstreams:\n  - mode: online\n", "upstream 1: name"},
		{"a URL for a name", confHead + "upstreams:\n  - name: https://a.example\n", "name"},
		{"capital letters", confHead + "upstreams:\n  - name: MCR.microsoft.com\n", "write it as mcr.microsoft.com"},
		{"a name that is a path", confHead + "upstreams:\n  - name: ../etc\n", "name"},
		{"no list", confHead + "upstreams:\n  - name: docker.io\n", "repositories: none"},
		{"a pattern in the middle", one + "    repositories: [\"a/*/b\"]\n", "is no repository's name"},
		{"a pattern that is a path", one + "    repositories: [\"../*\"]\n", "is no repository's name"},
		{"a path in the URL", one + "    url: https://a.example/v2\n", "want only a host"},
		{"a password in the URL", one + "    url: https://a:b@a.example\n", "belongs into a file"},
		{"another protocol", one + "    url: ftp://a.example\n", "want https"},
		{"credentials in the clear", one + "    url: http://a.example\n    credentials: c\n", "in the clear"},
		{"a mode", one + "    mode: on\n", `mode "on": want one of online, pinned, offline`},
		{"a prefix that is a path", one + "    prefixes: [\"../a\"]\n", "prefixes"},
		{"one prefix of two", one + "    prefixes: [a]\n  - name: docker.io\n    repositories: [\"*\"]\n    prefixes: [a]\n", `"a" leads to mcr.microsoft.com already`},
		{"two of a name", one + "  - name: mcr.microsoft.com\n", "leads to mcr.microsoft.com already"},
		{"tokens anywhere", one + "    tokens: [\"*\"]\n", "host"},
		{"redirects anywhere", one + "    redirects: [\"*\"]\n", "redirects"},
		{"a size", one + "size: 200\n", ""},
		{"a size in words", one + "size: large\n", "want a size"},
		{"a negative size", one + "size: -1GB\n", "want a size"},
		{"a size without end", one + "size: 99999999999TiB\n", "want a size"},
		{"a time", one + "recheck: often\n", "want a duration"},
		{"a listener", one + "listen: 5000\n", "want address:port"},
		{"half a certificate", one + "tls: {certificate: a}\n", "go together"},
		{"names of a given certificate", one + "tls: {certificate: a, key: b, names: [a.example]}\n", "there is one given"},
		{"a proxy", one + "proxy: 10.0.0.5\n", "want http://"},
		{"a pin without a digest", one + "pins: [\"mcr.microsoft.com/a:v1\"]\n", "want registry/repository:tag@digest"},
		{"a pin of elsewhere", one + "pins: [\"docker.io/a:v1@sha256:" + sum + "\"]\n", "is no upstream"},
		{"two pins", one + "pins: [\"mcr.microsoft.com/a:v1@sha256:" + sum + "\", \"mcr.microsoft.com/a:v1@sha256:" + sum[1:] + "b\"]\n", "another digest already"},
	} {
		_, err := ReadConfig("mirror.yaml", []byte(tt.text))
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.why, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), "mirror.yaml: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.why, err, tt.want)
		}
	}
}

// FuzzReadConfig: whatever a configuration says, no upstream is a path, and none is open to all repositories.
func FuzzReadConfig(f *testing.F) {
	f.Add(confGood)
	f.Add(confHead)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ReadConfig("f", []byte(text))
		if err != nil {
			return
		}
		for _, u := range c.Upstreams { // what names folders is no path
			if strings.Contains(u.Name, "/") || strings.HasPrefix(u.Name, ".") || len(u.Allow) == 0 {
				t.Errorf("%+v", u)
			}
		}
	})
}

// FuzzParseReference: what is read is printed the same.
func FuzzParseReference(f *testing.F) {
	f.Add("mcr.microsoft.com/oss/kubernetes/pause:3.6")
	f.Add("localhost:5000/a/b@sha256:" + strings.Repeat("a", 64))
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		if r.String() != s {
			t.Errorf("%q is printed as %q", s, r)
		}
		if checkRepository(r.Repository) != nil {
			t.Errorf("%q: repository %q", s, r.Repository)
		}
	})
}

// FuzzReadManifest: what is taken for a manifest can be followed safely.
func FuzzReadManifest(f *testing.F) {
	f.Add("", []byte(`{"schemaVersion":2,"config":{"digest":"sha256:`+strings.Repeat("a", 64)+`"},"layers":[]}`))
	f.Add("application/vnd.oci.image.index.v1+json", []byte(`{"manifests":[]}`))
	f.Fuzz(func(t *testing.T, mediaType string, text []byte) {
		m, err := readManifest(mediaType, text)
		if err != nil {
			return
		}
		for _, d := range m.all() {
			if p := blobPath(d.Digest); filepath.Dir(filepath.Dir(p)) != blobsDir || filepath.Clean(p) != p || d.Size < 0 {
				t.Errorf("%s", p)
			}
		}
		if again, err := readManifest(m.MediaType, text); err != nil || again.MediaType != m.MediaType {
			t.Errorf("read again: %v", err)
		}
	})
}

func TestHosts(t *testing.T) {
	dir := t.TempDir()
	at, err := parseBase("https://mirror.example:5000")
	if err != nil {
		t.Fatal(err)
	}
	h := Hosts{Registry: "mcr.microsoft.com", Mirror: at, Prefix: "aks-managed-repository", Only: true, CA: "/etc/a\"b.crt", Authorization: "Bearer x"}
	want := hostsMark + `
server = "https://mirror.example:5000/v2/aks-managed-repository"

[host."https://mirror.example:5000/v2/aks-managed-repository"]
  capabilities = ["pull", "resolve"]
  override_path = true
  ca = "/etc/a\"b.crt"
  [host."https://mirror.example:5000/v2/aks-managed-repository".header]
    Authorization = "Bearer x"
`
	if h.Text() != want {
		t.Errorf("%s", h.Text())
	}
	name := filepath.Join(dir, "mcr.microsoft.com", "hosts.toml")
	content := func() string {
		b, err := os.ReadFile(name)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	// AKS's own file is put aside once, and comes back.
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	const own = "# AKS\n"
	if err := os.WriteFile(name, []byte(own), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.Write(dir); err != nil || content() != want {
			t.Errorf("%v: %s", err, content())
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a file with a secret: %v, %v", info.Mode(), err)
	}
	if err := h.Undo(dir); err != nil || content() != own {
		t.Errorf("%v: %s", err, content())
	}
	if err := h.Undo(dir); err == nil || content() != own {
		t.Errorf("undone twice: %v: %s", err, content())
	}
	// Where there was none there is none again.
	h.Registry = "docker.io"
	if err := h.Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := h.Undo(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "docker.io")); !os.IsNotExist(err) {
		t.Error("the folder is still there")
	}
	if err := h.Undo(dir); err == nil {
		t.Error("undone where there is nothing")
	}
	for _, bad := range []string{"", "../etc", "a/b", "/etc", "a b"} {
		h.Registry = bad
		if h.Write(dir) == nil {
			t.Errorf("%q: is taken for a registry", bad)
		}
	}
}
