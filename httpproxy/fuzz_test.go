package httpproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

// script is a client that sends bytes, ends, and keeps what it is told.
type script struct {
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) CloseWrite() error                { return nil }
func (s *script) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(port80) }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 4), Port: 50000} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// serveScript serves one scripted client, judging by decide, in front of origin.
func serveScript(sent []byte, decide func(egress.Conn) egress.Verdict, origin func(net.Conn)) (told []byte) {
	client := &script{in: bytes.NewReader(sent)}
	var origins sync.WaitGroup
	s := &Server{
		Decide: func(_ context.Context, c egress.Conn) egress.Flow { return egress.Flow{Conn: c, Verdict: decide(c)} },
		Dial: func(context.Context, egress.Conn) (net.Conn, error) {
			ours, theirs := net.Pipe()
			origins.Go(func() { defer theirs.Close(); origin(theirs) })
			return ours, nil
		},
		Report: func(egress.Flow) {},
	}
	s.serveConn(context.Background(), client, &net.TCPAddr{}, false)
	origins.Wait()
	return client.out.Bytes()
}

// FuzzRequests sends any bytes and holds what reaches the origin, as net/http reads it, against
// what was judged: the same requests, for the same hosts, in the same order. net/http is
// lenient, so what it reads in another way than the proxy shows here.
func FuzzRequests(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
		"GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test:80\r\n\r\nHEAD / HTTP/1.1\r\nHost: also.test.\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: allowed.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.0\r\nHost: [2001:db8::1]\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: allowed.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
		"GET / HTTP/1.1\r\nHost: allowed.test\r\nConnection: close, X\r\nX: y\r\nUpgrade-Insecure-Requests: 1\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
		"DELETE / HTTP/1.1\r\nHost: allowed.test\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
		"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var mu sync.Mutex
		var judged, seen []string
		decide := func(c egress.Conn) egress.Verdict {
			if strings.HasPrefix(c.Name.String(), "evil") {
				return egress.Denied(egress.NameNotAllowed)
			}
			mu.Lock()
			defer mu.Unlock()
			judged = append(judged, c.Name.String()) // "" for an address
			return egress.Verdict{Action: egress.Allow, Reason: egress.ByNameRule}
		}
		origin := func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				req, err := http.ReadRequest(br)
				if errors.Is(err, io.EOF) {
					return
				}
				mu.Lock()
				if err != nil {
					seen = append(seen, "unreadable: "+err.Error())
					mu.Unlock()
					return
				}
				host := req.Host
				if h, _, err := net.SplitHostPort(host); err == nil {
					host = h
				}
				if _, err := egress.ParseName(host); err != nil {
					host = "" // an address
				}
				seen = append(seen, host)
				mu.Unlock()
				if _, err := io.Copy(io.Discard, req.Body); err != nil {
					return // cut short
				}
				if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil || req.Close {
					return
				}
			}
		}
		told := serveScript(in, decide, origin)
		mu.Lock()
		defer mu.Unlock()
		if strings.Join(judged, " ") != strings.Join(seen, " ") || len(judged) != len(seen) {
			t.Errorf("judged %q, the origin sees %q", judged, seen)
		}
		readAnswers(t, told)
	})
}

// readAnswers reads what a client was told as net/http does: whole answers, and nothing between.
func readAnswers(t *testing.T, told []byte) (final int) {
	br := bufio.NewReader(bytes.NewReader(told))
	for {
		if _, err := br.Peek(1); err != nil {
			return final
		}
		res, err := http.ReadResponse(br, &http.Request{Method: http.MethodHead}) // bodies are looked at below
		if err != nil {
			t.Errorf("the client reads: %v in %q", err, told)
			return final
		}
		if res.StatusCode < 200 {
			continue
		}
		final++
		if n := res.ContentLength; n > 0 && res.Header.Get("Content-Type") == "application/json" {
			br.Discard(int(n)) // a refusal, which ends the connection
		}
	}
}

// FuzzAnswers lets an origin say any bytes to one GET, and holds what the client reads against
// what net/http reads from the origin itself: the same answer, or 502, or one that is cut short.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nok",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
		"HTTP/1.1 200\r\nConnection: close, X\r\nX: 1\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	allow := func(egress.Conn) egress.Verdict {
		return egress.Verdict{Action: egress.Allow, Reason: egress.ByNameRule}
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		told := serveScript([]byte("GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n"), allow, func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				c.Write(answer)
			}
		})
		status, body, err := finalAnswer(told)
		if status == 0 {
			t.Fatalf("the client cannot read %q: %v", told, err)
		}
		wantStatus, wantBody, wantErr := finalAnswer(answer)
		switch {
		case status == http.StatusBadGateway: // also where net/http is lenient
		case status != wantStatus || body != wantBody || err == nil && wantErr != nil:
			if err == nil || !strings.HasPrefix(wantBody, body) {
				t.Errorf("the origin says %d %q %v, the client reads %d %q %v", wantStatus, wantBody, wantErr, status, body, err)
			}
		}
	})
}

// finalAnswer reads the answer to a GET that is not an interim one.
func finalAnswer(b []byte) (status int, body string, err error) {
	br := bufio.NewReader(bytes.NewReader(b))
	for {
		res, err := http.ReadResponse(br, &http.Request{Method: http.MethodGet})
		if err != nil {
			return 0, "", err
		}
		if res.StatusCode >= 200 {
			all, err := io.ReadAll(res.Body)
			return res.StatusCode, string(all), err
		}
	}
}

// FuzzConnect sends any bytes after a CONNECT: what goes to the server is nothing, or begins with
// a ClientHello that crypto/tls reads as one for the very name.
func FuzzConnect(f *testing.F) {
	hello := dialledHello("allowed.test")
	f.Add(hello)
	f.Add(dialledHello("evil.test"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	for i := 0; i < len(hello); i += 40 {
		b := bytes.Clone(hello)
		b[i] ^= 1
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, first []byte) {
		client := &script{in: bytes.NewReader(append([]byte("CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test\r\n\r\n"), first...))}
		var got bytes.Buffer
		var origins sync.WaitGroup
		name := egress.MustParseName("allowed.test")
		s := &Server{
			Decide: func(_ context.Context, c egress.Conn) egress.Flow {
				v := egress.Verdict{Action: egress.Wait, Reason: egress.NeedsHello}
				if c.Proto == egress.HTTPS && c.Name == name {
					v = egress.Verdict{Action: egress.Allow, Reason: egress.ByNameRule}
				}
				return egress.Flow{Conn: c, Verdict: v}
			},
			Dial: func(context.Context, egress.Conn) (net.Conn, error) {
				ours, theirs := net.Pipe()
				origins.Go(func() {
					defer theirs.Close()
					n, _ := io.CopyN(&got, theirs, 1)
					if n == 1 {
						go theirs.Write([]byte{21, 3, 3, 0, 2, 2, 40})
					}
					io.Copy(&got, theirs)
				})
				return ours, nil
			},
			Report:  func(egress.Flow) {},
			Permits: func(netip.Addr, egress.Name) bool { return true },
			Lookup: func(context.Context, netip.Addr, egress.Name) ([]netip.Addr, error) {
				return []netip.Addr{allowed}, nil
			},
			From: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
		}
		s.serveConn(context.Background(), client, &net.TCPAddr{}, true)
		origins.Wait()
		if got.Len() == 0 {
			return
		}
		if shown := serverNameOf(got.Bytes()); shown != "-" && !strings.EqualFold(shown, "allowed.test") {
			t.Errorf("the server sees %q: %x", shown, got.Bytes())
		}
	})
}
