package audit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

// rulesOf is an Azure policy of network rules, each "allow|deny FROM TO PORTS".
func rulesOf(rules ...string) string {
	var collections []string
	for i, r := range rules {
		f := strings.Fields(r)
		action := strings.ToUpper(f[0][:1]) + f[0][1:]
		collections = append(collections, fmt.Sprintf(`{"name": "c%d", "priority": %d, "action": {"type": %q}, "rules": [{"ruleType": "NetworkRule", "name": "r", "ipProtocols": ["TCP"],
			"sourceAddresses": [%q], "destinationAddresses": [%q], "destinationPorts": [%q]}]}`, i, 100+i, action, f[1], f[2], f[3]))
	}
	return `{"name": "g", "priority": 100, "ruleCollections": [` + strings.Join(collections, ",") + `]}`
}

// TestRulesTogether: what no rule permits alone, several may.
func TestRulesTogether(t *testing.T) {
	for _, row := range []struct {
		need  string
		met   bool
		rules []string
	}{
		{"tcp://20.1.0.0/16:443", true, []string{"allow * 20.1.0.0/17 443", "allow * 20.1.128.0/17 443"}},
		{"tcp://20.1.0.0/16:443", false, []string{"allow * 20.1.0.0/17 443", "allow * 20.1.128.0/18 443"}},
		{"tcp://20.1.0.0/16:443", true, []string{"allow * 20.1.0.0-20.1.99.255 443", "allow * 20.1.100.0-20.1.255.255 443"}},
		{"tcp://20.1.0.0/16:443", false, []string{"allow * 20.1.0.0-20.1.99.254 443", "allow * 20.1.100.0-20.1.255.255 443"}},
		{"tcp://20.1.2.3:9000-9002", true, []string{"allow * 20.1.2.3 9001", "allow * 20.1.2.3 9000", "allow * 20.0.0.0/8 9002-9010"}},
		{"tcp://20.1.2.3:9000-9002", false, []string{"allow * 20.1.2.3 9000", "allow * 20.1.2.3 9002"}},
		{"tcp://20.1.2.3:9000", true, []string{"allow 10.224.0.0/17 20.1.2.3 9000", "allow 10.224.128.0/17 20.1.2.3 9000"}},
		{"tcp://20.1.2.3:9000", false, []string{"allow 10.224.0.0/17 20.1.2.3 9000", "allow 10.224.128.0/18 20.1.2.3 9000"}},
		{"tcp://20.1.0.0/24:1-2", true, []string{"allow 10.224.0.0/17 20.1.0.0/24 1-2", "allow 10.224.128.0/17 20.1.0.0/25 1-9", "allow 10.0.0.0/8 20.1.0.128/25 1", "allow 10.0.0.0/8 20.1.0.128/25 2"}},
		{"tcp://20.1.0.0/16:443", false, []string{"allow * 20.1.0.0/17 443", "deny * 20.1.128.0/20 443", "allow * 20.1.128.0/17 443"}},
		{"tcp://20.1.0.0/16:443", true, []string{"allow * 20.1.0.0/17 443", "allow * 20.1.128.0/17 443", "deny * 20.0.0.0/8 443"}},
		{"tcp://20.1.0.0/16:443", true, []string{"allow * 20.1.0.0/17 443", "deny * 20.1.0.0/18 443", "allow * 20.1.128.0/17 443"}},
		{"tcp://mcr.microsoft.com:443", false, []string{"allow * 20.1.0.0/17 443", "allow * 20.1.128.0/17 443"}},
		{"tcp://mcr.microsoft.com:443", true, []string{"allow 10.224.0.0/17 * 443", "allow 10.224.128.0/17 * 443"}},
	} {
		n := Needs{From: []netip.Prefix{netip.MustParsePrefix("10.224.0.0/16")}, Rules: []egress.Rule{{ID: "need", To: []egress.Endpoint{egress.MustParseEndpoint(row.need)}}}}
		r := read(t, rulesOf(row.rules...)).Judge(n)
		if met := !r.Lacks() && len(r.Covered) == 1; met != row.met {
			t.Errorf("%s by %q: met %v, findings %+v", row.need, row.rules, met, r.Findings)
		}
	}
}

// TestUnionAgainstEveryPoint asks the decider for every client, address and port of small needs.
func TestUnionAgainstEveryPoint(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 20))
	prefix := func(base string, bits int) netip.Prefix {
		a := netip.MustParseAddr(base).As4()
		a[3] += byte(random.IntN(8))
		return netip.PrefixFrom(netip.AddrFrom4(a), bits+random.IntN(33-bits)).Masked()
	}
	met := 0
	for range 3000 {
		need := egress.Endpoint{Proto: egress.TCP, Host: egress.Net{Prefix: netip.MustParsePrefix("20.1.0.0/29")}, Ports: egress.Ports{First: 10, Last: 12}}
		n := Needs{From: []netip.Prefix{netip.MustParsePrefix("10.224.0.0/30")}, Rules: []egress.Rule{{ID: "need", To: []egress.Endpoint{need}}}}
		var rules []string
		for range 1 + random.IntN(7) {
			first := 10 + random.IntN(3)
			action := "allow"
			if random.IntN(6) == 0 {
				action = "deny"
			}
			rules = append(rules, fmt.Sprintf("%s %s %s %d-%d", action, prefix("10.224.0.0", 28), prefix("20.1.0.0", 28), first, first+random.IntN(3)))
		}
		p := read(t, rulesOf(rules...))
		want := everyPoint(p, n)
		r := p.Judge(n)
		if got := len(r.Covered) == 1 && !hasKind(r, PartlyDenied); got != want {
			t.Fatalf("%q: met %v, want %v: %+v", rules, got, want, r.Findings)
		}
		if want {
			met++
		}
	}
	if met < 100 {
		t.Errorf("only %d of the policies meet the need", met)
	}
}

func hasKind(r Report, k Kind) bool {
	for _, f := range r.Findings {
		if f.Kind == k {
			return true
		}
	}
	return false
}

func everyPoint(p *Policy, n Needs) bool {
	decide := p.Decider(n)
	e := n.Rules[0].To[0]
	to := e.Host.(egress.Net).Prefix
	for src := n.From[0].Addr(); n.From[0].Contains(src); src = src.Next() {
		for dst := to.Addr(); to.Contains(dst); dst = dst.Next() {
			for port := e.Ports.First; port <= e.Ports.Last; port++ {
				if !decide(egress.Conn{Proto: egress.TCP, Src: netip.AddrPortFrom(src, 0), Dst: netip.AddrPortFrom(dst, port)}) {
					return false
				}
			}
		}
	}
	return true
}
