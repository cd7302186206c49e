package audit

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

var squidLine = regexp.MustCompile(`(?m)^\s*(acl|http_access)\s+\S+\s+\S`)

func looksLikeSquid(b []byte) bool { return squidLine.Match(b) }

// squidACL is a named condition: any of its values.
type squidACL struct {
	kind   string // of the first line
	values []string
}

// squidReader turns http_access lines, of which the first that matches
// decides, into grants. Its conditions are joined by and; those that say
// something else than names, ports, the method and the client are not
// understood, and the line then permits nothing.
type squidReader struct {
	*Policy
	acls  map[string]*squidACL
	bumps []squidAccess // ssl_bump splice, bump and terminate, in their order
}

func (p *Policy) readSquid(b []byte) error {
	p.Format = Squid
	r := squidReader{Policy: p, acls: map[string]*squidACL{
		"all": {kind: "all"}, "CONNECT": {kind: "method", values: []string{"CONNECT"}},
		"localhost": {kind: "src", values: []string{"127.0.0.1"}}, "manager": {kind: "manager"}, "to_localhost": {kind: "dst", values: []string{"127.0.0.0/8"}},
	}}
	var accesses []squidAccess
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		f := strings.Fields(line)
		switch {
		case len(f) >= 3 && f[0] == "acl":
			r.acl(n, f[1], f[2], f[3:])
		case len(f) >= 2 && f[0] == "http_access":
			accesses = append(accesses, squidAccess{n, strings.EqualFold(f[1], "allow"), f[2:]})
		case len(f) == 2 && f[0] == "include":
			r.unread(fmt.Sprintf("line %d", n), "include of %s, whose lines stand here", f[1])
		case len(f) >= 3 && f[0] == "ssl_bump":
			r.bump(n, f[1], f[2:])
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("squid.conf: %w", err)
	}
	r.splices = r.judgesHellos()
	for i, a := range accesses {
		if err := r.access(i, &a); err != nil {
			return err
		}
	}
	return nil
}

type squidAccess struct {
	line  int
	allow bool
	acls  []string
}

func (r *squidReader) acl(line int, name, kind string, values []string) {
	values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return strings.HasPrefix(v, "-") || v == "+i" })
	for _, v := range values {
		if strings.HasPrefix(v, `"`) {
			r.unread(fmt.Sprintf("line %d", line), "acl %s has its values in the file %s", name, v)
		}
	}
	if a := r.acls[name]; a != nil && a.kind == kind {
		a.values = append(a.values, values...)
		return
	}
	r.acls[name] = &squidACL{kind, values}
}

// conditions are what an http_access line says, as far as it is understood.
type conditions struct {
	names   []writtenTarget // none: any
	ports   []egress.Ports  // none: any
	from    []netip.Prefix
	connect bool
	plain   bool   // not CONNECT
	strange string // an acl that is not understood
	unclear string // an expression that is not understood
	never   bool   // it matches nothing here, such as the manager's pages
}

func (r *squidReader) access(order int, a *squidAccess) error {
	at := fmt.Sprintf("line %d", a.line)
	c := r.conditions(a.acls)
	switch {
	case c.never:
		return nil
	case c.unclear != "":
		r.unknown(at, a.allow, c.unclear)
		if len(c.names) == 0 {
			return nil
		}
	case c.strange != "":
		r.unread(at, "acl %s, so the line counts as permitting and denying nothing", c.strange)
		return nil
	}
	if a.allow && c.connect && len(c.names) == 0 && r.splices {
		return r.hellos(order, c)
	}
	if len(c.names) == 0 {
		c.names = []writtenTarget{{text: "any name", to: target{net: anyAddr}}, {text: "any name", to: target{net: anyAddr6}}}
	}
	if len(c.ports) == 0 {
		c.ports = []egress.Ports{allPorts}
	}
	g := grant{at: at, deny: !a.allow, tier: applicationTier, priority: []int{order}, from: c.from}
	for _, ports := range c.ports {
		g.ports = ports
		g.protos = []egress.Proto{egress.HTTPS}
		if !c.connect {
			// Without CONNECT the line is about both: what is sent to the proxy in
			// plain, and tunnels.
			g.protos = []egress.Proto{egress.HTTP, egress.HTTPS}
		}
		if c.plain {
			g.protos = []egress.Proto{egress.HTTP}
		}
		if err := r.addAll(g, c.names); err != nil {
			return err
		}
	}
	return nil
}

