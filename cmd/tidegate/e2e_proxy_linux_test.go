package main

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
	"net/url"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

const proxyPort = 3128

// proxying is the lab's file with an explicit proxy.
var proxying = lab.GatewayConfig("lab", fmt.Sprintf("proxy: {listen: \"[::]:%d\"}\n", proxyPort)+everyKind)

// TestExplicitProxy: clients that are configured for it get what the rules permit, by CONNECT and by absolute target,
// and nothing else.
func TestExplicitProxy(t *testing.T) {
	bothGSO(t, func(t *testing.T, noGSO bool) {
		s := startSite(t, setting{file: proxying, noGSO: noGSO})
		for _, v6 := range families {
			s.proxiesPermitted(t, v6)
			s.proxiesNothingElse(t, v6)
			s.proxyReadsHello(t, v6)
			s.proxyIsForClients(t, v6)
		}
	})
}

// proxyAt is where the clients of a family find the proxy.
func proxyAt(v6 bool) netip.AddrPort {
	return netip.AddrPortFrom(lab.GatewayInside[map[bool]int{false: 0, true: 1}[v6]], proxyPort)
}

// proxiesPermitted uses the proxy as a real HTTP client does.
func (s *site) proxiesPermitted(t *testing.T, v6 bool) {
	t.Helper()
	tr := &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "http", Host: proxyAt(v6).String()}),
		TLSClientConfig:   &tls.Config{RootCAs: s.CA.Pool()},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			to, err := netip.ParseAddrPort(addr)
			if err != nil {
				return nil, err
			}
			return s.Node(1).Dial(ctx, "tcp", to)
		},
	}
	defer tr.CloseIdleConnections()
	for _, u := range []string{
		"https://mcr.microsoft.com/v2/", "https://shop.example.org/", "https://a.data.mcr.microsoft.com/healthz", "http://security.ubuntu.com/ubuntu/",
	} {
		req, err := http.NewRequestWithContext(within(t, 10*time.Second), http.MethodGet, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Errorf("%s by a proxy over %s: %v", u, familyName(v6), err)
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s by a proxy over %s: %s, %v", u, familyName(v6), resp.Status, err)
		}
	}
}

