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
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

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

// A planting is one fault and the cause that it must be sorted into.
type planting struct {
	what   string
	kind   Kind
	host   string // name or address
	port   uint16
	plant  func(a *azure, p planting)
	from   func(a *azure, h *Host) // what is special about the machine; nil: nothing
	about  func(*Target)
	want   Cause
	result Outcome
}

func diverted(serve func(a *azure, p planting) func(net.Conn)) func(*azure, planting) {
	return func(a *azure, p planting) { a.divert(p.host, int(p.port), a.serve(serve(a, p))) }
}

func plainly(handle func(net.Conn)) func(*azure, planting) {
	return diverted(func(*azure, planting) func(net.Conn) { return handle })
}

// genuine is a server with the right certificate and a wrong manner.
func genuine(handle func(net.Conn)) func(*azure, planting) {
	return diverted(func(a *azure, p planting) func(net.Conn) { return secure(a.CA, p.host, nil, handle) })
}

func broken(f dns.HandlerFunc) func(*azure, planting) {
	return func(a *azure, p planting) { a.names[p.host] = f }
}

func filtered(match, verdict string) func(*azure, planting) {
	return func(a *azure, p planting) { a.filter(p.host, match, verdict) }
}

// proxied leads everything over a proxy in the internet.
func proxied(handle func(net.Conn)) func(a *azure, h *Host) {
	return func(a *azure, h *Host) {
		at := a.serve(handle)
		h.Proxy = func(*url.URL) (*url.URL, error) { return &url.URL{Scheme: "http", Host: at}, nil }
	}
}

