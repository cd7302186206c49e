package mirror

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
)

// ServeHTTP implements [http.Handler].
func (m *Mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.once.Do(m.start)
	began := time.Now()
	x := &exchange{accept: ParseAccept(r.Header.Values("Accept"))}
	counted := &counting{ResponseWriter: w}
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	defer m.done(counted, r, x, began)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	limitTime(w, r)
	if err := m.admit(counted, r); err != nil {
		m.writeError(counted, r, err)
		return
	}
	select {
	case m.seats <- struct{}{}:
		defer func() { <-m.seats }()
		m.answer(counted, r, x)
	default:
		counted.Header().Set("Retry-After", "1")
		m.writeError(counted, r, ociregistry.ErrTooManyRequests)
	}
}

// answerTime is for an answer that is not a blob, from the question on.
const answerTime = askTimeout + 30*time.Second

// limitTime keeps a client from holding its connection by reading a manifest byte
// by byte, or by sending a body, which no request has, in the same way. Blobs have
// deadlines of their own. A server without deadlines, as in tests, has none.
func limitTime(w http.ResponseWriter, r *http.Request) {
	to := http.NewResponseController(w)
	_ = to.SetWriteDeadline(time.Now().Add(answerTime))
	if r.ContentLength != 0 {
		_ = to.SetReadDeadline(time.Now().Add(paceTime))
	}
}

// admit refuses what is not read-only, and whoever may not read.
func (m *Mirror) admit(w http.ResponseWriter, r *http.Request) error {
	if m.Clients != nil && !m.Clients(r.Header.Get("Authorization")) {
		w.Header().Set("WWW-Authenticate", `Basic realm="tidegate mirror"`)
		return ociregistry.ErrUnauthorized
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return errReadOnly
	}
	return nil
}

// errReadOnly has its own status, which the code UNSUPPORTED would not give it.
var errReadOnly = errors.New("the mirror can only be read")

// answer routes a request: blobs and referrers are served here, the rest by the library.
func (m *Mirror) answer(w http.ResponseWriter, r *http.Request, x *exchange) {
	name, kind, last := splitPath(r.URL.Path)
	if kind != "" || r.URL.Query().Get("ns") != "" {
		var err error
		if x.upstream, x.prefix, x.repo, err = m.route(r, name); err != nil {
			m.writeError(w, r, err)
			return
		}
	}
	if kind != "" {
		if err := x.permit(); err != nil {
			m.writeError(w, r, err)
			return
		}
	}
	switch kind {
	case "blobs":
		m.serveBlob(w, r, x, digest.Digest(last))
	case "referrers":
		m.serveReferrers(w, r, x, digest.Digest(last))
	default:
		m.server.ServeHTTP(w, r)
	}
}

// splitPath takes /v2/NAME/KIND/LAST apart; kind is empty for another path.
func splitPath(p string) (name, kind, last string) {
	p, ok := strings.CutPrefix(p, "/v2/")
	parts := strings.Split(p, "/")
	n := len(parts)
	if !ok || n < 3 {
		return "", "", ""
	}
	switch kind = parts[n-2]; kind {
	case "blobs", "manifests", "tags", "referrers":
		return strings.Join(parts[:n-2], "/"), kind, parts[n-1]
	}
	return "", "", ""
}

// waitBelow is up to which size a client waits for a blob to be verified, and
// gets a proper error if it is not, before the first byte is sent.
const waitBelow = 64 << 10

func (m *Mirror) serveBlob(w http.ResponseWriter, r *http.Request, x *exchange, d digest.Digest) {
	if checkDigest(d) != nil {
		m.writeError(w, r, ociregistry.ErrDigestInvalid)
		return
	}
	f, _, err := m.Store.Open(d)
	if err == nil {
		defer f.Close()
		x.result = Hit
		serveContent(w, r, d, f)
		return
	}
	if !errors.Is(err, os.ErrNotExist) {
		m.writeError(w, r, err)
		return
	}
	if x.upstream.Mode == Offline {
		m.writeError(w, r, ociregistry.ErrBlobUnknown)
		return
	}
	if r.Method == http.MethodHead {
		err = m.headBlob(w, r, x, d)
	} else {
		err = m.streamBlob(w, r, x, d)
	}
	if err != nil {
		m.writeError(w, r, unknown(err, ociregistry.ErrBlobUnknown))
	}
}

