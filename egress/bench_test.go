package egress

import (
	"fmt"
	"net/netip"
	"testing"
)

// millions returns a policy of n wildcard names, and the same 100 connections
// for every n: what differs is only how much else the policy holds.
func millions(b *testing.B, n int) (*Policy, []Conn) {
	b.Helper()
	r := Rule{ID: "many"}
	for i := range n {
		r.To = append(r.To, Endpoint{HTTPS, MustParsePattern(fmt.Sprintf("*.n%d.example.com", i)), Ports{443, 443}})
	}
	p, err := Compile([]Rule{r}, nil)
	if err != nil {
		b.Fatal(err)
	}
	return p, connsTo(100, func(i int) int { return i })
}

func BenchmarkCompile(b *testing.B) {
	var rules []Rule
	for i := range 200 {
		r := Rule{ID: fmt.Sprint(i)}
		for j := range 500 {
			star := []string{"", "*."}[j%2]
			r.To = append(r.To, MustParseEndpoint(fmt.Sprintf("https://%shost-%d.svc%d.example:443", star, i*500+j, j)))
		}
		rules = append(rules, r)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(rules, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseEndpoint(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		for _, s := range []string{"https://host-12345.svc1.example:443", "https://*.zone-12345.svc1.example:443"} {
			if _, err := ParseEndpoint(s); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func connsTo(n int, which func(int) int) []Conn {
	conns := make([]Conn, n)
	for i := range conns {
		name := MustParseName(fmt.Sprintf("a.n%d.example.com", which(i)))
		conns[i] = Conn{
			Proto: HTTPS, Src: netip.MustParseAddrPort("10.224.0.4:50000"), Dst: netip.MustParseAddrPort("20.1.2.3:443"),
			Name: name, Bound: []Name{name},
		}
	}
	return conns
}

func BenchmarkDecideNames(b *testing.B) {
	for _, n := range []int{100, 10_000, 1_000_000} {
		p, conns := millions(b, n)
		b.Run(fmt.Sprintf("hot/%d", n), func(b *testing.B) { decideAll(b, p, conns) })
		// Names spread over the whole policy: this one also pays for what the
		// processor's caches do not hold.
		spread := connsTo(n, func(i int) int { return int(uint64(i) * 2654435761 % uint64(n)) })
		b.Run(fmt.Sprintf("spread/%d", n), func(b *testing.B) { decideAll(b, p, spread) })
	}
}

func decideAll(b *testing.B, p *Policy, conns []Conn) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if p.Decide(conns[i]).Action != Allow {
			b.Fatal("denied")
		}
		if i++; i == len(conns) {
			i = 0
		}
	}
}

func BenchmarkDecideAddresses(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		r := Rule{ID: "tag"}
		for i := range n {
			r.To = append(r.To, Endpoint{TCP, Net{netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24)}, Ports{443, 443}})
		}
		p, err := Compile([]Rule{r}, nil)
		if err != nil {
			b.Fatal(err)
		}
		c := Conn{Proto: TCP, Dst: netip.MustParseAddrPort("20.0.7.9:443")}
		b.Run(fmt.Sprint(n), func(b *testing.B) { decideAll(b, p, []Conn{c}) })
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := policy(t, prodAndDev(), houseRules...)
	for _, s := range []string{
		"https 10.224.0.4 > 20.1.2.3:443 eastus.data.mcr.microsoft.com | bound=eastus.data.mcr.microsoft.com",
		"https 10.224.0.4 > 20.1.2.3:443 evil.example.org",
		"tcp 10.224.0.4 > 20.1.2.3:443 | strict bound=mcr.microsoft.com",
		"udp fd00:1::4 > [2603::1]:123",
	} {
		c := conn(t, s)
		if n := testing.AllocsPerRun(100, func() { p.Decide(c) }); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
	}
}
