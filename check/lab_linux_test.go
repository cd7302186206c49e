package check

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// An azure is a lab in which faults can be planted between the node and the servers.
type azure struct {
	*lab.Lab
	t     *testing.T
	other *lab.CA                    // an authority that nobody trusts
	names map[string]dns.HandlerFunc // how names in DNS are broken
	nft   strings.Builder
	port  int
	host  Host // a sound machine
}

const apiServer = "aks-ml-3k2j1h0g.hcp.eastus2.azmk8s.io"

func openAzure(t *testing.T, rules []egress.Rule) *azure {
	netnstest.Need(t)
	a := &azure{t: t, names: map[string]dns.HandlerFunc{}, port: 7000}
	var clusters []egress.Cluster
	for _, name := range []string{apiServer, "api-alpn.hcp.eastus2.azmk8s.io", "api-sound.hcp.eastus2.azmk8s.io"} {
		clusters = append(clusters, egress.Cluster{Name: name[:8], From: lab.NodeRanges, APIServer: egress.MustParseName(name), ByAddress: true})
	}
	var err error
	a.Lab, err = lab.Start(t.Context(), lab.Config{Dir: t.TempDir(), Clusters: clusters, Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	if a.other, err = lab.NewCA(); err != nil {
		t.Fatal(err)
	}
	a.host = Host{
		Dial: a.Node(1).Dial, Servers: []netip.AddrPort{netip.MustParseAddrPort("168.63.129.16:53")},
		Roots: a.CA.Pool(), ClusterCA: a.CA.Pool(), Patience: 2 * time.Second,
	}
	return a
}

// serve opens a server in the internet and returns where it is.
func (a *azure) serve(handle func(net.Conn)) string {
	a.t.Helper()
	a.port++
	at := fmt.Sprintf("20.201.0.2:%d", a.port)
	var ln net.Listener
	err := a.DoInternet(func() (err error) { ln, err = net.Listen("tcp", at); return err })
	if err != nil {
		a.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				handle(c)
			})
		}
	})
	a.t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return at
}

// addrs writes a name's IPv4 addresses for nft.
func (a *azure) addrs(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return host
	}
	var list []string
	for _, addr := range a.Zone.Addrs(host) {
		if addr.Is4() {
			list = append(list, addr.String())
		}
	}
	return strings.Join(list, ", ")
}

// divert leads a host's port to another server, as an intercepting middlebox does.
func (a *azure) divert(host string, port int, to string) {
	fmt.Fprintf(&a.nft, "add rule ip plant pre ip daddr { %s } tcp dport %d dnat to %s\n", a.addrs(host), port, to)
}

// filter says what happens to packets for a host.
func (a *azure) filter(host, match, verdict string) {
	fmt.Fprintf(&a.nft, "add rule ip plant through ip daddr { %s } %s %s\n", a.addrs(host), match, verdict)
}

// plant puts everything in force.
func (a *azure) plant() {
	a.t.Helper()
	text := `add table ip plant
add chain ip plant pre { type nat hook prerouting priority -150; }
add chain ip plant through { type filter hook forward priority 10; }
add rule ip plant pre ip daddr 168.63.129.16 udp dport 53 dnat to 20.201.0.2:7999
` + a.nft.String()
	var out bytes.Buffer
	err := a.DoGateway(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(text), &out, &out
		return cmd.Run()
	})
	if err != nil {
		a.t.Fatalf("%v: %s", err, out.String())
	}
	a.serveDNS("20.201.0.2:7999")
}

// serveDNS answers from the lab's zone, except for names that are broken.
func (a *azure) serveDNS(at string) {
	a.t.Helper()
	var pc net.PacketConn
	err := a.DoInternet(func() (err error) { pc, err = net.ListenPacket("udp4", at); return err })
	if err != nil {
		a.t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		name := strings.TrimSuffix(strings.ToLower(q.Question[0].Name), ".")
		if broken := a.names[name]; broken != nil {
			broken(w, q)
			return
		}
		m := new(dns.Msg).SetReply(q)
		for _, addr := range a.Zone.Addrs(name) {
			if addr.Is4() && q.Question[0].Qtype == dns.TypeA {
				m.Answer = append(m.Answer, record(q, addr.String()))
			}
		}
		_ = w.WriteMsg(m)
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.ActivateAndServe() })
	a.t.Cleanup(func() { _ = pc.Close(); wg.Wait() })
}

func record(q *dns.Msg, addr string) dns.RR {
	return &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr)}
}

func answering(rcode int, addrs ...string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, rcode)
		for _, addr := range addrs {
			if q.Question[0].Qtype == dns.TypeA {
				m.Answer = append(m.Answer, record(q, addr))
			}
		}
		_ = w.WriteMsg(m)
	}
}

// secure serves TLS with a certificate for name by a lab's CA, and then handle.
func secure(ca *lab.CA, name string, change func(*tls.Config), handle func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		cert, err := ca.Leaf(name, netip.MustParseAddr("20.201.0.2"))
		if err != nil {
			panic(err)
		}
		conf := &tls.Config{Certificates: []tls.Certificate{*cert}}
		if change != nil {
			change(conf)
		}
		s := tls.Server(c, conf)
		if s.Handshake() == nil {
			handle(s)
			_ = s.CloseWrite()
		}
	}
}

