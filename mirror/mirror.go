package mirror

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"golang.org/x/sync/singleflight"
)

// Mirror answers the OCI distribution API out of a store and its upstreams. It is
// an [http.Handler]; the fields must not change once it is in use.
type Mirror struct {
	Store     *Store
	Upstreams []*Upstream

	// Clients decides who may pull, by the Authorization header; nil is everybody
	// who can reach the mirror.
	Clients func(authorization string) bool

	MaxBytes int64 // of the store; 0 is no limit
	MaxBlob  int64 // of one blob; 0 is 64 GiB

	Log *slog.Logger // nil is silence

	flights    flights
	asking     singleflight.Group
	running    sync.WaitGroup
	space      space
	remembered remembered
	broken     atomic.Int64 // until when the store is not written to, in Unix nanoseconds
	once       sync.Once
	server     http.Handler
	seats      chan struct{}
}

// maxRequests is how many requests are answered at once: a few for each node of
// the largest cluster. With a buffer each they stay within the memory of a small VM.
const maxRequests = 1024

// Close ends what is being fetched, and waits for it. What has arrived is kept.
func (m *Mirror) Close() {
	m.flights.mu.Lock()
	for _, f := range m.flights.by {
		f.stop()
	}
	m.flights.mu.Unlock()
	m.running.Wait()
}

func (m *Mirror) log(msg string, args ...any) {
	if m.Log != nil {
		m.Log.Warn(msg, args...)
	}
}

func (m *Mirror) start() {
	m.seats = make(chan struct{}, maxRequests)
	m.server = ociserver.New(&registry{m: m}, &ociserver.Options{WriteError: m.writeError})
}

// exchange is one request, as far as it has been understood.
type exchange struct {
	upstream *Upstream
	prefix   string // of the path, that led to the upstream
	repo     string
	accept   Accept
	result   Result
	err      error
}

// route finds the upstream of a request: the one that containerd says, the one
// whose path it is, the one whose host name was called, or the only one there is.
func (m *Mirror) route(r *http.Request, name string) (u *Upstream, prefix, repo string, err error) {
	if ns := r.URL.Query().Get("ns"); ns != "" {
		for _, u := range m.Upstreams {
			if u.Name == ns {
				prefix, repo := u.cut(name)
				return u, prefix, repo, nil
			}
		}
		return nil, "", "", ociregistry.NewError(fmt.Sprintf("%q is not mirrored here", ns), ociregistry.ErrNameUnknown.Code(), nil)
	}
	for _, u := range m.Upstreams {
		if prefix, repo := u.cut(name); prefix != "" {
			return u, prefix, repo, nil
		}
	}
	for _, u := range m.Upstreams {
		if hostIn(append([]string{u.Name}, u.Hosts...), strings.ToLower(r.Host)) {
			return u, "", name, nil
		}
	}
	if len(m.Upstreams) == 1 {
		return m.Upstreams[0], "", name, nil
	}
	return nil, "", "", ociregistry.NewError("which registry? name it by ?ns=, or before the repository", ociregistry.ErrNameUnknown.Code(), nil)
}

// cut takes the prefix that leads to u off a name.
func (u *Upstream) cut(name string) (prefix, rest string) {
	for _, p := range append([]string{u.Name}, u.Prefixes...) {
		if rest, ok := cutPrefix(name, p); ok {
			return p, rest
		}
	}
	return "", name
}

// permit refuses what is not on the list.
func (x *exchange) permit() error {
	if err := checkRepository(x.repo); err != nil {
		return ociregistry.ErrNameInvalid
	}
	if !x.upstream.allows(x.repo) {
		return ociregistry.NewError(fmt.Sprintf("%s/%s is not on the list of what is mirrored", x.upstream.Name, x.repo), ociregistry.ErrDenied.Code(), nil)
	}
	return nil
}

// clientError is what a client is told. The causes of failures may hold paths of
// this machine and words of the upstream: they are for the log.
func clientError(err error) error {
	var (
		from  *upstreamError // first: what it wraps may be the upstream's words
		known ociregistry.Error
		http4 ociregistry.HTTPError
	)
	bad := func(text string) error {
		return ociregistry.NewHTTPError(errors.New(text), http.StatusBadGateway, nil, nil)
	}
	switch {
	case errors.Is(err, errDamaged), errors.Is(err, errDiffers):
		return bad("what was received does not match its digest")
	case errors.Is(err, errTooBig):
		return bad(errTooBig.Error())
	case errors.As(err, &from):
		return from.forClient(bad)
	case errors.As(err, &known):
		return known
	case errors.As(err, &http4) && http4.StatusCode() < http.StatusInternalServerError:
		return err
	}
	return bad("the mirror could not fetch or serve it; its log says why")
}

func (e *upstreamError) forClient(bad func(string) error) error {
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ociregistry.NewError(fmt.Sprintf("%s does not give it to the mirror", e.upstream), ociregistry.ErrDenied.Code(), nil)
	case http.StatusTooManyRequests:
		return ociregistry.NewError(fmt.Sprintf("%s is asked too often", e.upstream), ociregistry.ErrTooManyRequests.Code(), nil)
	case 0:
		return bad(e.upstream + " gave no usable answer")
	}
	return bad(fmt.Sprintf("%s answered with status %d", e.upstream, e.status))
}
