package export

import (
	"strings"

	"tidegate.io/tidegate/egress"
)

// writeHAProxy has a listener for each port. It asks DNS itself for the name
// that the client showed, and connects to that address and no other, so that a
// client that shows an allowed name reaches that name's server only.
func writeHAProxy(j *job) []File {
	var p page
	p.comment("#", j.title())
	listeners := j.listeners()
	j.place(&p, false, samePorts(listeners))
	p.line("defaults")
	p.line("    timeout connect 10s")
	p.line("    timeout client 2h")
	p.line("    timeout server 2h")
	p.line("    timeout http-request 10s")
	p.line("")
	p.line("resolvers dns")
	for i, r := range j.Resolvers {
		host := r.String()
		if r.Is6() {
			host = "[" + host + "]"
		}
		p.line("    nameserver dns%d %s:53", i+1, host)
	}
	if len(listeners) == 0 {
		// HAProxy does not start without a listener.
		p.line("")
		p.line("# There are no rules.")
		p.line("frontend nothing")
		p.line("    mode tcp")
		p.line("    bind :443")
		p.line("    tcp-request connection reject")
		p.line("    default_backend tls")
	}
	for _, b := range listeners {
		p.line("")
		if b.proto == egress.HTTPS {
			haproxyTLS(&p, &b)
		} else {
			haproxyHTTP(&p, &b)
		}
	}
	p.line("")
	p.line("backend tls")
	p.line("    mode tcp")
	p.line("    server named 0.0.0.0:0")
	p.line("")
	p.line("backend http")
	p.line("    mode http")
	p.line("    server named 0.0.0.0:0")
	return one("haproxy.cfg", p.Bytes())
}

func haproxyTLS(p *page, b *bucket) {
	p.line("frontend https-%s", b.ports)
	p.line("    mode tcp")
	p.line("    bind :%s", b.ports)
	p.line("    tcp-request inspect-delay 10s")
	haproxyRules(p, b, "tcp-request content", "req.ssl_sni,lower")
	p.line("    tcp-request content reject unless { var(txn.rule) -m found }")
	p.line("    tcp-request content do-resolve(txn.to,dns,ipv4) req.ssl_sni")
	p.line("    tcp-request content reject unless { var(txn.to) -m found }")
	p.line("    # No name leads to these: who may write DNS below a wildcard would reach inside.")
	p.line("    tcp-request content reject if { var(txn.to) -m ip %s }", guarded4())
	p.line("    tcp-request content set-dst var(txn.to)")
	p.line("    tcp-request content accept")
	p.line("    default_backend tls")
}

func haproxyHTTP(p *page, b *bucket) {
	p.line("frontend http-%s", b.ports)
	p.line("    mode http")
	p.line("    bind :%s", b.ports)
	p.line("    http-request deny if METH_CONNECT || { req.hdr_cnt(host) gt 1 } || { req.hdr(upgrade) -m found }")
	haproxyRules(p, b, "http-request", "req.hdr(host),host_only,lower")
	p.line("    http-request deny unless { var(txn.rule) -m found }")
	p.line("    http-request do-resolve(txn.to,dns,ipv4) req.hdr(host),host_only")
	p.line("    http-request deny deny_status 503 unless { var(txn.to) -m found }")
	p.line("    http-request deny if { var(txn.to) -m ip %s }", guarded4())
	p.line("    http-request set-dst var(txn.to)")
	p.line("    default_backend http")
}

func guarded4() string {
	v4, _ := families(egress.GuardedRanges())
	return strings.ReplaceAll(prefixes(v4), ",", "")
}

// haproxyRules remember the rule that permits the name. The expressions stand
// in single quotes, within which a backslash is itself.
func haproxyRules(p *page, b *bucket, action, name string) {
	n := newNamer(60, '-')
	for _, g := range b.grants {
		acl := n.name(g.rule.ID)
		p.because("    #", g.rule)
		exact, wild := split(g.names)
		for _, x := range exact {
			dashes := ""
			if strings.HasPrefix(x.String(), "-") {
				dashes = "-- "
			}
			p.line("    acl %s %s -m str %s%s", acl, name, dashes, x)
		}
		for _, x := range wild {
			p.line("    acl %s %s -m reg '%s'", acl, name, expression(x))
		}
		from := ""
		if len(g.from) > 0 {
			for _, f := range g.from { // a line has no more than 64 words
				p.line("    acl %s-from src %s", acl, f)
			}
			from = " " + acl + "-from"
		}
		p.line("    %s set-var(txn.rule) str(%s) if %s%s", action, acl, acl, from)
	}
}
