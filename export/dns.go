package export

import (
	"regexp"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// DNS servers that answer for the names of the rules and no others.

// dnsNames are every pattern of the rules, with the rules that need it.
func dnsNames(grants []grant) (names []egress.Pattern, why map[egress.Pattern][]string) {
	why = map[egress.Pattern][]string{}
	for _, g := range grants {
		for _, n := range g.names {
			names = addNew(names, n)
			why[n] = addNew(why[n], g.rule.ID)
		}
	}
	return names, why
}

// writeDnsmasq asks for the names of the rules and says NXDOMAIN to others, and
// puts the addresses into the sets of the nftables format.
//
// A domain in dnsmasq's settings includes whatever is below it, so the names
// below an exact one are refused by a line of their own.
func writeDnsmasq(j *job) []File {
	grants := j.grants()
	names, why := dnsNames(grants)
	var p page
	p.comment("#", j.title())
	p.line("no-resolv")
	p.line("no-hosts")
	p.line("# Everything else does not exist.")
	p.line("address=/#/")
	p.line("# Nothing is kept here: each answer's addresses are in the firewall's sets before it leaves, and a")
	p.line("# name that an allowed one leads to does not become known by it. The sets keep an address for a day")
	p.line("# after its last new connection, longer than clients are told to.")
	p.line("cache-size=0")
	p.line("max-ttl=3600")
	for _, n := range names {
		p.line("")
		p.comment("#", strings.Join(why[n], ", "))
		_, exact := n.Exact()
		for _, r := range j.Resolvers {
			p.line("server=/%s/%s", n, r)
		}
		fixed := n.Fixed().String()
		switch {
		case exact && !slices.ContainsFunc(names, func(q egress.Pattern) bool { return q != n && q.Fixed().String() == fixed }):
			p.line("local=/*.%s/", fixed)
		case !exact && !slices.Contains(names, egress.Exactly(n.Fixed())):
			p.line("local=/%s/", fixed)
		}
		p.line("nftset=/%s/%s", fixed, strings.Join(dnsmasqSets(grants, n), ","))
	}
	return one("dnsmasq.conf", p.Bytes())
}

// dnsmasqSets are the sets that the name's addresses belong into.
func dnsmasqSets(grants []grant, n egress.Pattern) []string {
	var out []string
	for _, s := range nftSets(grants) {
		if slices.Contains(s.names, n) {
			out = append(out, "4#inet#tidegate#"+s.name+"_v4", "6#inet#tidegate#"+s.name+"_v6")
		}
	}
	return out
}

// rpzNames are the names of which the zone, whose own name stands behind them,
// can also say that nothing is below them.
var rpzNames = spelling{regexp.MustCompile(`^.{1,238}$`), "names of more than 238 bytes"}

// writeUnbound is a response policy zone, and the settings that load it. A zone
// says exactly what is meant: a name is that name, and *.a.b is any depth and
// not a.b.
//
// The star of a zone matches below the nearest name that is in the zone only,
// so that "*" alone would leave what is below every listed name open: each name
// on the way to the root has a line of its own.
func writeUnbound(j *job) []File {
	names, why := dnsNames(j.grants())
	var conf page
	conf.comment("#", j.title())
	conf.line("server:")
	conf.line(`    module-config: "respip validator iterator"`)
	conf.line("rpz:")
	conf.line("    name: tidegate.rpz")
	conf.line("    zonefile: tidegate.rpz")
	conf.line("forward-zone:")
	conf.line(`    name: "."`)
	for _, r := range j.Resolvers {
		conf.line("    forward-addr: %s", r)
	}
	return []File{{"unbound.conf", conf.Bytes()}, {"tidegate.rpz", rpz(j, names, why)}}
}

func rpz(j *job, names []egress.Pattern, why map[egress.Pattern][]string) []byte {
	var z page
	z.comment(";", j.title())
	z.line("$TTL 300")
	z.line("@ SOA localhost. root.localhost. 1 3600 600 86400 300")
	z.line("@ NS localhost.")
	for _, n := range names {
		z.line("%s CNAME rpz-passthru. ; %s", n, clip(oneLine(strings.Join(why[n], ", ")), maxComment))
	}
	z.line("; Everything else does not exist.")
	var refused []string
	for _, n := range names {
		fixed := n.Fixed().String()
		for name := fixed; name != ""; _, name, _ = strings.Cut(name, ".") {
			refused = addNew(refused, name, "*."+name)
		}
	}
	refused = append(refused, "*")
	for _, r := range refused {
		if !slices.ContainsFunc(names, func(n egress.Pattern) bool { return n.String() == r }) {
			z.line("%s CNAME .", r)
		}
	}
	return z.Bytes()
}
