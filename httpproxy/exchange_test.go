package httpproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

var port80 = netip.AddrPortFrom(allowed, 80)

// through is a house whose origin is f, and the address of the proxy in front of it.
func through(t *testing.T, f func(net.Conn)) (*house, string) {
	h := newHouse(t, "http://allowed.test:80", "http://also.test:80")
	h.origins[port80] = listen(t, f)
	return h, h.transparent(t, port80)
}

// serveHTTP is an origin that is a net/http server.
func serveHTTP(t *testing.T, handler http.HandlerFunc) (*house, *http.Client) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	h := newHouse(t, "http://allowed.test:80", "http://also.test:80")
	h.origins[port80] = l.Addr().String()
	addr := h.transparent(t, port80)
	return h, dialling(t, addr)
}

// dialling is a client whose every connection goes to addr.
func dialling(t *testing.T, addr string) *http.Client {
	tr := &http.Transport{ExpectContinueTimeout: 5 * time.Second}
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestBodiesArriveWhole(t *testing.T) {
	big := make([]byte, 5<<20+17)
	rand.Read(big)
	h, client := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		w.Header().Set("X-Sum", fmt.Sprintf("%d %x %v", n, sum.Sum(nil), err))
		if r.URL.Path == "/sized" {
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
		}
		w.Write(big)
	})
	for _, path := range []string{"/sized", "/chunked"} {
		for _, body := range []io.Reader{bytes.NewReader(big), io.MultiReader(bytes.NewReader(big))} { // by length, chunked
			res, err := client.Post("http://allowed.test"+path, "application/octet-stream", body)
			if err != nil {
				t.Fatal(err)
			}
			back, err := io.ReadAll(res.Body)
			if err != nil || !bytes.Equal(back, big) {
				t.Errorf("%s: %d bytes back, %v", path, len(back), err)
			}
			if want := fmt.Sprintf("%d %x <nil>", len(big), sha256.Sum256(big)); res.Header.Get("X-Sum") != want {
				t.Errorf("%s: the origin got %s, want %s", path, res.Header.Get("X-Sum"), want)
			}
		}
	}
	if f := h.awaitEnd(t, 4); f.Sent < uint64(len(big)) || f.Received < uint64(len(big)) || f.Duration <= 0 {
		t.Errorf("the end says %d sent, %d received, in %v", f.Sent, f.Received, f.Duration)
	}
}

func TestKeepAlive(t *testing.T) {
	conns := map[string]bool{}
	_, client := serveHTTP(t, func(_ http.ResponseWriter, r *http.Request) { conns[r.RemoteAddr] = true })
	for _, name := range []string{"allowed.test", "allowed.test", "also.test"} {
		res, err := client.Get("http://" + name + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
	if len(conns) > 2 { // the client opens one for each name
		t.Errorf("the origin saw %d connections", len(conns))
	}
}

func TestExpectContinue(t *testing.T) {
	_, client := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	})
	for path, want := range map[string]int{"/yes": 200, "/no": 417} {
		got100 := false
		req, _ := http.NewRequest(http.MethodPost, "http://allowed.test"+path, strings.NewReader("body"))
		req.Header.Set("Expect", "100-continue")
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got100Continue: func() { got100 = true }}))
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want || got100 != (want == 200) {
			t.Errorf("%s: %s, 100: %v", path, res.Status, got100)
		}
	}
}

func TestEarlyHints(t *testing.T) {
	_, client := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(http.StatusEarlyHints)
	})
	var hints []int
	req, _ := http.NewRequest(http.MethodGet, "http://allowed.test/", nil)
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error { hints = append(hints, code); return nil },
	}))
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK || !slices.Equal(hints, []int{103}) {
		t.Errorf("%s after %v", res.Status, hints)
	}
}

func TestServerRefusesBodyEarly(t *testing.T) {
	_, addr := through(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 1000000\r\n\r\nbegin")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusRequestEntityTooLarge || !res.Close {
		t.Errorf("%v, %v", res, err)
	}
}

