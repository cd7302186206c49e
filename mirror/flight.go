package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// How a blob is fetched.
const (
	maxFlights = 32               // at once; more wait
	stalled    = 30 * time.Second // without a byte, after which the rest is asked for anew
	linger     = 30 * time.Second // for a client that comes back, after the last has gone
	maxTries   = 5                // in a row without a byte
	firstPause = 100 * time.Millisecond
	pourSize   = 256 << 10
)

// flights are the blobs that are being fetched, each once. The zero value is ready.
type flights struct {
	mu    sync.Mutex
	by    map[digest.Digest]*flight
	slots chan struct{}
}

// flight is one blob on its way, for any number of readers. They read the file
// that it is written to, up to what has arrived.
type flight struct {
	digest digest.Digest
	from   source
	stop   context.CancelFunc
	ready  chan struct{} // closed when size is known, or it failed before

	mu      sync.Mutex
	moved   chan struct{} // closed and replaced when anything below changes
	file    *os.File      // nil until the first byte is on its way
	size    int64         // of the whole blob; of ready
	have    int64
	ended   bool
	err     error // of the end; nil: it is in the store
	readers int
	leaving *time.Timer
}

// source is where a blob is fetched from.
type source struct {
	upstream *Upstream
	repo     string
}

func (x *exchange) source() source { return source{x.upstream, x.repo} }

// join takes part in a blob's flight, and begins it where there is none. The
// caller leaves it.
func (m *Mirror) join(u *Upstream, repo string, d digest.Digest) *flight {
	m.flights.mu.Lock()
	defer m.flights.mu.Unlock()
	if f := m.flights.by[d]; f != nil && f.enter() {
		return f
	}
	ctx, stop := context.WithCancel(forBlob(context.Background()))
	f := &flight{digest: d, from: source{u, repo}, stop: stop, ready: make(chan struct{}), moved: make(chan struct{}), readers: 1}
	if m.flights.by == nil {
		m.flights.by, m.flights.slots = map[digest.Digest]*flight{}, make(chan struct{}, maxFlights)
	}
	m.flights.by[d] = f
	u.Counts.fetches.Add(1)
	m.running.Go(func() {
		defer stop()
		m.fly(ctx, f, u, repo)
	})
	return f
}

// enter counts a reader, unless the flight is over.
func (f *flight) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended && f.err != nil {
		return false
	}
	f.readers++
	if f.leaving != nil {
		f.leaving.Stop()
	}
	return true
}

// leave is what a reader does when it needs no more. Without readers the flight
// ends soon; what has arrived is kept.
func (f *flight) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers--
	if f.readers > 0 {
		return
	}
	if f.ended {
		f.file.Close() // a nil file says so, and nobody listens
		return
	}
	f.leaving = time.AfterFunc(linger, f.stop)
}

// change alters what readers see, and wakes them.
func (f *flight) change(to func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to()
	close(f.moved)
	f.moved = make(chan struct{})
}

func (f *flight) end(err error) {
	f.change(func() {
		f.ended, f.err = true, err
		select {
		case <-f.ready:
		default:
			close(f.ready)
		}
		if f.readers == 0 {
			f.file.Close()
		}
	})
}

// fly fetches a blob until it is in the store, or nobody can.
func (m *Mirror) fly(ctx context.Context, f *flight, u *Upstream, repo string) {
	err := m.fetch(ctx, f, u, repo)
	m.flights.mu.Lock()
	if m.flights.by[f.digest] == f {
		delete(m.flights.by, f.digest)
	}
	m.flights.mu.Unlock()
	f.end(err)
	if err != nil && !gone(err) {
		m.log("fetch failed", "upstream", u.Name, "repository", repo, "digest", f.digest.String(), "error", err.Error())
	}
}

