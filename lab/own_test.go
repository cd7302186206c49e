//go:build linux

package lab_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// TestCallersServers: who builds a lab may put an API server and web servers of its own into it, move a name, and have a
// box that nobody else reaches.
func TestCallersServers(t *testing.T) {
	netnstest.Need(t)
	const api = "own-12345678.hcp.eastus2.azmk8s.io"
	var l *lab.Lab
	l, err := lab.Start(t.Context(), lab.Config{
		Dir:      t.TempDir(),
		Clusters: []egress.Cluster{{Name: "own", APIServer: egress.MustParseName(api)}},
		HTTP: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Host != "mcr.microsoft.com" {
				return false
			}
			_, _ = io.WriteString(w, "mine")
			return true
		},
		APIServer: func(c net.Conn) {
			defer c.Close()
			leaf, err := l.CA.Sign("", l.Zone.Addrs(api)...)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*leaf}}), "hello")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	for host, want := range map[string]string{"mcr.microsoft.com": "mine", "go.microsoft.com": `"server":"tidegate-lab"`} {
		if got := get(t, l, host); !strings.Contains(got, want) {
			t.Errorf("%s answers %q, want %q", host, got, want)
		}
	}
	moved := netip.MustParseAddr("20.5.5.5")
	for _, addr := range []netip.Addr{l.Zone.Addrs(api)[0], moved} {
		l.Zone.Move(api, addr)
		got, err := l.Node(1).Lookup(t.Context(), api, false)
		if err != nil || len(got) != 1 || got[0] != addr {
			t.Errorf("%s leads to %v, %v; want %s", api, got, err, addr)
		}
		if got := greeting(t, l, netip.AddrPortFrom(addr, 443)); got != "hello" {
			t.Errorf("the API server at %s says %q", addr, got)
		}
	}
	apart(t, l)
	for _, own := range []bool{true, false} {
		l.DNSElsewhere(own)
		asked := func(s *lab.Seen) bool {
			return s.Proto == "dns" && s.Name == "dns.example" && s.Remote.Addr() == lab.GatewayOutside[0]
		}
		before := len(l.Record.Find(asked))
		if _, err := l.Node(1).Lookup(t.Context(), "dns.example", false); err != nil {
			t.Errorf("DNS elsewhere %t: %v", own, err)
		}
		if passed := len(l.Record.Find(asked)) > before; passed == own {
			t.Errorf("DNS elsewhere %t: a question passes the gateway: %t", own, passed)
		}
	}
}

func get(t *testing.T, l *lab.Lab, host string) string {
	t.Helper()
	raw, err := l.Node(1).Dial(t.Context(), "tcp", netip.AddrPortFrom(l.Zone.Addrs(host)[0], 443))
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{RootCAs: l.CA.Pool(), ServerName: host})
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	text, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// greeting is what the server at an address, which is in its certificate, says first.
func greeting(t *testing.T, l *lab.Lab, at netip.AddrPort) string {
	t.Helper()
	raw, err := l.Node(1).Dial(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{RootCAs: l.CA.Pool(), ServerName: at.Addr().String()})
	defer c.Close()
	text := make([]byte, 5)
	if _, err := io.ReadFull(c, text); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// apart opens a server in a box of its own, and finds that a node does not see it.
func apart(t *testing.T, l *lab.Lab) {
	t.Helper()
	box, err := l.Apart("own")
	if err != nil {
		t.Fatal(err)
	}
	var ln net.Listener
	err = box.Do(func() (err error) { ln, err = net.Listen("tcp", "127.0.0.1:7777"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := netip.MustParseAddrPort("127.0.0.1:7777")
	c, err := box.Dial(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	var d net.Dialer
	if c, err := d.DialContext(t.Context(), "tcp", at.String()); err == nil {
		c.Close()
		t.Error("the machine itself reaches the box")
	}
}
