package mirror

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// gate lets an upstream send half of a blob, and the rest when it is opened.
func (o *origin) gate(content []byte) (open func()) {
	ch := make(chan struct{})
	o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		http.ServeContent(w, r, "", time.Time{}, &gated{ReadSeeker: bytes.NewReader(content), left: len(content) / 2, open: ch})
		return true
	})
	return sync.OnceFunc(func() { close(ch) })
}

type gated struct {
	io.ReadSeeker
	left int
	open chan struct{}
}

func (g *gated) Read(b []byte) (int, error) {
	if g.left == 0 {
		<-g.open
		return g.ReadSeeker.Read(b)
	}
	n, err := g.ReadSeeker.Read(b[:min(len(b), g.left)])
	g.left -= n
	return n, err
}

func TestFiftyClientsAndOneFetch(t *testing.T) {
	o := newOrigin(t)
	content := noise(2<<20, 4)
	d := o.blob("a/b", content)
	open := o.gate(content)
	defer open()
	s := serveMirror(t, t.TempDir(), o.upstream())
	var all, half sync.WaitGroup
	half.Add(50)
	for range 50 {
		all.Go(func() {
			resp, err := s.Client().Get(s.URL + blobURL("a/b", d.Digest))
			if err != nil {
				half.Done()
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			first := make([]byte, len(content)/4)
			_, err = io.ReadFull(resp.Body, first)
			half.Done() // each is sent to while the blob is still arriving
			rest, err2 := io.ReadAll(resp.Body)
			if err != nil || err2 != nil || !bytes.Equal(append(first, rest...), content) {
				t.Errorf("%v, %v, %d bytes", err, err2, len(first)+len(rest))
			}
		})
	}
	half.Wait()
	open()
	all.Wait()
	if n := o.count("GET /v2/a/b/blobs/"); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// cutter is an upstream that dies within blobs, after a number of bytes.
func (o *origin) cutter(content []byte, after int, times int) *atomic.Int32 {
	var n atomic.Int32
	o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || int(n.Add(1)) > times {
			if strings.Contains(r.URL.Path, "/blobs/") {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
				return true
			}
			return false
		}
		w.Header().Set("Content-Length", "2097152")
		_, _ = w.Write(content[:after])
		panic(http.ErrAbortHandler)
	})
	return &n
}

func TestUpstreamDiesWithinABlob(t *testing.T) {
	o := newOrigin(t)
	content := noise(2<<20, 5)
	d := o.blob("a/b", content)
	o.cutter(content, 1<<20, 1)
	s := serveMirror(t, t.TempDir(), o.upstream())
	s.get(blobURL("a/b", d.Digest)).wants(t, "a blob that was cut once", 200, content)
	if n := o.count("GET /v2/a/b/blobs/"); n != 2 {
		t.Errorf("%d requests, want the second for the rest", n)
	}
	if got := s.Upstreams[0].Counts.Fetched(); got != 2<<20 {
		t.Errorf("%d bytes were fetched, want each once", got)
	}
}

func TestUpstreamDiesAndTheMirrorIsRestarted(t *testing.T) {
	o := newOrigin(t)
	content := noise(2<<20, 6)
	d := o.blob("a/b", content)
	cut := o.cutter(content, 1<<20, 1000)
	dir := t.TempDir()
	s := serveMirror(t, dir, o.upstream())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if a := s.get(blobURL("a/b", d.Digest)); a.err == nil {
			t.Errorf("half a blob was given for whole: %d bytes", len(a.body))
		}
	}()
	for cut.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	s.stop() // as a crash would be: what has arrived is in the folder
	<-gone
	part := filepath.Join(dir, incomingDir, digestName(d.Digest))
	if info, err := os.Stat(part); err != nil || info.Size() < 1<<20 {
		t.Fatalf("what had arrived is lost: %v", err)
	}
	o.cutter(content, 0, 0)
	s = serveMirror(t, dir, o.upstream())
	s.get(blobURL("a/b", d.Digest)).wants(t, "after the restart", 200, content)
	if got := s.Upstreams[0].Counts.Fetched(); got > 1<<20 {
		t.Errorf("%d bytes were fetched again", got)
	}
	if _, err := os.Stat(part); !os.IsNotExist(err) {
		t.Errorf("the transfer is still there: %v", err)
	}
}

