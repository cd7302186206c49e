package kernel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

func TestMarksRoundTrip(t *testing.T) {
	for state := range numStates {
		for _, rule := range []uint32{0, 1, 17, MaxRule} {
			m := NewMark(state, rule)
			if m.State() != state || m.Rule() != rule || m>>28 != 0 {
				t.Errorf("%s, %d: %#x is %s, %d", state, rule, uint32(m), m.State(), m.Rule())
			}
			if got, err := ParseMark(m.String()); err != nil || got != m {
				t.Errorf("%q reads as %#x, %v", m, uint32(got), err)
			}
		}
	}
	for _, s := range []string{"", "allowed/", "allowed/0", "allowed/01", "allowed/+1", "allowed/16777216", "Allowed", "allowed/1/2", "state(9)"} {
		if m, err := ParseMark(s); err == nil {
			t.Errorf("%q reads as %s", s, m)
		}
	}
}

// FuzzRangesAgreeWithPrefixes holds flatten and merge against a look at every
// prefix.
func FuzzRangesAgreeWithPrefixes(f *testing.F) {
	f.Add(uint64(1), uint8(3))
	f.Add(uint64(2), uint8(40))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		r := rand.New(rand.NewPCG(seed, 0))
		var uses []use
		var ps []netip.Prefix
		for i := range int(n) {
			// Few bits, so that prefixes meet; both ends of the address space.
			a := netip.AddrFrom4([4]byte{byte(r.IntN(2) * 255), byte(r.IntN(4) * 85), byte(r.IntN(3) * 127), byte(r.IntN(256))})
			p := netip.PrefixFrom(a, r.IntN(33)).Masked()
			ps = append(ps, p)
			uses = append(uses, use{egress.Endpoint{Proto: egress.TCP, Host: egress.Net{Prefix: p}}, NewMark(Allowed, uint32(1+i%5))})
		}
		marked, merged := flatten(uses, V4), merge(ps, V4)
		for _, ranges := range [][]Range{marked, merged} {
			for i, g := range ranges {
				if g.First.Compare(g.Last) > 0 || i > 0 && ranges[i-1].Last.Compare(g.First) >= 0 {
					t.Fatalf("ranges overlap or are not in order: %v", ranges)
				}
			}
		}
		check := func(a netip.Addr) {
			want, bits := Mark(0), -1
			for _, u := range uses {
				if p := u.endpoint.Host.(egress.Net); p.Contains(a) && p.Bits() > bits {
					want, bits = u.mark, p.Bits()
				}
			}
			if got, in := find(marked, a); got.Mark != want || in != (bits >= 0) {
				t.Fatalf("%s: mark %s, want %s; prefixes %v", a, got.Mark, want, ps)
			}
			if _, in := find(merged, a); in != (bits >= 0) {
				t.Fatalf("%s: in the merged set: %t; prefixes %v", a, in, ps)
			}
		}
		for _, p := range ps {
			for _, a := range []netip.Addr{p.Addr(), last(p), p.Addr().Prev(), last(p).Next()} {
				if a.IsValid() {
					check(a)
				}
			}
		}
	})
}

func find(ranges []Range, a netip.Addr) (Range, bool) {
	for _, r := range ranges {
		if r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0 {
			return r, true
		}
	}
	return Range{}, false
}

func TestLearnGivesWhatRulesName(t *testing.T) {
	rs := goldenPlans(t)["observed"]
	both := goldenPlans(t)["ordinary"]
	for _, row := range []struct {
		what string
		rs   *Ruleset
		b    egress.Binding
		want string
	}{
		{"a name of a UDP rule", both, binding("prod", "ntp.ubuntu.com", "91.189.91.157", time.Hour), "open.prod.udp.123.v4 91.189.91.157 allowed/4"},
		{"over IPv6", both, binding("prod", "ntp.ubuntu.com", "2620:2d::1", time.Hour), "open.prod.udp.123.v6 2620:2d::1 allowed/4"},
		{"an IPv4 address in IPv6 clothes", both, binding("prod", "ntp.ubuntu.com", "::ffff:91.189.91.157", time.Hour), "open.prod.udp.123.v4 91.189.91.157 allowed/4"},
		{"a wildcard's name, for some clients", both, binding("prod", "a.b.database.windows.net", "20.1.2.3", time.Hour), "open.prod.3b3586a4.tcp.11000-11999.v4 20.1.2.3 allowed/6"},
		{"a name of an HTTPS rule", both, binding("prod", "packages.microsoft.com", "20.1.2.3", time.Hour), ""},
		{"another cluster's answer", both, binding("test", "ntp.ubuntu.com", "91.189.91.157", time.Hour), ""},
		{"a private address", both, binding("prod", "ntp.ubuntu.com", "10.0.0.4", time.Hour), ""},
		{"a private address behind NAT64", both, binding("prod", "ntp.ubuntu.com", "64:ff9b::a00:4", time.Hour), ""},
		{"the metadata service", both, binding("prod", "ntp.ubuntu.com", "169.254.169.254", time.Hour), ""},
		{"an answer that is over", both, binding("prod", "ntp.ubuntu.com", "91.189.91.157", 0), ""},
		{"an enforced cluster", rs, binding("prod", "t.example", "20.1.2.3", time.Hour), "open.prod.udp.5000.v4 20.1.2.3 allowed/1"},
		{"an observed cluster", rs, binding("Test_1.x", "t.example", "20.1.2.3", time.Hour), "open.Test_5f1_2ex.udp.5000.v4 20.1.2.3 passed/1"},
	} {
		var got []string
		for _, e := range learn(row.rs, row.b) {
			got = append(got, fmt.Sprint(e.Set, " ", e.Addr, " ", e.Mark))
		}
		if s := strings.Join(got, ", "); s != row.want {
			t.Errorf("%s: %q, want %q", row.what, s, row.want)
		}
	}
}

func TestPlansThatCannotBeAreRefused(t *testing.T) {
	p := compilePolicy(t, []egress.Cluster{prodCluster}, rule(t, "a", nil, "https://a.example:443"), rule(t, "b", nil, "https://b.example:443"))
	for _, row := range []struct {
		what   string
		change func(*Settings)
		want   string
	}{
		{"a cluster without settings", func(s *Settings) { s.Clusters = nil }, "cluster prod: not in the settings"},
		{"no numbers", func(s *Settings) { s.Number = nil }, "rules have no numbers for their marks"},
		{"number 0", func(s *Settings) { s.Number = func(string) uint32 { return 0 } }, "rule a: number 0 is not one from 1 to 16777215"},
		{"a number too large", func(s *Settings) { s.Number = func(string) uint32 { return 1 << 24 } }, "rule a: number 16777216 is not one from 1 to 16777215"},
		{"one number for two", func(s *Settings) { s.Number = func(string) uint32 { return 5 } }, "rules a and b: both have the number 5"},
		{"one queue for two ends", func(s *Settings) { s.Observe = s.Queue + 1 }, "queue 101: observed connections need a queue of their own"},
	} {
		s := settings(p, Cluster{Name: "prod"})
		row.change(&s)
		if _, err := Plan(p, s); err == nil || err.Error() != row.want {
			t.Errorf("%s: %v, want %s", row.what, err, row.want)
		}
	}
}

func TestPlansAreDeterministic(t *testing.T) {
	first, second := goldenPlans(t), goldenPlans(t)
	for name := range first {
		if first[name].String() != second[name].String() {
			t.Errorf("%s differs", name)
		}
	}
}

var prodCluster = egress.Cluster{Name: "prod", From: nodes}