// TestHeadersTravel shows a request and an answer as they come out at the other end.
func TestHeadersTravel(t *testing.T) {
	var seen string
	_, addr := through(t, func(c net.Conn) {
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		seen = string(buf[:n])
		io.WriteString(c, "HTTP/1.1 200 Fine\r\nB: 2\r\nconnection: X-Hop\r\nx-hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nA: 1\r\n"+
			"Set-Cookie: a\r\nSet-Cookie: b\r\nTrailer: Z\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nZ: 1\r\n\r\n")
	})
	back := say(t, addr, "GET /p HTTP/1.1\r\nB: 2\r\nHost: Allowed.Test.\r\nConnection: close, X-Hop\r\nX-Hop: secret\r\nTE: trailers\r\n"+
		"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nKeep-Alive: 5\r\na: 1\r\nb: 3\r\n\r\n")
	if want := "GET /p HTTP/1.1\r\nHost: allowed.test\r\nB: 2\r\na: 1\r\nb: 3\r\nConnection: close\r\n\r\n"; seen != want {
		t.Errorf("the origin sees\n%s\nwant\n%s", seen, want)
	}
	if want := "HTTP/1.1 200 Fine\r\nB: 2\r\nA: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nok\r\n0\r\n\r\n"; back != want {
		t.Errorf("the client sees\n%s\nwant\n%s", back, want)
	}
}

