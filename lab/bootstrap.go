//go:build linux

package lab

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Bootstrap returns what a node does when it boots, as far as the rules permit it, and then every endpoint of every rule
// in both families. All of it must pass.
func Bootstrap(z *Zone, policy *egress.Policy) []Case {
	b := boot{zone: z, policy: policy}
	b.preflight()
	b.apiServers()
	b.oddHellos()
	b.updates()
	b.private()
	for _, r := range policy.Rules() {
		b.rule(r)
	}
	return b.cases
}

// boot gathers cases.
type boot struct {
	zone   *Zone
	policy *egress.Policy
	cases  []Case
}

func (b *boot) add(group, name string, run func(ctx context.Context, t *Try) error) {
	b.cases = append(b.cases, Case{Group: group, Name: name, Run: run})
}

// permits reports whether some node may reach name this way.
func (b *boot) permits(p egress.Proto, name string, port uint16) bool {
	n, err := egress.ParseName(name)
	if err != nil {
		return false
	}
	for _, addr := range b.zone.Addrs(name) {
		c := egress.Conn{
			Proto: p, Src: netip.AddrPortFrom(clientAddr(addr.Is6()), 40000), Dst: netip.AddrPortFrom(addr, port), Name: n, Bound: []egress.Name{n},
		}
		if b.policy.Decide(c).Action == egress.Allow {
			return true
		}
	}
	return false
}

// clientAddr is the first node's address.
func clientAddr(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr("fd00:224:0:1::4")
	}
	return netip.MustParseAddr("10.224.1.4")
}

