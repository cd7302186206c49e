package audit

import (
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// maxWords bounds what is kept of a line's free text.
const maxWords = 200

func words(b []byte) string { return string(b[:min(len(b), maxWords)]) }

// group begins a group and judges it, once for all of its lines.
func (l *Log) group(e *event, host string) Group {
	g := Group{Allowed: e.allowed, Rule: words(e.rule), Reason: words(e.reason), Sources: []string{}, proto: e.proto, host: host, port: e.port}
	g.To = endpointText(e.proto, host, e.port)
	conn := connection(e.proto, string(e.src), string(e.dst), string(e.name), e.port)
	if e.lookup {
		l.lookup(&g, conn, string(e.code))
		return g
	}
	if l.options.Against != nil {
		g.Changes = l.options.Against(conn) != e.allowed
	}
	rule, known := l.need(conn)
	switch {
	case known:
		l.used[rule.ID] = true
		g.Need, g.Why = rule.ID, rule.Why
		switch {
		case e.allowed:
			g.Class = Needed
		case rule.Need == egress.Required:
			g.Class = Broken
		default:
			g.Class = Lacking
		}
	case e.allowed:
		g.Class = Unruled
	default:
		l.unknown(&g, conn)
	}
	return g
}

func (l *Log) unknown(g *Group, c egress.Conn) {
	g.Class = Unknown
	if l.options.Seen != nil {
		if why, benign, known := l.options.Seen(c.Name, c.Dst.Addr()); known {
			g.Why = why
			if benign {
				g.Class = Harmless
			}
			return
		}
	}
	if c.Proto.Named() && c.Name.IsZero() {
		g.Why = "The client showed no name. Pods that dial the API server's address do so: they need the annotation kubernetes.azure.com/set-kube-service-host-fqdn, or a rule for the address."
		return
	}
	if others := l.otherServices(c); others != "" {
		g.Why = "The name is needed, on another port or protocol: " + others + "."
	}
}

// need finds the rule that a connection is for.
func (l *Log) need(c egress.Conn) (*egress.Rule, bool) {
	for i := range l.options.Rules {
		r := &l.options.Rules[i]
		for _, e := range r.To {
			if l.serves(e, &c) {
				return r, true
			}
		}
	}
	return nil, false
}

func (l *Log) serves(e egress.Endpoint, c *egress.Conn) bool {
	if e.Proto != c.Proto && (e.Proto != egress.TCP || !c.Proto.Named()) || !e.Ports.Has(c.Dst.Port()) {
		return false
	}
	switch h := e.Host.(type) {
	case egress.Pattern:
		return h.Match(c.Name)
	case egress.Net:
		return c.Dst.Addr() != unknownAddr && h.Contains(c.Dst.Addr())
	case egress.Tag:
		return slices.ContainsFunc(l.options.prefixes(h.Name()), func(p netip.Prefix) bool { return p.Contains(c.Dst.Addr()) })
	}
	return false
}

func (l *Log) otherServices(c egress.Conn) string {
	var out []string
	for i := range l.options.Rules {
		for _, e := range l.options.Rules[i].To {
			if p, ok := e.Host.(egress.Pattern); ok && p.Match(c.Name) && !slices.Contains(out, e.String()) {
				out = append(out, e.String())
			}
		}
	}
	return list(out)
}

// inside are names of the cluster and of Azure's own zones, whose absence in
// the outside DNS is the search list at work.
var inside = []string{".cluster.local", ".internal.cloudapp.net", ".reddog.microsoft.com", ".in-addr.arpa", ".ip6.arpa"}

// lookup judges a question that got no answer.
func (l *Log) lookup(g *Group, c egress.Conn, code string) {
	g.To, g.Reason = "dns://"+g.host, code
	g.Class = Harmless
	g.Why = "DNS has no such name, and no rule needs it."
	switch {
	case slices.ContainsFunc(inside, func(s string) bool { return strings.HasSuffix("."+g.host, s) }):
		g.Why = "A name of the inside, tried by the search list."
		return
	case c.Name != egress.Name{} && c.Name == l.options.APIServer:
		g.Class, g.Need, g.Why = Broken, "core/apiserver", "The API server's name does not resolve: nodes cannot join (exit 52)."
		return
	}
	for i := range l.options.Rules {
		r := &l.options.Rules[i]
		for _, e := range r.To {
			if p, ok := e.Host.(egress.Pattern); ok && p.Match(c.Name) {
				g.Class, g.Need, g.Why = Lacking, r.ID, "DNS does not answer for it ("+code+"). "+r.Why
				if _, exact := p.Exact(); exact && r.Need == egress.Required {
					g.Class = Broken
				}
				return
			}
		}
	}
	if code != "NXDOMAIN" {
		g.Class, g.Why = Unknown, "DNS did not answer: "+code+"."
	}
}
