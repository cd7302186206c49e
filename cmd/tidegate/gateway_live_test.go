package main

import (
	"net/netip"
	"reflect"
	"runtime"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/gateway"
)

func liveFlow(src string, reason egress.Reason, bound ...string) egress.Flow {
	f := egress.Flow{Verdict: egress.Verdict{Action: egress.Allow, Reason: reason}}
	f.Conn = egress.Conn{
		Proto: egress.HTTPS, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort("20.1.2.3:443"), Name: egress.MustParseName("mcr.microsoft.com"),
	}
	for _, n := range bound {
		f.Conn.Bound = append(f.Conn.Bound, egress.MustParseName(n))
	}
	return f
}

// What is remembered of a connection must be enough for the same policy to permit
// it again: a reload that changes nothing cuts nothing.
func TestARememberedConnectionIsStillPermitted(t *testing.T) {
	clusters := []egress.Cluster{{Name: "prod", From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	p, err := egress.Compile([]egress.Rule{{ID: "mcr", To: []egress.Endpoint{egress.MustParseEndpoint("https://mcr.microsoft.com:443")}}}, clusters)
	if err != nil {
		t.Fatal(err)
	}
	var r running
	f := liveFlow("10.0.0.1:1", egress.ByNameRule, "other.example.org", "mcr.microsoft.com")
	r.add(f)
	kept, ok := r.decided(tupleOf(f.Conn))
	if !ok {
		t.Fatal("forgotten")
	}
	never := func(uint32) bool { return false }
	if cut := gateway.Cut(p, never, []gateway.Live{{Conn: kept.Conn, Rule: 1}}); len(cut) != 0 {
		t.Errorf("cut %v", cut)
	}
	empty, err := egress.Compile(nil, clusters)
	if err != nil {
		t.Fatal(err)
	}
	if cut := gateway.Cut(empty, never, []gateway.Live{{Conn: kept.Conn, Rule: 1}}); len(cut) != 1 {
		t.Error("not cut by a policy that denies it")
	}
}

func TestRunningIsBoundedAndForgets(t *testing.T) {
	var r running
	f := liveFlow("10.0.0.1:1", egress.ByNameRule)
	if _, had, kept := r.add(f); had || !kept || r.len() != 1 {
		t.Error("the first connection was there already")
	}
	again := liveFlow("10.0.0.1:1", egress.ByAPIServerAddress)
	if before, had, kept := r.add(again); !had || !kept || before.Verdict.Reason != egress.ByNameRule || r.len() != 1 {
		t.Error("a second connection on the same ports does not take the place of the first")
	}
	if got, ok := r.remove(tupleOf(f.Conn)); !ok || got.Verdict.Reason != egress.ByAPIServerAddress || r.len() != 0 {
		t.Error("the end of a connection does not forget it")
	}
	if _, ok := r.remove(tupleOf(f.Conn)); ok {
		t.Error("it ended twice")
	}
	src := netip.MustParseAddr("10.0.0.1")
	for range maxRunning + 10 {
		src = src.Next()
		f.Conn.Src = netip.AddrPortFrom(src, 1)
		_, _, kept := r.add(f)
		if full := r.len() == maxRunning; !kept && !full {
			t.Fatal("there was room")
		}
	}
	if _, _, kept := r.add(liveFlow("192.0.2.1:1", egress.ByNameRule)); kept || r.len() != maxRunning {
		t.Errorf("%d are remembered, one more: %t", r.len(), kept)
	}
	r.remove(tupleOf(liveFlow("10.0.0.2:1", egress.ByNameRule).Conn))
	f.Conn.Src = netip.MustParseAddrPort("10.0.0.9:9")
	f.Time = time.Unix(100, 0)
	r.add(f)
	at := tupleOf(f.Conn)
	if over := r.keep(map[tuple]bool{}, f.Time); len(over) != maxRunning-1 || r.len() != 1 {
		t.Errorf("%d are over, %d stay: want the one that is younger than the list", len(over), r.len())
	}
	if over := r.keep(map[tuple]bool{at: true}, f.Time.Add(1)); len(over) != 0 || r.len() != 1 {
		t.Error("one that lives is over")
	}
}

// A flow comes back as it was, but for the names that its address had besides its own.
func TestARunningFlowIsRememberedWhole(t *testing.T) {
	for _, ends := range [][2]string{{"10.0.0.1:1", "20.1.2.3:443"}, {"[2001:db8::1]:1", "[2001:db8::2]:443"}} {
		f := liveFlow("10.0.0.1:1", egress.ByNameRule, "mcr.microsoft.com")
		f.Conn.Src, f.Conn.Dst = netip.MustParseAddrPort(ends[0]), netip.MustParseAddrPort(ends[1])
		f.Time, f.Policy, f.Cluster, f.Observed, f.Verdict.Rule = time.Unix(7, 9), "p1", "prod", true, &egress.Rule{ID: "mcr"}
		f.Conn.Literal, f.Conn.API, f.Conn.Strict = true, true, true
		var r running
		r.add(f)
		if got, ok := r.decided(tupleOf(f.Conn)); !ok || !reflect.DeepEqual(got, f) {
			t.Errorf("got  %+v\nwant %+v", got, f)
		}
	}
}

// BenchmarkRunning shows what the process remembers of a decided connection, in bytes.
func BenchmarkRunning(b *testing.B) {
	const flows = 100_000
	bytes := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := bytes()
		var r running
		src := netip.MustParseAddr("10.0.0.1")
		for range flows {
			f := liveFlow("10.0.0.1:1", egress.ByNameRule, "mcr.microsoft.com")
			src = src.Next()
			f.Conn.Src = netip.AddrPortFrom(src, 1)
			r.add(f)
		}
		b.ReportMetric(float64(bytes()-before)/flows, "B/flow")
		runtime.KeepAlive(&r)
	}
}
