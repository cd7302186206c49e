package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// pipes is a network of one address, inside a test.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// faults are what an upstream does to a blob. Each answers a request for content
// from the offset on; n is how many there were before.
var faults = map[string]func(w *wire, content []byte, from, n int, r *rand.Rand){
	"one bit is flipped": func(w *wire, content []byte, from, _ int, r *rand.Rand) {
		b := bytes.Clone(content)
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		w.answer(b, from, len(b))
	},
	"one bit is flipped the first time": func(w *wire, content []byte, from, n int, r *rand.Rand) {
		b := bytes.Clone(content)
		if n == 0 {
			b[r.IntN(len(b))] ^= 1
		}
		w.answer(b, from, len(b))
	},
	"the last byte is another": func(w *wire, content []byte, from, _ int, _ *rand.Rand) {
		b := bytes.Clone(content)
		b[len(b)-1]++
		w.answer(b, from, len(b))
	},
	"cut, each time": func(w *wire, content []byte, from, _ int, r *rand.Rand) {
		w.answer(content, from, from+r.IntN(len(content)-from))
	},
	"cut once": func(w *wire, content []byte, from, n int, r *rand.Rand) {
		end := len(content)
		if n == 0 {
			end = r.IntN(end)
		}
		w.answer(content, from, end)
	},
	"cut, and the rest is of another blob": func(w *wire, content []byte, from, n int, r *rand.Rand) {
		if n == 0 {
			w.answer(content, from, r.IntN(len(content)))
			return
		}
		w.answer(noise(len(content), r.Uint64()), from, len(content))
	},
	"cut, and the whole is sent again": func(w *wire, content []byte, from, n int, r *rand.Rand) {
		end := len(content)
		if n == 0 {
			end = r.IntN(end)
		}
		w.answer(content, 0, end)
	},
	"cut, and another whole is sent": func(w *wire, content []byte, from, n int, r *rand.Rand) {
		if n == 0 {
			w.answer(content, from, 1+r.IntN(len(content)-1))
			return
		}
		b := bytes.Clone(content)
		b[0] ^= 1
		w.answer(b, 0, len(b))
	},
	"said to be shorter": func(w *wire, content []byte, from, _ int, r *rand.Rand) {
		b := content[:1+r.IntN(len(content)-1)]
		w.answer(b, min(from, len(b)), len(b))
	},
	"said to be longer": func(w *wire, content []byte, from, _ int, r *rand.Rand) {
		b := append(bytes.Clone(content), make([]byte, 1+r.IntN(100))...)
		w.answer(b, from, len(b))
	},
	"a tail of zeros": func(w *wire, content []byte, from, _ int, r *rand.Rand) {
		b := bytes.Clone(content)
		clear(b[r.IntN(len(b)):])
		b[len(b)-1] = ^content[len(b)-1]
		w.answer(b, from, len(b))
	},
	"another blob": func(w *wire, content []byte, from, _ int, r *rand.Rand) {
		w.answer(noise(len(content), r.Uint64()), from, len(content))
	},
	"two pieces are swapped": func(w *wire, content []byte, from, _ int, _ *rand.Rand) {
		half := len(content) / 2
		w.answer(append(bytes.Clone(content[half:]), content[:half]...), from, len(content))
	},
	"a range from elsewhere": func(w *wire, content []byte, from, n int, r *rand.Rand) {
		if n == 0 {
			w.answer(content, from, 1+r.IntN(len(content)-1))
			return
		}
		w.answer(content, max(from-1, 0), len(content))
	},
	"an error page with status 200": func(w *wire, _ []byte, _, _ int, _ *rand.Rand) {
		b := []byte("<html>Sign in to this network</html>")
		w.answer(b, 0, len(b))
	},
	"nothing": func(w *wire, _ []byte, _, _ int, _ *rand.Rand) { w.answer(nil, 0, 0) },
}

// wire writes what an upstream says, to the byte.
type wire struct{ net.Conn }

// answer sends content from an offset on, and closes after end.
func (w *wire) answer(content []byte, from, end int) {
	from = min(from, len(content))
	status, more := "200 OK", ""
	if from > 0 {
		status, more = "206 Partial Content", fmt.Sprintf("Content-Range: bytes %d-%d/%d\r\n", from, len(content)-1, len(content))
	}
	_, _ = fmt.Fprintf(w, "HTTP/1.1 %s\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n", status, len(content)-from, more)
	_, _ = w.Write(content[from:max(from, min(end, len(content)))])
}