func (m *Mirror) headBlob(w http.ResponseWriter, r *http.Request, x *exchange, d digest.Digest) error {
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	resp, err := x.upstream.ask(ctx, http.MethodHead, x.repo, "blobs", d.String(), http.Header{})
	if err != nil {
		return err
	}
	resp.Body.Close()
	x.result = Miss
	setBlobHeader(w, d)
	if resp.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
	return nil
}

// streamBlob sends a blob while it arrives. It returns an error as long as
// nothing was sent; after that the connection is torn.
func (m *Mirror) streamBlob(w http.ResponseWriter, r *http.Request, x *exchange, d digest.Digest) error {
	if m.isBroken() {
		return m.relay(w, r, x, d)
	}
	f, err := m.board(r.Context(), x, d)
	defer func() { f.leave() }()
	if err != nil && (f.from != x.source() || errors.Is(err, context.Canceled)) && r.Context().Err() == nil {
		// It was fetched for another repository, which does not have it, or was
		// being given up when this client came.
		f.leave()
		f, err = m.board(r.Context(), x, d)
	}
	if m.unwritable(err) && r.Context().Err() == nil {
		m.log("passed on without being kept", "digest", d.String(), "error", err.Error())
		return m.relay(w, r, x, d)
	}
	if err != nil {
		return err
	}
	x.result = Miss
	held := &holding{ResponseWriter: w, flight: f, ctx: r.Context()}
	serveContent(held, r, d, &reader{flight: f, ctx: r.Context()})
	if held.err != nil {
		if _, ferr := f.known(); r.Context().Err() == nil {
			m.unwritable(ferr) // for the next time
		}
		x.result, x.err = Failed, held.err
		panic(http.ErrAbortHandler) // the client must not take what it has for the whole
	}
	return nil
}

// board joins a blob's flight, and waits until its size is known, and for a small
// one until it is verified. The caller leaves it in any case.
func (m *Mirror) board(ctx context.Context, x *exchange, d digest.Digest) (*flight, error) {
	f := m.join(x.upstream, x.repo, d)
	select {
	case <-f.ready:
	case <-ctx.Done():
		return f, ctx.Err()
	}
	size, err := f.known()
	if err == nil && size < waitBelow {
		err = f.whole(ctx)
	}
	return f, err
}

// holding keeps the last byte of an answer back until the blob is verified, so
// that nobody can take a blob for whole that is not: not by its length, and not
// a client that asked for a part either.
type holding struct {
	http.ResponseWriter
	flight *flight
	ctx    context.Context
	status int
	sent   int64
	err    error
}

// WriteHeader implements [http.ResponseWriter].
func (h *holding) WriteHeader(status int) {
	h.status = status
	h.ResponseWriter.WriteHeader(status)
}

// Write implements [io.Writer].
func (h *holding) Write(b []byte) (int, error) {
	if h.status >= 400 { // a range that there is not
		return h.ResponseWriter.Write(b)
	}
	end, err := strconv.ParseInt(h.Header().Get("Content-Length"), 10, 64)
	if err != nil {
		h.err = errors.New("an answer of unknown length")
		return 0, h.err
	}
	hold := 0
	if len(b) > 0 && h.sent+int64(len(b)) >= end {
		hold = 1
	}
	n, err := h.ResponseWriter.Write(b[:len(b)-hold])
	h.sent += int64(n)
	if err == nil && hold > 0 {
		if err = h.flight.whole(h.ctx); err == nil {
			_ = http.NewResponseController(h.ResponseWriter).SetWriteDeadline(time.Now().Add(paceTime)) // the upstream took its time
			var last int
			last, err = h.ResponseWriter.Write(b[n:])
			h.sent += int64(last)
			n += last
		}
	}
	if err != nil {
		h.err = err
	}
	return n, err
}

func setBlobHeader(w http.ResponseWriter, d digest.Digest) {
	h := w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Content-Type", "application/octet-stream") // never what a page could be made of
	h.Set("Accept-Ranges", "bytes")
	h.Set("Etag", `"`+d.String()+`"`)
}

// serveContent answers with a blob, or the parts of it that were asked for.
func serveContent(w http.ResponseWriter, r *http.Request, d digest.Digest, content io.ReadSeeker) {
	setBlobHeader(w, d)
	paced := &pacing{ResponseWriter: w, to: http.NewResponseController(w), plain: r.TLS == nil}
	if strings.Count(r.Header.Get("Range"), ",") > maxRanges {
		r.Header.Del("Range") // many small overlapping parts cost more than all of it
	}
	http.ServeContent(paced, r, "", time.Time{}, content)
	if h, ok := w.(*holding); ok && h.err == nil {
		h.err = paced.err
	}
}

