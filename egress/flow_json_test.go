package egress

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"
)

// form is the form of f that encoding/json writes: the oracle.
func (f *Flow) form() flowJSON {
	j := flowJSON{
		Time: f.Time, Event: "decided", Policy: f.Policy, Cluster: f.Cluster,
		Action: f.Verdict.Action, Reason: f.Verdict.Reason, Observed: f.Observed,
		Proto: f.Conn.Proto, Name: f.Conn.Name, Literal: f.Conn.Literal, Bound: f.Conn.Bound, API: f.Conn.API, Strict: f.Conn.Strict,
		Sent: f.Sent, Received: f.Received, Seconds: f.Duration.Seconds(),
	}
	if f.End {
		j.Event = "ended"
	}
	if f.Verdict.Rule != nil {
		j.Rule = f.Verdict.Rule.ID
	}
	if f.Conn.Src.Addr().IsValid() {
		j.Src = f.Conn.Src.String()
	}
	if f.Conn.Dst.Addr().IsValid() {
		j.Dst = f.Conn.Dst.String()
	} else {
		j.Port = f.Conn.Dst.Port()
	}
	return j
}

// FuzzFlowsAreWrittenAsEncodingJSONDoes holds AppendJSON against the struct that reads it.
func FuzzFlowsAreWrittenAsEncodingJSONDoes(f *testing.F) {
	f.Add(int64(1), "prod:core/mcr", "prod", "mcr.microsoft.com", uint32(0x0a000001), uint16(443), uint8(255), uint64(1500), int64(1500*time.Millisecond))
	f.Add(int64(0), "a<b>&\"\\\n\u2028\xff", "", "", uint32(0), uint16(0), uint8(0), uint64(0), int64(0))
	f.Add(int64(-1), "", "c", "x_y.example", uint32(1), uint16(1), uint8(0x2a), uint64(1), int64(7))
	f.Fuzz(func(t *testing.T, at int64, rule, cluster, name string, addr uint32, port uint16, bits uint8, n uint64, took int64) {
		has := func(bit int) bool { return bits>>bit&1 == 1 }
		a := netip.AddrFrom4([4]byte{byte(addr >> 24), byte(addr >> 16), byte(addr >> 8), byte(addr)})
		fl := Flow{
			Time: time.Unix(0, at).UTC(), Policy: cluster, Cluster: cluster, Observed: has(0), End: has(1), Sent: n, Received: n / 2, Duration: time.Duration(took),
			Verdict: Verdict{Action: Action(addr % 3), Reason: Reason(port % 40)},
			Conn:    Conn{Proto: Proto(bits % 5), Src: netip.AddrPortFrom(a, port), Literal: has(2), API: has(3), Strict: has(4), Dst: netip.AddrPortFrom(netip.Addr{}, port)},
		}
		if has(5) {
			fl.Conn.Dst = netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 15: byte(port)}), port)
		}
		if has(6) {
			fl.Verdict.Rule = &Rule{ID: rule}
		}
		if parsed, err := ParseName(name); err == nil {
			fl.Conn.Name, fl.Conn.Bound = parsed, []Name{parsed, parsed}[:bits%3]
		}
		want, err := json.Marshal(fl.form())
		if err != nil {
			t.Skip(err) // a time that JSON does not have
		}
		if got := string(fl.AppendJSON(nil)); got != string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	})
}

func BenchmarkFlowJSON(b *testing.B) {
	n := MustParseName("mcr.microsoft.com")
	f := Flow{
		Time: time.Unix(1795638177, 123456789).UTC(), Policy: "0123456789abcdef", Cluster: "prod", Verdict: Verdict{Allow, ByNameRule, &Rule{ID: "prod:core/mcr"}},
		Conn: Conn{Proto: HTTPS, Src: netip.MustParseAddrPort("10.224.0.4:50000"), Dst: netip.MustParseAddrPort("20.1.2.3:443"), Name: n, Bound: []Name{n}, Strict: true},
	}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = f.AppendJSON(buf[:0])
	}
}
