package egress

import (
	"net/netip"
	"testing"
)

func TestGuarded(t *testing.T) {
	for _, a := range []string{
		"0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "168.63.129.16", "169.254.169.254", "172.31.255.255", "192.0.0.8",
		"192.168.1.1", "198.19.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:a9fe:a9fe::1",
		"2001::1", "2001:db8::1", "100::1", "fd00::1", "fe80::1", "fec0::1", "ff02::1",
	} {
		if !Guarded(netip.MustParseAddr(a)) {
			t.Errorf("%s is not guarded", a)
		}
	}
	for _, a := range []string{"20.1.2.3", "168.63.129.17", "1.1.1.1", "2603:1000::1", "::ffff:20.1.2.3", "64:ff9b::1401:203"} {
		if Guarded(netip.MustParseAddr(a)) {
			t.Errorf("%s is guarded", a)
		}
	}
	if !Guarded(netip.Addr{}) {
		t.Error("the invalid address is not guarded")
	}
}

// TestGuardedAgreesWithItsRanges holds the quick test by the first byte against
// the plain list, at the ends of every range and beside them.
func TestGuardedAgreesWithItsRanges(t *testing.T) {
	inside := func(a netip.Addr) bool { return contains(GuardedRanges(), a) }
	for _, p := range GuardedRanges() {
		last := p.Addr()
		for bit, b := p.Bits(), last.AsSlice(); bit < len(b)*8; bit++ {
			b[bit/8] |= 0x80 >> (bit % 8)
			last, _ = netip.AddrFromSlice(b)
		}
		for _, a := range []netip.Addr{p.Addr(), last, p.Addr().Prev(), last.Next()} {
			if a.IsValid() && !a.Is4In6() && Guarded(a) != inside(a) {
				t.Errorf("%s, at the edge of %s: %v", a, p, Guarded(a))
			}
		}
	}
}