// families returns for which of IPv4 (false) and IPv6 (true) a name has addresses.
func (b *boot) families(name string) []bool {
	var v6s []bool
	for _, a := range b.zone.Addrs(name) {
		if !slices.Contains(v6s, a.Is6()) {
			v6s = append(v6s, a.Is6())
		}
	}
	return v6s
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

// preflight is what the provisioning script and the node's own checker ask before anything else.
func (b *boot) preflight() {
	bearer := http.Header{"Authorization": {"Bearer lab"}}
	for _, c := range []struct {
		host, path string
		header     http.Header
	}{
		{"mcr.microsoft.com", "/v2/", nil},
		{"gcr.azk8s.cn", "/v2/", nil},
		{"mcr.azure.cn", "/v2/", nil},
		{"eastus.data.mcr.microsoft.com", "/", nil},
		{"packages.aks.azure.com", "/acs-mirror/healthz", nil},
		{"packages.aks.azure.com", "/", nil},
		{"acs-mirror.azureedge.net", "/", nil},
		{"packages.microsoft.com", "/", nil},
		{"login.microsoftonline.com", "/", nil},
		{"login.microsoftonline.us", "/", nil},
		{"login.chinacloudapi.cn", "/", nil},
		{"management.azure.com", "/subscriptions?api-version=2022-12-01", bearer},
		{"management.usgovcloudapi.net", "/subscriptions?api-version=2022-12-01", bearer},
		{"management.chinacloudapi.cn", "/subscriptions?api-version=2022-12-01", bearer},
		{"snapshot.ubuntu.com", "/ubuntu/", nil},
	} {
		if !b.permits(egress.HTTPS, c.host, 443) {
			continue
		}
		for _, v6 := range b.families(c.host) {
			b.add("node checks", fmt.Sprintf("gets https://%s%s over %s", c.host, c.path, family(v6)), func(ctx context.Context, t *Try) error {
				return t.fetch(ctx, "https", c.host, 443, c.path, v6, c.header)
			})
		}
	}
}

// apiServers is everything that is known to be spoken to the API server's one port.
func (b *boot) apiServers() {
	for _, cluster := range b.policy.Clusters() {
		name := cluster.APIServer.String()
		if name == "" {
			continue
		}
		for _, v6 := range b.families(name) {
			b.add("API server", "resolves "+name+" in "+family(v6), func(ctx context.Context, t *Try) error {
				_, err := t.resolve(ctx, name, v6)
				return err
			})
			if !b.permits(egress.HTTPS, name, 443) && !isPrivate(b.zone, name) {
				continue
			}
			for _, path := range []string{"/healthz", "/version"} {
				b.add("API server", "gets "+path+" over "+family(v6), func(ctx context.Context, t *Try) error {
					return t.fetch(ctx, "https", name, 443, path, v6, nil)
				})
			}
			b.tunnels(name, name, v6, "konnectivity", "aks-tls-bootstrap", "h2", "http/1.1")
			if cluster.ByAddress || isPrivate(b.zone, name) {
				b.tunnels(name, "", v6, "h2")
				b.tunnels(name, "kubernetes.default.svc", v6, "h2")
				if b.permits(egress.HTTPS, livePatching, 443) {
					b.tunnels(name, livePatching, v6, "aks-live-patching")
				}
			}
		}
	}
}

// livePatching is the name that nodes show to the API server when they ask for security patches.
const livePatching = "aks-security-patch.data.mcr.microsoft.com"

func isPrivate(z *Zone, name string) bool {
	return slices.ContainsFunc(z.Addrs(name), func(a netip.Addr) bool { return privateV4.Contains(a) })
}

// tunnels shakes hands with the API server's address, showing sni, once for each ALPN.
func (b *boot) tunnels(name, sni string, v6 bool, alpns ...string) {
	for _, alpn := range alpns {
		shown := "no name"
		if sni != "" {
			shown = sni
		}
		b.add("API server", fmt.Sprintf("speaks %s to it, showing %s, over %s", alpn, shown, family(v6)), func(ctx context.Context, t *Try) error {
			addr, err := t.resolve(ctx, name, v6)
			if err != nil {
				return err
			}
			return t.tunnel(ctx, netip.AddrPortFrom(addr, 443), sni, alpn)
		})
	}
}

// oddHellos are legal ClientHellos that filters are known to stumble over, from a real client, which must arrive byte for
// byte.
func (b *boot) oddHellos() {
	name, ok := b.anyName(egress.HTTPS, 443)
	if !ok {
		return
	}
	for _, odd := range []struct {
		what string
		how  tlsClient
	}{
		{"a post-quantum hello", tlsClient{curves: []tls.CurveID{tls.X25519MLKEM768}}},
		{"a small hello", tlsClient{curves: []tls.CurveID{tls.X25519}}},
		{"a hello in 1-byte writes", tlsClient{bytes: true}},
		{"a small hello in 1-byte writes", tlsClient{bytes: true, curves: []tls.CurveID{tls.X25519}}},
		{"a hello of 15 KB", tlsClient{alpn: manyProtocols(15 << 10)}},
		{"a hello of 17 KB", tlsClient{alpn: manyProtocols(17 << 10)}},
		{"a hello of 60 KB", tlsClient{alpn: manyProtocols(60 << 10)}},
		{"a second hello when it is asked for one", tlsClient{alpn: []string{retryALPN, "http/1.1"}}},
		{"a hello over 2 records", tlsClient{records: 2}},
		{"a hello over 15 records", tlsClient{records: 15}},
		{"a hello over 15 records in 1-byte writes", tlsClient{records: 15, bytes: true}},
	} {
		for _, v6 := range b.families(name) {
			b.add("legal but odd", fmt.Sprintf("sends %s to %s over %s", odd.what, name, family(v6)), func(ctx context.Context, t *Try) error {
				addr, err := t.resolve(ctx, name, v6)
				if err != nil {
					return err
				}
				c, err := t.handshake(ctx, netip.AddrPortFrom(addr, 443), name, odd.how)
				if err != nil {
					return err
				}
				return c.Close()
			})
		}
	}
	b.otherNodesAnswer(name)
}

// manyProtocols is an ALPN list that makes a hello this long. The server takes the last.
func manyProtocols(size int) []string {
	var list []string
	for size -= 600; size > 0; size -= 251 {
		word := make([]byte, 125)
		_, _ = rand.Read(word) // never fails
		list = append(list, fmt.Sprintf("%x", word))
	}
	return append(list, "http/1.1")
}

// otherNodesAnswer: pods connect to addresses that the DNS of another node has asked for.
func (b *boot) otherNodesAnswer(name string) {
	for from := 1; from <= 2; from++ {
		other := 3 - from
		b.add("node checks", fmt.Sprintf("%d connects to what node %d resolved", from, other), func(ctx context.Context, t *Try) error {
			addrs, err := t.Lab.Node(other).Lookup(ctx, name, false)
			if err != nil {
				return err
			}
			t.Node = t.Lab.Node(from)
			c, err := t.handshake(ctx, netip.AddrPortFrom(addrs[0], 443), name, tlsClient{})
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
}

// anyName finds an exact name that the rules permit.
func (b *boot) anyName(p egress.Proto, port uint16) (string, bool) {
	names := names(b.policy, p, port)
	if len(names) == 0 {
		return "", false
	}
	return names[0], true
}

// names lists the exact names of the rules for one protocol and port, as they stand there.
func names(policy *egress.Policy, p egress.Proto, port uint16) []string {
	var found []string
	for _, r := range policy.Rules() {
		for _, e := range r.To {
			pattern, ok := e.Host.(egress.Pattern)
			if !ok || e.Proto != p || !e.Ports.Has(port) {
				continue
			}
			if n, ok := pattern.Exact(); ok && !slices.Contains(found, n.String()) {
				found = append(found, n.String())
			}
		}
	}
	return found
}

// updates is apt: several requests on one connection, over plain HTTP.
func (b *boot) updates() {
	for _, host := range names(b.policy, egress.HTTP, 80) {
		for _, v6 := range b.families(host) {
			b.add("updates", fmt.Sprintf("asks %s three times on one connection over %s", host, family(v6)), func(ctx context.Context, t *Try) error {
				addr, err := t.resolve(ctx, host, v6)
				if err != nil {
					return err
				}
				request := "GET /ubuntu/dists/jammy/%s HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Debian APT-HTTP/1.3\r\nX-Lab: " + t.Token + "\r\n\r\n"
				text := fmt.Sprintf(request, "InRelease") + fmt.Sprintf(request, "Release") + fmt.Sprintf(request, "Release.gpg")
				return t.say(ctx, netip.AddrPortFrom(addr, 80), text, 3)
			})
		}
	}
}

// private is what does not leave the virtual network: it must resolve, and nobody may be in its way.
func (b *boot) private() {
	for _, name := range b.zone.Private {
		b.add("inside", "resolves and reaches "+name, func(ctx context.Context, t *Try) error {
			addr, err := t.resolve(ctx, name, false)
			if err != nil {
				return err
			}
			if !privateV4.Contains(addr) {
				return fmt.Errorf("resolved to %s, which is not inside", addr)
			}
			_, err = t.get(ctx, "https://"+name+"/v2/", netip.AddrPortFrom(addr, 443), nil)
			return err
		})
	}
}

// rule tries each of the rule's endpoints.
func (b *boot) rule(r egress.Rule) {
	begin := len(b.cases)
	for _, e := range r.To {
		group := r.ID
		switch h := e.Host.(type) {
		case egress.Pattern:
			for _, name := range instances(h, b.policy.Clusters()) {
				for _, v6 := range b.families(name) {
					b.add(group, fmt.Sprintf("reaches %s://%s:%d over %s", e.Proto, name, e.Ports.First, family(v6)), func(ctx context.Context, t *Try) error {
						return t.endpoint(ctx, e, name, v6)
					})
				}
			}
		case egress.Net:
			to := netip.AddrPortFrom(within(h.Prefix), e.Ports.First)
			b.add(group, fmt.Sprintf("reaches %s://%s", e.Proto, to), func(ctx context.Context, t *Try) error {
				return t.transport(ctx, e.Proto.Transport(), to)
			})
		}
		for i := range b.cases[begin:] {
			if c := &b.cases[begin+i]; c.About == "" {
				c.About = e.String()
			}
		}
	}
}

// instances are names of the set that a pattern is: the pattern's own, or one below it, one further below, and the API
// servers in it.
func instances(p egress.Pattern, clusters []egress.Cluster) []string {
	if n, ok := p.Exact(); ok {
		return []string{n.String()}
	}
	found := []string{strings.ReplaceAll(p.String(), "*", "lab7")}
	if rest, ok := strings.CutPrefix(p.String(), "*."); ok {
		found = append(found, "a.lab7."+rest)
	}
	for _, c := range clusters {
		found = append(found, c.APIServer.String())
	}
	return slices.DeleteFunc(found, func(s string) bool { n, err := egress.ParseName(s); return err != nil || !p.Match(n) })
}

// within is an address of p that has a server.
func within(p netip.Prefix) netip.Addr {
	switch {
	case p.Bits() == 0 && p.Addr().Is4():
		return netip.MustParseAddr("20.55.66.77")
	case p.Bits() == 0:
		return netip.MustParseAddr("2603:1000::55:66:77")
	case p.IsSingleIP():
		return p.Addr()
	}
	return p.Masked().Addr().Next()
}

// endpoint uses one endpoint of a rule as its protocol is used.
func (t *Try) endpoint(ctx context.Context, e egress.Endpoint, name string, v6 bool) error {
	port := e.Ports.First
	addr, err := t.resolve(ctx, name, v6)
	if err != nil {
		return err
	}
	to := netip.AddrPortFrom(addr, port)
	if !e.Proto.Named() {
		return t.transport(ctx, e.Proto, to)
	}
	_, err = t.get(ctx, fmt.Sprintf("%s://%s:%d/", e.Proto, name, port), to, nil)
	return err
}

// transport sends a word and wants an answer, over TCP or UDP. On port 123 the word is a time request.
func (t *Try) transport(ctx context.Context, p egress.Proto, to netip.AddrPort) error {
	word := []byte("lab " + t.Token)
	if p == egress.UDP && to.Port() == 123 {
		word = ntpRequest(t.Token)
	}
	t.prove(word)
	answer, err := t.Exchange(ctx, p.String(), to, word)
	if err == nil && len(answer) == 0 {
		err = errors.New("the answer is empty")
	}
	return err
}

// ntpRequest is a client's 48 bytes (RFC 5905 section 7.3). The end of the token stands for the transmit time, which
// clients make up as well.
func ntpRequest(token string) []byte {
	const version4, client, size = 4 << 3, 3, 48
	m := make([]byte, size)
	m[0] = version4 | client
	copy(m[40:48], token[len(token)-8:])
	return m
}