func (m *Mirror) fetch(ctx context.Context, f *flight, u *Upstream, repo string) error {
	select {
	case m.flights.slots <- struct{}{}:
		defer func() { <-m.flights.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	in, err := m.Store.receive(f.digest)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.file = in.file
	f.mu.Unlock()
	defer unlockFile(in.file) // readers have it open longer
	err = m.persist(ctx, f, in, u, repo)
	if errors.Is(err, errDamaged) || errors.Is(err, errDiffers) {
		u.Counts.discarded.Add(1)
		return errors.Join(err, in.discard())
	}
	return err
}

// persist asks again where it left off, as long as something comes.
func (m *Mirror) persist(ctx context.Context, f *flight, in *incoming, u *Upstream, repo string) error {
	pause := firstPause
	for tries := 1; ; tries++ {
		had := in.have
		err := m.pour(ctx, f, in, u, repo)
		if in.have > had {
			tries, pause = 1, firstPause
		}
		if err == nil || tries == maxTries || !retriable(err) {
			return err
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return err
		}
	}
}

// pour asks for what is lacking of a blob, and takes what comes. It returns nil
// when the blob is in the store.
func (m *Mirror) pour(ctx context.Context, f *flight, in *incoming, u *Upstream, repo string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	head := http.Header{}
	if in.have > 0 {
		head.Set("Range", fmt.Sprintf("bytes=%d-", in.have))
	}
	resp, err := u.ask(ctx, http.MethodGet, repo, "blobs", f.digest.String(), head)
	if status(err) == http.StatusRequestedRangeNotSatisfiable {
		// All of it is here, or too much: its digest says which.
		return m.land(f, in, in.have)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	size, err := extent(resp, in.have)
	if err != nil {
		return &upstreamError{u.Name, 0, err}
	}
	if err := m.makeRoom(size); err != nil {
		return fmt.Errorf("%s: %w", f.digest, err)
	}
	body := &watched{body: resp.Body, timer: time.AfterFunc(stalled, cancel)}
	defer body.timer.Stop()
	if resp.StatusCode == http.StatusOK {
		if err := in.skip(body); err != nil {
			return wrapRead(u, err)
		}
	}
	if err := f.announce(size); err != nil {
		return err
	}
	f.change(func() { f.have = in.have })
	if err := m.take(f, in, u, io.LimitReader(body, size-in.have+1)); err != nil {
		return err
	}
	if in.have < size {
		return &upstreamError{u.Name, 0, io.ErrUnexpectedEOF}
	}
	return m.land(f, in, size)
}

var pourBuffers = sync.Pool{New: func() any { b := make([]byte, pourSize); return &b }}

// take moves bytes from an answer to the file, and tells the readers.
func (m *Mirror) take(f *flight, in *incoming, u *Upstream, body io.Reader) error {
	pooled := pourBuffers.Get().(*[]byte)
	defer pourBuffers.Put(pooled)
	buf := *pooled
	for {
		n, err := io.ReadAtLeast(body, buf, 1)
		if n > 0 {
			if _, err := in.Write(buf[:n]); err != nil {
				return err // the disk's, not the upstream's
			}
			u.Counts.fetched.Add(uint64(n))
			f.change(func() { f.have = in.have })
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wrapRead(u, err)
		}
	}
}

func wrapRead(u *Upstream, err error) error {
	if errors.Is(err, errDiffers) {
		return err
	}
	return &upstreamError{u.Name, 0, err}
}

// land verifies what arrived, and makes it a blob.
func (m *Mirror) land(f *flight, in *incoming, size int64) error {
	if in.have != size {
		return fmt.Errorf("%s: received %d bytes of %d: %w", f.digest, in.have, size, errDamaged)
	}
	if err := in.commit(); err != nil {
		return err
	}
	return f.announce(size)
}

// announce tells the readers how large the blob is. It cannot become another size.
func (f *flight) announce(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.ready:
		if f.size != size {
			return fmt.Errorf("%s: %d bytes now, %d before: %w", f.digest, size, f.size, errDiffers)
		}
	default:
		f.size = size
		close(f.ready)
	}
	return nil
}

// extent reads where an answer begins and how large the whole blob is, and
// refuses one that does not begin where it was asked to, or at the beginning.
func extent(resp *http.Response, from int64) (size int64, err error) {
	if resp.StatusCode == http.StatusOK {
		if resp.ContentLength < 0 {
			return 0, refuse("does not say how large the blob is")
		}
		return resp.ContentLength, nil
	}
	said := resp.Header.Get("Content-Range") // RFC 9110 section 14.4
	span, whole, ok := strings.Cut(strings.TrimPrefix(said, "bytes "), "/")
	first, _, ok2 := strings.Cut(span, "-")
	start, err1 := strconv.ParseInt(first, 10, 64)
	size, err2 := strconv.ParseInt(whole, 10, 64)
	if !ok || !ok2 || err1 != nil || err2 != nil || start != from || size < from {
		return 0, refuse("asked for bytes from %d on, answered %q", from, said)
	}
	return size, nil
}

// watched is a body whose reading is given up when nothing comes.
type watched struct {
	body  io.Reader
	timer *time.Timer
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.body.Read(b)
	w.timer.Reset(stalled)
	return n, err
}

func status(err error) int {
	var e *upstreamError
	if errors.As(err, &e) {
		return e.status
	}
	return 0
}

// reader reads a flight as a file whose size is known. It implements io.ReadSeeker.
type reader struct {
	flight *flight
	ctx    context.Context
	at     int64
}

// Read waits for what has not arrived.
func (r *reader) Read(b []byte) (int, error) {
	f := r.flight
	for {
		f.mu.Lock()
		have, ended, err, moved, file := f.have, f.ended, f.err, f.moved, f.file
		f.mu.Unlock()
		switch {
		case r.at >= f.size:
			return 0, io.EOF
		case ended && err == nil || r.at < have:
			if !ended {
				b = b[:min(int64(len(b)), have-r.at)]
			}
			n, err := file.ReadAt(b[:min(int64(len(b)), f.size-r.at)], r.at)
			r.at += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		case ended:
			return 0, err
		}
		select {
		case <-moved:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

// Seek implements io.Seeker.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.flight.size
	}
	if offset < 0 {
		return 0, os.ErrInvalid
	}
	r.at = offset
	return offset, nil
}

// whole waits for the end of the flight, and returns why it failed.
func (f *flight) whole(ctx context.Context) error {
	for {
		f.mu.Lock()
		ended, err, moved := f.ended, f.err, f.moved
		f.mu.Unlock()
		if ended {
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
