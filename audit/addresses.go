package audit

import (
	"net/netip"
	"strconv"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Addresses and ports as Azure writes them, which the other formats do too.

// azureTargets reads an address, a range, or a service tag.
func azureTargets(s string) ([]writtenTarget, bool) {
	if strings.EqualFold(s, "Internet") {
		return []writtenTarget{{text: s, to: target{net: anyAddr}}, {text: s, to: target{net: anyAddr6}}}, true
	}
	if ps, ok := azurePrefixes(s); ok {
		var out []writtenTarget
		for _, p := range ps {
			out = append(out, writtenTarget{text: s, to: target{net: p}})
		}
		return out, true
	}
	if _, err := egress.ParseTag(s); err != nil {
		return nil, false
	}
	return []writtenTarget{{text: s, to: target{tag: s}}}, true
}

// maxRange bounds the prefixes that a range of addresses is split into.
const maxRange = 256

// azurePrefixes reads *, an address, a prefix or a range first-last.
func azurePrefixes(s string) ([]netip.Prefix, bool) {
	if s == "*" || strings.EqualFold(s, "Any") {
		return []netip.Prefix{anyAddr, anyAddr6}, true
	}
	if first, last, ok := strings.Cut(s, "-"); ok {
		a, err := netip.ParseAddr(first)
		b, err2 := netip.ParseAddr(last)
		if err != nil || err2 != nil || a.BitLen() != b.BitLen() || b.Less(a) {
			return nil, false
		}
		return splitRange(a, b), true
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return []netip.Prefix{p.Masked()}, true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return nil, false
	}
	return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, true
}

// splitRange writes a range as prefixes, each the widest that fits.
func splitRange(first, last netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for first.IsValid() && !last.Less(first) && len(out) < maxRange {
		p := netip.PrefixFrom(first, first.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(first, p.Bits()-1)
			if wider.Masked().Addr() != first || last.Less(lastOf(wider)) {
				break
			}
			p = wider
		}
		out = append(out, p)
		first = lastOf(p).Next()
	}
	return out
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func azurePorts(s string) (egress.Ports, bool) {
	if s == "*" || s == "0-65535" {
		return allPorts, true
	}
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65536 {
		return egress.Ports{First: uint16(n), Last: uint16(n)}, true
	}
	p, err := egress.ParsePorts(s)
	return p, err == nil
}
