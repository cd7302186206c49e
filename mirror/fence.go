package mirror

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"tidegate.io/tidegate/egress"
)

// Bounds of what an upstream can make the mirror hold, or wait for.
const (
	maxRedirects   = 5
	maxAPIBody     = 16 << 20 // the largest list of tags; blobs have their own bound
	maxHeader      = 64 << 10
	dialTimeout    = 5 * time.Second
	answerTimeout  = 30 * time.Second // of the first byte
	maxConnections = 64               // to one host of an upstream
)

// refusal is why the mirror does not do what an upstream wants of it. It will not
// do it the next time either.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

func (u *Upstream) newTransport(control func(network, address string, c syscall.RawConn) error) *http.Transport {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout, Control: control}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: u.Roots},
		TLSHandshakeTimeout:    2 * dialTimeout,
		ResponseHeaderTimeout:  answerTimeout,
		MaxResponseHeaderBytes: maxHeader,
		MaxConnsPerHost:        maxConnections,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true,
	}
	if u.dial != nil {
		t.DialContext = u.dial
	}
	if u.Proxy != nil {
		t.Proxy = http.ProxyURL(u.Proxy)
	}
	return t
}

func (u *Upstream) connect() {
	u.api = u.newTransport(nil)
	far := u.newTransport(refuseGuarded)
	if u.Proxy != nil {
		far = u.api // what it may reach is the proxy's policy
	}
	stop := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	u.blobs = &http.Client{Transport: far, CheckRedirect: stop}
}

// refuseGuarded keeps a redirect from reaching what only the mirror's machine can
// reach, above all the service that lends it an identity (server-side request
// forgery). It sees the address that is dialled, not one that DNS said before.
func refuseGuarded(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if egress.Guarded(a.Addr()) {
		return refuse("%s is a private or special address; list the host under redirects if blobs do lie there", a.Addr())
	}
	return nil
}

// fence is what the library that signs in sends through: it reaches the registry
// and where tokens may come from, and nothing else, whatever a challenge, a
// redirect or a link in an answer says. So credentials and tokens stay with them.
type fence struct{ u *Upstream }

// RoundTrip implements [http.RoundTripper].
func (f fence) RoundTrip(r *http.Request) (*http.Response, error) {
	u := f.u
	switch {
	case r.URL.Host == u.URL.Host && r.URL.Scheme == u.URL.Scheme:
	case r.URL.Scheme == "https" && hostIn(u.Tokens, r.URL.Host):
	default:
		return nil, refuse("asked to go to %s://%s, which is not %s; list it under tokens if it signs in for it", r.URL.Scheme, r.URL.Host, u.URL.Host)
	}
	if r.URL.User != nil {
		return nil, refuse("asked to go to a URL with a password in it")
	}
	resp, err := u.api.RoundTrip(r)
	if err == nil && r.Context().Value(blobKey{}) == nil {
		resp.Body = limitBody(resp.Body, maxAPIBody)
	}
	return resp, err
}

// blobKey marks requests whose answers have a bound of their own.
type blobKey struct{}

type limitedBody struct {
	io.Reader
	io.Closer
}

func limitBody(body io.ReadCloser, n int64) io.ReadCloser {
	return limitedBody{io.LimitReader(body, n), body}
}

// follow sends a request, and goes where the upstream sends it: to itself with
// what signs it in, anywhere else without.
func (u *Upstream) follow(r *http.Request) (*http.Response, error) {
	for range maxRedirects + 1 {
		resp, err := u.send(r)
		if err != nil || resp.StatusCode < 300 || resp.StatusCode > 399 {
			return resp, err
		}
		resp.Body.Close()
		to, err := resp.Location()
		if err != nil {
			return nil, refuse("redirect: %v", err)
		}
		if err := u.mayFollow(r.URL, to); err != nil {
			return nil, fmt.Errorf("redirect: %w", err)
		}
		next := r.Clone(r.Context())
		next.URL, next.Host = to, ""
		r = next
	}
	return nil, refuse("more than %d redirects", maxRedirects)
}

func (u *Upstream) send(r *http.Request) (*http.Response, error) {
	t := u.transport()
	if r.URL.Host == u.URL.Host && r.URL.Scheme == u.URL.Scheme {
		return t.RoundTrip(r)
	}
	if hostIn(u.Redirects, r.URL.Host) {
		return u.api.RoundTrip(r)
	}
	return u.blobs.Do(r)
}

func (u *Upstream) mayFollow(from, to *url.URL) error {
	own := to.Host == u.URL.Host && to.Scheme == u.URL.Scheme
	switch {
	case to.User != nil:
		return refuse("to a URL with a password in it")
	case own && from.Host == u.URL.Host:
		return nil
	case own:
		return refuse("back to the registry") // a storage host must not choose what is asked with our token
	case to.Scheme != "https":
		return refuse("to %s, which is not https", to.Scheme)
	case len(u.Redirects) > 0 && !hostIn(u.Redirects, to.Host):
		return refuse("to %s, which is not listed under redirects", to.Host)
	}
	return nil
}

// forBlob marks a request as one for a blob.
func forBlob(ctx context.Context) context.Context { return context.WithValue(ctx, blobKey{}, true) }
