package export

import (
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// maxSquidName keeps names of access lists, with what is put behind them,
// within Squid's buffer of 64 bytes.
const maxSquidName = 56

// writeSquid judges what is redirected to two ports of Squid: HTTP requests by
// their host, and TLS by the name in its ClientHello, without decrypting.
//
// A wildcard is an anchored expression, for Squid's own ".a.b" would let a.b
// itself through as well.
func writeSquid(j *job) []File {
	s := &squid{names: newNamer(maxSquidName, '_')}
	listeners := j.listeners()
	for _, b := range listeners {
		port := "port_" + strings.ReplaceAll(b.ports.String(), "-", "_")
		s.port(port, b.ports.String())
		if b.proto == egress.HTTPS {
			s.access.line("http_access allow CONNECT tls %s", port)
		}
		for _, g := range b.grants {
			s.grant(&g, port)
		}
	}
	var p page
	p.comment("#", j.title())
	j.place(&p, true, squidPlaces(listeners))
	p.line("# Squid does not start without an ordinary port; nothing is permitted on it.")
	p.line("http_port 127.0.0.1:3128")
	p.line("http_port %d intercept name=plain", squidPlain)
	p.line("# The certificate is asked for and never shown, for nothing is decrypted. Any will do:")
	p.line("#   openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=unused \\")
	p.line("#   -keyout /etc/squid/tidegate.pem -out /etc/squid/tidegate.pem")
	p.line("https_port %d intercept name=tls ssl-bump generate-host-certificates=off cert=/etc/squid/tidegate.pem", squidTLS)
	for _, r := range j.Resolvers {
		p.line("dns_nameservers %s", r)
	}
	p.line("# A name is believed only where it leads to the address that the client dialled;")
	p.line("# clients have to use the same resolvers.")
	p.line("host_verify_strict on")
	p.line("# It keeps addresses no shorter than this, and a name's may be others by then.")
	p.line("negative_dns_ttl 1 second")
	p.line("on_unsupported_protocol respond all")
	p.line("cache deny all")
	p.line("forwarded_for delete")
	p.line("")
	p.line("acl plain myportname plain")
	p.line("acl tls myportname tls")
	p.line("acl hello at_step SslBump1")
	p.line("# No name leads to these: who may write DNS below a wildcard would reach inside.")
	for _, r := range egress.GuardedRanges() {
		p.line("acl guarded dst %s", r)
	}
	p.Write(s.ports.Bytes())
	p.Write(s.lists.Bytes())
	p.line("")
	p.line("ssl_bump terminate guarded")
	p.line("ssl_bump peek hello")
	p.Write(s.bump.Bytes())
	p.line("ssl_bump terminate all")
	p.line("")
	p.line("http_access deny guarded")
	p.Write(s.access.Bytes())
	p.line("http_access deny all")
	return one("squid.conf", p.Bytes())
}

// The ports of Squid that take what is redirected.
const (
	squidPlain = 3129
	squidTLS   = 3130
)

func squidPlaces(listeners []bucket) []redirection {
	var out []redirection
	for _, b := range listeners {
		to := uint16(squidPlain)
		if b.proto == egress.HTTPS {
			to = squidTLS
		}
		out = append(out, redirection{b.ports, to})
	}
	return out
}

type squid struct {
	ports, lists, bump, access page
	names                      *namer
	made                       []string
}

// port makes a list of ports once.
func (s *squid) port(name, ports string) {
	if slices.Contains(s.made, name) {
		return
	}
	s.made = append(s.made, name)
	s.ports.line("acl %s port %s", name, ports)
}

func (s *squid) grant(g *grant, port string) {
	s.lists.line("")
	s.lists.because("#", g.rule)
	base := s.names.name(g.rule.ID, g.proto.String(), g.ports.String())
	from := ""
	if len(g.from) > 0 {
		from = base + "_from "
		for _, p := range g.from {
			s.lists.line("acl %s_from src %s", base, p)
		}
	}
	kinds := [2]string{"dstdomain -n", "dstdom_regex -n -i"}
	if g.proto == egress.HTTPS {
		kinds = [2]string{"ssl::server_name", "ssl::server_name_regex -i"}
	}
	exact, wild := split(g.names)
	for i := len(exact) - 1; i >= 0; i-- {
		if strings.HasPrefix(exact[i].String(), "-") { // which would be an option
			wild, exact = append(wild, exact[i]), slices.Delete(exact, i, i+1)
		}
	}
	for _, n := range exact {
		s.lists.line("acl %s_names %s %s", base, kinds[0], n)
	}
	for _, n := range wild {
		s.lists.line("acl %s_below %s %s", base, kinds[1], expression(n))
	}
	if len(exact) > 0 {
		s.permit(g.proto, from+port+" "+base+"_names")
	}
	if len(wild) > 0 {
		s.permit(g.proto, from+port+" "+base+"_below")
	}
}

func (s *squid) permit(proto egress.Proto, lists string) {
	if proto == egress.HTTPS {
		s.bump.line("ssl_bump splice %s", lists)
		return
	}
	s.access.line("http_access allow plain !CONNECT %s", lists)
}