const maxRanges = 8

// How slowly a client may read.
const (
	paceSize = 64 << 10         // what has to go
	paceTime = 30 * time.Second // in this time
)

// pacing gives a client time for each piece, not for the whole: a large blob takes
// long, but one that reads nothing holds a connection and a buffer for nothing.
type pacing struct {
	http.ResponseWriter
	to    *http.ResponseController
	plain bool
	err   error
}

var buffers = sync.Pool{New: func() any { b := make([]byte, paceSize); return &b }}

// ReadFrom implements [io.ReaderFrom]: a file goes out by sendfile where the
// connection is plain, else in pieces that are large enough for TLS to be all the work.
func (p *pacing) ReadFrom(src io.Reader) (int64, error) {
	var n int64
	var err error
	if limited, ok := src.(*io.LimitedReader); ok && p.plain && isFile(limited.R) {
		n, err = p.sendFile(limited)
	} else {
		n, err = p.copy(src)
	}
	if err != nil {
		p.err = err
	}
	return n, err
}

func isFile(r io.Reader) bool { _, ok := r.(*os.File); return ok }

// sendSize is a piece that the kernel sends by itself.
const sendSize = 1 << 20

func (p *pacing) sendFile(src *io.LimitedReader) (n int64, err error) {
	for src.N > 0 {
		if err := p.to.SetWriteDeadline(time.Now().Add(4 * paceTime)); err != nil {
			return n, err
		}
		k, err := io.Copy(p.ResponseWriter, &io.LimitedReader{R: src.R, N: min(src.N, sendSize)})
		n, src.N = n+k, src.N-k
		if err != nil || k == 0 {
			return n, err
		}
	}
	return n, nil
}

func (p *pacing) copy(src io.Reader) (n int64, err error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		k, err := src.Read(*buf)
		if k > 0 {
			if err := p.to.SetWriteDeadline(time.Now().Add(paceTime)); err != nil {
				return n, err
			}
			written, err := p.Write((*buf)[:k])
			n += int64(written)
			if err != nil {
				return n, err
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// known is the size of a flight that is ready, or why it failed.
func (f *flight) known() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended && f.err != nil {
		return 0, f.err
	}
	return f.size, nil
}

// writeError answers with the error that a client may see, and notes the other.
func (m *Mirror) writeError(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	x.err = err
	for _, h := range []string{"Content-Length", "Etag", "Accept-Ranges", "Docker-Content-Digest"} {
		w.Header().Del(h)
	}
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	body, code := ociregistry.MarshalError(clientError(err))
	if errors.Is(err, errReadOnly) {
		body, _ = ociregistry.MarshalError(ociregistry.NewError(err.Error(), ociregistry.ErrUnsupported.Code(), nil))
		code = http.StatusMethodNotAllowed
	}
	if code >= 500 {
		x.result = Failed
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body) // a client that does not listen is told nothing
}

// counting counts what goes to a client.
type counting struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// Unwrap is for [http.ResponseController].
func (c *counting) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (c *counting) WriteHeader(status int) {
	c.status = status
	c.ResponseWriter.WriteHeader(status)
}

// Write implements [io.Writer].
func (c *counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.bytes += int64(n)
	return n, err
}

// ReadFrom implements [io.ReaderFrom], which keeps sendfile possible.
func (c *counting) ReadFrom(src io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, src)
	c.bytes += n
	return n, err
}

// Unwrap is for [http.ResponseController].
func (h *holding) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// done counts a request, and logs it.
func (m *Mirror) done(w *counting, r *http.Request, x *exchange, began time.Time) {
	if x.result == Refused && w.status < http.StatusBadRequest {
		x.result = Hit // such as /v2/, which asks nobody
	}
	if u := x.upstream; u != nil {
		u.Counts.requests[x.result].Add(1)
		if x.repo != "" && strings.Contains(r.URL.Path, "/blobs/") {
			u.Counts.served.Add(uint64(w.bytes))
		}
	}
	if m.Log == nil {
		return
	}
	args := []any{"client", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "status", max(w.status, http.StatusOK), "bytes", w.bytes,
		"ms", time.Since(began).Milliseconds(), "result", x.result.String()}
	if x.upstream != nil {
		args = append(args, "upstream", x.upstream.Name, "repository", x.repo)
	}
	if x.err != nil {
		args = append(args, "error", x.err.Error())
	}
	m.Log.Info("request", args...)
}