// says reads a request and answers with text.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, text)
	}
}

func httpAnswer(status, more string) func(net.Conn) {
	return says("HTTP/1.1 " + status + "\r\nConnection: close\r\n" + more + "\r\n\r\n")
}

// resets reads what comes first and resets.
func resets(c net.Conn) {
	_, _ = c.Read(make([]byte, 4096))
	_ = c.(*net.TCPConn).SetLinger(0)
}

// swallows reads and never answers.
func swallows(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// madeBy returns a server with a certificate by an authority of the given name; by itself if the name is empty.
func madeBy(t *testing.T, authority, name string, handle func(net.Conn)) func(net.Conn) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	parent := tmpl
	if authority != "" {
		parent = &x509.Certificate{
			SerialNumber: big.NewInt(8), Subject: pkix.Name{CommonName: authority}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: tmpl.NotBefore, NotAfter: tmpl.NotAfter,
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return func(c net.Conn) {
		s := tls.Server(c, conf)
		if s.Handshake() == nil {
			handle(s)
			_ = s.CloseWrite()
		}
	}
}

// smallHellosOnly answers a ClientHello that fits into one packet and swallows others, as an old middlebox does.
func smallHellosOnly(serve func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		first := make([]byte, 5)
		if _, err := io.ReadFull(c, first); err != nil {
			return
		}
		if length := int(first[3])<<8 | int(first[4]); length > 1300 {
			swallows(c)
			return
		}
		serve(ahead{c, io.MultiReader(bytes.NewReader(first), c)})
	}
}

type ahead struct {
	net.Conn
	r io.Reader
}

func (a ahead) Read(b []byte) (int, error) { return a.r.Read(b) }

// TestAllIsWell tries everything that a cluster needs where nothing is in the way.
func TestAllIsWell(t *testing.T) {
	cluster, err := aks.Read(bytes.NewReader(lab.Example))
	if err != nil {
		t.Fatal(err)
	}
	needs, err := cluster.Rules(aks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	rules := append(needs.Egress(), egress.Rule{ID: "own", To: []egress.Endpoint{
		egress.MustParseEndpoint("udp://ntp.ubuntu.com:123"), egress.MustParseEndpoint("udp://20.103.4.5:1194"), egress.MustParseEndpoint("tcp://20.103.4.5:9000"),
		egress.MustParseEndpoint("udp://8.8.8.8:53"),
	}})
	a := openAzure(t, rules)
	targets, skipped := Targets(Wanted{Rules: rules, APIServer: needs.APIServer, Region: cluster.Region, Instances: []egress.Name{egress.MustParseName("ws.ods.opinsights.azure.com")}})
	targets = append(targets, Target{Kind: APIServer, Name: needs.APIServer, Addr: a.Zone.Addrs(apiServer)[0], Port: 443})
	h := a.host
	h.Patience = 0
	report := NewReport(h.Run(t.Context(), targets, nil), skipped)
	for _, r := range report.Results {
		if r.Outcome != Passed {
			t.Errorf("%s: %s %s: %s", r.Target, r.Outcome, r.Cause, r.Detail)
		}
	}
	if report.Outcome != Passed || len(report.Results) < 25 {
		t.Errorf("%s with %d results", report.Outcome, len(report.Results))
	}
}

// TestThroughAProxy tries HTTPS and HTTP where the only way out is an HTTP proxy, which also resolves the names.
func TestThroughAProxy(t *testing.T) {
	a := openAzure(t, nil)
	dial := func(_ context.Context, _, addr string) (c net.Conn, err error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		err = a.DoInternet(func() error {
			c, err = net.Dial("tcp", net.JoinHostPort(a.Zone.Addrs(host)[0].String(), port))
			return err
		})
		return c, err
	}
	through := &http.Transport{DialContext: dial}
	t.Cleanup(through.CloseIdleConnections)
	h := a.host
	h.Servers = nil
	proxied(func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		if req.Method != http.MethodConnect {
			if resp, err := through.RoundTrip(req); err == nil {
				_ = resp.Write(c)
				_ = resp.Body.Close()
			}
			return
		}
		server, err := dial(t.Context(), "tcp", req.Host)
		if err != nil {
			return
		}
		defer server.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { _, _ = io.Copy(server, c) }()
		_, _ = io.Copy(c, server)
	})(a, &h)
	targets, _ := Targets(Wanted{Rules: []egress.Rule{{ID: "r", To: endpoints("https://mcr.microsoft.com:443 https://" + apiServer + ":443 http://security.ubuntu.com:80")}}, APIServer: egress.MustParseName(apiServer)})
	for _, r := range h.Run(t.Context(), targets, nil) {
		if r.Cause != Reached {
			t.Errorf("%s: %s: %s", r.Target, r.Cause, r.Detail)
		}
	}
}

// TestEndedEarly: what was not tried is not called anything else.
func TestEndedEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := Host{}
	r := NewReport(h.Run(ctx, []Target{{Kind: HTTPS, Name: egress.MustParseName("mcr.microsoft.com"), Port: 443}}, nil), nil)
	if r.Outcome != Unproven || r.Results[0].Cause != Interrupted {
		t.Errorf("%s %s", r.Outcome, r.Results[0].Cause)
	}
}
