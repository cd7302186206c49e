package mirror

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"cuelabs.dev/go/oci/ociregistry/ociclient"
	"github.com/opencontainers/go-digest"
)

// Mode is how much the world may change.
type Mode int

// The modes.
const (
	Online  Mode = iota // tags are asked for again; what the upstream says now is served
	Pinned              // what a tag was first, it stays; what is lacking is fetched
	Offline             // nothing is ever asked of the upstream
)

var modeNames = []string{"online", "pinned", "offline"}

// String is the word in the configuration.
func (m Mode) String() string { return modeNames[m] }

// Upstream is one registry behind the mirror. It must not change once in use.
type Upstream struct {
	Name     string   // as images are called, and what containerd's ?ns= says
	URL      *url.URL // where it answers; plain HTTP only if it says so
	Prefixes []string // paths that lead to it, beside its name
	Hosts    []string // host names of ours that lead to it, beside its name
	Mode     Mode
	Allow    []Pattern
	Pins     map[string]digest.Digest // repository:tag to what it must be

	// Recheck is how long a tag is served without asking again.
	Recheck time.Duration

	// Credentials is asked before each sign-in, so that a file can be rotated;
	// nil signs in anonymously.
	Credentials func() (user, password string, err error)

	// Tokens are further hosts that may be asked for a token, with the
	// credentials: those that the registry names are not trusted with them.
	Tokens []string

	// Redirects, where there are any, are the only hosts that blobs may be
	// fetched from besides URL's, also at private addresses.
	Redirects []string

	Roots *x509.CertPool // nil is the system's
	Proxy *url.URL       // nil connects directly

	Counts Counts

	dial func(ctx context.Context, network, address string) (net.Conn, error) // nil but in tests

	once   sync.Once
	api    *http.Transport
	blobs  *http.Client
	signed atomic.Pointer[signed]

	// down is until when a known tag is served without asking, in Unix
	// nanoseconds: a dead upstream must not cost a booting node the budget of
	// every image.
	down atomic.Int64
}

// signed is a transport that has tokens. It is thrown away with them from time to
// time, since the library keeps one for every repository that was asked for.
type signed struct {
	http.RoundTripper
	made time.Time
}

const forgetTokensAfter = 10 * time.Minute

func (u *Upstream) allows(repository string) bool {
	for _, p := range u.Allow {
		if p.Matches(repository) {
			return true
		}
	}
	return false
}

// isDown reports whether the upstream did not answer just now.
func (u *Upstream) isDown() bool { return time.Now().UnixNano() < u.down.Load() }

// restFor is how long an upstream that did not answer is not asked for what is known.
const restFor = 10 * time.Second

func (u *Upstream) rest() { u.down.Store(time.Now().Add(restFor).UnixNano()) }

// EntryForRegistry implements [ociauth.Config]: credentials are for the one host.
func (u *Upstream) EntryForRegistry(host string) (ociauth.ConfigEntry, error) {
	if u.Credentials == nil || host != u.URL.Host {
		return ociauth.ConfigEntry{}, nil
	}
	user, password, err := u.Credentials()
	if err != nil {
		return ociauth.ConfigEntry{}, fmt.Errorf("credentials: %w", err)
	}
	return ociauth.ConfigEntry{Username: user, Password: password}, nil
}

func (u *Upstream) transport() http.RoundTripper {
	u.once.Do(u.connect)
	if s := u.signed.Load(); s != nil && time.Since(s.made) < forgetTokensAfter {
		return s
	}
	s := &signed{ociauth.NewStdTransport(ociauth.StdTransportParams{Config: u, Transport: fence{u}}), time.Now()}
	u.signed.Store(s)
	return s
}

// Why the upstream has no answer, for the client to be told. Its own words are
// for the log only: they come from a stranger and may quote what was asked.
type upstreamError struct {
	upstream string
	status   int // 0: no answer at all
	cause    error
}

func (e *upstreamError) Error() string {
	if e.status != 0 {
		return fmt.Sprintf("upstream %s: status %d", e.upstream, e.status)
	}
	return fmt.Sprintf("upstream %s: %v", e.upstream, e.cause)
}

func (e *upstreamError) Unwrap() error { return e.cause }

// gone reports whether the upstream said clearly that there is no such thing.
func gone(err error) bool {
	var e *upstreamError
	return errors.As(err, &e) && (e.status == http.StatusNotFound || e.status == http.StatusGone)
}

// retriable reports whether the same request may go well a moment later.
func retriable(err error) bool {
	var e *upstreamError
	var never refusal
	return errors.As(err, &e) && !errors.As(err, &never) && (e.status == 0 || e.status == http.StatusTooManyRequests || e.status >= 500)
}

// ask sends one request to the upstream's API, and follows it to where blobs
// lie. An answer that is not 200 or 206 is an error; the caller closes the body.
func (u *Upstream) ask(ctx context.Context, method, repository, kind, ref string, head http.Header) (*http.Response, error) {
	ctx = ociauth.ContextWithRequestInfo(ctx, ociauth.RequestInfo{RequiredScope: ociauth.NewScope(ociauth.ResourceScope{
		ResourceType: ociauth.TypeRepository, Resource: repository, Action: ociauth.ActionPull,
	})})
	r, err := http.NewRequestWithContext(ctx, method, u.URL.JoinPath("v2", repository, kind, ref).String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header = head.Clone()
	r.Header.Set("User-Agent", "tidegate-mirror")
	// What a digest is of is what was stored; and a small body that unpacks to
	// a huge one is refused with the same line.
	r.Header.Set("Accept-Encoding", "identity")
	resp, err := u.follow(r)
	if err != nil {
		return nil, &upstreamError{u.Name, 0, err}
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		resp.Body.Close()
		return nil, &upstreamError{u.Name, resp.StatusCode, fmt.Errorf("%q", said)}
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		resp.Body.Close()
		return nil, &upstreamError{u.Name, 0, refuse("content encoding %q was not asked for", e)}
	}
	return resp, nil
}

// client lists tags and referrers.
func (u *Upstream) client() (ociregistry.Interface, error) {
	return ociclient.New(u.URL.Host, &ociclient.Options{Transport: u.transport(), Insecure: u.URL.Scheme == "http"})
}

// hostIn reports whether a pattern of hosts, each a host with a port where it
// is not 443, or *.domain, has this one.
func hostIn(patterns []string, host string) bool {
	for _, p := range patterns {
		if below, ok := strings.CutPrefix(p, "*"); ok && strings.HasSuffix(host, below) && host != below || p == host {
			return true
		}
	}
	return false
}
