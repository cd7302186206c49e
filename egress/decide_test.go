package egress

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// rule reads "id [from,from] endpoint endpoint…".
func rule(t testing.TB, s string) Rule {
	t.Helper()
	words := strings.Fields(s)
	r := Rule{ID: words[0]}
	for _, w := range words[1:] {
		if from, ok := strings.CutPrefix(w, "from="); ok {
			r.From = append(r.From, netip.MustParsePrefix(from))
			continue
		}
		e, err := ParseEndpoint(w)
		if err != nil {
			t.Fatal(err)
		}
		r.To = append(r.To, e)
	}
	return r
}

func policy(t testing.TB, clusters []Cluster, rules ...string) *Policy {
	t.Helper()
	var rs []Rule
	for _, s := range rules {
		rs = append(rs, rule(t, s))
	}
	p, err := Compile(rs, clusters)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// conn reads a Conn's text form and facts behind it: bound=NAME, api, strict.
func conn(t testing.TB, s string) Conn {
	t.Helper()
	text, facts, _ := strings.Cut(s, " | ")
	c, err := ParseConn(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(facts) {
		name, bound := strings.CutPrefix(f, "bound=")
		switch {
		case bound:
			c.Bound = append(c.Bound, MustParseName(name))
		case f == "api":
			c.API = true
		case f == "strict":
			c.Strict = true
		default:
			t.Fatalf("%q: unknown fact %q", s, f)
		}
	}
	return c
}

func prodAndDev() []Cluster {
	return []Cluster{
		{Name: "prod", From: prefixes("10.224.0.0/16", "fd00:1::/64"), APIServer: MustParseName("p-1.hcp.westeurope.azmk8s.io"), ByAddress: true},
		{Name: "dev", From: prefixes("10.225.0.0/16"), APIServer: MustParseName("d-1.hcp.westeurope.azmk8s.io")},
	}
}

var houseRules = []string{
	"core/apiserver from=10.224.0.0/16 from=fd00:1::/64 https://p-1.hcp.westeurope.azmk8s.io:443",
	"dev/apiserver from=10.225.0.0/16 https://d-1.hcp.westeurope.azmk8s.io:443",
	"core/mcr https://mcr.microsoft.com:443",
	"core/mcr-data https://*.data.mcr.microsoft.com:443",
	"ubuntu/archive http://azure.archive.ubuntu.com:80",
	"ntp udp://ntp.ubuntu.com:123",
	"ntp/any from=10.225.0.0/16 udp://0.0.0.0/0:123 udp://[::/0]:123",
	"tunnel tcp://20.103.4.5:9000 tcp://[2603:1000::5]:9000",
	"corp/db tcp://10.9.0.0/16:443 tcp://10.9.8.0/24:5432",
	"corp/git tcp://git.corp.example:22",
	"marketplace https://arcmktplaceprod.*.data.azurecr.io:443",
	"private/kv https://kv1.vault.azure.net:443",
}

func TestDecide(t *testing.T) {
	p := policy(t, prodAndDev(), houseRules...)
	for _, tt := range []struct{ why, conn, want string }{
		{"a SYN to an HTTPS port waits for the hello", "tcp 10.224.0.4 > 20.1.2.3:443", "wait needs-hello"},
		{"a SYN to an HTTP port waits for the request", "tcp 10.224.0.4 > 20.1.2.3:80", "wait needs-request"},
		{"a SYN to any other port has no rule", "tcp 10.224.0.4 > 20.1.2.3:8443", "deny no-rule"},
		{"strict: no permitted name has the address", "tcp 10.224.0.4 > 20.1.2.3:443 | strict", "deny address-unknown"},
		{"strict: a name of no rule does not help", "tcp 10.224.0.4 > 20.1.2.3:443 | strict bound=evil.example.org", "deny address-unknown"},
		{"strict: a permitted name has the address", "tcp 10.224.0.4 > 20.1.2.3:443 | strict bound=mcr.microsoft.com", "wait needs-hello"},
		{"strict: the API server's address", "tcp 10.224.0.4 > 20.1.2.3:443 | strict api", "wait needs-hello"},

		{"name and address belong together", "https 10.224.0.4 > 20.1.2.3:443 mcr.microsoft.com | bound=mcr.microsoft.com", "allow name-rule core/mcr"},
		{"a permitted name on a stranger's address", "https 10.224.0.4 > 20.1.2.3:443 mcr.microsoft.com", "deny address-not-bound"},
		{"a permitted name on another permitted name's address", "https 10.224.0.4 > 20.1.2.3:443 mcr.microsoft.com | bound=eastus.data.mcr.microsoft.com", "deny address-not-bound"},
		{"an instance of a wildcard", "https 10.224.0.4 > 20.1.2.3:443 eastus.data.mcr.microsoft.com | bound=eastus.data.mcr.microsoft.com", "allow name-rule core/mcr-data"},
		{"the apex of a wildcard", "https 10.224.0.4 > 20.1.2.3:443 data.mcr.microsoft.com | bound=data.mcr.microsoft.com", "deny name-not-allowed"},
		{"a look-alike", "https 10.224.0.4 > 20.1.2.3:443 evilmcr.microsoft.com | bound=evilmcr.microsoft.com", "deny name-not-allowed"},
		{"a permitted name in front of another", "https 10.224.0.4 > 20.1.2.3:443 mcr.microsoft.com.evil.io | bound=mcr.microsoft.com.evil.io", "deny name-not-allowed"},
		{"a star in the middle", "https 10.224.0.4 > 20.1.2.3:443 arcmktplaceprod.eastus.data.azurecr.io | bound=arcmktplaceprod.eastus.data.azurecr.io", "allow name-rule marketplace"},
		{"a sibling under a star in the middle", "https 10.224.0.4 > 20.1.2.3:443 other.eastus.data.azurecr.io | bound=other.eastus.data.azurecr.io", "deny name-not-allowed"},
		{"the right name on a wrong port", "https 10.224.0.4 > 20.1.2.3:8443 mcr.microsoft.com | bound=mcr.microsoft.com", "deny port-not-allowed"},
		{"an HTTP name over HTTPS", "https 10.224.0.4 > 20.1.2.3:443 azure.archive.ubuntu.com | bound=azure.archive.ubuntu.com", "deny port-not-allowed"},
		{"an HTTPS name over HTTP", "http 10.224.0.4 > 20.1.2.3:80 mcr.microsoft.com | bound=mcr.microsoft.com", "deny port-not-allowed"},
		{"an HTTP name", "http 10.224.0.4 > 20.1.2.3:80 azure.archive.ubuntu.com | bound=azure.archive.ubuntu.com", "allow name-rule ubuntu/archive"},
		{"no name", "https 10.224.0.4 > 20.1.2.3:443 -", "deny no-server-name"},
		{"an address as name", "https 10.224.0.4 > 20.1.2.3:443 20.1.2.3", "deny address-as-name"},
		{"another cluster's API server", "https 10.225.0.4 > 20.1.2.3:443 p-1.hcp.westeurope.azmk8s.io | bound=p-1.hcp.westeurope.azmk8s.io", "deny name-not-allowed"},
		{"a name that leads inside", "https 10.224.0.4 > 10.1.1.1:443 kv1.vault.azure.net | bound=kv1.vault.azure.net", "deny guarded-address"},
		{"a name that leads to the platform", "https 10.224.0.4 > 168.63.129.16:443 mcr.microsoft.com | bound=mcr.microsoft.com", "deny guarded-address"},

		{"the API server by name", "https 10.224.0.4 > 20.7.7.7:443 p-1.hcp.westeurope.azmk8s.io | api bound=p-1.hcp.westeurope.azmk8s.io", "allow name-rule core/apiserver"},
		{"the API server without SNI", "https 10.224.0.4 > 20.7.7.7:443 - | api", "allow api-server-address core/apiserver"},
		{"the API server by its address as SNI", "https 10.224.0.4 > 20.7.7.7:443 20.7.7.7 | api", "allow api-server-address core/apiserver"},
		{"the API server by its service name", "https 10.224.0.4 > 20.7.7.7:443 kubernetes.default.svc | api", "allow api-server-address core/apiserver"},
		{"the API server by another permitted name (live patching)", "https 10.224.0.4 > 20.7.7.7:443 aks-security-patch.data.mcr.microsoft.com | api", "allow api-server-address core/apiserver"},
		{"the API server's address with a name of no rule", "https 10.224.0.4 > 20.7.7.7:443 evil.example.org | api", "deny name-not-allowed"},
		{"the service name elsewhere", "https 10.224.0.4 > 20.1.2.3:443 kubernetes.default.svc", "deny name-not-allowed"},
		{"by-name refuses a bare address", "https 10.225.0.4 > 20.7.7.7:443 - | api", "deny api-server-by-name"},
		{"by-name refuses the service name", "https 10.225.0.4 > 20.7.7.7:443 kubernetes | api", "deny api-server-by-name"},
		{"by-name takes the name", "https 10.225.0.4 > 20.7.7.7:443 d-1.hcp.westeurope.azmk8s.io | api bound=d-1.hcp.westeurope.azmk8s.io", "allow name-rule dev/apiserver"},
		{"the API server's address over HTTP", "http 10.224.0.4 > 20.7.7.7:80 - | api", "deny no-server-name"},
		{"the API server's address on another port", "https 10.224.0.4 > 20.7.7.7:8443 - | api", "deny name-not-allowed"},

		{"an address rule", "tcp 10.224.0.4 > 20.103.4.5:9000", "allow address-rule tunnel"},
		{"an address rule in IPv6", "tcp fd00:1::4 > [2603:1000::5]:9000", "allow address-rule tunnel"},
		{"an address rule beside its address", "tcp 10.224.0.4 > 20.103.4.6:9000", "deny no-rule"},
		{"an address rule by the wrong transport", "udp 10.224.0.4 > 20.103.4.5:9000", "deny no-rule"},
		{"an address rule covers an HTTPS port", "https 10.224.0.4 > 10.9.1.1:443 anything.example.org", "allow address-rule corp/db"},
		{"an address rule opens a guarded range", "tcp 10.224.0.4 > 10.9.8.7:5432", "allow address-rule corp/db"},
		{"a narrower prefix does not hide a wider one", "tcp 10.224.0.4 > 10.9.8.7:443", "allow address-rule corp/db"},
		{"UDP by a bound name", "udp 10.224.0.4 > 20.1.1.1:123 | bound=ntp.ubuntu.com", "allow name-rule ntp"},
		{"UDP to an address without the name", "udp 10.224.0.4 > 20.1.1.1:123", "deny no-rule"},
		{"UDP to any address, from the one who may", "udp 10.225.0.4 > 20.1.1.1:123", "allow address-rule ntp/any"},
		{"TCP by a bound name that leads inside", "tcp 10.224.0.4 > 10.8.8.8:22 | bound=git.corp.example", "deny guarded-address"},
		{"QUIC", "udp 10.224.0.4 > 20.1.2.3:443 | bound=mcr.microsoft.com", "deny quic"},
		{"a client of no cluster uses rules for everyone", "https 10.99.0.1 > 20.1.2.3:443 mcr.microsoft.com | bound=mcr.microsoft.com", "allow name-rule core/mcr"},
		{"a client of no cluster has no API server", "https 10.99.0.1 > 20.7.7.7:443 - | api", "deny no-server-name"},
	} {
		c := conn(t, tt.conn)
		if got := p.Decide(c).String(); got != tt.want {
			t.Errorf("%s: %s: %s, want %s", tt.why, tt.conn, got, tt.want)
		}
	}
}

func TestZeroDenies(t *testing.T) {
	var p Policy
	for _, s := range []string{"tcp 10.0.0.1 > 20.1.2.3:443", "https 20.1.2.3:443 mcr.microsoft.com | bound=mcr.microsoft.com", "udp 20.1.2.3:123"} {
		if v := p.Decide(conn(t, s)); v.Action != Deny || v.Rule != nil {
			t.Errorf("the zero policy on %s: %s", s, v)
		}
	}
	if v := (Verdict{}); v.Action != Deny {
		t.Errorf("the zero verdict: %s", v)
	}
	if v := policy(t, nil, houseRules...).Decide(Conn{}); v.Action != Deny {
		t.Errorf("the zero connection: %s", v)
	}
}

func TestPermits(t *testing.T) {
	p := policy(t, prodAndDev(), houseRules...)
	for _, tt := range []struct {
		client, name string
		want         bool
	}{
		{"10.224.0.4", "mcr.microsoft.com", true},
		{"10.224.0.4", "ntp.ubuntu.com", true},
		{"10.224.0.4", "x.data.mcr.microsoft.com", true},
		{"10.224.0.4", "data.mcr.microsoft.com", false},
		{"10.224.0.4", "d-1.hcp.westeurope.azmk8s.io", false},
		{"10.225.0.4", "d-1.hcp.westeurope.azmk8s.io", true},
		{"10.224.0.4", "evil.example.org", false},
	} {
		if got := p.Permits(netip.MustParseAddr(tt.client), MustParseName(tt.name)); got != tt.want {
			t.Errorf("Permits(%s, %s) = %v", tt.client, tt.name, got)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	good := rule(t, "a https://a.example.com:443")
	for _, tt := range []struct {
		why      string
		rules    []Rule
		clusters []Cluster
		hint     string
	}{
		{"no id", []Rule{{To: good.To}}, nil, "rule 1: no id"},
		{"an id twice", []Rule{good, good}, nil, "rule a: there are two"},
		{"no destination", []Rule{{ID: "a"}}, nil, "rule a: no destination"},
		{"an empty endpoint", []Rule{{ID: "a", To: []Endpoint{{}}}}, nil, "rule a: : no destination"},
		{"an unresolved tag", []Rule{rule(t, "a tcp://@AzureMonitor:443")}, nil, "service tag AzureMonitor has not been replaced"},
		{"a cluster without a name", nil, []Cluster{{}}, "cluster 1: no name"},
		{"a cluster twice", nil, []Cluster{{Name: "a"}, {Name: "a"}}, "cluster a: there are two"},
		{"clients in two clusters", nil, []Cluster{{Name: "a", From: prefixes("10.0.0.0/8")}, {Name: "b", From: prefixes("10.1.0.0/16")}}, "overlap"},
	} {
		if p, err := Compile(tt.rules, tt.clusters); err == nil || p != nil || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("%s: %v, want an error with %q", tt.why, err, tt.hint)
		}
	}
}

func TestPolicyID(t *testing.T) {
	a := policy(t, prodAndDev(), "a https://a.example.com:443 http://a.example.com:80", "b tcp://20.0.0.1:1")
	b := policy(t, prodAndDev(), "b tcp://20.0.0.1:1", "a http://a.example.com:80 https://a.example.com:443")
	c := policy(t, prodAndDev(), "a https://a.example.com:443", "b tcp://20.0.0.1:1")
	if a.ID() != b.ID() || a.ID() == c.ID() || len(a.ID()) != 16 {
		t.Errorf("ids %s, %s (same rules), %s (other rules)", a.ID(), b.ID(), c.ID())
	}
}

// FuzzDecide holds the compiled policy against one that tries every rule, on
// rules and connections made of the same few parts so that they meet often.
func FuzzDecide(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		var rules []Rule
		for i := range 1 + r.IntN(12) {
			rules = append(rules, randomRule(r, i))
		}
		clusters := prodAndDev()
		p, err := Compile(rules, clusters)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			c := randomConn(r)
			got := p.Decide(c)
			if want := naiveAllows(rules, clusters, c); (got.Action == Allow) != want {
				t.Fatalf("%+v: %s, naively allowed: %v\nrules: %v", c, got, want, rules)
			}
			if (got.Action == Allow) != (got.Rule != nil) {
				t.Fatalf("%+v: %s with rule %v", c, got, got.Rule)
			}
		}
	})
}

