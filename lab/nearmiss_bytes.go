//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"tidegate.io/tidegate/egress"
)

// serverNames: the address is a permitted one, and what stands in the place of the name is not a name that is.
func (m *misses) serverNames() {
	base := m.base()[0]
	malformed := []egress.Reason{egress.MalformedHello}
	address := []egress.Reason{egress.AddressAsName, egress.MalformedHello}
	for i, c := range []struct {
		what string
		h    hello
		why  []egress.Reason
	}{
		{"no server name", hello{}, []egress.Reason{egress.NoServerName}},
		{"an empty server name", sni(""), malformed},
		{"an empty list of names", hello{names: [][]byte{}}, malformed},
		{"an IPv4 address as name", sni("20.1.2.3"), address},
		{"an IPv6 address as name", sni("2603:1000::1"), address},
		{"an IPv6 address in brackets", sni("[2603:1000::1]"), address},
		{"an address as one number", sni("335675907"), address},
		{"an address in octal", sni("024.1.2.3"), address},
		{"an address in hex", sni("0x14.1.2.3"), address},
		{"a permitted name, NUL, and an evil one", sni(base + "\x00.evil.example"), malformed},
		{"a permitted name and a space", sni(base + " "), malformed},
		{"a permitted name and a slash", sni(base + "/"), malformed},
		{"a permitted name before an @", sni(base + "@evil.example"), malformed},
		{"a permitted name after an @", sni("evil.example@" + base), malformed},
		{"a permitted name with a port", sni(base + ":443"), malformed},
		{"a permitted name with a newline", sni(base + "\n"), malformed},
		{"a permitted name and two dots", sni(base + ".."), malformed},
		{"a permitted name after a dot", sni("." + base), malformed},
		{"a permitted name with an empty label", sni(strings.Replace(base, ".", "..", 1)), malformed},
		{"a permitted name in percent encoding", sni(strings.Replace(base, ".", "%2e", 1)), malformed},
		{"a permitted name with fullwidth dots", sni(strings.ReplaceAll(base, ".", "。")), malformed},
		{"a permitted name with a KELVIN SIGN", sni(base + ".\u212a"), malformed},
		{"a permitted name with a long s", sni(strings.Replace(base, "s", "\u017f", 1) + "\u017f"), malformed},
		{"a name of 300 bytes", sni(strings.Repeat("abcdefghi.", 29) + "microsoft.com"), malformed},
		{"a label of 64 bytes", sni(strings.Repeat("a", 64) + ".microsoft.com"), malformed},
		{"a star", sni("*"), malformed},
		{"two names, the permitted one first", hello{names: [][]byte{[]byte(base), []byte("vm.evil.example")}}, malformed},
		{"two names, the permitted one last", hello{names: [][]byte{[]byte("vm.evil.example"), []byte(base)}}, malformed},
		{"two name extensions", hello{names: [][]byte{[]byte(base)}, more: [][]byte{[]byte("vm.evil.example")}}, malformed},
		{"a name of another type", hello{names: [][]byte{[]byte(base)}, nameType: 1}, append(malformed, egress.NoServerName)},
		{"an extension twice", hello{names: [][]byte{[]byte(base)}, extensions: []uint16{23, 23}}, malformed},
		{"an evil name behind 12 KB of padding", hello{names: [][]byte{[]byte("vm.evil.example")}, padding: 12 << 10}, wrongName},
		{"an evil name behind 40 KB of padding", hello{names: [][]byte{[]byte("vm.evil.example")}, padding: 40 << 10}, wrongName},
	} {
		v6 := i%2 == 1
		m.denyTCP(443, "server names", fmt.Sprintf("shows %s to %s over %s", c.what, base, family(v6)), c.why, func(ctx context.Context, t *Try) error {
			return t.sendHello(ctx, t.target(ctx, base, v6, 443), c.h.record())
		})
	}
}