// badOrigin serves one blob after the other, each with its fault.
type badOrigin struct {
	mu    sync.Mutex
	blobs map[string]*badBlob
}

type badBlob struct {
	content []byte
	fault   func(w *wire, content []byte, from, n int, r *rand.Rand)
	r       *rand.Rand
	n       int
}

func (o *badOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	b := o.blobs[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
	n := b.n
	b.n++
	o.mu.Unlock()
	var from int
	_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	b.fault(&wire{conn}, b.content, from, n, b.r)
}

// TestNoBadByteIsAccepted sends blobs through every fault, ten thousand in all. A client
// either gets an error or all of the right bytes, and the store holds only those.
func TestNoBadByteIsAccepted(t *testing.T) {
	names := slices.Sorted(maps.Keys(faults))
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := &badOrigin{blobs: map[string]*badBlob{}}
		there, here := newPipes(), newPipes()
		origin := &http.Server{Handler: o}
		go func() { _ = origin.Serve(there) }()
		s, err := OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		u := &Upstream{Name: testName, URL: &url.URL{Scheme: "http", Host: "origin"}, Allow: []Pattern{{"*"}}, dial: there.dial}
		m := &Mirror{Store: s, Upstreams: []*Upstream{u}}
		server := &http.Server{Handler: m}
		go func() { _ = server.Serve(here) }()
		client := &http.Client{Transport: &http.Transport{DialContext: here.dial, DisableCompression: true}}

		accepted := map[string]int{}
		for i := range transfers {
			name := names[i%len(names)]
			r := rand.New(rand.NewPCG(uint64(i), 7))
			content := noise(2+r.IntN(4000), uint64(i))
			if i%4 == 0 { // larger than what is verified before it is sent
				content = noise(waitBelow+r.IntN(4000), uint64(i))
			}
			d := digest.FromBytes(content)
			o.mu.Lock()
			o.blobs = map[string]*badBlob{d.String(): {content: content, fault: faults[name], r: r}}
			o.mu.Unlock()
			for range 2 { // the second takes up what the first left
				got, err := fetchWhole(client, "http://mirror"+blobURL("a/b", d))
				if err != nil {
					continue
				}
				accepted[name]++
				if !bytes.Equal(got, content) {
					t.Fatalf("transfer %d, %s: %d bad bytes were accepted", i, name, len(got))
				}
			}
		}
		_, _ = server.Close(), origin.Close()
		m.Close()
		client.CloseIdleConnections()
		u.api.CloseIdleConnections()
		v, err := s.Verify(t.Context(), false)
		if err != nil || len(v.Damaged) > 0 {
			t.Errorf("%d of %d blobs in the store are damaged, %v", len(v.Damaged), v.Blobs, err)
		}
		for _, name := range []string{"cut once", "cut, and the whole is sent again", "one bit is flipped the first time"} {
			if accepted[name] < transfers/len(names) {
				t.Errorf("%s: only %d got through; it can be mended", name, accepted[name])
			}
			delete(accepted, name)
		}
		t.Logf("%d transfers, %d blobs are whole; with lasting faults, by chance: %v", transfers, v.Blobs, accepted)
	})
}

// fetchWhole is a client that believes what the protocol says of the end.
func fetchWhole(c *http.Client, at string) ([]byte, error) {
	resp, err := c.Get(at)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return b, err
}

func TestRangesOfABlobOnItsWayEndWhenItIsVerified(t *testing.T) {
	o := newOrigin(t)
	content := noise(1<<20, 3)
	d := o.blob("a/b", content)
	spoilt := bytes.Clone(content)
	spoilt[1<<19] ^= 1
	o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(spoilt))
		return true
	})
	s := serveMirror(t, t.TempDir(), o.upstream())
	for _, r := range []string{"bytes=0-99", "bytes=0-0", "bytes=1048575-", "bytes=-10", "bytes=100-199,500-599"} {
		if a := s.get(blobURL("a/b", d.Digest), "Range", r); a.err == nil && a.StatusCode < 400 {
			t.Errorf("%s of a blob that is not what it is called was given: %d bytes", r, len(a.body))
		}
	}
	o.spoilt(nil)
	s.get(blobURL("a/b", d.Digest), "Range", "bytes=0-99").wants(t, "the right blob's", 206, content[:100])
}