func plantings(t *testing.T) []planting {
	strangers := func(_ *azure, h *Host) { h.ClusterCA = nil }
	ok := httpAnswer("200 OK", "")
	return []planting{
		{what: "DNS drops the name", kind: HTTPS, host: "dns-silent.example.org", plant: broken(func(dns.ResponseWriter, *dns.Msg) {}), want: DNSSilent},
		{what: "DNS refuses the name", kind: HTTPS, host: "dns-refused.example.org", plant: broken(answering(dns.RcodeRefused)), want: DNSRefused},
		{what: "DNS has no way out itself", kind: HTTPS, host: "dns-failed.example.org", plant: broken(answering(dns.RcodeServerFailure)), want: DNSFailed},
		{what: "DNS denies the name", kind: HTTPS, host: "nxdomain.example.org", plant: broken(answering(dns.RcodeNameError)), want: NoSuchName},
		{what: "a private zone without the record", kind: HTTPS, host: "empty.vault.azure.net", plant: broken(answering(dns.RcodeSuccess)), want: NoAddress},
		{what: "DNS leads to 0.0.0.0", kind: HTTPS, host: "nowhere.example.org", plant: broken(answering(dns.RcodeSuccess, "0.0.0.0")), want: Sinkhole},
		{what: "DNS leads to loopback", kind: HTTP, host: "loopback.example.org", port: 80, plant: broken(answering(dns.RcodeSuccess, "127.0.0.1")), want: Sinkhole},
		{what: "a private name with a public address", kind: HTTPS, host: "inside.example.org", about: func(t *Target) { t.Private = true }, want: PublicAddress},
		{what: "a DNS server that TCP does not reach", kind: DNS, host: "8.8.8.8", port: 53, plant: filtered("tcp dport 53", "drop"), want: DNSNoTCP},
		{what: "a DNS server that UDP does not reach", kind: DNS, host: "8.8.4.4", port: 53, plant: filtered("udp dport 53", "drop"), want: DNSSilent},

		{what: "SYNs are dropped", kind: HTTPS, host: "dropped.example.org", plant: filtered("tcp dport 443", "drop"), want: TCPSilent},
		{what: "SYNs are reset", kind: HTTPS, host: "rejected.example.org", plant: filtered("tcp dport 443", "reject with tcp reset"), want: TCPRefused},
		{what: "admin-prohibited", kind: HTTPS, host: "prohibited.example.org", plant: filtered("tcp dport 443", "reject with icmp type admin-prohibited"), want: Unreachable},
		{what: "no route to the host", kind: HTTP, host: "unreachable.example.org", port: 80, plant: filtered("tcp dport 80", "reject with icmp type host-unreachable"), want: Unreachable},
		{what: "the tunnel's port accepts and is mute", kind: TCP, host: "20.33.1.1", port: 9000, plant: plainly(swallows), want: Mute},
		{what: "an unknown port accepts and is mute", kind: TCP, host: "20.33.1.2", port: 8080, plant: plainly(swallows), want: Accepted, result: Unproven},

		{what: "a reset after the ClientHello", kind: HTTPS, host: "sni-reset.example.org", plant: plainly(resets), want: TLSReset},
		{what: "a close after the ClientHello", kind: HTTPS, host: "sni-close.example.org", plant: plainly(func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }), want: TLSClosed},
		{what: "silence after the ClientHello", kind: HTTPS, host: "sni-drop.example.org", plant: plainly(swallows), want: TLSSilent},
		{what: "post-quantum hellos are lost", kind: HTTPS, host: "large.example.org", want: LargeHello, plant: diverted(func(a *azure, p planting) func(net.Conn) {
			return smallHellosOnly(secure(a.CA, p.host, nil, ok))
		})},
		{what: "a block page in clear text on 443", kind: HTTPS, host: "clear.example.org", plant: plainly(httpAnswer("403 Forbidden", "Server: firewall")), want: NotTLS},
		{what: "a middlebox of TLS 1.0", kind: HTTPS, host: "old.example.org", want: TLSAlert, plant: diverted(func(a *azure, p planting) func(net.Conn) {
			return secure(a.CA, p.host, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 }, ok)
		})},
		{what: "TLS is intercepted", kind: HTTPS, host: "login.microsoftonline.com", want: Intercepted, plant: diverted(func(a *azure, p planting) func(net.Conn) {
			return secure(a.other, p.host, nil, ok)
		})},
		{what: "a self-signed certificate", kind: HTTPS, host: "self.example.org", want: SelfSigned, plant: diverted(func(_ *azure, p planting) func(net.Conn) { return madeBy(t, "", p.host, ok) })},
		{what: "a genuine certificate for another name", kind: HTTPS, host: "wrong.example.org", want: WrongCertificate, plant: diverted(func(a *azure, _ planting) func(net.Conn) {
			return secure(a.CA, "other.example.org", nil, ok)
		})},
		{what: "a portal's certificate", kind: HTTPS, host: "portal.example.org", want: WrongServer, plant: diverted(func(a *azure, _ planting) func(net.Conn) {
			return secure(a.other, "portal.corp", nil, ok)
		})},
		{what: "a clock 60 days ahead", kind: HTTPS, host: "late.example.org", want: CertificateExpired, from: func(_ *azure, h *Host) {
			h.Now = func() time.Time { return time.Now().AddDate(0, 0, 60) }
		}},
		{what: "a clock 2 days behind", kind: HTTPS, host: "early.example.org", want: CertificateNotYetValid, from: func(_ *azure, h *Host) {
			h.Now = func() time.Time { return time.Now().AddDate(0, 0, -2) }
		}},

		{what: "the API server is intercepted", kind: APIServer, host: "api-mitm.hcp.eastus2.azmk8s.io", want: OtherAPIServer, plant: diverted(func(a *azure, p planting) func(net.Conn) {
			return secure(a.other, p.host, nil, ok)
		})},
		{what: "the API server is intercepted by an authority that machines trust", kind: Konnectivity, host: apiServer, from: strangers, want: OtherAPIServer},
		{what: "another server at the API server's name", kind: APIServer, host: "api-web.hcp.eastus2.azmk8s.io", plant: genuine(httpAnswer("200 OK", "Server: nginx")), want: NotAPIServer},
		{what: "the ALPN is removed", kind: Konnectivity, host: "api-lost.hcp.eastus2.azmk8s.io", plant: genuine(ok), want: ALPNLost},
		{what: "the ALPN is not permitted", kind: Konnectivity, host: "api-alpn.hcp.eastus2.azmk8s.io", want: ALPNBlocked, plant: diverted(func(a *azure, p planting) func(net.Conn) {
			return secure(a.CA, p.host, func(c *tls.Config) {
				c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
					if h.SupportedProtos[0] == konnectivity {
						return nil, errors.New("unknown application")
					}
					return nil, nil
				}
			}, ok)
		})},
		{what: "the cluster's authority is not given", kind: APIServer, host: "api-ca.hcp.eastus2.azmk8s.io", from: strangers, want: Unverified, result: Unproven,
			plant: diverted(func(_ *azure, p planting) func(net.Conn) {
				return madeBy(t, "ca", p.host, httpAnswer("200 OK", "\r\nok"))
			})},

		{what: "a status that the registry does not give", kind: HTTPS, host: "mcr.microsoft.com", plant: genuine(httpAnswer("403 Forbidden", "")), want: HTTPStatus},
		{what: "Azure Firewall's own page", kind: HTTP, host: "azure.archive.ubuntu.com", port: 80, plant: plainly(httpAnswer("470 status code 470", "\r\nHTTP request from 10.0.0.4 to azure.archive.ubuntu.com:80. Action: Deny.")), want: HTTPBlocked},
		{what: "Squid's page behind a trusted interception", kind: HTTPS, host: "squid.example.org", plant: genuine(httpAnswer("403 Forbidden", "X-Squid-Error: ERR_ACCESS_DENIED 0")), want: HTTPBlocked},
		{what: "a portal in clear text", kind: HTTP, host: "security.ubuntu.com", port: 80, plant: plainly(httpAnswer("302 Found", "Location: http://portal.corp.example/login")), want: HTTPRedirected},
		{what: "403 in clear text", kind: HTTP, host: "forbidden.example.org", port: 80, plant: plainly(httpAnswer("403 Forbidden", "")), want: HTTPStatus},
		{what: "a reset after the request", kind: HTTP, host: "path.example.org", port: 80, plant: plainly(resets), want: HTTPReset},
		{what: "silence after the request", kind: HTTP, host: "hang.example.org", port: 80, plant: plainly(swallows), want: HTTPSilent},
		{what: "another protocol on port 80", kind: HTTP, host: "ssh.example.org", port: 80, plant: plainly(says("SSH-2.0-OpenSSH_9.2\r\n")), want: NotHTTP},
		{what: "the genuine server is unwell", kind: HTTPS, host: "unwell.example.org", plant: genuine(httpAnswer("503 Service Unavailable", "")), want: ServerError, result: Unproven},

		{what: "the proxy is not there", kind: HTTPS, host: "proxied1.example.org", want: ProxyUnreachable, from: func(_ *azure, h *Host) {
			h.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse("http://20.201.0.2:7998") }
		}},
		{what: "the proxy wants credentials", kind: HTTPS, host: "proxied2.example.org", from: proxied(httpAnswer("407 Proxy Authentication Required", "")), want: ProxyAuthentication},
		{what: "the proxy has no rule", kind: HTTPS, host: "proxied3.example.org", from: proxied(httpAnswer("403 Forbidden", "")), want: ProxyDenied},
		{what: "the proxy has no way out", kind: HTTP, host: "proxied4.example.org", port: 80, from: proxied(httpAnswer("502 Bad Gateway", "")), want: ProxyFailed},

		{what: "time requests are dropped", kind: NTP, host: "ntp-drop.example.org", port: 123, plant: filtered("udp dport 123", "drop"), want: UDPSilent},
		{what: "time requests are refused", kind: NTP, host: "ntp-refuse.example.org", port: 123, plant: filtered("udp dport 123", "reject"), want: UDPRefused},
		{what: "the tunnel's datagrams are dropped", kind: UDP, host: "20.33.1.3", port: 1194, plant: filtered("udp dport 1194", "drop"), want: UDPSilent},

		{what: "a forbidden name is open", kind: HTTPS, host: "open.example.org", about: forbid, want: Open},
		{what: "a forbidden address is open", kind: UDP, host: "1.1.1.1", port: 443, about: forbid, want: Open},
		{what: "a forbidden name is reset", kind: HTTPS, host: "blocked1.example.org", about: forbid, plant: plainly(resets), want: TLSReset, result: Passed},
		{what: "a forbidden name does not resolve", kind: HTTPS, host: "blocked2.example.org", about: forbid, plant: broken(answering(dns.RcodeRefused)), want: DNSRefused, result: Passed},
		{what: "a forbidden name is intercepted, and who knows what then", kind: HTTPS, host: "blocked3.example.org", about: forbid, want: Intercepted, result: Unproven,
			plant: diverted(func(a *azure, p planting) func(net.Conn) { return secure(a.other, p.host, nil, ok) })},
	}
}

