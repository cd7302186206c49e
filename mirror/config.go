package mirror

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/egress"
)

// The one version and kind of file that this package reads.
const (
	apiVersion = "tidegate.io/v1"
	kind       = "Mirror"
)

// What a file leaves out.
const (
	defaultStore      = "/var/lib/tidegate-mirror"
	defaultListen     = ":5000"
	defaultManagement = "127.0.0.1:9254"
	defaultRecheck    = 10 * time.Second
	maxUpstreams      = 64
	maxConfig         = 1 << 20
)

// Config is the mirror's file.
type Config struct {
	Store      string // a folder
	MaxBytes   int64  // of it; 0 is no limit
	MaxBlob    int64  // 0 is 64 GiB
	Listen     string
	Management string

	Certificate, Key string   // files; empty: the mirror makes its own
	Names            []string // of the mirror's own certificate: names and addresses

	ClientsFile string // who may pull; empty is everybody who can reach it
	Upstreams   []*Upstream

	// Files that upstreams name, by upstream: credentials and authorities. Who
	// runs the mirror reads them.
	CredentialFiles, AuthorityFiles map[string]string
}

// file is the text of the mirror's file.
type file struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Store      string `yaml:"store"`
	Size       string `yaml:"size"`
	BlobSize   string `yaml:"blobSize"`
	Listen     string `yaml:"listen"`
	Management string `yaml:"management"`
	TLS        struct {
		Certificate string   `yaml:"certificate"`
		Key         string   `yaml:"key"`
		Names       []string `yaml:"names"`
	} `yaml:"tls"`
	Clients   string         `yaml:"clients"`
	Mode      string         `yaml:"mode"`
	Recheck   string         `yaml:"recheck"`
	Proxy     string         `yaml:"proxy"`
	Pins      []string       `yaml:"pins"`
	Upstreams []fileUpstream `yaml:"upstreams"`
}

type fileUpstream struct {
	Name         string   `yaml:"name"`
	URL          string   `yaml:"url"`
	Prefixes     []string `yaml:"prefixes"`
	Hosts        []string `yaml:"hosts"`
	Repositories []string `yaml:"repositories"`
	Mode         string   `yaml:"mode"`
	Credentials  string   `yaml:"credentials"`
	Tokens       []string `yaml:"tokens"`
	Redirects    []string `yaml:"redirects"`
	Authorities  string   `yaml:"authorities"`
}

// microsoft are the names of Microsoft's registry, the last two in China.
var microsoft = []string{"mcr.microsoft.com", "mcr.azure.cn", "mcr.azk8s.cn"}

// clusterRepositories are what an AKS cluster pulls from Microsoft's registry:
// what its nodes are made with, and its add-ons.
//
//go:embed repositories.txt
var clusterRepositories string

// ClusterRepositories is what may be pulled from Microsoft's registry where a file
// does not say otherwise.
func ClusterRepositories() []Pattern {
	var ps []Pattern
	for line := range strings.Lines(clusterRepositories) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			p, err := ParsePattern(line)
			if err != nil {
				panic(err) // the file is part of the program, and a test reads it
			}
			ps = append(ps, p)
		}
	}
	return ps
}

// ReadConfig reads the mirror's file. An unknown or doubled key, and a value that
// contradicts another, is an error that names the file.
func ReadConfig(name string, text []byte) (*Config, error) {
	c, err := readConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func readConfig(text []byte) (*Config, error) {
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%d bytes, more than %d", len(text), maxConfig)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var f file
	if err := d.Decode(&f); errors.Is(err, io.EOF) {
		return nil, errors.New("nothing in it")
	} else if err != nil {
		return nil, plainly(err)
	}
	if err := d.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second document")
	}
	if f.APIVersion != apiVersion || f.Kind != kind {
		return nil, fmt.Errorf("apiVersion %q, kind %q: want %s, %s", f.APIVersion, f.Kind, apiVersion, kind)
	}
	return f.config()
}

