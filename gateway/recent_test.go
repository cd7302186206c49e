package gateway

import (
	"net/netip"
	"testing"
	"time"
)

// TestRecentTellsFamiliesApart: an address of IPv6 that contains one of IPv4 is another one.
func TestRecentTellsFamiliesApart(t *testing.T) {
	var r recent
	r.init()
	want := map[key]uint32{}
	for i, pair := range [][2]string{
		{"10.224.0.4:50000", "20.1.2.3:443"},
		{"[::ffff:10.224.0.4]:50000", "[::ffff:20.1.2.3]:443"},
		{"[fd00:1::4]:50000", "[2603:1000::3]:443"},
		{"10.224.0.4:443", "20.1.2.3:50000"},
	} {
		k := key{netip.MustParseAddrPort(pair[0]), netip.MustParseAddrPort(pair[1])}
		want[k] = uint32(i)
		r.keep(k, uint32(i), start)
	}
	got := 0
	r.each(start.Add(recentFor-time.Nanosecond), func(k key, mark uint32) {
		if got++; want[k] != mark {
			t.Errorf("%v has %d, want %d", k, mark, want[k])
		}
	})
	if got != len(want) {
		t.Errorf("%d of %d", got, len(want))
	}
	for k := range want {
		if _, ok := r.find(k, start.Add(recentFor)); ok {
			t.Errorf("%v is not forgotten in time", k)
		}
	}
}
