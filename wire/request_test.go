package wire

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
)

func readRequest(s string) (*Request, error) {
	return ReadRequest(bufio.NewReaderSize(strings.NewReader(s), MaxHead))
}

// lines joins with CR LF and ends the head.
func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

func TestReadRequest(t *testing.T) {
	ubuntu := Authority{Host: "security.ubuntu.com"}
	for _, row := range []struct {
		what string
		in   string
		want Request
		out  string // "" when it is the input
	}{
		{"what apt sends", lines("GET /ubuntu/dists/InRelease HTTP/1.1", "Host: security.ubuntu.com", "User-Agent: Debian APT-HTTP/1.3 (2.4)", "Cache-Control: max-age=0"),
			Request{Method: "GET", Target: "/ubuntu/dists/InRelease", Authority: ubuntu, Minor: 1,
				Fields: []Field{{"User-Agent", "Debian APT-HTTP/1.3 (2.4)"}, {"Cache-Control", "max-age=0"}}}, ""},
		{"odd but legal spelling becomes canonical", lines("GET / HTTP/1.1", "hOST:\tSecurity.Ubuntu.COM.:80 ", "A:", "b: \t x  y "),
			Request{Method: "GET", Target: "/", Authority: Authority{Host: "security.ubuntu.com", Port: 80}, Minor: 1, Fields: []Field{{"A", ""}, {"b", "x  y"}}},
			lines("GET / HTTP/1.1", "Host: security.ubuntu.com:80", "A: ", "b: x  y")},
		{"a body of known length", lines("POST /x?y=%20z HTTP/1.1", "Content-Length: 0012", "Host: security.ubuntu.com"),
			Request{Method: "POST", Target: "/x?y=%20z", Authority: ubuntu, Minor: 1, Framing: Sized, Length: 12},
			lines("POST /x?y=%20z HTTP/1.1", "Host: security.ubuntu.com", "Content-Length: 12")},
		{"a chunked body", lines("POST / HTTP/1.1", "Transfer-Encoding: Chunked", "Host: security.ubuntu.com"),
			Request{Method: "POST", Target: "/", Authority: ubuntu, Minor: 1, Framing: Chunked},
			lines("POST / HTTP/1.1", "Host: security.ubuntu.com", "Transfer-Encoding: chunked")},
		{"HTTP/1.0 with Host", lines("GET / HTTP/1.0", "Host: security.ubuntu.com"),
			Request{Method: "GET", Target: "/", Authority: ubuntu}, ""},
		{"an absolute target", lines("GET http://Security.ubuntu.com/a HTTP/1.1", "Host: security.ubuntu.com:80"),
			Request{Method: "GET", Form: Absolute, Target: "/a", Authority: ubuntu, Minor: 1},
			lines("GET /a HTTP/1.1", "Host: security.ubuntu.com")},
		{"an absolute target without path", lines("GET HTTP://security.ubuntu.com:8080?q HTTP/1.0"),
			Request{Method: "GET", Form: Absolute, Target: "/?q", Authority: Authority{Host: "security.ubuntu.com", Port: 8080}},
			lines("GET /?q HTTP/1.0", "Host: security.ubuntu.com:8080")},
		{"OPTIONS of the server, through a proxy", lines("OPTIONS http://security.ubuntu.com HTTP/1.1", "Host: security.ubuntu.com"),
			Request{Method: "OPTIONS", Form: Absolute, Target: "*", Authority: ubuntu, Minor: 1},
			lines("OPTIONS * HTTP/1.1", "Host: security.ubuntu.com")},
		{"OPTIONS of the server", lines("OPTIONS * HTTP/1.1", "Host: security.ubuntu.com"),
			Request{Method: "OPTIONS", Form: Asterisk, Target: "*", Authority: ubuntu, Minor: 1}, ""},
		{"CONNECT", lines("CONNECT mcr.microsoft.com:443 HTTP/1.1", "Host: mcr.microsoft.com:443"),
			Request{Method: "CONNECT", Form: Connect, Authority: Authority{Host: "mcr.microsoft.com", Port: 443}, Minor: 1}, ""},
		{"CONNECT with a Host without port", lines("CONNECT mcr.microsoft.com:443 HTTP/1.1", "Host: mcr.microsoft.com"),
			Request{Method: "CONNECT", Form: Connect, Authority: Authority{Host: "mcr.microsoft.com", Port: 443}, Minor: 1},
			lines("CONNECT mcr.microsoft.com:443 HTTP/1.1", "Host: mcr.microsoft.com:443")},
		{"CONNECT as WinHTTP sends it", lines("CONNECT [2001:db8::1]:443 HTTP/1.0", "Content-Length: 0", "Proxy-Connection: Keep-Alive"),
			Request{Method: "CONNECT", Form: Connect, Authority: Authority{Host: "2001:db8::1", Port: 443, Literal: true}, Fields: []Field{{"Proxy-Connection", "Keep-Alive"}}},
			lines("CONNECT [2001:db8::1]:443 HTTP/1.0", "Host: [2001:db8::1]:443", "Proxy-Connection: Keep-Alive")},
		{"UTF-8 in a value", lines("GET / HTTP/1.1", "Host: security.ubuntu.com", "X: ä"),
			Request{Method: "GET", Target: "/", Authority: ubuntu, Minor: 1, Fields: []Field{{"X", "ä"}}}, ""},
	} {
		t.Run(row.what, func(t *testing.T) {
			got, err := readRequest(row.in)
			if err != nil || !reflect.DeepEqual(*got, row.want) {
				t.Fatalf("ReadRequest = %+v, %v; want %+v", got, err, row.want)
			}
			if row.out == "" {
				row.out = row.in
			}
			if out := string(got.AppendHead(nil)); out != row.out {
				t.Errorf("AppendHead = %q; want %q", out, row.out)
			}
		})
	}
}