// plainly takes the words of the library out of its error.
func plainly(err error) error {
	var many *yaml.TypeError
	if errors.As(err, &many) {
		for i, e := range many.Errors {
			e = strings.Replace(e, "field ", "unknown key ", 1)
			if at := strings.Index(e, " not found in type"); at >= 0 {
				e = e[:at]
			}
			many.Errors[i] = e
		}
		return errors.New(strings.Join(many.Errors, "; "))
	}
	return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
}

func (f *file) config() (*Config, error) {
	c := &Config{
		Store: or(f.Store, defaultStore), Listen: or(f.Listen, defaultListen), Management: or(f.Management, defaultManagement),
		Certificate: f.TLS.Certificate, Key: f.TLS.Key, Names: f.TLS.Names, ClientsFile: f.Clients,
		CredentialFiles: map[string]string{}, AuthorityFiles: map[string]string{},
	}
	var err error
	if c.MaxBytes, err = parseSize("size", f.Size); err != nil {
		return nil, err
	}
	if c.MaxBlob, err = parseSize("blobSize", f.BlobSize); err != nil {
		return nil, err
	}
	for _, a := range []struct{ key, value string }{{"listen", c.Listen}, {"management", c.Management}} {
		if _, port, err := net.SplitHostPort(a.value); err != nil || port == "" {
			return nil, fmt.Errorf("%s: %q: want address:port", a.key, a.value)
		}
	}
	if err := f.checkTLS(); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if len(f.Upstreams) == 0 || len(f.Upstreams) > maxUpstreams {
		return nil, fmt.Errorf("upstreams: %d; want 1 to %d", len(f.Upstreams), maxUpstreams)
	}
	for i, fu := range f.Upstreams {
		u, err := f.upstream(fu)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", or(fu.Name, strconv.Itoa(i+1)), err)
		}
		if fu.Credentials != "" {
			c.CredentialFiles[u.Name] = fu.Credentials
		}
		if fu.Authorities != "" {
			c.AuthorityFiles[u.Name] = fu.Authorities
		}
		c.Upstreams = append(c.Upstreams, u)
	}
	if err := c.pins(f.Pins); err != nil {
		return nil, err
	}
	return c, c.distinct()
}

func or(s, without string) string {
	if s == "" {
		return without
	}
	return s
}

func (f *file) checkTLS() error {
	if (f.TLS.Certificate == "") != (f.TLS.Key == "") {
		return errors.New("certificate and key go together")
	}
	if f.TLS.Certificate != "" && len(f.TLS.Names) > 0 {
		return errors.New("names are for a certificate of the mirror's own; there is one given")
	}
	for _, n := range f.TLS.Names {
		if _, err := netip.ParseAddr(n); err == nil {
			continue
		}
		if _, err := egress.ParseName(n); err != nil {
			return err
		}
	}
	return nil
}

// hub is Docker Hub, whose images are called after a host that serves none.
const hub = "docker.io"

func (f *file) upstream(fu fileUpstream) (*Upstream, error) {
	u := &Upstream{Name: fu.Name, Prefixes: fu.Prefixes, Hosts: fu.Hosts, Tokens: fu.Tokens, Redirects: fu.Redirects, Recheck: defaultRecheck}
	if err := checkHost(u.Name); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	at := or(fu.URL, "https://"+u.Name)
	if u.Name == hub && fu.URL == "" {
		at = "https://registry-1.docker.io"
		u.Tokens = append(u.Tokens, "auth.docker.io")
	}
	var err error
	if u.URL, err = parseBase(at); err != nil {
		return nil, err
	}
	if u.Mode, err = parseMode(or(fu.Mode, or(f.Mode, Online.String()))); err != nil {
		return nil, err
	}
	if f.Recheck != "" {
		if u.Recheck, err = time.ParseDuration(f.Recheck); err != nil || u.Recheck < 0 {
			return nil, fmt.Errorf("recheck %q: want a duration, such as 30s", f.Recheck)
		}
	}
	if f.Proxy != "" {
		if u.Proxy, err = url.Parse(f.Proxy); err != nil || u.Proxy.Scheme != "http" || u.Proxy.Host == "" {
			return nil, fmt.Errorf("proxy %q: want http://address:port", f.Proxy)
		}
	}
	if fu.Credentials != "" && u.URL.Scheme != "https" {
		return nil, errors.New("credentials would be sent in the clear")
	}
	if err := u.readLists(fu); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *Upstream) readLists(fu fileUpstream) error {
	for _, p := range u.Prefixes {
		if err := checkRepository(p); err != nil {
			return fmt.Errorf("prefixes: %w", err)
		}
	}
	for _, h := range slices.Concat(u.Hosts, u.Tokens) {
		if err := checkHost(h); err != nil {
			return err
		}
	}
	for _, h := range u.Redirects {
		if err := checkHost(strings.TrimPrefix(h, "*.")); err != nil {
			return fmt.Errorf("redirects: %w", err)
		}
	}
	for _, r := range fu.Repositories {
		p, err := ParsePattern(r)
		if err != nil {
			return fmt.Errorf("repositories: %w", err)
		}
		u.Allow = append(u.Allow, p)
	}
	if len(u.Allow) == 0 {
		if !slices.Contains(microsoft, u.Name) {
			return errors.New("repositories: none; list what may be pulled, such as library/*")
		}
		u.Allow = ClusterRepositories()
	}
	return nil
}

