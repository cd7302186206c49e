package httpproxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate.io/tidegate/egress"
)

// addressed is one end of a pipe that has addresses.
type addressed struct{ net.Conn }

func (addressed) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(port80) }
func (addressed) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 50000}
}

// TestPatience says how long each peer may be silent, and what happens then. The client says what
// is in says; each origin says what is in answers and then nothing. CR LF is |.
func TestPatience(t *testing.T) {
	const get = "GET / HTTP/1.1|Host: allowed.test||"
	const hello = "HELLO" // in its place
	const tunnel = "CONNECT 20.9.9.9:9000 HTTP/1.1|Host: 20.9.9.9:9000||"
	for _, row := range []struct {
		sentence, says, answers string
		explicit                bool
		after                   time.Duration
		told                    string // the first line of the last answer
		verdicts                []string
	}{
		{"a client that says nothing", "", "", false, HeadTimeout, "", []string{"deny not-http"}},
		{"half a head", "GET / HTT", "", false, HeadTimeout, "HTTP/1.1 408 Request Timeout", []string{"deny not-http"}},
		{"a client with no second request", get, "HTTP/1.1 204 No Content||", false, IdleTimeout, "HTTP/1.1 204 No Content", []string{"allow name-rule"}},
		{"half a second head", get + "GET /", "HTTP/1.1 204 No Content||", false, HeadTimeout, "HTTP/1.1 408 Request Timeout", []string{"allow name-rule", "deny not-http"}},
		{"a server that says nothing", get, "", false, StallTimeout, "HTTP/1.1 504 Gateway Timeout", []string{"allow name-rule"}},
		{"half an answer", get, "HTTP/1.1 200 OK|Content-Length: 9||half", false, StallTimeout, "HTTP/1.1 200 OK", []string{"allow name-rule"}},
		{"half a body", "POST / HTTP/1.1|Host: allowed.test|Content-Length: 9||half", "", false, StallTimeout, "", []string{"allow name-rule"}},
		{"a tunnel without a hello", "CONNECT allowed.test:443 HTTP/1.1|Host: allowed.test||", "", true, HelloTimeout, "HTTP/1.1 200 Connection Established", []string{"deny hello-timeout"}},
		{"a hello without an answer", "CONNECT allowed.test:443 HTTP/1.1|Host: allowed.test||" + hello, "", true, AnswerTimeout, "HTTP/1.1 200 Connection Established", []string{"allow name-rule"}},
		{"a silent tunnel", tunnel + "hi", "", true, TunnelIdle, "HTTP/1.1 200 Connection Established", []string{"allow address-rule"}},
		{"a tunnel where only the server speaks", tunnel, "every hour", true, TunnelMax, "HTTP/1.1 200 Connection Established", []string{"allow address-rule"}},
	} {
		t.Run(strings.ReplaceAll(row.sentence, " ", "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				h := newHouse(t, "http://allowed.test:80", "https://allowed.test:443", "tcp://20.9.9.9:9000")
				h.Dial = pipeTo(ctx, strings.ReplaceAll(row.answers, "|", "\r\n"))
				ours, theirs := net.Pipe()
				begin := time.Now()
				go func() {
					says := strings.ReplaceAll(row.says, "|", "\r\n")
					io.WriteString(ours, strings.Replace(says, hello, string(dialledHello("allowed.test")), 1))
				}()
				var back strings.Builder
				read := make(chan struct{})
				go func() { io.Copy(&back, ours); close(read) }()
				h.serveConn(ctx, addressed{theirs}, &net.TCPAddr{}, row.explicit)
				<-read
				if took := time.Since(begin); took < row.after || took > row.after+2*time.Second {
					t.Errorf("it took %v, want %v", took, row.after)
				}
				if told := lastStatusLine(back.String()); told != row.told {
					t.Errorf("told %q, want %q", told, row.told)
				}
				if got := h.verdicts(); !slices.Equal(got, row.verdicts) {
					t.Errorf("verdicts %q, want %q", got, row.verdicts)
				}
				if h.Conns() != 0 || len(h.live) != 0 {
					t.Errorf("%d connections and %d flows are left", h.Conns(), len(h.live))
				}
			})
		})
	}
}

func lastStatusLine(s string) string {
	i := strings.LastIndex(s, "HTTP/1.1 ")
	if i < 0 {
		return ""
	}
	line, _, _ := strings.Cut(s[i:], "\r\n")
	return line
}

// TestSlowIsNotSilent sends a body and an answer so slowly that each takes longer than any limit on
// silence.
func TestSlowIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		h := newHouse(t, "http://allowed.test:80")
		got := make(chan string, 1)
		h.Dial = pipes(ctx, func(c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			body, _ := io.ReadAll(req.Body)
			got <- string(body)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
			for _, b := range []string{"e", "n", "d"} {
				time.Sleep(StallTimeout - time.Second)
				io.WriteString(c, b)
			}
		})
		ours, theirs := net.Pipe()
		go func() {
			io.WriteString(ours, "POST / HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\nContent-Length: 3\r\n\r\n")
			for _, b := range []string{"a", "b", "c"} {
				time.Sleep(StallTimeout/2 - time.Second) // the server is silent for as long
				io.WriteString(ours, b)
			}
		}()
		go h.serveConn(ctx, addressed{theirs}, &net.TCPAddr{}, false)
		res, err := http.ReadResponse(bufio.NewReader(ours), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if string(body) != "end" || err != nil || <-got != "abc" {
			t.Errorf("%q, %v", body, err)
		}
	})
}

// pipeTo dials an origin that says one thing when it is spoken to.
func pipeTo(ctx context.Context, answer string) dialFunc {
	return pipes(ctx, func(c net.Conn) {
		go func() {
			for answer == "every hour" {
				if _, err := io.WriteString(c, "."); err != nil {
					return
				}
				sleep(ctx, time.Hour)
			}
		}()
		if answer != "" && answer != "every hour" {
			if _, err := c.Read(make([]byte, 16<<10)); err != nil {
				return
			}
			io.WriteString(c, answer)
		}
		io.Copy(io.Discard, c)
	})
}

type dialFunc = func(context.Context, egress.Conn) (net.Conn, error)

// pipes dials origins that are f.
func pipes(ctx context.Context, f func(net.Conn)) dialFunc {
	return func(context.Context, egress.Conn) (net.Conn, error) {
		ours, theirs := net.Pipe()
		context.AfterFunc(ctx, func() { theirs.Close() })
		go func() { defer theirs.Close(); f(theirs) }()
		return ours, nil
	}
}
