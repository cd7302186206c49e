package kernel

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidegate.io/tidegate/egress"
)

var update = flag.Bool("update", false, "write the golden files")

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// rule makes a rule from endpoints in their text form.
func rule(t testing.TB, id string, from []netip.Prefix, to ...string) egress.Rule {
	t.Helper()
	r := egress.Rule{ID: id, From: from, Why: "test"}
	for _, s := range to {
		e, err := egress.ParseEndpoint(s)
		if err != nil {
			t.Fatal(err)
		}
		r.To = append(r.To, e)
	}
	return r
}

func compilePolicy(t testing.TB, clusters []egress.Cluster, rules ...egress.Rule) *egress.Policy {
	t.Helper()
	p, err := egress.Compile(rules, clusters)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// numbers gives rules the numbers of their places.
func numbers(p *egress.Policy) func(string) uint32 {
	return func(id string) uint32 {
		for i, r := range p.Rules() {
			if r.ID == id {
				return uint32(i + 1)
			}
		}
		return 0
	}
}

// settings is an ordinary gateway.
func settings(p *egress.Policy, clusters ...Cluster) Settings {
	return Settings{
		Clusters: clusters, Number: numbers(p),
		DNS: 5300, Asked: 5353, Transparent: 8080, Explicit: 3128, Management: netip.MustParseAddrPort("10.9.0.1:9090"),
		Queue: 100, Queues: 2, Observe: 110, Log: 100, Masquerade: true,
		Features: Features{StripOption: true, InnerHeader: true},
	}
}

func plan(t testing.TB, p *egress.Policy, s Settings) *Ruleset {
	t.Helper()
	rs, err := Plan(p, s)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

var nodes = prefixes("10.224.0.0/16", "fd00:224::/64")

// goldenPlans are the policies of testdata/*.nft.
func goldenPlans(t testing.TB) map[string]*Ruleset {
	prod := egress.Cluster{Name: "prod", From: nodes}
	inside := Cluster{Name: "prod", Internal: prefixes("10.0.0.0/8", "fd00::/8")}

	empty := compilePolicy(t, []egress.Cluster{prod})
	ordinary := compilePolicy(t, []egress.Cluster{prod},
		rule(t, "core/apiserver", nil, "https://*.hcp.westeurope.azmk8s.io:443"),
		rule(t, "core/tunnel", nodes, "udp://20.40.0.0/13:1194", "tcp://20.40.0.0/13:9000", "tcp://[2603:1020::/32]:9000"),
		rule(t, "core/tunnel-narrow", nil, "tcp://20.40.1.0/24:9000"),
		rule(t, "core/ntp", nil, "udp://ntp.ubuntu.com:123"),
		rule(t, "os/packages", nil, "http://security.ubuntu.com:80", "https://packages.microsoft.com:443"),
		rule(t, "team/db", prefixes("10.224.7.0/24"), "tcp://*.database.windows.net:11000-11999", "https://db.example:8443", "tcp://[::/0]:22"))
	two := compilePolicy(t, []egress.Cluster{prod, {Name: "Test_1.x", From: prefixes("10.225.0.0/16")}},
		rule(t, "web", nil, "https://a.example:443", "http://a.example:80", "udp://t.example:5000"),
		rule(t, "only-prod", nodes, "tcp://192.0.2.0/24:5432"))

	observed := settings(two, inside, Cluster{Name: "Test_1.x", Observe: true})
	observed.Masquerade = false
	bare := settings(empty, inside)
	bare.DNS, bare.Asked, bare.Transparent, bare.Explicit, bare.Management, bare.Queues, bare.Features = 0, 0, 0, 0, netip.AddrPort{}, 1, Features{NativeQueue: true}
	return map[string]*Ruleset{
		"empty":    plan(t, empty, bare),
		"ordinary": plan(t, ordinary, settings(ordinary, inside)),
		"observed": plan(t, two, observed),
	}
}

func TestPlansAreAsWritten(t *testing.T) {
	for name, rs := range goldenPlans(t) {
		path := filepath.Join("testdata", name+".nft")
		got := rs.String()
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func binding(scope, name, addr string, left time.Duration) egress.Binding {
	n, err := egress.ParseName(name)
	if err != nil {
		panic(err)
	}
	return egress.Binding{Scope: scope, Name: n, Addr: netip.MustParseAddr(addr), Expires: time.Unix(1000, 0).Add(left)}
}

func learn(rs *Ruleset, bs ...egress.Binding) (es []Element) {
	for _, b := range bs {
		es = append(es, rs.Learn(b, time.Unix(1000, 0))...)
	}
	return es
}
