//go:build linux

package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// firstByteTimeout is how long a server waits for a client to begin; held hellos arrive in pieces, seconds apart.
const firstByteTimeout = 30 * time.Second

// recordHandshake is the first byte of every TLS connection (RFC 8446 section 5.1).
const recordHandshake = 0x16

// tcpPorts are the ports that answer on every address: the rules' own, and those that someone on the way out would try.
var tcpPorts = []uint16{22, 25, 80, 123, 443, 444, 993, 1080, 1194, 3128, 5671, 6443, 8080, 8084, 8443, 9000, 9001, 10250, 51820}

// A server speaks TLS, HTTP or nothing in particular on every port, whatever the client begins with. So "TLS on port
// 80" and "HTTP on 443" reach a server that understands them, and only a gateway can be the reason when they do not.
type server struct {
	zone   *Zone
	ca     *CA
	rec    *Record
	isAPI  func(netip.Addr) bool // the addresses of the API server, imitated unless there is api
	api    func(net.Conn)        // may be nil, see Config.APIServer
	also   func(http.ResponseWriter, *http.Request) bool
	ownDNS atomic.Bool                    // the cluster's DNS asks nobody
	relay  func(t *tap, kind string) bool // to another server, if there is one at the address; it returns when that is over
	tamper atomic.Pointer[Tamperer]
	http   *http.Server
	queue  connQueue
	mu     sync.Mutex
	open   map[io.Closer]struct{}
	closed bool
	wg     sync.WaitGroup
}

func newServer(zone *Zone, ca *CA, rec *Record, isAPI func(netip.Addr) bool, relay func(*tap, string) bool) *server {
	s := &server{zone: zone, ca: ca, rec: rec, isAPI: isAPI, relay: relay, open: map[io.Closer]struct{}{}}
	s.queue = connQueue{conns: make(chan net.Conn), done: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: firstByteTimeout,
		Protocols:         protocols,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	s.wg.Go(func() { _ = s.http.Serve(&s.queue) })
	return s
}

// track makes Close close c. It reports false, and closes c, when the server is closed already.
func (s *server) track(c io.Closer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *server) untrack(c io.Closer) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
	_ = c.Close()
}

// connections counts the servers' open connections to address to.
func (s *server) connections(to netip.AddrPort) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for c := range s.open {
		if c, ok := c.(net.Conn); ok && addrPort(c.LocalAddr()) == to {
			n++
		}
	}
	return n
}

// Close ends every listener and connection and waits for them.
func (s *server) Close() {
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	_ = s.http.Close()
	s.wg.Wait()
}

// serveListener takes connections until ln is closed. The server closes ln.
func (s *server) serveListener(ln net.Listener) {
	if !s.track(ln) {
		return
	}
	s.wg.Go(func() {
		defer s.untrack(ln)
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil { // out of descriptors, or reset before it was accepted
				time.Sleep(time.Millisecond)
				continue
			}
			if s.track(c) {
				s.wg.Go(func() { s.serveConn(c) })
			}
		}
	})
}

// serveConn looks at the first bytes and hands the connection to who speaks that.
func (s *server) serveConn(c net.Conn) {
	t := &tap{Conn: c, s: s}
	keep := false
	defer func() {
		if !keep {
			_ = t.Close()
		}
	}()
	_ = c.SetReadDeadline(time.Now().Add(firstByteTimeout))
	var head []byte
	kind := ""
	for buf := make([]byte, 4096); kind == "" || kind == "tls" && !wholeHello(head) && len(head) < maxSeenData; {
		n, err := t.Read(buf)
		if err != nil {
			return
		}
		head = append(head, buf[:n]...)
		kind = speaks(head)
	}
	_ = c.SetReadDeadline(time.Time{})
	t.ahead = head
	switch kind {
	case "tls":
		s.rec.extend(t.seen, func(s *Seen) { s.Whole = true })
		if s.api != nil && s.isAPI(addrPort(c.LocalAddr()).Addr()) {
			t.quiet.Store(true)
			s.api(t)
			return
		}
		if s.relay(t, kind) {
			return
		}
		if wantsRetry(head) {
			s.serveRetry(t)
			return
		}
		keep = s.serveTLS(t)
	case "http":
		if s.relay(t, kind) {
			return
		}
		s.rec.extend(t.seen, func(s *Seen) { s.Proto = "http" })
		keep = s.queue.put(t)
	default:
		echo(t)
	}
}

