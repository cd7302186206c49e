package mirror

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// inside serves a mirror of one upstream within a test's own network and time.
func inside(t *testing.T, dir string, origin http.Handler) (m *Mirror, here *pipes, stop func()) {
	there, here := newPipes(), newPipes()
	up := &http.Server{Handler: origin}
	go func() { _ = up.Serve(there) }()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	u := &Upstream{Name: testName, URL: &url.URL{Scheme: "http", Host: "origin"}, Allow: []Pattern{{"*"}}, dial: there.dial}
	m = &Mirror{Store: s, Upstreams: []*Upstream{u}}
	server := &http.Server{Handler: m}
	go func() { _ = server.Serve(here) }()
	return m, here, func() {
		_, _ = server.Close(), up.Close()
		m.Close()
		if u.api != nil {
			u.api.CloseIdleConnections()
		}
		s.Close()
	}
}

func TestAClientThatReadsNothingIsCutOff(t *testing.T) {
	content := noise(8<<20, 1)
	d := digest.FromBytes(content)
	for _, inStore := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			m, here, stop := inside(t, dir, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
			}))
			defer stop()
			if inStore {
				if err := m.Store.Put(d, content); err != nil {
					t.Fatal(err)
				}
			}
			c, err := here.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			began := time.Now()
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: mirror\r\n\r\n", blobURL("a/b", d))
			if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			for took := time.Duration(0); len(m.seats) > 0; took = time.Since(began) {
				if took > time.Hour {
					t.Fatal("it is waited for")
				}
				time.Sleep(time.Second)
			}
			rest, err := io.Copy(io.Discard, c)
			if rest > 2*sendSize || time.Since(began) < paceTime {
				t.Errorf("%d bytes more after %s, %v", rest, time.Since(began), err)
			}
		})
	}
}

func TestAClientThatReadsNoManifestIsCutOff(t *testing.T) {
	text := []byte(`{"schemaVersion":2,"config":{"digest":"` + digest.FromString("{}").String() + `"},"annotations":{"a":"` + strings.Repeat("a", 1<<20) + `"}}`)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m, here, stop := inside(t, dir, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) }))
		defer stop()
		for _, request := range []string{"GET /v2/a/b/manifests/v1 HTTP/1.1\r\n", "GET /v2/ HTTP/1.1\r\nContent-Length: 1000\r\n"} {
			c, err := here.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "%sHost: mirror\r\n\r\n", request)
			if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * answerTime)
			if rest, err := io.Copy(io.Discard, c); rest > 100_000 {
				t.Errorf("%q: %d bytes more, %v", request, rest, err)
			}
			c.Close()
		}
		if len(m.seats) > 0 {
			t.Error("it is waited for")
		}
	})
}

func TestAnUpstreamMayTakeItsTime(t *testing.T) {
	content := noise(1<<20, 5)
	d := digest.FromBytes(content)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		_, here, stop := inside(t, dir, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			for b := content; len(b) > 0; b = b[min(len(b), 20_000):] {
				time.Sleep(stalled - time.Second)
				_, _ = w.Write(b[:min(len(b), 20_000)])
				_ = http.NewResponseController(w).Flush()
			}
		}))
		defer stop()
		client := &http.Client{Transport: &http.Transport{DialContext: here.dial, DisableKeepAlives: true}}
		got, err := fetchWhole(client, "http://mirror"+blobURL("a/b", d))
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func TestAClientThatReadsSlowlyGetsAll(t *testing.T) {
	content := noise(1<<20, 2)
	d := digest.FromBytes(content)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m, here, stop := inside(t, dir, http.NotFoundHandler())
		defer stop()
		if err := m.Store.Put(d, content); err != nil {
			t.Fatal(err)
		}
		c, err := here.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n", blobURL("a/b", d))
		var got bytes.Buffer
		buf := make([]byte, 32<<10)
		for {
			n, err := c.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				break
			}
			time.Sleep(2 * time.Second) // in all longer than any one deadline
		}
		if !bytes.HasSuffix(got.Bytes(), content) {
			t.Errorf("%d bytes of %d", got.Len(), len(content))
		}
	})
}

// silence is an upstream that stops in the middle of a blob, and keeps the
// connection, the first few times.
type silence struct {
	content []byte
	times   int
}

func (s *silence) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.times == 0 {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.content))
		return
	}
	s.times--
	w.Header().Set("Content-Length", fmt.Sprint(len(s.content)))
	_, _ = w.Write(s.content[:len(s.content)/2])
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func TestAnUpstreamThatFallsSilentIsAskedAgain(t *testing.T) {
	content := noise(1<<20, 3)
	d := digest.FromBytes(content)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m, here, stop := inside(t, dir, &silence{content, 1})
		defer stop()
		client := &http.Client{Transport: &http.Transport{DialContext: here.dial, DisableKeepAlives: true}}
		began := time.Now()
		got, err := fetchWhole(client, "http://mirror"+blobURL("a/b", d))
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if took := time.Since(began); took < stalled || took > 2*stalled {
			t.Errorf("asked again after %s", took)
		}
		if n := m.Upstreams[0].Counts.Fetched(); n != uint64(len(content)) {
			t.Errorf("%d bytes were fetched", n)
		}
	})
}

func TestAFlightWithoutClientsEndsSoon(t *testing.T) {
	content := noise(1<<20, 4)
	d := digest.FromBytes(content)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m, here, stop := inside(t, dir, &silence{content, 1000})
		defer stop()
		client := &http.Client{Transport: &http.Transport{DialContext: here.dial, DisableKeepAlives: true}}
		resp, err := client.Get("http://mirror" + blobURL("a/b", d))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		time.Sleep(linger + stalled + time.Minute)
		m.flights.mu.Lock()
		n := len(m.flights.by)
		m.flights.mu.Unlock()
		if n > 0 {
			t.Error("it is still fetched")
		}
	})
}
