package export

import (
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// maxSquidName keeps names of access lists within Squid's buffer for them.
const maxSquidName = 60

// writeSquid judges what is redirected to two ports of Squid: HTTP requests by
// their host, and TLS by the name in its ClientHello, without decrypting.
//
// A wildcard is an anchored expression, for Squid's own ".a.b" would let a.b
// itself through as well.
func writeSquid(j *job) []File {
	s := &squid{names: newNamer(maxSquidName, '_')}
	for _, b := range byService(j.grants()) {
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
	p.line("# Redirect the cluster's HTTP to port 3129 and its TLS to port 3130 of this machine.")
	p.line("http_port 3129 intercept name=plain")
	p.line("# The certificate is asked for and never shown: nothing is decrypted.")
	p.line("https_port 3130 intercept name=tls ssl-bump cert=/etc/squid/tidegate.pem")
	for _, r := range j.Resolvers {
		p.line("dns_nameservers %s", r)
	}
	p.line("# A name is believed only where it leads to the address that the client dialled;")
	p.line("# clients have to use the same resolvers.")
	p.line("host_verify_strict on")
	p.line("on_unsupported_protocol respond all")
	p.line("cache deny all")
	p.line("forwarded_for delete")
	p.line("")
	p.line("acl plain myportname plain")
	p.line("acl tls myportname tls")
	p.line("acl hello at_step SslBump1")
	p.Write(s.ports.Bytes())
	p.Write(s.lists.Bytes())
	p.line("")
	p.line("ssl_bump peek hello")
	p.Write(s.bump.Bytes())
	p.line("ssl_bump terminate all")
	p.line("")
	p.Write(s.access.Bytes())
	p.line("http_access deny all")
	return one("squid.conf", p.Bytes())
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