// hellos: the name is permitted; the bytes around it are such that two readers could read two things.
func (m *misses) hellos() {
	base := m.base()[0]
	malformed := []egress.Reason{egress.MalformedHello, egress.NotTLS}
	message := func() []byte { return sni(base).message() }
	for i, c := range []struct {
		what  string
		bytes func() []byte
		why   []egress.Reason
	}{
		{"a hello of 70 KB", func() []byte { return longHello(base, 70<<10) }, []egress.Reason{egress.HelloTooLarge, egress.MalformedHello}},
		{"a hello over 40 records", func() []byte { m := message(); return records(m, len(m)/40) }, []egress.Reason{egress.HelloTooLarge, egress.MalformedHello}},
		{"a change of cipher before the hello", func() []byte { return append([]byte{0x14, 3, 1, 0, 1, 1}, records(message(), maxRecordPayload)...) }, malformed},
		{"an empty record before the hello", func() []byte {
			return append([]byte{recordHandshake, 3, 1, 0, 0}, records(message(), maxRecordPayload)...)
		}, malformed},
		{"an SSL 2 hello", func() []byte {
			return append([]byte{0x80, 0x2e, 1, 3, 1, 0, 3, 0, 0, 0, 0x10, 1, 0, 0x80}, newToken()+newToken()...)
		}, malformed},
		{"application data first", func() []byte { return append([]byte{0x17, 3, 3, 0, 15}, newToken()...) }, malformed},
		{"a ServerHello", func() []byte { m := message(); m[0] = 2; return records(m, maxRecordPayload) }, malformed},
		{"two hellos in one record", func() []byte {
			return records(append(message(), sni("vm.evil.example").message()...), maxRecordPayload)
		}, append(malformed, egress.UnconfirmedData, egress.ConflictingData)},
		{"a name extension whose length lies", func() []byte { return lieAboutName(message(), base) }, malformed},
	} {
		v6 := i%2 == 1
		m.denyTCP(443, "malformed hellos", fmt.Sprintf("sends %s to %s over %s", c.what, base, family(v6)), c.why, func(ctx context.Context, t *Try) error {
			b := c.bytes()
			t.prove(b[:min(len(b), maxSeenData)])
			_, err := t.Exchange(ctx, "tcp", t.target(ctx, base, v6, 443), b)
			return err
		})
	}
	m.denyTCP(443, "malformed hellos", "begins a hello and does not end it in 8 s", []egress.Reason{egress.HelloTimeout}, func(ctx context.Context, t *Try) error {
		b := sni(base).record()
		return t.sendLate(ctx, t.target(ctx, base, false, 443), b, 8*time.Second)
	})
}

func longHello(name string, padding int) []byte {
	h := sni(name).message()
	// The padding extension cannot hold more than 64 KB, and a hello's extensions neither: what is longer is a message
	// whose length says so.
	size := len(h) - 4 + padding
	h = append(h, make([]byte, padding)...)
	h[1], h[2], h[3] = byte(size>>16), byte(size>>8), byte(size)
	return records(h, maxRecordPayload)
}

// lieAboutName makes the name one byte longer than the list that it is in.
func lieAboutName(message []byte, name string) []byte {
	at := bytes.Index(message, []byte(name))
	message[at-1]++
	return records(message, maxRecordPayload)
}

// sendLate sends all but the last byte, and that one later.
func (t *Try) sendLate(ctx context.Context, to netip.AddrPort, b []byte, late time.Duration) error {
	c, err := t.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	t.prove(b)
	if _, err := c.Write(b[:len(b)-1]); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(late))
	if _, err := c.Read(make([]byte, 1)); err != nil && !isTimeout(err) {
		return err // reset
	}
	if _, err := c.Write(b[len(b)-1:]); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(silence))
	_, err = c.Read(make([]byte, 1))
	return err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// otherProtocols: address and port are right, but what is spoken shows no name, or shows it elsewhere.
