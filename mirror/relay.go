package mirror

import (
	"errors"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// brokenFor is how long the store is not written to after it could not be.
const brokenFor = 10 * time.Second

// storeError is what the disk, or the store's limit, has against writing.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

// notWritten marks an error of writing.
func notWritten(err error) error {
	if err == nil {
		return nil
	}
	return storeError{err}
}

// unwritable notes that the store cannot be written, if that is why: the disk is
// full, or may only be read, or the store has no room. Then blobs are passed on
// without being kept, since a node that boots must not fail for that.
func (m *Mirror) unwritable(err error) bool {
	var why storeError
	if !errors.As(err, &why) {
		return false
	}
	m.broken.Store(m.Store.now().Add(brokenFor).UnixNano())
	return true
}

func (m *Mirror) isBroken() bool { return m.Store.now().UnixNano() < m.broken.Load() }

// remembered are manifests that could not be written. The zero value is ready.
type remembered struct {
	mu    sync.Mutex
	texts map[digest.Digest][]byte
	bytes int
}

// maxRemembered bounds them, by size: a thousand real ones.
const maxRemembered = 8 << 20

func (r *remembered) add(d digest.Digest, text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.texts == nil || r.bytes+len(text) > maxRemembered {
		r.texts, r.bytes = map[digest.Digest][]byte{}, 0
	}
	r.texts[d] = text
	r.bytes += len(text)
}

// readManifestText returns a manifest that is in the store, or could not be. One
// that the disk has changed is taken out, so that it is fetched the next time.
func (m *Mirror) readManifestText(d digest.Digest) ([]byte, error) {
	text, err := m.Store.read(d)
	if errors.Is(err, errDamaged) {
		return nil, errors.Join(err, m.Store.drop(d))
	}
	if errors.Is(err, fs.ErrNotExist) {
		m.remembered.mu.Lock()
		defer m.remembered.mu.Unlock()
		if text, ok := m.remembered.texts[d]; ok {
			return text, nil
		}
	}
	return text, err
}

// relay passes a blob on to one client, whole, without keeping it. It is verified
// all the same before its last byte is sent.
func (m *Mirror) relay(w http.ResponseWriter, r *http.Request, x *exchange, d digest.Digest) error {
	resp, err := x.upstream.ask(forBlob(r.Context()), http.MethodGet, x.repo, "blobs", d.String(), http.Header{})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	size, err := extent(resp, 0)
	if err != nil {
		return &upstreamError{x.upstream.Name, 0, err}
	}
	if size > m.maxBlob() {
		return errTooBig
	}
	x.result = Miss
	setBlobHeader(w, d)
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.Header().Set("Accept-Ranges", "none")
	checked := &checking{body: io.LimitReader(resp.Body, size), digest: d, hash: newHash(d), left: size}
	paced := &pacing{ResponseWriter: w, to: http.NewResponseController(w)}
	if _, err := paced.copy(checked); err != nil {
		x.result, x.err = Failed, err
		panic(http.ErrAbortHandler)
	}
	x.upstream.Counts.fetched.Add(uint64(size))
	return nil
}

// checking reads a body, and gives its last byte only if it has the digest.
type checking struct {
	body   io.Reader
	digest digest.Digest
	hash   hash.Hash
	left   int64
}

// Read implements io.Reader.
func (c *checking) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if c.left > 1 {
		b = b[:min(int64(len(b)), c.left-1)]
	} else {
		b = b[:1]
	}
	n, err := c.body.Read(b)
	c.hash.Write(b[:n])
	c.left -= int64(n)
	if c.left == 0 && digest.NewDigest(c.digest.Algorithm(), c.hash) != c.digest {
		return 0, errDamaged
	}
	if errors.Is(err, io.EOF) {
		err = nil
		if c.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}