// askProxy sends one request to the proxy and returns its answer, and the connection with whatever came behind.
func (s *site) askProxy(v6 bool, request string) (*http.Response, net.Conn, error) {
	c, err := s.Node(1).Dial(within(s.t, 10*time.Second), "tcp", proxyAt(v6))
	if err != nil {
		return nil, nil, err
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return nil, c, err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
	return resp, c, err
}

func (s *site) proxiesNothingElse(t *testing.T, v6 bool) {
	t.Helper()
	address := s.where("mcr.microsoft.com", v6)
	for _, c := range []struct{ what, request string }{
		{"an unlisted name", "CONNECT unlisted.example.net:443 HTTP/1.1\r\nHost: unlisted.example.net:443\r\n\r\n"},
		{"another port", "CONNECT mcr.microsoft.com:8443 HTTP/1.1\r\nHost: mcr.microsoft.com:8443\r\n\r\n"},
		{"port 22", "CONNECT mcr.microsoft.com:22 HTTP/1.1\r\nHost: mcr.microsoft.com:22\r\n\r\n"},
		{"another host field", "CONNECT mcr.microsoft.com:443 HTTP/1.1\r\nHost: unlisted.example.net:443\r\n\r\n"},
		{"an address", fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", netip.AddrPortFrom(address, 22))},
		{"the gateway itself", "CONNECT 127.0.0.1:9253 HTTP/1.1\r\nHost: 127.0.0.1:9253\r\n\r\n"},
		{"the metadata service", "GET http://169.254.169.254/metadata HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"},
		{"a page of an unlisted host", "GET http://unlisted.example.net/ HTTP/1.1\r\nHost: unlisted.example.net\r\n\r\n"},
		{"a page over the port of HTTPS", "GET http://mcr.microsoft.com/ HTTP/1.1\r\nHost: mcr.microsoft.com\r\n\r\n"},
	} {
		resp, conn, err := s.askProxy(v6, c.request)
		if conn != nil {
			conn.Close()
		}
		switch {
		case err != nil:
			t.Errorf("%s by a proxy over %s: %v", c.what, familyName(v6), err)
		case resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusBadRequest:
			t.Errorf("%s by a proxy over %s: %s", c.what, familyName(v6), resp.Status)
		}
	}
}

// proxyReadsHello: what the tunnel's client shows has to be what it asked for.
func (s *site) proxyReadsHello(t *testing.T, v6 bool) {
	t.Helper()
	for _, c := range []struct {
		what, shown string
		good        bool
	}{
		{"the same name", "mcr.microsoft.com", true},
		{"an unlisted name", "unlisted.example.net", false},
		{"another permitted name", "shop.example.org", false},
	} {
		began := time.Now()
		resp, conn, err := s.askProxy(v6, "CONNECT mcr.microsoft.com:443 HTTP/1.1\r\nHost: mcr.microsoft.com:443\r\n\r\n")
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		if err != nil {
			t.Errorf("CONNECT over %s: %v", familyName(v6), err)
			continue
		}
		err = tls.Client(conn, &tls.Config{RootCAs: s.CA.Pool(), ServerName: c.shown}).HandshakeContext(within(t, 10*time.Second))
		conn.Close()
		if (err == nil) != c.good {
			t.Errorf("%s in a tunnel over %s: %v", c.what, familyName(v6), err)
		}
		if c.good {
			continue
		}
		f, ok := s.denied(func(f *egress.Flow) bool { return f.Conn.Name.String() == "mcr.microsoft.com" && f.Time.After(began) })
		if !ok || f.Verdict.Reason != egress.HostMismatch {
			t.Errorf("%s in a tunnel over %s: the log says %v: %v", c.what, familyName(v6), ok, f.Verdict)
		}
		at := s.where("mcr.microsoft.com", v6)
		if got := s.Record.Find(func(seen *lab.Seen) bool { return seen.Name == c.shown && seen.Local.Addr() == at }); len(got) > 0 {
			t.Errorf("%s in a tunnel over %s: a server has seen it", c.what, familyName(v6))
		}
	}
	resp, conn, err := s.askProxy(v6, "CONNECT mcr.microsoft.com:443 HTTP/1.1\r\nHost: mcr.microsoft.com:443\r\n\r\n")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("CONNECT over %s: %v", familyName(v6), err)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "SSH-2.0-OpenSSH_9.2 through the proxy\r\n"); err == nil {
		_, _ = conn.Read(make([]byte, 1))
	}
	if got := s.Record.Find(lab.Got([]byte("through the proxy"))); len(got) > 0 {
		t.Errorf("what is not TLS passes a tunnel over %s", familyName(v6))
	}
}

// proxyIsForClients: the world gets no proxy, and clients no management.
func (s *site) proxyIsForClients(t *testing.T, v6 bool) {
	t.Helper()
	outside := lab.GatewayOutside[map[bool]int{false: 0, true: 1}[v6]]
	err := s.DoInternet(func() error {
		d := net.Dialer{Timeout: time.Second}
		c, err := d.DialContext(t.Context(), "tcp", netip.AddrPortFrom(outside, proxyPort).String())
		if err == nil {
			c.Close()
		}
		return err
	})
	if err == nil {
		t.Errorf("the internet reaches the proxy over %s", familyName(v6))
	}
	if c, err := s.Node(1).Dial(within(t, time.Second), "tcp", netip.AddrPortFrom(proxyAt(v6).Addr(), 9253)); err == nil {
		c.Close()
		t.Errorf("a client reaches the management address over %s", familyName(v6))
	}
}