func (m *misses) otherProtocols() {
	group := "other protocols"
	base := m.base()[0]
	for i, c := range []struct{ what, text string }{
		{"HTTP", "GET / HTTP/1.1\r\nHost: " + base + "\r\nX-Lab: TOKEN\r\n\r\n"},
		{"a CONNECT", "CONNECT " + base + ":443 HTTP/1.1\r\nHost: " + base + ":443\r\nX-Lab: TOKEN\r\n\r\n"},
		{"SSH", "SSH-2.0-OpenSSH_9.2 TOKEN\r\n"},
		{"OpenVPN", "\x00\x20\x38TOKEN" + strings.Repeat("\x00", 16)},
		{"SMTP", "EHLO TOKEN\r\n"},
		{"SOCKS 5", "\x05\x01\x00TOKEN"},
		{"PostgreSQL", "\x00\x00\x00\x17\x00\x03\x00\x00TOKEN"},
		{"a WireGuard-like datagram", "\x01\x00\x00\x00TOKEN"},
		{"nothing it knows", "TOKEN"},
	} {
		v6 := i%2 == 1
		m.denyTCP(443, group, fmt.Sprintf("speaks %s on port 443 over %s", c.what, family(v6)), []egress.Reason{egress.NotTLS}, func(ctx context.Context, t *Try) error {
			return t.speak(ctx, t.target(ctx, base, v6, 443), c.text)
		})
	}
	host := "azure.archive.ubuntu.com"
	if len(m.http) > 0 {
		host = m.http[0]
	}
	onHTTP := []egress.Reason{egress.NotHTTP, egress.MalformedRequest}
	for i, c := range []struct{ what, text string }{
		{"SSH", "SSH-2.0-OpenSSH_9.2 TOKEN\r\n\r\n"}, {"nothing it knows", "\x00\x01\x02TOKEN\r\n\r\n"}, {"SMTP", "EHLO TOKEN\r\n\r\n"},
	} {
		v6 := i%2 == 1
		m.denyTCP(80, group, fmt.Sprintf("speaks %s on port 80 over %s", c.what, family(v6)), onHTTP, func(ctx context.Context, t *Try) error {
			return t.speak(ctx, t.target(ctx, host, v6, 80), c.text)
		})
	}
	m.denyTCP(80, group, "speaks TLS on port 80", onHTTP, func(ctx context.Context, t *Try) error {
		return t.sendHello(ctx, t.target(ctx, host, false, 80), sni(host).record())
	})
	m.denyTCP(443, group, "speaks TLS to "+host+", which is for port 80", wrongPort, func(ctx context.Context, t *Try) error {
		return t.sendHello(ctx, t.target(ctx, host, false, 443), sni(host).record())
	})
	m.denyTCP(80, group, "speaks HTTP to "+base+", which is for port 443", append(wrongPort, egress.HostMismatch), func(ctx context.Context, t *Try) error {
		return t.say(ctx, t.target(ctx, base, false, 80), "GET / HTTP/1.1\r\nHost: "+base+"\r\nX-Lab: "+t.Token+"\r\n\r\n", 1)
	})
}

// speak sends text, with the token in its place, and wants any answer that is not a refusal.
func (t *Try) speak(ctx context.Context, to netip.AddrPort, text string) error {
	t.prove([]byte(t.Token))
	answer, err := t.Exchange(ctx, "tcp", to, []byte(strings.ReplaceAll(text, "TOKEN", t.Token)))
	if err == nil && bytes.HasPrefix(answer, []byte("HTTP/1.1 403")) {
		err = errRefused
	}
	return err
}

// requests: the connection is to a permitted HTTP server; a request in it is not.
func (m *misses) requests() {
	host := "azure.archive.ubuntu.com"
	if len(m.http) > 0 {
		host = m.http[0]
	}
	for i, c := range badRequests(host, "vm."+evilSuffix) {
		v6 := i%2 == 1
		m.denyTCP(80, "HTTP requests", fmt.Sprintf("sends %s %s over %s", host, c.what, family(v6)), c.why, func(ctx context.Context, t *Try) error {
			return t.converse(ctx, t.target(ctx, host, v6, 80), strings.ReplaceAll(c.text, "TOKEN", t.Token))
		})
	}
}

// A badRequest is something that is sent to a permitted web server, and must not get there. TOKEN stands for a word.
type badRequest struct {
	what, text string
	why        []egress.Reason
}

