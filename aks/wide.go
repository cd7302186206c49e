package aks

import (
	"fmt"
	"slices"

	"tidegate.io/tidegate/egress"
)

// wide notes the rules that let out more than their purpose, the widest first:
// every address, a service tag, and wildcards below which any customer can make
// a name.
func wide(rules []Rule) []Note {
	type ranked struct {
		rank int
		note Note
	}
	var found []ranked
	for _, r := range rules {
		for _, e := range r.To {
			if rank, why := breadth(e.Host); rank > 0 {
				found = append(found, ranked{rank, Note{Info, "wide", r.ID, fmt.Sprintf("%s is wide: %s.", e, why)}})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b ranked) int { return b.rank - a.rank })
	var notes []Note
	for _, f := range found {
		notes = append(notes, f.note)
	}
	return notes
}

func breadth(h egress.Host) (rank int, why string) {
	switch h := h.(type) {
	case egress.Net:
		if h.Bits() == 0 {
			return 3, "it permits every address"
		}
	case egress.Tag:
		return 2, "a service tag holds the addresses of other customers too"
	case egress.Pattern:
		if _, exact := h.Exact(); !exact && egress.MultiTenant(h.Fixed()) {
			return 1, "any customer of Azure can make a name below " + h.Fixed().String()
		}
	}
	return 0, ""
}