// TestADamagedPartIsNotContinuedForEver is a crash that left zeros on the disk.
func TestADamagedPartIsNotContinuedForEver(t *testing.T) {
	o := newOrigin(t)
	content := noise(2<<20, 7)
	d := o.blob("a/b", content)
	o.cutter(content, 0, 0)
	dir := t.TempDir()
	s := serveMirror(t, dir, o.upstream())
	for _, part := range [][]byte{make([]byte, 1<<20), make([]byte, 2<<20), make([]byte, 3<<20)} {
		if err := os.WriteFile(filepath.Join(dir, incomingDir, digestName(d.Digest)), part, 0o600); err != nil {
			t.Fatal(err)
		}
		if a := s.get(blobURL("a/b", d.Digest)); a.err == nil && a.StatusCode == 200 {
			t.Errorf("%d zeros became part of a blob", len(part))
		}
	}
	s.get(blobURL("a/b", d.Digest)).wants(t, "from the beginning", 200, content)
}

func TestAClientThatLeavesDoesNotDisturbOthers(t *testing.T) {
	o := newOrigin(t)
	content := noise(2<<20, 8)
	d := o.blob("a/b", content)
	open := o.gate(content)
	defer open()
	s := serveMirror(t, t.TempDir(), o.upstream())
	first, err := s.Client().Get(s.URL + blobURL("a/b", d.Digest))
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Client().Get(s.URL + blobURL("a/b", d.Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Body.Close()
	first.Body.Close()
	open()
	if b, err := io.ReadAll(second.Body); err != nil || !bytes.Equal(b, content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestAFetchForAnotherRepositoryDecidesNothing(t *testing.T) {
	o := newOrigin(t)
	content := noise(2<<20, 12)
	d := o.blob("a/has", content)
	joined := make(chan struct{})
	o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/a/lacks/") {
			return false
		}
		<-joined
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	s := serveMirror(t, t.TempDir(), o.upstream())
	var both sync.WaitGroup
	both.Go(func() { s.get(blobURL("a/lacks", d.Digest)).wants(t, "where it is not", 404, nil) })
	for o.count("/a/lacks/") == 0 {
		time.Sleep(time.Millisecond)
	}
	both.Go(func() { s.get(blobURL("a/has", d.Digest)).wants(t, "where it is", 200, content) })
	for readers := 0; readers < 2; time.Sleep(time.Millisecond) {
		s.flights.mu.Lock()
		f := s.flights.by[d.Digest]
		s.flights.mu.Unlock()
		f.mu.Lock()
		readers = f.readers
		f.mu.Unlock()
	}
	close(joined)
	both.Wait()
}

func TestAStoreThatCannotBeWrittenIsPassedBy(t *testing.T) {
	o := newOrigin(t)
	contents := [][]byte{noise(1<<20, 9), noise(100, 10), noise(waitBelow, 11), nil}
	for why, spoil := range map[string]func(s *mirrored){
		"more than it may hold": func(s *mirrored) { s.MaxBytes = 1 },
		"its folder is a file": func(s *mirrored) {
			_ = s.Store.root.RemoveAll(incomingDir)
			_ = s.Store.root.WriteFile(incomingDir, nil, 0o600)
		},
	} {
		s := serveMirror(t, t.TempDir(), o.upstream())
		spoil(s)
		image, _ := o.image("a/b", "v1", contents[1])
		for range 2 {
			s.get(manifestURL("a/b", "v1")).wants(t, why+", a tag", 200, nil)
			s.get(manifestURL("a/b", image.Digest.String())).wants(t, why+", a manifest", 200, nil)
		}
		for range 2 {
			for _, content := range contents {
				d := o.blob("a/b", content)
				a := s.get(blobURL("a/b", d.Digest))
				if a.Response == nil { // the first may have to find out
					a = s.get(blobURL("a/b", d.Digest))
				}
				a.wants(t, why, 200, content)
			}
		}
		spoilt := bytes.Clone(contents[0])
		spoilt[5]++
		o.spoilt(func(w http.ResponseWriter, r *http.Request) bool {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(spoilt))
			return true
		})
		if a := s.get(blobURL("a/b", digest.FromBytes(contents[0]))); a.err == nil {
			t.Errorf("%s: a bad byte was passed on", why)
		}
		o.spoilt(nil)
		if all, err := s.Store.blobs(); err != nil || len(all) > 1 { // the manifest, which is not much
			t.Errorf("%s: %d blobs were kept, %v", why, len(all), err)
		}
		s.stop()
	}
}