// checkHost reads a host with or without a port, which is how a registry is called.
func checkHost(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "443"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("host %q: port %q", s, port)
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return nil
	}
	n, err := egress.ParseName(host)
	if err == nil && n.String() != host {
		err = fmt.Errorf("write it as %s", n)
	}
	if err != nil {
		return fmt.Errorf("host %q: %w", s, err)
	}
	return nil
}

func parseBase(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("url %q: %w", s, err)
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("url %q: want https://host", s)
	case u.User != nil:
		return nil, errors.New("url: a password belongs into a file, named by credentials")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("url %q: want only a host", s)
	}
	u.Path = ""
	return u, checkHost(u.Host)
}

func parseMode(s string) (Mode, error) {
	if i := slices.Index(modeNames, s); i >= 0 {
		return Mode(i), nil
	}
	return 0, fmt.Errorf("mode %q: want one of %s", s, strings.Join(modeNames, ", "))
}

// parseSize reads bytes, with a unit of 1,000 (GB) or 1,024 (GiB) or none.
func parseSize(key, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	number, unit := s, int64(1)
	for i, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n, ok := strings.CutSuffix(s, u); ok {
			number, unit = n, 1<<(10*(i+1))
		}
	}
	for i, u := range []string{"kB", "MB", "GB", "TB"} {
		if n, ok := strings.CutSuffix(s, u); ok {
			number, unit = n, []int64{1e3, 1e6, 1e9, 1e12}[i]
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n <= 0 || n > (1<<62)/unit {
		return 0, fmt.Errorf("%s: %q: want a size, such as 200GiB", key, s)
	}
	return n * unit, nil
}

// pins hands each pin to its upstream.
func (c *Config) pins(pins []string) error {
	for _, p := range pins {
		r, err := ParseReference(p)
		if err != nil {
			return fmt.Errorf("pins: %w", err)
		}
		if r.Tag == "" || r.Digest == "" {
			return fmt.Errorf("pins: %q: want registry/repository:tag@digest", p)
		}
		i := slices.IndexFunc(c.Upstreams, func(u *Upstream) bool { return u.Name == r.Upstream })
		if i < 0 {
			return fmt.Errorf("pins: %q: %s is no upstream", p, r.Upstream)
		}
		u := c.Upstreams[i]
		if u.Pins == nil {
			u.Pins = map[string]digest.Digest{}
		}
		key := r.Repository + ":" + r.Tag
		if had, ok := u.Pins[key]; ok && had != r.Digest {
			return fmt.Errorf("pins: %q: %s is pinned to another digest already", p, key)
		}
		u.Pins[key] = r.Digest
	}
	return nil
}

// distinct refuses names that lead to two upstreams.
func (c *Config) distinct() error {
	seen := map[string]string{}
	for _, u := range c.Upstreams {
		for _, key := range append(append([]string{u.Name}, u.Prefixes...), u.Hosts...) {
			if other, ok := seen[key]; ok {
				return fmt.Errorf("upstream %s: %q leads to %s already", u.Name, key, other)
			}
			seen[key] = u.Name
		}
	}
	return nil
}
