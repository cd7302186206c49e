package export

import (
	"net/netip"
	"slices"

	"tidegate.io/tidegate/egress"
)

// bucket is every grant on one service, for targets that listen by port.
type bucket struct {
	service
	grants []grant
}

// byService sorts grants to their services, which stand in the order of ports.
func byService(gs []grant) []bucket {
	var out []bucket
	for _, g := range gs {
		i := slices.IndexFunc(out, func(b bucket) bool { return b.service == g.service })
		if i < 0 {
			out = append(out, bucket{service: g.service})
			i = len(out) - 1
		}
		out[i].grants = append(out[i].grants, g)
	}
	slices.SortStableFunc(out, func(a, b bucket) int {
		if d := int(a.ports.First) - int(b.ports.First); d != 0 {
			return d
		}
		return int(a.proto) - int(b.proto)
	})
	return out
}

// listeners are the buckets of a target that has one listener for each port,
// which speaks one protocol: what comes second on a port is a gap.
func (j *job) listeners() []bucket {
	var out []bucket
	for _, b := range byService(j.grants()) {
		if n := len(out); n > 0 && out[n-1].ports == b.ports {
			for _, g := range b.grants {
				for _, p := range g.names {
					j.gap(g.rule, egress.Endpoint{Proto: g.proto, Host: p, Ports: g.ports}, "the format has one protocol for each port, and port %s has %s already", g.ports, out[n-1].proto)
				}
			}
			continue
		}
		out = append(out, b)
	}
	return out
}

// split sorts patterns into names and wildcards.
func split(ps []egress.Pattern) (exact, wild []egress.Pattern) {
	for _, p := range ps {
		if _, ok := p.Exact(); ok {
			exact = append(exact, p)
		} else {
			wild = append(wild, p)
		}
	}
	return exact, wild
}

// families sorts prefixes by address family.
func families(ps []netip.Prefix) (v4, v6 []netip.Prefix) {
	for _, p := range ps {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return v4, v6
}
