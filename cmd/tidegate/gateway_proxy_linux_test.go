package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestProxyOnly runs the gateway as an ordinary process: the explicit proxy with
// the same decision, and nothing of the kernel. All that it could reach here is on
// loopback, which nobody may be led to; what is permitted is tested in the lab.
func TestProxyOnly(t *testing.T) {
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") }))
	defer origin.Close()
	resolver := localResolver(t)
	proxy, dir := freeAddr(t), t.TempDir()
	text := fmt.Sprintf(`apiVersion: tidegate.io/v1
kind: Gateway
clusters:
  - name: here
    from: [127.0.0.0/8]
    aks: {cloud: public, region: westeurope}
dns: {upstream: [%q]}
proxy: {listen: %q}
management: %s
state: state
log: {flows: flows.jsonl}
`, resolver, proxy, freeAddr(t))
	path := filepath.Join(dir, "gateway.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := readGateway(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- runGateway(ctx, path, g, slog.New(slog.DiscardHandler), io.Discard, runMode{proxyOnly: true})
	}()
	waitFor(t, proxy)
	for _, tt := range []struct{ why, target, want string }{
		{"a name of no rule", "evil.example.org:443", "403 name-not-allowed"},
		{"a name that leads inside has no address left", "mcr.microsoft.com:443", "502 upstream-unreachable"},
		{"an address of no rule", "20.1.2.3:443", "403 address-as-name"},
		{"the gateway itself", strings.TrimPrefix(origin.URL, "https://"), "403 guarded-address"},
	} {
		code, reason, _ := strings.Cut(tt.want, " ")
		if got := connectThrough(t, proxy, tt.target); !strings.HasPrefix(got, code) || !strings.Contains(got, reason) {
			t.Errorf("%s: %q, want %s", tt.why, got, tt.want)
		}
	}
	s, err := askGateway(ctx, path, http.MethodGet, "/status")
	if err != nil || s.Policy.Rules != len(g.Rules) || len(s.Queues) != 0 {
		t.Errorf("status %+v, %v", s, err)
	}
	if _, err := askGateway(ctx, path, http.MethodPost, "/reload"); err != nil {
		t.Errorf("reload: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	flows, err := os.ReadFile(filepath.Join(dir, "flows.jsonl"))
	if err != nil || strings.Count(string(flows), `"action":"deny"`) != 5 {
		t.Errorf("flow log: %s, %v", flows, err)
	}
}

// localResolver answers every A question with a loopback address.
func localResolver(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return conn.LocalAddr().String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitFor(t *testing.T, addr string) {
	t.Helper()
	for range 500 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("nothing listens at %s", addr)
}

// connectThrough asks the proxy for a tunnel, offers TLS in it if it opens, and
// returns what the proxy says.
func connectThrough(t *testing.T, proxy, target string) string {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		host, _, _ := net.SplitHostPort(target)
		return fmt.Sprint("200 ", tls.Client(c, &tls.Config{ServerName: host}).Handshake())
	}
	body, _ := io.ReadAll(resp.Body)
	return resp.Status + " " + string(body)
}
