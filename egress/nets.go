package egress

import (
	"net/netip"
	"slices"
)

// nets finds every prefix that holds an address, in logarithmic time. Prefixes
// are either nested or apart, so with each one's parent at hand it is enough to
// find the last that begins at or before the address.
type nets struct {
	prefixes []netip.Prefix // sorted by address, then length; no two alike
	parents  []int32        // index of the narrowest prefix around this one; -1 for none
	lists    []int32        // of uses, in Policy.uses
}

// narrowest returns the index of the narrowest prefix that holds a, or -1; its
// parents hold a too.
func (n *nets) narrowest(a netip.Addr) int32 {
	i, found := slices.BinarySearchFunc(n.prefixes, a, func(p netip.Prefix, a netip.Addr) int { return p.Addr().Compare(a) })
	if found {
		// Several prefixes may begin at a: the last of them is the narrowest.
		for i+1 < len(n.prefixes) && n.prefixes[i+1].Addr() == a {
			i++
		}
	} else {
		i--
	}
	at := int32(i)
	for at >= 0 && !n.prefixes[at].Contains(a) {
		at = n.parents[at]
	}
	return at
}