// speaks says what a client that began with head speaks: "tls", "http", "tcp" or, too early to tell, "".
func speaks(head []byte) string {
	if len(head) == 0 {
		return ""
	}
	if head[0] == recordHandshake {
		return "tls"
	}
	line := strings.TrimLeft(string(head), "\r\n")
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE", "PRI"} {
		if strings.HasPrefix(line, m+" ") {
			return "http"
		}
		if strings.HasPrefix(m+" ", line) {
			return ""
		}
	}
	return "tcp"
}

// serveTLS notes what the ClientHello says, shakes hands and serves what ALPN says. It reports whether it gave the connection on.
func (s *server) serveTLS(t *tap) bool {
	local := addrPort(t.LocalAddr()).Addr()
	t.quiet.Store(true) // the record keeps the ClientHello, to the byte
	conf := &tls.Config{
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			s.rec.extend(t.seen, func(s *Seen) { s.Name, s.ALPN = h.ServerName, slices.Clone(h.SupportedProtos) })
			if slices.Contains(h.SupportedProtos, retryALPN) { // it has sent no key for this curve: it is asked for one
				return &tls.Config{Certificates: certificate(s.ca.Leaf(h.ServerName, local)), CurvePreferences: []tls.CurveID{tls.CurveP384}, NextProtos: []string{"http/1.1"}}, nil
			}
			return nil, nil
		},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return s.ca.Leaf(h.ServerName, local) },
		NextProtos:     []string{"h2", "http/1.1"},
	}
	if s.isAPI(local) {
		conf.NextProtos = apiALPN
		conf.ClientAuth = tls.RequestClientCert
	}
	c := tls.Server(t, conf)
	ctx, cancel := context.WithTimeout(context.Background(), firstByteTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return false
	}
	if p := c.ConnectionState().NegotiatedProtocol; p != "" && p != "h2" && p != "http/1.1" {
		echo(c) // a tunnel: held open, every byte comes back
		return false
	}
	return s.queue.put(c)
}

// retryALPN, offered by a client, makes a server answer with a HelloRetryRequest, as RFC 8446 section 4.1.4 has it.
const retryALPN = "lab-retry"

// certificate is what a server shows; none if there was an error, and then the handshake fails.
func certificate(c *tls.Certificate, err error) []tls.Certificate {
	if err != nil {
		return nil
	}
	return []tls.Certificate{*c}
}

// echo sends everything back until the client is done.
func echo(c net.Conn) { _, _ = io.Copy(c, struct{ io.Reader }{c}) }

// A tap is a connection whose client's bytes go into the record.
type tap struct {
	net.Conn
	s     *server
	seen  *Seen  // nil until the first byte
	ahead []byte // read already, to be read again
	quiet atomic.Bool
}

func (t *tap) Read(b []byte) (int, error) {
	if len(t.ahead) > 0 {
		n := copy(b, t.ahead)
		t.ahead = t.ahead[n:]
		return n, nil
	}
	n, err := t.Conn.Read(b)
	switch {
	case n == 0 || t.quiet.Load():
	case t.seen == nil:
		first := Seen{Proto: "tcp", Whole: true, Local: addrPort(t.LocalAddr()), Remote: addrPort(t.RemoteAddr()), Data: bytes.Clone(b[:n])}
		if b[0] == recordHandshake {
			first.Proto, first.Whole = "tls", false
		}
		t.seen = t.s.rec.add(first)
	default:
		t.s.rec.append(t.seen, b[:n])
	}
	return n, err
}

// wholeHello reports whether b, which begins with a handshake record, holds a complete first handshake message. It does
// not care whether a TLS server would like what is in it: to reach the server is what a gateway has to prevent.
func wholeHello(b []byte) bool {
	const recordHeader, messageHeader = 5, 4
	var have int
	var head []byte
	for len(b) >= recordHeader && b[0] == recordHandshake {
		body := b[recordHeader:]
		body = body[:min(len(body), int(b[3])<<8|int(b[4]))]
		have += len(body)
		head = append(head, body[:min(len(body), messageHeader)]...)
		b = b[recordHeader+len(body):]
	}
	return len(head) >= messageHeader && have >= messageHeader+(int(head[1])<<16|int(head[2])<<8|int(head[3]))
}

// Close is what the HTTP server calls when it is done with the connection.
func (t *tap) Close() error { t.s.untrack(t.Conn); return nil }

// A connQueue is the listener through which connections reach the HTTP server after their first bytes were read.
type connQueue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// put gives c to the HTTP server, which closes it. It reports false when the server is closed.
func (q *connQueue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.done:
		return false
	}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error   { q.once.Do(func() { close(q.done) }); return nil }
func (q *connQueue) Addr() net.Addr { return &net.TCPAddr{} }

func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
