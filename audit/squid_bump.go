package audit

import (
	"fmt"
	"strings"

	"tidegate.io/tidegate/egress"
)

// What Squid does with TLS, besides http_access: ssl_bump lines, of which the
// first that matches decides. Peeking and staring decide nothing yet.

// bump reads a line. One that inspects is remembered for the API server's sake.
func (r *squidReader) bump(line int, action string, acls []string) {
	switch action {
	case "splice", "bump", "terminate":
		r.bumps = append(r.bumps, squidAccess{line, action != "terminate", acls})
	}
	if action != "bump" {
		return
	}
	at := fmt.Sprintf("line %d: ssl_bump bump", line)
	for _, name := range acls {
		a := r.acls[name]
		switch {
		case a == nil || strings.HasPrefix(a.kind, "at_step"):
		case a.kind == "all":
			r.bumped = append(r.bumped, bump{at, allNames})
		case a.kind == "dstdomain" || a.kind == "ssl::server_name":
			for _, t := range r.names(name, a) {
				r.bumped = append(r.bumped, bump{at, t.to.names})
			}
		case a.kind == "dstdom_regex" || a.kind == "ssl::server_name_regex":
			known, _ := r.expressions(name, a)
			for _, t := range known {
				r.bumped = append(r.bumped, bump{at, t.to.names})
			}
		}
	}
}

// judgesHellos reports whether TLS is judged by the name in its ClientHello, as
// a proxy does that stands in the way of the traffic: what no line before
// splices is terminated in the end.
func (r *squidReader) judgesHellos() bool {
	if len(r.bumps) == 0 {
		return false
	}
	last := r.bumps[len(r.bumps)-1]
	return !last.allow && len(last.acls) == 1 && last.acls[0] == "all"
}

// hellos are the grants of the ssl_bump lines, as far as an http_access line for
// any name lets them be asked.
func (r *squidReader) hellos(order int, outer conditions) error {
	for k, b := range r.bumps {
		at := fmt.Sprintf("line %d", b.line)
		c := r.conditions(b.acls)
		switch {
		case c.never:
			continue
		case c.unclear != "":
			r.unknown(at, b.allow, c.unclear)
			if len(c.names) == 0 {
				continue
			}
		case c.strange != "":
			r.unread(at, "acl %s, so the line counts as permitting and denying nothing", c.strange)
			continue
		}
		if len(c.names) == 0 {
			c.names = []writtenTarget{{text: "any name", to: target{names: allNames}}}
		}
		if len(c.ports) == 0 {
			c.ports = outer.ports
		}
		if len(c.ports) == 0 {
			c.ports = []egress.Ports{allPorts}
		}
		if len(c.from) == 0 {
			c.from = outer.from
		}
		g := grant{at: at, deny: !b.allow, tier: applicationTier, priority: []int{order, k}, from: c.from, protos: []egress.Proto{egress.HTTPS}}
		for _, g.ports = range c.ports {
			if err := r.addAll(g, c.names); err != nil {
				return err
			}
		}
	}
	return nil
}