func TestReadRequestRefuses(t *testing.T) {
	get := func(l ...string) string { return lines(append([]string{"GET / HTTP/1.1", "Host: a"}, l...)...) }
	for _, row := range []struct {
		what string
		in   string
		err  error
	}{
		{"nothing", "", io.EOF},
		{"half a line", "GET /", io.ErrUnexpectedEOF},
		{"half a head", "GET / HTTP/1.1\r\nHost: a\r\n", io.ErrUnexpectedEOF},
		{"an empty line first", "\r\n" + get(), ErrMethod},
		{"a space first", " " + get(), ErrMethod},
		{"a method that is no token", lines("G(T / HTTP/1.1", "Host: a"), ErrMethod},
		{"a tab after the method", lines("GET\t/ HTTP/1.1", "Host: a"), ErrMethod},
		{"a ClientHello", "\x16\x03\x01\n", ErrLine},
		{"two spaces after the method", lines("GET  / HTTP/1.1", "Host: a"), ErrHTTP},
		{"two spaces before the version", lines("GET /  HTTP/1.1", "Host: a"), ErrHTTP},
		{"a space after the version", lines("GET / HTTP/1.1 ", "Host: a"), ErrHTTP},
		{"HTTP/0.9", "GET /\r\n", ErrHTTP},
		{"HTTP/1.2", lines("GET / HTTP/1.2", "Host: a"), ErrHTTP},
		{"HTTP/2.0 in a line", lines("GET / HTTP/2.0", "Host: a"), ErrHTTP},
		{"small letters in the version", lines("GET / http/1.1", "Host: a"), ErrHTTP},
		{"HTTP/2 with prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ErrHTTP2},

		{"a space in the target", lines("GET /a b HTTP/1.1", "Host: a"), ErrHTTP},
		{"a relative target", lines("GET a HTTP/1.1", "Host: a"), ErrTarget},
		{"* of GET", lines("GET * HTTP/1.1", "Host: a"), ErrTarget},
		{"a target like CONNECT's", lines("GET a:80 HTTP/1.1", "Host: a"), ErrTarget},
		{"https in an absolute target", lines("GET https://a/ HTTP/1.1", "Host: a"), ErrTarget},
		{"a fragment", lines("GET /#x HTTP/1.1", "Host: a"), ErrTarget},
		{"a backslash", lines(`GET /\evil HTTP/1.1`, "Host: a"), ErrTarget},
		{"half an escape", lines("GET /%2 HTTP/1.1", "Host: a"), ErrTarget},
		{"a target in UTF-8", lines("GET /ä HTTP/1.1", "Host: a"), ErrTarget},
		{"CONNECT with a path", lines("CONNECT /a HTTP/1.1", "Host: a"), ErrHost},
		{"CONNECT without port", lines("CONNECT a HTTP/1.1", "Host: a"), ErrHost},
		{"CONNECT in absolute form", lines("CONNECT http://a:443/ HTTP/1.1", "Host: a"), ErrHost},
		{"CONNECT with a body", lines("CONNECT a:443 HTTP/1.1", "Host: a", "Content-Length: 1"), ErrFraming},

		{"no Host", lines("GET / HTTP/1.1"), ErrNoHost},
		{"no Host in HTTP/1.0", lines("GET / HTTP/1.0"), ErrNoHost},
		{"no Host beside an absolute target", lines("GET http://a/ HTTP/1.1"), ErrNoHost},
		{"two Hosts", get("Host: b"), ErrTwoHosts},
		{"the same Host twice, in other letters", get("hOST: a"), ErrTwoHosts},
		{"two Hosts in one field", lines("GET / HTTP/1.1", "Host: a, b"), ErrHost},
		{"an empty Host", lines("GET / HTTP/1.1", "Host:"), ErrHost},
		{"user information in Host", lines("GET / HTTP/1.1", "Host: a@evil"), ErrHost},
		{"user information in the target", lines("GET http://a@evil/ HTTP/1.1", "Host: evil"), ErrHost},
		{"a backslash in the target's host", lines(`GET http://a\@evil/ HTTP/1.1`, "Host: a"), ErrHost},
		{"an absolute target of another host", lines("GET http://a/ HTTP/1.1", "Host: b"), ErrHostDiffer},
		{"an absolute target of another port", lines("GET http://a:81/ HTTP/1.1", "Host: a"), ErrHostDiffer},
		{"CONNECT to another host", lines("CONNECT a:443 HTTP/1.1", "Host: b:443"), ErrHostDiffer},
		{"CONNECT to another port", lines("CONNECT a:443 HTTP/1.1", "Host: a:22"), ErrHostDiffer},

		{"a space before the colon", lines("GET / HTTP/1.1", "Host : evil", "Host: a"), ErrField},
		{"a field without colon", get("X"), ErrField},
		{"a field without name", get(": x"), ErrField},
		{"a folded field", get("X: a", " b"), ErrFold},
		{"a folded first field", lines("GET / HTTP/1.1", "\tHost: a"), ErrFold},
		{"a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", ErrLine},
		{"a bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", ErrLine},
		{"a bare CR", get("X: a\rHost: b"), ErrLine},
		{"two CRs", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", ErrLine},
		{"NUL in a value", get("X: a\x00b"), ErrLine},
		{"DEL in a value", get("X: a\x7f"), ErrLine},
		{"too many fields", get(strings.Split(strings.Repeat("X: y\n", MaxFields)+"X: y", "\n")...), ErrFields},
		{"a long line", get("X: " + strings.Repeat("y", MaxHead)), ErrHeadSize},
		{"a long head", get(strings.Split(strings.Repeat("X: "+strings.Repeat("y", 1000)+"\n", 17)+"X: y", "\n")...), ErrHeadSize},

		{"both framings", get("Content-Length: 4", "Transfer-Encoding: chunked"), ErrFraming},
		{"two lengths", get("Content-Length: 4", "Content-Length: 5"), ErrLength},
		{"the same length twice", get("Content-Length: 4", "Content-Length: 4"), ErrLength},
		{"a list of lengths", get("Content-Length: 4, 4"), ErrLength},
		{"a negative length", get("Content-Length: -1"), ErrLength},
		{"a length with plus", get("Content-Length: +4"), ErrLength},
		{"a length in hexadecimal", get("Content-Length: 0x4"), ErrLength},
		{"an empty length", get("Content-Length: "), ErrLength},
		{"a length of 19 digits", get("Content-Length: 1000000000000000000"), ErrLength},
		{"xchunked", get("Transfer-Encoding: xchunked"), ErrCoding},
		{"gzip, chunked", get("Transfer-Encoding: gzip, chunked"), ErrCoding},
		{"chunked twice", get("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), ErrCoding},
		{"chunked with a parameter", get("Transfer-Encoding: chunked;q=1"), ErrCoding},
		{"identity", get("Transfer-Encoding: identity"), ErrCoding},
		{"an empty coding", get("Transfer-Encoding:"), ErrCoding},
		{"chunked in HTTP/1.0", lines("POST / HTTP/1.0", "Host: a", "Transfer-Encoding: chunked"), ErrCoding},
		{"a space before the colon of a coding", get("Transfer-Encoding : chunked"), ErrField},
	} {
		if _, err := readRequest(row.in); err != row.err {
			t.Errorf("%s: %v; want %v", row.what, err, row.err)
		}
	}
}

func TestReadRequestLeavesTheNext(t *testing.T) {
	br := bufio.NewReader(strings.NewReader(
		lines("POST /1 HTTP/1.1", "Host: a", "Content-Length: 3") + "abc" +
			lines("POST /2 HTTP/1.1", "Host: b", "Transfer-Encoding: chunked") + "1\r\nx\r\n0\r\nTrailer: t\r\n\r\n" +
			lines("GET /3 HTTP/1.1", "Host: evil.example")))
	var got []string
	for {
		r, err := ReadRequest(br)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body(br))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s", r.Authority, r.Target, body))
	}
	if want := []string{"a /1 abc", "b /2 x", "evil.example /3 "}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTokens(t *testing.T) {
	r, err := readRequest(lines("GET / HTTP/1.1", "Host: a", "Upgrade: WebSocket,", "X: y", "upgrade: \t, h2c ,x"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Tokens("Upgrade"), []string{"websocket", "h2c", "x"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := r.Tokens("Connection"); got != nil {
		t.Errorf("%q, want none", got)
	}
}
