package check

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/egress"
)

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