var (
	fuzzHosts = []string{
		"a.example.com", "b.a.example.com", "*.example.com", "*.a.example.com", "x*.example.com", "q.*.example.com", "p-1.hcp.westeurope.azmk8s.io",
		"20.0.0.0/8", "20.1.0.0/16", "20.1.2.3", "20.1.2.0/24", "10.1.0.0/16", "0.0.0.0/0",
	}
	fuzzNames = []string{"a.example.com", "b.a.example.com", "c.b.a.example.com", "x1.example.com", "q.r.example.com", "example.com", "kubernetes", "p-1.hcp.westeurope.azmk8s.io", "d-1.hcp.westeurope.azmk8s.io"}
	fuzzAddrs = []string{"20.1.2.3", "20.1.2.4", "20.2.0.1", "10.1.2.3", "21.0.0.1"}
	fuzzFroms = []string{"10.224.0.0/16", "10.225.0.0/16", "10.224.1.0/24"}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomRule(r *rand.Rand, i int) Rule {
	rule := Rule{ID: fmt.Sprint("r", i)}
	for range r.IntN(2) {
		rule.From = append(rule.From, netip.MustParsePrefix(pick(r, fuzzFroms)))
	}
	for range 1 + r.IntN(3) {
		first := uint16(pick(r, []int{80, 443}))
		e := Endpoint{Proto(1 + r.IntN(4)), nil, Ports{first, first + uint16(r.IntN(2))}}
		e.Host, _ = parseHost(pick(r, fuzzHosts))
		if _, named := e.Host.(Pattern); !named {
			e.Proto = e.Proto.Transport()
		}
		rule.To = append(rule.To, e)
	}
	return rule
}

func randomConn(r *rand.Rand) Conn {
	c := Conn{
		Proto: Proto(1 + r.IntN(4)),
		Src:   netip.AddrPortFrom(netip.MustParseAddr(pick(r, []string{"10.224.0.4", "10.224.1.4", "10.225.0.4", "10.99.0.1"})), 50000),
		Dst:   netip.AddrPortFrom(netip.MustParseAddr(pick(r, fuzzAddrs)), uint16(pick(r, []int{80, 81, 443, 444}))),
		API:   r.IntN(3) == 0, Strict: r.IntN(2) == 0, Literal: r.IntN(4) == 0,
	}
	if c.Proto.Named() && !c.Literal && r.IntN(5) > 0 {
		c.Name = MustParseName(pick(r, fuzzNames))
	}
	for range r.IntN(3) {
		c.Bound = append(c.Bound, MustParseName(pick(r, fuzzNames)))
	}
	return c
}

// naiveAllows is the decision as the design words it, rule by rule.
func naiveAllows(rules []Rule, clusters []Cluster, c Conn) bool {
	permits := func(proto Proto, n Name) bool {
		for _, r := range rules {
			for _, e := range r.To {
				p, ok := e.Host.(Pattern)
				if ok && e.Proto == proto && e.Ports.Has(c.Dst.Port()) && naiveMatch(p, n) && (len(r.From) == 0 || contains(r.From, c.Src.Addr())) {
					return true
				}
			}
		}
		return false
	}
	for _, r := range rules {
		for _, e := range r.To {
			n, ok := e.Host.(Net)
			if ok && e.Proto == c.Proto.Transport() && n.Contains(c.Dst.Addr()) && e.Ports.Has(c.Dst.Port()) && (len(r.From) == 0 || contains(r.From, c.Src.Addr())) {
				return true
			}
		}
	}
	if Guarded(c.Dst.Addr()) {
		return false
	}
	bound := false
	for _, n := range c.Bound {
		if permits(c.Proto.Transport(), n) {
			return true
		}
		bound = bound || n == c.Name
	}
	if !c.Proto.Named() {
		return false
	}
	if !c.Name.IsZero() && bound && permits(c.Proto, c.Name) {
		return true
	}
	if !c.API || c.Proto != HTTPS || !c.Name.IsZero() && !permits(HTTPS, c.Name) && !strings.HasPrefix(c.Name.String(), "kubernetes") {
		return false
	}
	for _, cl := range clusters {
		if contains(cl.From, c.Src.Addr()) {
			return cl.ByAddress && permits(HTTPS, cl.APIServer)
		}
	}
	return false
}

func TestZonesAreWhatWildcardsEndIn(t *testing.T) {
	p := policy(t, nil, "z https://*.blob.core.windows.net:443 https://*.core.windows.net:443 https://md-*.blob.storage.azure.net:443 https://arcmktplaceprod.*.data.azurecr.io:443 https://a.example:443")
	for name, want := range map[string]string{
		"a.blob.core.windows.net":                   "blob.core.windows.net",
		"b.a.blob.core.windows.net":                 "blob.core.windows.net",
		"a.table.core.windows.net":                  "core.windows.net",
		"md-1.blob.storage.azure.net":               "blob.storage.azure.net",
		"arcmktplaceprod.eastus.data.azurecr.io":    "data.azurecr.io",
		"core.windows.net":                          "",
		"a.example":                                 "",
		"evilblob.core.windows.net":                 "core.windows.net",
		"a.blob.core.windows.net.evil.example":      "",
		"arcmktplaceprod.x.y.z.eastus.azurecr.io":   "",
		"deep.er.and.deep.er.blob.core.windows.net": "blob.core.windows.net",
	} {
		if got := p.Zone(MustParseName(name)); got != want {
			t.Errorf("%s is in %q, want %q", name, got, want)
		}
	}
	if !p.Spells(MustParseName("a.example")) || p.Spells(MustParseName("blob.core.windows.net")) || p.Spells(MustParseName("x.blob.core.windows.net")) || p.Spells(Name{}) {
		t.Error("what a wildcard holds is spelled out, or what is spelled out is not")
	}
}