// TestAnswers says what becomes of an origin's bytes. CR LF is | in them.
func TestAnswers(t *testing.T) {
	for _, row := range []struct{ sentence, request, answer, told string }{
		{"a body by length", "GET", "HTTP/1.1 200 OK|Content-Length: 2||ok", "200 ok"},
		{"a chunked body", "GET", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||", "200 ok"},
		{"a body until the end of the connection", "GET", "HTTP/1.1 200 OK||ok", "200 ok"},
		{"a body from HTTP/1.0", "GET", "HTTP/1.0 200 OK||ok", "200 ok"},
		{"a body to HTTP/1.0", "GET 1.0", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||", "200 ok"},
		{"no reason phrase", "GET", "HTTP/1.1 200 |Content-Length: 0||", "200 "},
		{"no reason phrase and no space", "GET", "HTTP/1.1 200|Content-Length: 0||", "200 "},
		{"HEAD with a length", "HEAD", "HTTP/1.1 200 OK|Content-Length: 5||", "200 "},
		{"HEAD of a chunked body", "HEAD", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||", "200 "},
		{"204", "GET", "HTTP/1.1 204 No Content||", "204 "},
		{"204 with length 0", "GET", "HTTP/1.1 204 No Content|Content-Length: 0||", "204 "},
		{"304 with a length", "GET", "HTTP/1.1 304 Not Modified|Content-Length: 5||", "304 "},
		{"an interim answer before", "GET", "HTTP/1.1 103 Early Hints||HTTP/1.1 200 OK|Content-Length: 2||ok", "200 ok"},
		{"an interim answer to HTTP/1.0 is dropped", "GET 1.0", "HTTP/1.1 100 Continue||HTTP/1.1 200 OK|Content-Length: 2||ok", "200 ok"},
		{"more than it says is cut off", "GET", "HTTP/1.1 200 OK|Content-Length: 2||okHTTP/1.1 200 OK|Content-Length: 4||evil", "200 ok"},

		{"two framings are refused", "GET", "HTTP/1.1 200 OK|Content-Length: 2|Transfer-Encoding: chunked||2|ok|0||", "502"},
		{"two lengths are refused", "GET", "HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 3||ok", "502"},
		{"a list of lengths is refused", "GET", "HTTP/1.1 200 OK|Content-Length: 2, 2||ok", "502"},
		{"a signed length is refused", "GET", "HTTP/1.1 200 OK|Content-Length: +2||ok", "502"},
		{"an unknown coding is refused", "GET", "HTTP/1.1 200 OK|Transfer-Encoding: gzip, chunked||", "502"},
		{"chunked from HTTP/1.0 is refused", "GET", "HTTP/1.0 200 OK|Transfer-Encoding: chunked||2|ok|0||", "502"},
		{"a folded field is refused", "GET", "HTTP/1.1 200 OK|X: a| b|Content-Length: 0||", "502"},
		{"a space before the colon is refused", "GET", "HTTP/1.1 200 OK|Content-Length : 0||", "502"},
		{"a bare line feed is refused", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "502"},
		{"a NUL is refused", "GET", "HTTP/1.1 200 OK|X: \x00||", "502"},
		{"another version is refused", "GET", "HTTP/2 200 OK||", "502"},
		{"two digits are refused", "GET", "HTTP/1.1 20 OK||", "502"},
		{"a switch of protocols is refused", "GET", "HTTP/1.1 101 Switching Protocols|Upgrade: h2c|Connection: Upgrade||", "502"},
		{"204 with a body is refused", "GET", "HTTP/1.1 204 No Content|Content-Length: 2||ok", "502"},
		{"interim answers without end are refused", "GET", strings.Repeat("HTTP/1.1 102 Processing||", 20), "502"},
		{"a head of 17 KiB is refused", "GET", "HTTP/1.1 200 OK|X: " + strings.Repeat("a", 17<<10) + "||", "502"},
		{"200 fields are refused", "GET", "HTTP/1.1 200 OK|" + strings.Repeat("X: a|", 200) + "|", "502"},
		{"another protocol is refused", "GET", "SSH-2.0-OpenSSH|", "502"},
		{"silence is refused", "GET", "", "502"},
		{"half a head is refused", "GET", "HTTP/1.1 200 OK|Conte", "502"},
		{"a body by length that ends early is cut short", "GET", "HTTP/1.1 200 OK|Content-Length: 9||ok", "200 ok cut short"},
		{"a chunked body that ends early is cut short", "GET", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|", "200 ok cut short"},
		{"a chunk extension is cut off", "GET", "HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|2;x|no|0||", "200 ok cut short"},
	} {
		t.Run(strings.ReplaceAll(row.sentence, " ", "_"), func(t *testing.T) {
			t.Parallel()
			_, addr := through(t, func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.WriteString(c, strings.ReplaceAll(row.answer, "|", "\r\n"))
				}
			})
			method, minor, _ := strings.Cut(row.request, " ")
			if minor == "" {
				minor = "1.1"
			}
			back := say(t, addr, method+" / HTTP/"+minor+"\r\nHost: allowed.test\r\n\r\n")
			if got := asTold(back, method); got != row.told {
				t.Errorf("the client is told %q, want %q\n%s", got, row.told, back)
			}
		})
	}
}

// asTold is the final answer in bytes as "status body"; of a 502 only the status.
func asTold(back, method string) string {
	br := bufio.NewReader(strings.NewReader(back))
	for {
		res, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return err.Error()
		}
		if res.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(res.Body)
		switch {
		case res.StatusCode == http.StatusBadGateway:
			return "502"
		case err != nil:
			return fmt.Sprintf("%d %s cut short", res.StatusCode, body)
		}
		if rest, _ := io.ReadAll(br); len(rest) > 0 {
			return fmt.Sprintf("%d %s and then %q", res.StatusCode, body, rest)
		}
		return fmt.Sprintf("%d %s", res.StatusCode, body)
	}
}

func TestOriginThatClosesIdleConnections(t *testing.T) {
	h, addr := through(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
	c.SetDeadline(time.Now().Add(10 * time.Second))
	back, err := io.ReadAll(c) // ends because the origin has closed, not because the client has
	if err != nil || asTold(string(back), "GET") != "200 ok" {
		t.Errorf("%q, %v", back, err)
	}
	h.awaitEnd(t, 1)
}

// TestOriginThatForgets answers one request of each connection, and closes it when the next one
// has come, as a server does whose idle time ends at that moment.
func TestOriginThatForgets(t *testing.T) {
	for _, row := range []struct{ sentence, second, told string }{
		{"a GET is sent again", "GET", "200 200"},
		{"a POST is not", "POST", "200 502"},
		{"a GET is not, when the server is gone", "GET gone", "200 502"},
	} {
		t.Run(strings.ReplaceAll(row.sentence, " ", "_"), func(t *testing.T) {
			h, addr := through(t, func(c net.Conn) {
				br := bufio.NewReader(c)
				if _, err := http.ReadRequest(br); err == nil {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					http.ReadRequest(br)
				}
			})
			method, gone, _ := strings.Cut(row.second, " ")
			if gone != "" {
				h.dials = func(egress.Conn) { delete(h.origins, port80) } // after the first one has been looked up
			}
			back := say(t, addr, "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n"+method+" / HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
			if got := statuses(t, back); got != row.told {
				t.Errorf("told %q, want %q", got, row.told)
			}
			h.awaitEnd(t, 2)
		})
	}
}

func TestUnreachableOrigin(t *testing.T) {
	h := newHouse(t, "http://allowed.test:80")
	back := say(t, h.transparent(t, port80), "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
	if got := statuses(t, back); got != "502" {
		t.Errorf("told %s", got)
	}
	if got := h.verdicts(); !slices.Equal(got, []string{"deny upstream-unreachable"}) {
		t.Errorf("verdicts %q", got)
	}
}

func TestObserved(t *testing.T) {
	h, addr := through(t, (&recorder{}).serve)
	decide := h.Decide
	h.Decide = func(ctx context.Context, c egress.Conn) egress.Flow {
		f := decide(ctx, c)
		f.Observed = true
		return f
	}
	back := say(t, addr, "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
	if got := statuses(t, back); got != "200" {
		t.Errorf("told %s", got)
	}
	if got := h.verdicts(); !slices.Equal(got, []string{"deny name-not-allowed"}) {
		t.Errorf("verdicts %q", got)
	}
}

func TestRecheckCutsWhatIsNoLongerPermitted(t *testing.T) {
	h, addr := through(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
			io.Copy(io.Discard, c) // until the proxy closes
		}
	})
	get := func(name string) *bufio.Reader {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+name+"\r\n\r\n")
		br := bufio.NewReader(c)
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(res.Body, make([]byte, 5))
		return br
	}
	gone, stays := get("allowed.test"), get("also.test")
	h.allow(t, "http://also.test:80")
	if cut := h.Recheck(t.Context()); cut != 1 {
		t.Errorf("cut %d", cut)
	}
	if _, err := gone.ReadByte(); err == nil || isTimeout(err) {
		t.Errorf("the denied one: %v", err)
	}
	if f := h.awaitEnd(t, 1); f.Verdict.Reason != egress.PolicyChanged || f.Conn.Name.String() != "allowed.test" {
		t.Errorf("ended: %v %v", f.Conn, f.Verdict)
	}
	if h.Recheck(t.Context()) != 0 || stays.Buffered() != 0 {
		t.Error("the permitted one was cut too")
	}
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is needed: apt-get install curl")
	}
	_, addr := through(t, (&recorder{}).serve)
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"http://allowed.test/"}, "ok200"},
		{[]string{"--http1.0", "http://allowed.test/"}, "ok200"},
		{[]string{"-I", "-o", "/dev/null", "http://allowed.test/"}, "200"},
		{[]string{"-d", strings.Repeat("x", 2000), "-H", "Expect: 100-continue", "http://allowed.test/"}, "ok200"},
		{[]string{"-H", "Transfer-Encoding: chunked", "-d", "x", "http://allowed.test/"}, "ok200"},
		{[]string{"-o", "/dev/null", "http://evil.test/"}, "403"},
		{[]string{"-o", "/dev/null", "--http2", "http://allowed.test/"}, "403"},
		{[]string{"-o", "/dev/null", "-d", strings.Repeat("x", 100_000), "http://evil.test/"}, "403"},
	} {
		args := append([]string{"-sS", "--max-time", "20", "-w", "%{http_code}", "--connect-to", "::" + addr}, row.args...)
		out, err := exec.Command(curl, args...).CombinedOutput()
		if err != nil || string(out) != row.want {
			t.Errorf("curl %.100q: %.100q, %v, want %q", row.args, out, err, row.want)
		}
	}
}
