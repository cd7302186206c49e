//go:build linux

package lab_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// apiServer is the API server of the test's cluster.
const apiServer = "aks-ml-3k2j1h0g.hcp.eastus2.azmk8s.io"

// start runs a lab without a gateway.
func start(t *testing.T, conf lab.Config) *lab.Lab {
	t.Helper()
	netnstest.Need(t)
	conf.Dir = t.TempDir()
	if conf.Clusters == nil {
		conf.Clusters = []egress.Cluster{{Name: "test", From: lab.NodeRanges, APIServer: egress.MustParseName(apiServer), ByAddress: true}}
	}
	l, err := lab.Start(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestNamesReachTheirServers(t *testing.T) {
	for _, noGSO := range []bool{false, true} {
		l := start(t, lab.Config{NoGSO: noGSO})
		for number := 1; number <= 2; number++ {
			for _, v6 := range []bool{false, true} {
				fetch(t, l, l.Node(number), v6)
			}
		}
	}
}

func fetch(t *testing.T, l *lab.Lab, n *lab.Node, v6 bool) {
	t.Helper()
	ctx := soon(t)
	addrs, err := n.Lookup(ctx, "mcr.microsoft.com", v6)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: l.CA.Pool()},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return n.Dial(ctx, "tcp", netip.AddrPortFrom(addrs[0], 443))
		},
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://mcr.microsoft.com/v2/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || resp.Proto != "HTTP/2.0" {
		t.Errorf("answered %s %s %s", resp.Proto, resp.Status, body)
	}
	dialled := netip.AddrPortFrom(addrs[0], 443)
	saw := l.Record.Find(func(s *lab.Seen) bool {
		return s.Proto == "tls" && s.Local == dialled && s.Name == "mcr.microsoft.com" && s.Whole
	})
	if len(saw) == 0 {
		t.Error("the server does not say that it saw the connection")
	}
}

func TestEveryResolverAnswers(t *testing.T) {
	l := start(t, lab.Config{})
	for _, server := range []string{"10.224.2.4:53", "168.63.129.16:53", "8.8.8.8:53", "[2001:4860:4860::8888]:53"} {
		for _, network := range []string{"udp", "tcp"} {
			m, err := l.Node(1).Ask(soon(t), network, netip.MustParseAddrPort(server), "login.microsoftonline.com", dns.TypeA)
			if err != nil {
				t.Errorf("%s %s: %v", network, server, err)
				continue
			}
			if len(m.Answer) != 6 { // three CNAMEs, three of eight addresses
				t.Errorf("%s %s answered %v", network, server, m.Answer)
			}
		}
	}
}

func TestDatagramsComeBackFromTheAddressTheyWentTo(t *testing.T) {
	l := start(t, lab.Config{})
	for _, to := range []string{"20.1.2.3:123", "[2603:1000::7]:123", "20.1.2.3:443", "20.1.2.3:1194"} {
		c, err := l.Node(1).Dial(soon(t), "udp", netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		request := make([]byte, 48)
		request[0] = 4<<3 | 3
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 100)); err != nil || n != 48 {
			t.Errorf("%s: %d bytes, %v", to, n, err)
		}
		_ = c.Close()
	}
}

func TestTheAPIServerTellsItsALPNsApart(t *testing.T) {
	l := start(t, lab.Config{})
	addr := l.Zone.Addrs(apiServer)[0]
	for _, alpn := range []string{"konnectivity", "aks-tls-bootstrap", "h2", "http/1.1"} {
		for _, sni := range []string{apiServer, "kubernetes.default.svc", ""} {
			raw, err := l.Node(1).Dial(soon(t), "tcp", netip.AddrPortFrom(addr, 443))
			if err != nil {
				t.Fatal(err)
			}
			conf := &tls.Config{RootCAs: l.CA.Pool(), ServerName: sni, NextProtos: []string{alpn}}
			if sni == "" {
				conf.ServerName = addr.String() // not sent: an address is no name
			}
			c := tls.Client(raw, conf)
			if err := c.HandshakeContext(soon(t)); err != nil {
				t.Errorf("%q %s: %v", sni, alpn, err)
			} else if got := c.ConnectionState().NegotiatedProtocol; got != alpn {
				t.Errorf("%q %s: negotiated %q", sni, alpn, got)
			}
			_ = c.Close()
		}
	}
}

func TestCommandsSeeTheLabsNamesAndTrustItsServers(t *testing.T) {
	l := start(t, lab.Config{})
	for _, url := range []string{"https://mcr.microsoft.com/v2/", "http://security.ubuntu.com/ubuntu/", "https://" + apiServer + "/healthz"} {
		cmd := exec.Command("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url)
		cmd.Env = l.Environ(os.Environ())
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := l.Node(1).Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || out.String() != "200" {
			t.Errorf("%s: %v %s", url, err, out.String())
		}
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	here := goleak.IgnoreCurrent()
	netnstest.Need(t)
	warm := func() {
		l, err := lab.Start(t.Context(), lab.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		fetch(t, l, l.Node(1), false)
		cmd := exec.Command("sleep", "1000")
		if err := l.Node(2).Start(cmd); err != nil {
			t.Fatal(err)
		}
		l.Close()
		if err := cmd.Wait(); err == nil {
			t.Error("a command outlived the lab")
		}
	}
	warm() // what is opened once and for all
	before := descriptors(t)
	warm()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if err := goleak.Find(here); err != nil {
		t.Error(err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}