func forbid(t *Target) { t.Forbidden = true }

func (p planting) target() Target {
	t := Target{Kind: p.kind, Port: p.port}
	if addr, err := netip.ParseAddr(p.host); err == nil {
		t.Addr = addr
	} else {
		t.Name = egress.MustParseName(p.host)
	}
	if p.about != nil {
		p.about(&t)
	}
	return t
}

// TestPlantedFaults plants every fault at once and lets each be found.
func TestPlantedFaults(t *testing.T) {
	a := openAzure(t, nil)
	all := plantings(t)
	hosts := make([]Host, len(all))
	for i := range all {
		p := &all[i]
		if p.port == 0 {
			p.port = 443
		}
		if p.plant != nil {
			p.plant(a, *p)
		}
		hosts[i] = a.host
		if p.from != nil {
			p.from(a, &hosts[i])
		}
	}
	a.plant()
	var g errgroup.Group
	for i, p := range all {
		g.Go(func() error {
			r := hosts[i].Run(t.Context(), []Target{p.target()}, nil)[0]
			if r.Cause != p.want || r.Outcome != p.result {
				t.Errorf("%s: %s %s (%s), want %s %s", p.what, r.Outcome, r.Cause, r.Detail, p.result, p.want)
			}
			return nil
		})
	}
	_ = g.Wait()
	t.Logf("%d faults planted", len(all))
}

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