func (r *squidReader) conditions(names []string) conditions {
	var c conditions
	for _, name := range names {
		bare, negated := strings.CutPrefix(name, "!")
		a := r.acls[bare]
		switch {
		case a == nil:
			c.strange = bare
		case a.kind == "manager":
			c.never = c.never || !negated
		case strings.HasPrefix(a.kind, "at_step") || a.kind == "myportname": // at which of its own doors
		case negated && a.kind == "method" && slices.Equal(a.values, []string{"CONNECT"}):
			c.plain = true
		case negated && a.kind == "port":
			c.ports = append(c.ports, complement(r.ports(a))...)
		case negated:
			c.strange = name
		case a.kind == "all":
		case a.kind == "method":
			c.connect = c.connect || slices.Contains(a.values, "CONNECT")
			c.never = c.never || !slices.Contains(a.values, "CONNECT") && !slices.Contains(a.values, "GET")
		case a.kind == "port" && len(c.ports) == 0:
			c.ports = r.ports(a)
		case (a.kind == "dstdomain" || a.kind == "ssl::server_name") && len(c.names) == 0:
			c.names = r.names(bare, a)
			c.never = len(c.names) == 0
		case (a.kind == "dstdom_regex" || a.kind == "ssl::server_name_regex") && len(c.names) == 0:
			c.names, c.unclear = r.expressions(bare, a)
		case strings.HasSuffix(a.kind, "_regex"):
			c.unclear = bare + " (" + a.kind + ")"
		case a.kind == "src":
			c.from = append(c.from, r.prefixes(bare, a)...)
		case a.kind == "dst":
			for _, p := range r.prefixes(bare, a) {
				c.names = append(c.names, writtenTarget{text: p.String(), to: target{net: p}})
			}
		default:
			c.strange = bare + " (" + a.kind + ")"
		}
	}
	return c
}

func (r *squidReader) names(acl string, a *squidACL) []writtenTarget {
	var out []writtenTarget
	for _, v := range a.values {
		if n, ok := squidNames(v); ok {
			out = append(out, writtenTarget{text: v, to: target{names: n}})
		} else {
			r.unread("acl "+acl, "name %q", v)
		}
	}
	return out
}

// expressions are the names of an access list of expressions, and what of it is
// not understood.
func (r *squidReader) expressions(acl string, a *squidACL) (out []writtenTarget, unclear string) {
	for _, v := range a.values {
		n, open, ok := expressionNames(v)
		if !ok {
			unclear = acl + " (" + v + ")"
			continue
		}
		out = append(out, writtenTarget{text: v, to: target{names: n}, open: open})
	}
	return out, unclear
}

// unknown is a finding: what the line opens or closes cannot be said.
func (r *squidReader) unknown(at string, allow bool, what string) {
	f := Finding{Kind: Unclear, Level: Warning, At: at, Text: what, Why: "It permits what an expression matches that is not understood here: what is open by it is not known, and it counts as nothing."}
	if !allow {
		f.Why = "It denies what an expression matches that is not understood here: something that is needed may be among it."
	}
	r.unclear = append(r.unclear, f)
}

func (r *squidReader) ports(a *squidACL) []egress.Ports {
	var out []egress.Ports
	for _, v := range a.values {
		if p, ok := azurePorts(v); ok {
			out = append(out, p)
		}
	}
	return out
}

func (r *squidReader) prefixes(acl string, a *squidACL) []netip.Prefix {
	var out []netip.Prefix
	for _, v := range a.values {
		ps, ok := azurePrefixes(v)
		if v == "all" {
			ps, ok = []netip.Prefix{anyAddr, anyAddr6}, true
		}
		if !ok {
			r.unread("acl "+acl, "address %q", v)
		}
		out = append(out, ps...)
	}
	return out
}

// complement are the ports that are in none of the ranges.
func complement(in []egress.Ports) []egress.Ports {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b egress.Ports) int { return int(a.First) - int(b.First) })
	var out []egress.Ports
	next := 1
	for _, p := range in {
		if int(p.First) > next {
			out = append(out, egress.Ports{First: uint16(next), Last: p.First - 1})
		}
		next = max(next, int(p.Last)+1)
	}
	if next <= 65535 {
		out = append(out, egress.Ports{First: uint16(next), Last: 65535})
	}
	return out
}
