package httpproxy

import (
	"net/netip"
	"strings"
	"testing"
)

// TestAmbiguous says of each request what the client is told and what reaches the origin.
// CR LF is written as | in the requests, and ~ is a NUL.
func TestAmbiguous(t *testing.T) {
	const host = "Host: allowed.test|"
	for _, row := range []struct{ sentence, request, told, reaches string }{
		// What is fine.
		{"a plain request passes", "GET / HTTP/1.1|" + host + "|", "200", "GET / allowed.test"},
		{"a HEAD passes, and its answer has no body", "HEAD / HTTP/1.1|" + host + "|", "200", "HEAD / allowed.test"},
		{"HTTP/1.0 with a Host passes", "GET / HTTP/1.0|" + host + "|", "200", "GET / allowed.test"},
		{"a head that ends early goes nowhere", "GET / HTTP/1.1|Host: ALLOWED.Test|", "", ""},
		{"an upper-case name is the same name", "GET / HTTP/1.1|Host: ALLOWED.Test||", "200", "GET / allowed.test"},
		{"one trailing dot of the name goes", "GET / HTTP/1.1|Host: allowed.test.||", "200", "GET / allowed.test"},
		{"a port in Host stays", "GET / HTTP/1.1|Host: allowed.test:80||", "200", "GET / allowed.test:80"},
		{"an absolute target becomes a path", "GET http://allowed.test/a?b HTTP/1.1|" + host + "|", "200", "GET /a?b allowed.test"},
		{"an absolute target without a path becomes /", "GET http://allowed.test HTTP/1.1|" + host + "|", "200", "GET / allowed.test"},
		{"the scheme may be in upper case", "GET HTTP://allowed.test/ HTTP/1.1|" + host + "|", "200", "GET / allowed.test"},
		{"a body by length passes", "POST / HTTP/1.1|" + host + "Content-Length: 3||abc", "200", "POST / allowed.test abc"},
		{"a chunked body passes", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked||3|abc|0||", "200", "POST / allowed.test abc"},
		{"a coding in upper case is the same", "POST / HTTP/1.1|" + host + "Transfer-Encoding: CHUNKED||3|abc|0||", "200", "POST / allowed.test abc"},
		{"trailers are dropped", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked||3|abc|0|Host: evil.test||", "200", "POST / allowed.test abc"},
		{"an empty body by length passes", "POST / HTTP/1.1|" + host + "Content-Length: 0||", "200", "POST / allowed.test"},
		{"two requests in one packet both pass", "GET /1 HTTP/1.1|" + host + "|GET /2 HTTP/1.1|" + host + "|", "200 200", "GET /1 allowed.test; GET /2 allowed.test"},
		{"a body that looks like a request is a body", "POST / HTTP/1.1|" + host + "Content-Length: 28||GET / HTTP/1.1|Host: evil|", "200", "POST / allowed.test GET / HTTP/1.1\r\nHost: evil\r\n"},
		{"OPTIONS * passes", "OPTIONS * HTTP/1.1|" + host + "|", "200", "OPTIONS * allowed.test"},
		{"white space around a value is not part of it", "GET / HTTP/1.1|Host: \t allowed.test \t||", "200", "GET / allowed.test"},
		{"Expect: 100-continue passes with a body", "POST / HTTP/1.1|" + host + "Expect: 100-continue|Content-Length: 2||hi", "100 200", "POST / allowed.test hi"},
		{"a GET with a body passes, and is the last to the origin", "GET / HTTP/1.1|" + host + "Content-Length: 2||hiGET /2 HTTP/1.1|" + host + "|", "200 200", "GET / allowed.test hi; GET /2 allowed.test"},

		// Names.
		{"a denied name is refused", "GET / HTTP/1.1|Host: evil.test||", "403", ""},
		{"after a denied name nothing more is read", "GET / HTTP/1.1|Host: evil.test||GET / HTTP/1.1|" + host + "|", "403", ""},
		{"a denied name after a permitted one is refused", "GET /1 HTTP/1.1|" + host + "|GET /2 HTTP/1.1|Host: evil.test||", "200 403", "GET /1 allowed.test"},
		{"a denied name behind a body is refused", "POST / HTTP/1.1|" + host + "Content-Length: 3||abcGET / HTTP/1.1|Host: evil.test||", "200 403", "POST / allowed.test abc"},
		{"a name below a permitted one is another", "GET / HTTP/1.1|Host: x.allowed.test||", "403", ""},
		{"a name that begins with a permitted one is another", "GET / HTTP/1.1|Host: allowed.test.evil.test||", "403", ""},
		{"a permitted name at another's address is refused", "GET / HTTP/1.1|Host: far.test||", "403", ""},
		{"an address is not a name", "GET / HTTP/1.1|Host: 20.1.2.3||", "403", ""},
		{"an address in octal is one too", "GET / HTTP/1.1|Host: 024.1.2.3||", "403", ""},
		{"an address as one number is one too", "GET / HTTP/1.1|Host: 335610371||", "403", ""},
		{"an address in hexadecimal is one too", "GET / HTTP/1.1|Host: 0x14.1.2.3||", "403", ""},
		{"an IPv6 address is one too", "GET / HTTP/1.1|Host: [2001:4860::1]||", "403", ""},
		{"a zone is refused", "GET / HTTP/1.1|Host: [fe80::1%25eth0]||", "400", ""},
		{"brackets around a name are refused", "GET / HTTP/1.1|Host: [allowed.test]||", "400", ""},
		{"two trailing dots are refused", "GET / HTTP/1.1|Host: allowed.test..||", "400", ""},
		{"user information is refused", "GET / HTTP/1.1|Host: allowed.test@evil.test||", "400", ""},
		{"user information in the target is refused", "GET http://allowed.test@evil.test/ HTTP/1.1|" + host + "|", "400", ""},
		{"percent signs in a name are refused", "GET / HTTP/1.1|Host: allowed%2etest||", "400", ""},
		{"a letter that Unicode folds to k is refused", "GET / HTTP/1.1|Host: \u212aube.test||", "400", ""},
		{"a NUL in a name is refused", "GET / HTTP/1.1|Host: allowed.test~.evil.test||", "400", ""},
		{"a space in a name is refused", "GET / HTTP/1.1|Host: allowed.test evil.test||", "400", ""},
		{"a list of names is refused", "GET / HTTP/1.1|Host: allowed.test, evil.test||", "400", ""},
		{"an empty name is refused", "GET / HTTP/1.1|Host:||", "400", ""},
		{"no name is refused", "GET / HTTP/1.1||", "400", ""},
		{"no name in HTTP/1.0 is refused", "GET / HTTP/1.0||", "400", ""},
		{"two Hosts are refused", "GET / HTTP/1.1|" + host + "Host: evil.test||", "400", ""},
		{"two equal Hosts are refused", "GET / HTTP/1.1|" + host + host + "|", "400", ""},
		{"another host in the target is refused", "GET http://evil.test/ HTTP/1.1|" + host + "|", "400", ""},
		{"another host in Host is refused", "GET http://allowed.test/ HTTP/1.1|Host: evil.test||", "400", ""},
		{"another port in Host is refused", "GET http://allowed.test:81/ HTTP/1.1|Host: allowed.test||", "400", ""},
		{"a scheme that is not http is refused", "GET https://allowed.test/ HTTP/1.1|" + host + "|", "400", ""},
		{"a target with two slashes is a path", "GET //evil.test/ HTTP/1.1|" + host + "|", "200", "GET //evil.test/ allowed.test"},
		{"a backslash that ends a host is refused", "GET http://allowed.test\\@evil.test/ HTTP/1.1|Host: allowed.test||", "400", ""},

		// Lines and fields.
		{"a space before the colon is refused", "GET / HTTP/1.1|Host : evil.test|" + host + "|", "400", ""},
		{"a folded field is refused", "GET / HTTP/1.1|X: a|  b|" + host + "|", "400", ""},
		{"a folded Host is refused", "GET / HTTP/1.1|Host: allowed.test| evil.test||", "400", ""},
		{"a field without a colon is refused", "GET / HTTP/1.1|X|" + host + "|", "400", ""},
		{"a field without a name is refused", "GET / HTTP/1.1|: x|" + host + "|", "400", ""},
		{"a bare line feed is refused", "GET / HTTP/1.1\nHost: allowed.test\n\n", "400", ""},
		{"a bare line feed in a field is refused", "GET / HTTP/1.1|X: a\nHost: evil.test|" + host + "|", "400", ""},
		{"a bare carriage return is refused", "GET / HTTP/1.1|X: a\rHost: evil.test|" + host + "|", "400", ""},
		{"a NUL in a field is refused", "GET / HTTP/1.1|X: a~b|" + host + "|", "400", ""},
		{"two spaces in the first line are refused", "GET  / HTTP/1.1|" + host + "|", "400", ""},
		{"a tab in the first line is refused", "GET\t/ HTTP/1.1|" + host + "|", "400", ""},
		{"a space in the target is refused", "GET /a b HTTP/1.1|" + host + "|", "400", ""},
		{"a fragment is refused", "GET /#x HTTP/1.1|" + host + "|", "400", ""},
		{"HTTP/0.9 is refused", "GET /|", "400", ""},
		{"another version is refused", "GET / HTTP/1.2|" + host + "|", "400", ""},
		{"a version in lower case is refused", "GET / http/1.1|" + host + "|", "400", ""},
		{"a line before the request is refused", "|GET / HTTP/1.1|" + host + "|", "400", ""},
		{"a head of 17 KiB is refused", "GET / HTTP/1.1|" + host + "X: " + strings.Repeat("a", 17<<10) + "||", "431", ""},
		{"200 fields are refused", "GET / HTTP/1.1|" + host + strings.Repeat("X: a|", 200) + "|", "431", ""},

		// Framing.
		{"length and chunked together are refused (CL.TE)", "POST / HTTP/1.1|" + host + "Content-Length: 4|Transfer-Encoding: chunked||0||", "400", ""},
		{"chunked and length together are refused (TE.CL)", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked|Content-Length: 4||0||", "400", ""},
		{"two codings are refused (TE.TE)", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked|Transfer-Encoding: x||0||", "400", ""},
		{"a list of codings is refused", "POST / HTTP/1.1|" + host + "Transfer-Encoding: gzip, chunked||0||", "400", ""},
		{"xchunked is refused", "POST / HTTP/1.1|" + host + "Transfer-Encoding: xchunked||0||", "400", ""},
		{"a coding in quotes is refused", "POST / HTTP/1.1|" + host + "Transfer-Encoding: \"chunked\"||0||", "400", ""},
		{"chunked in HTTP/1.0 is refused", "POST / HTTP/1.0|" + host + "Transfer-Encoding: chunked||0||", "400", ""},
		{"two different lengths are refused", "POST / HTTP/1.1|" + host + "Content-Length: 3|Content-Length: 4||abcd", "400", ""},
		{"two equal lengths are refused", "POST / HTTP/1.1|" + host + "Content-Length: 3|Content-Length: 3||abc", "400", ""},
		{"a list of lengths is refused", "POST / HTTP/1.1|" + host + "Content-Length: 3, 3||abc", "400", ""},
		{"a signed length is refused", "POST / HTTP/1.1|" + host + "Content-Length: +3||abc", "400", ""},
		{"a negative length is refused", "POST / HTTP/1.1|" + host + "Content-Length: -3||abc", "400", ""},
		{"a hexadecimal length is refused", "POST / HTTP/1.1|" + host + "Content-Length: 0x3||abc", "400", ""},
		{"a length that overflows is refused", "POST / HTTP/1.1|" + host + "Content-Length: 18446744073709551619||abc", "400", ""},
		{"a chunk extension is refused", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked||3;x=y|abc|0||", "400", "POST / allowed.test cut short"},
		{"a chunk size with a prefix is refused", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked||0x3|abc|0||", "400", "POST / allowed.test cut short"},
		{"a chunk with more than it says is refused", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked||3|abcd|0||", "400", "POST / allowed.test abc cut short"},
		{"a chunk size that overflows is refused", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked||10000000000000003|abc|0||", "400", "POST / allowed.test cut short"},
		{"a chunk that ends in a bare line feed is refused", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked||3\nabc\n0\n\n", "400", "POST / allowed.test cut short"},
		{"a body that ends early is cut short", "POST / HTTP/1.1|" + host + "Content-Length: 9||abc", "", "POST / allowed.test abc cut short"},
		{"a chunked body that ends early is cut short", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked||3|abc|", "", "POST / allowed.test abc cut short"},

		// Other ways out of HTTP/1.
		{"CONNECT is refused", "CONNECT allowed.test:443 HTTP/1.1|Host: allowed.test:443||", "403", ""},
		{"CONNECT in the form of GET is refused", "CONNECT / HTTP/1.1|" + host + "|", "400", ""},
		{"h2c is refused", "GET / HTTP/1.1|" + host + "Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABk||", "403", ""},
		{"WebSocket is refused", "GET / HTTP/1.1|" + host + "Connection: Upgrade|Upgrade: websocket||", "403", ""},
		{"an Upgrade that Connection lacks is refused", "GET / HTTP/1.1|" + host + "Upgrade: h2c||", "403", ""},
		{"HTTP/2 with prior knowledge is refused", "PRI * HTTP/2.0||SM||", "403", ""},
		{"TLS is refused at its first byte", "\x16\x03\x01\x02\x00\x01", "400", ""},
		{"a greeting of another protocol is refused", "EHLO allowed.test|", "400", ""},
		{"another expectation is refused", "POST / HTTP/1.1|" + host + "Expect: miracles|Content-Length: 2||hi", "417", ""},
		{"TRACE with a body is refused", "TRACE / HTTP/1.1|" + host + "Content-Length: 2||hi", "400", ""},
	} {
		t.Run(strings.ReplaceAll(row.sentence, " ", "_"), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, "http://allowed.test:80", "http://also.test:80", "http://far.test:80")
			var origin recorder
			h.origins[netip.AddrPortFrom(allowed, 80)] = listen(t, origin.serve)
			addr := h.transparent(t, netip.AddrPortFrom(allowed, 80))
			request := strings.NewReplacer("|", "\r\n", "~", "\x00").Replace(row.request)
			back := say(t, addr, request)
			method, _, _ := strings.Cut(row.request, " ")
			if got := statuses(t, back, method); got != row.told {
				t.Errorf("the client is told %q, want %q\nverdicts %q\n%s", got, row.told, h.verdicts(), back)
			}
			origin.expect(t, row.reaches)
		})
	}
}

// TestReasons says what is logged for a request that is refused; every denial has its own word.
func TestReasons(t *testing.T) {
	const host = "Host: allowed.test|"
	for _, row := range []struct{ sentence, request, reason string }{
		{"a name without a rule", "GET / HTTP/1.1|Host: evil.test||", "name-not-allowed"},
		{"a permitted name at the address of another", "GET / HTTP/1.1|Host: far.test||", "address-not-bound"},
		{"a name that is permitted by HTTPS only", "GET / HTTP/1.1|Host: secure.test||", "port-not-allowed"},
		{"an address for a name", "GET / HTTP/1.1|Host: 20.1.2.3||", "address-as-name"},
		{"no name", "GET / HTTP/1.1||", "no-server-name"},
		{"two hosts", "GET http://evil.test/ HTTP/1.1|" + host + "|", "host-mismatch"},
		{"two framings", "POST / HTTP/1.1|" + host + "Content-Length: 1|Transfer-Encoding: chunked||", "malformed-request"},
		{"a body that cannot be read", "POST / HTTP/1.1|" + host + "Transfer-Encoding: chunked||x|", "malformed-request"},
		{"TLS", "\x16\x03\x01\x00\x05", "not-http"},
		{"a greeting", "SSH-2.0-OpenSSH_9|", "not-http"},
		{"HTTP/2", "PRI * HTTP/2.0||SM||", "upgrade-not-allowed"},
		{"an upgrade", "GET / HTTP/1.1|" + host + "Upgrade: h2c||", "upgrade-not-allowed"},
		{"CONNECT", "CONNECT allowed.test:443 HTTP/1.1|Host: allowed.test||", "method-not-allowed"},
	} {
		t.Run(strings.ReplaceAll(row.sentence, " ", "_"), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, "http://allowed.test:80", "http://far.test:80", "https://secure.test:443")
			var origin recorder
			h.origins[netip.AddrPortFrom(allowed, 80)] = listen(t, origin.serve)
			back := say(t, h.transparent(t, netip.AddrPortFrom(allowed, 80)), strings.ReplaceAll(row.request, "|", "\r\n"))
			if got := h.verdicts(); len(got) == 0 || got[len(got)-1] != "deny "+row.reason {
				t.Errorf("verdicts %q, want deny %s", got, row.reason)
			}
			if !strings.Contains(back, `"reason": "`+row.reason+`"`) {
				t.Errorf("the client is not told the reason: %s", back)
			}
		})
	}
}
