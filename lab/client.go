//go:build linux

package lab

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A tlsClient says how a real TLS client goes about it. Its zero value is what Go does, with a post-quantum key share.
type tlsClient struct {
	alpn    []string
	records int  // split the ClientHello over this many records
	bytes   bool // send it byte by byte
	curves  []tls.CurveID

	maxVersion uint16 // 0 is the newest
}

// handshake connects to to, as name, and shakes hands. What the server must have seen is the very ClientHello.
func (t *Try) handshake(ctx context.Context, to netip.AddrPort, name string, how tlsClient) (*tls.Conn, error) {
	raw, err := t.Dial(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	shaper := &Shaper{Conn: raw, Records: how.records, Bytes: how.bytes}
	conf := &tls.Config{RootCAs: t.Lab.CA.Pool(), ServerName: name, NextProtos: how.alpn, CurvePreferences: how.curves, MaxVersion: how.maxVersion}
	if name == "" {
		conf.ServerName = to.Addr().String() // an address is not sent (RFC 6066 section 3), but checked
	}
	c := tls.Client(shaper, conf)
	err = c.HandshakeContext(ctx)
	t.prove(shaper.Hello)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}

// get fetches url, whose host is at to, as a real HTTP client, and returns the status.
func (t *Try) get(ctx context.Context, url string, to netip.AddrPort, header http.Header) (int, error) {
	tr := &http.Transport{ForceAttemptHTTP2: true}
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return t.Dial(ctx, "tcp", to) }
	tr.DialTLSContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return t.handshake(ctx, to, host, tlsClient{alpn: []string{"h2", "http/1.1"}})
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if req.URL.Scheme == "http" {
		req.Header.Set("X-Lab", t.Token)
		t.prove([]byte(t.Token))
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// reachable are the answers that AKS's own checks count as "reached", for hosts that answer 400 to a bare request too.
func reachable(host string, status int) bool {
	switch {
	case status >= 200 && status < 400:
		return true
	case status == http.StatusBadRequest:
		return host == "packages.aks.azure.com" || host == "acs-mirror.azureedge.net" || strings.Contains(host, ".data.mcr.")
	}
	return false
}

// fetch looks host up and gets path from it; an answer that AKS would call a failure is an error.
func (t *Try) fetch(ctx context.Context, scheme, host string, port uint16, path string, v6 bool, header http.Header) error {
	addr, err := t.resolve(ctx, host, v6)
	if err != nil {
		return err
	}
	url := fmt.Sprintf("%s://%s:%d%s", scheme, host, port, path)
	status, err := t.get(ctx, url, netip.AddrPortFrom(addr, port), header)
	if err == nil && !reachable(host, status) {
		err = fmt.Errorf("answered %d", status)
	}
	return err
}

// tunnel shakes hands with an API server's own ALPN and checks that bytes go both ways.
func (t *Try) tunnel(ctx context.Context, to netip.AddrPort, name, alpn string) error {
	c, err := t.handshake(ctx, to, name, tlsClient{alpn: []string{alpn}})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if got := c.ConnectionState().NegotiatedProtocol; got != alpn {
		return fmt.Errorf("ALPN %q became %q", alpn, got)
	}
	if alpn == "h2" || alpn == "http/1.1" {
		return nil
	}
	for range 3 {
		if err := pingPong(c, t.Token); err != nil {
			return err
		}
	}
	return nil
}

// pingPong sends word and waits until it comes back.
func pingPong(c net.Conn, word string) error {
	_ = c.SetDeadline(time.Now().Add(tryTimeout))
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != word {
		return fmt.Errorf("%q came back as %q", word, got)
	}
	return nil
}

// errRefused is an answer from something on the way instead of the server.
var errRefused = errors.New("refused on the way")

// say sends text as it is to a web server and reads as many answers as there are requests. The proof is the token.
func (t *Try) say(ctx context.Context, to netip.AddrPort, text string, answers int) error {
	c, err := t.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	t.prove([]byte(t.Token))
	_ = c.SetDeadline(time.Now().Add(tryTimeout))
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	for range answers {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode == http.StatusForbidden {
			return errRefused
		}
	}
	return nil
}

// sendHello sends the bytes of a ClientHello and reads the first answer. The proof is those bytes.
func (t *Try) sendHello(ctx context.Context, to netip.AddrPort, b []byte) error {
	t.prove(b)
	answer, err := t.Exchange(ctx, "tcp", to, b)
	if err != nil {
		return err
	}
	if len(answer) == 0 || !slices.Contains([]byte{recordHandshake, 0x15}, answer[0]) {
		return fmt.Errorf("answered % x, which is not TLS", answer[:min(len(answer), 8)])
	}
	return nil
}