// badRequests are requests to evil on a connection to host, or such that two readers could read two hosts.
func badRequests(host, evil string) []badRequest {
	refused := []egress.Reason{egress.NameNotAllowed, egress.PortNotAllowed}
	malformed := []egress.Reason{egress.MalformedRequest}
	first := "GET /first HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	end := "X-Lab: TOKEN\r\n\r\n"
	return []badRequest{
		{"another host", "GET / HTTP/1.1\r\nHost: " + evil + "\r\n" + end, refused},
		{"a second host on the same connection", first + "GET / HTTP/1.1\r\nHost: " + evil + "\r\n" + end, refused},
		{"a host that looks like it", "GET / HTTP/1.1\r\nHost: " + host + "." + evilSuffix + "\r\n" + end, refused},
		{"another host in an absolute target", "GET http://" + evil + "/ HTTP/1.1\r\nHost: " + host + "\r\n" + end, append(malformed, egress.HostMismatch)},
		{"another host in the Host of an absolute target", "GET http://" + host + "/ HTTP/1.1\r\nHost: " + evil + "\r\n" + end, append(malformed, egress.HostMismatch)},
		{"no host", "GET / HTTP/1.1\r\n" + end, append(malformed, egress.NoServerName)},
		{"no host, in HTTP/1.0", "GET / HTTP/1.0\r\n" + end, append(malformed, egress.NoServerName)},
		{"no version", "GET /TOKEN\r\n\r\n", append(malformed, egress.NotHTTP)},
		{"two hosts", "GET / HTTP/1.1\r\nHost: " + host + "\r\nHost: " + evil + "\r\n" + end, malformed},
		{"a space before the colon of Host", "GET / HTTP/1.1\r\nHost: " + host + "\r\nHost : " + evil + "\r\n" + end, malformed},
		{"a folded line", "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-A: b\r\n " + evil + "\r\n" + end, malformed},
		{"bare line feeds", "GET / HTTP/1.1\nHost: " + host + "\nX-Lab: TOKEN\n\n", malformed},
		{"a NUL in a header", "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-A: b\x00c\r\n" + end, malformed},
		{"a bare carriage return in a header", "GET / HTTP/1.1\r\nHost: " + host + "\r\nX-A: b\rHost: " + evil + "\r\n" + end, malformed},
		{"two lengths", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 0\r\nContent-Length: 5\r\n" + end, malformed},
		{"a length and a transfer coding", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n" + end + "0\r\n\r\n", malformed},
		{"an unknown transfer coding", "POST / HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: xchunked\r\n" + end, malformed},
		{"a signed length", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: +5\r\n" + end + "12345", malformed},
		{"a user in the host", "GET / HTTP/1.1\r\nHost: " + host + "@" + evil + "\r\n" + end, malformed},
		{"an address as host", "GET / HTTP/1.1\r\nHost: 20.1.2.3\r\n" + end, []egress.Reason{egress.AddressAsName}},
		{"an IPv6 address as host", "GET / HTTP/1.1\r\nHost: [2603:1000::1]\r\n" + end, []egress.Reason{egress.AddressAsName}},
		{"a host with a NUL", "GET / HTTP/1.1\r\nHost: " + host + "\x00\r\n" + end, malformed},
		{"a host with two dots at its end", "GET / HTTP/1.1\r\nHost: " + host + "..\r\n" + end, malformed},
		{"a CONNECT to another host", "CONNECT " + evil + ":443 HTTP/1.1\r\nHost: " + evil + ":443\r\n" + end, []egress.Reason{egress.MethodNotAllowed}},
		{"a CONNECT to itself", "CONNECT " + host + ":80 HTTP/1.1\r\nHost: " + host + ":80\r\n" + end, []egress.Reason{egress.MethodNotAllowed}},
		{"a CONNECT as second request", first + "CONNECT " + evil + ":443 HTTP/1.1\r\nHost: " + host + "\r\n" + end, []egress.Reason{egress.MethodNotAllowed, egress.HostMismatch, egress.MalformedRequest}},
		{"an upgrade to h2c", "GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + end, []egress.Reason{egress.UpgradeNotAllowed}},
		{"an upgrade to a web socket", "GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + end, []egress.Reason{egress.UpgradeNotAllowed}},
		{"HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00TOKEN", []egress.Reason{egress.UpgradeNotAllowed, egress.NotHTTP, egress.MalformedRequest}},
		{"the text of a second request as a body", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: " + evil + "\r\n" + end, refused},
	}
}

// converse sends text at once and reads until the server is silent, closes or resets.
func (t *Try) converse(ctx context.Context, to netip.AddrPort, text string) error {
	c, err := t.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	t.prove([]byte(t.Token))
	if _, err := c.Write([]byte(text)); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(silence / 3))
	for buf := make([]byte, 4096); ; {
		if _, err := c.Read(buf); err != nil {
			return err
		}
	}
}
