package kernel

import (
	"net/netip"
	"slices"

	"tidegate.io/tidegate/egress"
)

func (k KeyType) holds(p netip.Prefix) bool { return p.Addr().Is4() == (k == V4) }

// last returns the highest address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// byStart sorts prefixes, each before those inside it.
func byStart(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// merge returns the ranges that the prefixes of one family cover, none touching
// another.
func merge(ps []netip.Prefix, key KeyType) (ranges []Range) {
	ps = slices.DeleteFunc(slices.Clone(ps), func(p netip.Prefix) bool { return !key.holds(p) })
	slices.SortFunc(ps, byStart)
	for _, p := range ps {
		ranges = appendRange(ranges, Range{First: p.Masked().Addr(), Last: last(p)})
	}
	return ranges
}

// appendRange appends r, or lets the range before grow when r goes on from it, or
// lies in it, with the same mark.
func appendRange(ranges []Range, r Range) []Range {
	if n := len(ranges); n > 0 && ranges[n-1].Mark == r.Mark {
		before := &ranges[n-1]
		if next := before.Last.Next(); !next.IsValid() || r.First.Compare(next) <= 0 {
			if r.Last.Compare(before.Last) > 0 {
				before.Last = r.Last
			}
			return ranges
		}
	}
	return append(ranges, r)
}

// flatten returns ranges for the prefixes of uses in which the narrowest prefix
// around an address gives the mark, and among alike ones the first: the rule that
// egress.Policy.Decide names.
func flatten(uses []use, key KeyType) (ranges []Range) {
	type marked struct {
		netip.Prefix
		mark Mark
	}
	var all []marked
	for _, u := range uses {
		if n, is := u.endpoint.Host.(egress.Net); is && key.holds(n.Prefix) {
			all = append(all, marked{n.Masked(), u.mark})
		}
	}
	slices.SortStableFunc(all, func(a, b marked) int { return byStart(a.Prefix, b.Prefix) })
	all = slices.CompactFunc(all, func(a, b marked) bool { return a.Prefix == b.Prefix })

	var open []marked // prefixes around the place reached, the narrowest last
	var at netip.Addr // the next address that has no range yet; invalid behind the last one
	closeBefore := func(p *netip.Prefix) {
		for len(open) > 0 {
			inner := open[len(open)-1]
			if p != nil && inner.Contains(p.Addr()) {
				return
			}
			if end := last(inner.Prefix); at.IsValid() && at.Compare(end) <= 0 {
				ranges = appendRange(ranges, Range{First: at, Last: end, Mark: inner.mark})
				at = end.Next()
			}
			open = open[:len(open)-1]
		}
	}
	for _, m := range all {
		closeBefore(&m.Prefix)
		if len(open) > 0 && at.Compare(m.Addr()) < 0 {
			ranges = appendRange(ranges, Range{First: at, Last: m.Addr().Prev(), Mark: open[len(open)-1].mark})
		}
		at = m.Addr()
		open = append(open, m)
	}
	closeBefore(nil)
	return ranges
}

func mergePorts(ranges []Range) (merged []Range) {
	slices.SortFunc(ranges, func(a, b Range) int { return int(a.Ports.First) - int(b.Ports.First) })
	for _, r := range ranges {
		if n := len(merged); n > 0 && int(r.Ports.First) <= int(merged[n-1].Ports.Last)+1 {
			merged[n-1].Ports.Last = max(merged[n-1].Ports.Last, r.Ports.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}
