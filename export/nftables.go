package export

import (
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// nftSet is a grant by name: the set of its addresses is filled by a resolver,
// whose configuration the dnsmasq format writes.
type nftSet struct {
	grant
	name string // without the suffix of its family, _v4 or _v6
}

var nftCan = can{protos: allProtos, names: shapeExact | shapeBelow, dnsNames: shapeExact | shapeBelow, nets: true, nets6: true, sources: true, ranges: true}

// nftSets are the sets that the nftables format declares.
func nftSets(grants []grant) []nftSet {
	n := newNamer(60, '_')
	var out []nftSet
	for _, g := range grants {
		if len(g.names) > 0 {
			words := []string{g.rule.ID, g.proto.String(), g.ports.String()}
			if first := n.clean(g.rule.ID, 1); first <= "9" { // a name begins with a letter
				words = slices.Insert(words, 0, "rule")
			}
			out = append(out, nftSet{g, n.name(words...)})
		}
	}
	return out
}

func writeNFTables(j *job) []File {
	grants := j.grants()
	sets := nftSets(grants)
	var p page
	p.line("#!/usr/sbin/nft -f")
	p.comment("#", j.title())
	p.line("# Put it on a Linux router that all of the cluster's traffic passes (net.ipv4.ip_forward = 1), with a")
	p.line("# dnsmasq beside it that fills its sets (tidegate export --to dnsmasq) and that all clients ask.")
	p.line("# Loading it again changes the rules at once and keeps the addresses that are known.")
	p.line("table inet tidegate")
	p.line("flush table inet tidegate")
	p.line("")
	p.line("table inet tidegate {")
	for _, s := range sets {
		p.comment("\t#", s.rule.ID+": "+strings.Join(texts(s.names), ", "))
		p.line("\tset %s_v4 { type ipv4_addr; flags dynamic,timeout; timeout 1d; size 65535; }", s.name)
		p.line("\tset %s_v6 { type ipv6_addr; flags dynamic,timeout; timeout 1d; size 65535; }", s.name)
	}
	p.line("")
	p.line("\tchain outbound {")
	p.line("\t\ttype filter hook forward priority filter; policy accept;")
	v4, v6 := families(j.From)
	for _, r := range j.Rules {
		four, six := families(r.From)
		v4, v6 = addNew(v4, four...), addNew(v6, six...)
	}
	if len(j.From) == 0 {
		p.line("\t\tjump rules")
	} else {
		nftJump(&p, "ip", v4)
		nftJump(&p, "ip6", v6)
	}
	p.line("\t}")
	p.line("")
	p.line("\tchain rules {")
	p.line("\t\tct state established,related accept")
	nftGrants(&p, grants, sets, false)
	p.line("\t\t# No name leads to these: who may write DNS below a wildcard would reach inside.")
	v4, v6 = families(egress.GuardedRanges())
	p.line("\t\tip daddr { %s } goto refused", prefixes(outermost(v4)))
	p.line("\t\tip6 daddr { %s } goto refused", prefixes(outermost(v6)))
	nftGrants(&p, grants, sets, true)
	p.line("\t\tgoto refused")
	p.line("\t}")
	p.line("")
	p.line("\tchain refused {")
	p.line("\t\tmeta l4proto tcp reject with tcp reset")
	p.line("\t\treject with icmpx type admin-prohibited")
	p.line("\t}")
	p.line("}")
	return one("tidegate.nft", p.Bytes())
}

// nftGrants are the rules by name, or those by address, which come first: an
// address that a rule names is not guarded.
func nftGrants(p *page, grants []grant, sets []nftSet, named bool) {
	for _, g := range grants {
		if (len(g.names) > 0) == named {
			p.because("\t\t#", g.rule)
			nftRules(p, &g, sets)
		}
	}
}

// nftJump sends clients to the rules, from which nothing comes back.
func nftJump(p *page, family string, from []netip.Prefix) {
	if len(from) > 0 {
		p.line("\t\t%s saddr { %s } jump rules", family, prefixes(outermost(from)))
	}
}

// nftRules are a rule for each family that the grant has. A resolver that adds
// an address which a set has does not renew it, so each new connection does:
// else a name that is in use all day would be refused once a day.
func nftRules(p *page, g *grant, sets []nftSet) {
	set := ""
	for _, s := range sets {
		if s.rule == g.rule && s.service == g.service && len(g.names) > 0 {
			set = s.name
		}
	}
	from4, from6 := families(g.from)
	nets4, nets6 := families(g.nets)
	for _, f := range []struct {
		family, set string
		from, nets  []netip.Prefix
	}{{"ip", "@" + set + "_v4", from4, nets4}, {"ip6", "@" + set + "_v6", from6, nets6}} {
		to, renew := f.set, " update "+f.set+" { "+f.family+" daddr }"
		switch {
		case len(g.from) > 0 && len(f.from) == 0:
			continue
		case set == "" && len(f.nets) == 0:
			continue
		case set == "":
			to, renew = "{ "+prefixes(outermost(f.nets))+" }", ""
		}
		from := ""
		if len(f.from) > 0 {
			from = f.family + " saddr { " + prefixes(outermost(f.from)) + " } "
		}
		p.line("\t\t%s%s daddr %s %s dport %s%s accept", from, f.family, to, g.proto.Transport(), g.ports, renew)
	}
}

// outermost leaves out the prefixes that lie in others, since the intervals of
// a set must not overlap.
func outermost(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for i, p := range ps {
		inside := false
		for k, q := range ps {
			if k != i && q.Bits() <= p.Bits() && q.Contains(p.Addr()) && (q != p || k < i) {
				inside = true
			}
		}
		if !inside {
			out = append(out, p)
		}
	}
	return out
}
