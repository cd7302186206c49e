package egress

import "net/netip"

// guarded are the ranges that no name may lead to (DNS rebinding): they are
// private, special, or reach a platform service that lends identities. The
// IPv6 forms that embed an IPv4 address are unwrapped instead, see Guarded.
var guarded = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10",
	"fec0::/10", "ff00::/8",
)

// guardedFirst tells by an address's first byte that no guarded range begins
// with it, for most addresses.
var guardedFirst = func() (first struct{ v4, v6 [256]bool }) {
	for _, p := range guarded {
		b := p.Addr().AsSlice()[0]
		family := &first.v6
		if p.Addr().Is4() {
			family = &first.v4
		}
		family[b] = true
		for next := int(b) + 1; p.Bits() < 8 && next < int(b)+1<<(8-p.Bits()); next++ {
			family[next] = true
		}
	}
	return first
}()

// nat64 is the well-known prefix of RFC 6052: the IPv4 address is its last four bytes.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func prefixes(ss ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		ps[i] = netip.MustParsePrefix(s)
	}
	return ps
}

// GuardedRanges returns the prefixes that [Guarded] tests, in a new slice.
// An IPv4-mapped address and one behind the NAT64 prefix count as the IPv4
// address inside them.
func GuardedRanges() []netip.Prefix { return append([]netip.Prefix(nil), guarded...) }

// Guarded reports whether a is in a range that may be reached by an explicit
// address rule only, never because a name resolved to it. The invalid address
// is guarded.
func Guarded(a netip.Addr) bool {
	if !a.IsValid() {
		return true
	}
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	first := guardedFirst.v6[a.As16()[0]]
	if a.Is4() {
		first = guardedFirst.v4[a.As4()[0]]
	}
	if !first {
		return false
	}
	for _, p := range guarded {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
