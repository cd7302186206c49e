package export

import (
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// writeNginx has a server for each port, which reads the name in the
// ClientHello, looks it up itself, and connects there.
func writeNginx(j *job) []File {
	var p page
	p.comment("#", j.title())
	listeners := j.listeners()
	j.place(&p, false, samePorts(listeners))
	p.line("# Where the stream module is a file of its own, load it first:")
	p.line("# load_module modules/ngx_stream_module.so;")
	p.line("worker_processes auto;")
	p.line("worker_rlimit_nofile 65536;")
	p.line("events { worker_connections 16384; }") // each connection is two; the default of 512 is soon gone
	p.line("")
	p.line("stream {")
	var resolvers []string
	for _, r := range j.Resolvers {
		s := r.String()
		if r.Is6() {
			s = "[" + s + "]"
		}
		resolvers = append(resolvers, s)
	}
	p.line("    resolver %s ipv6=off;", strings.Join(resolvers, " "))
	p.line("    map_hash_bucket_size 512;") // the longest name has 253 bytes
	p.line("    preread_timeout 10s;")
	p.line("    proxy_timeout 2h;")
	for _, b := range listeners {
		nginxServer(&p, &b, j)
	}
	p.line("}")
	return one("nginx.conf", p.Bytes())
}

func nginxServer(p *page, b *bucket, j *job) {
	p.line("")
	p.line("    # A name that is not here leads nowhere.")
	p.line("    map $ssl_preread_server_name $tidegate_%s {", b.ports)
	p.line("        hostnames;")
	p.line(`        default "";`)
	var done []egress.Pattern // a map has each name once
	for _, g := range b.grants {
		p.because("        #", g.rule)
		for _, n := range g.names {
			if slices.Contains(done, n) {
				p.line("        # %s, as above", n)
				continue
			}
			done = append(done, n)
			p.line("        %s $ssl_preread_server_name:%s;", nginxName(n), b.ports)
		}
	}
	p.line("    }")
	p.line("    server {")
	p.line("        listen %s;", b.ports)
	for _, from := range j.From {
		p.line("        allow %s;", from)
	}
	if len(j.From) > 0 {
		p.line("        deny all;")
	}
	p.line("        ssl_preread on;")
	p.line("        proxy_pass $tidegate_%s;", b.ports)
	p.line("    }")
}

// nginxName spells a pattern for a map of hostnames, where *.a.b is any depth
// and not a.b.
func nginxName(p egress.Pattern) string {
	if shapeOf(p)&(shapeLabel|shapeInner) == 0 {
		return p.String()
	}
	return "~*" + expression(p)
}
