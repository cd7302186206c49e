package export

import (
	"fmt"
	"net/netip"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Limits of FortiOS.
const (
	maxFortiAddress = 79
	maxFortiPolicy  = 35
	maxFortiComment = 255
)

// forti is a FortiGate configuration under construction. Objects are made once
// and shared by the policies that name them.
type forti struct {
	addresses, services, policies page
	objects                       map[string]string // what is meant, to the name of its object
	names                         *namer
}

func writeFortiGate(j *job) []File {
	f := &forti{objects: map[string]string{}, names: newNamer(maxFortiAddress, '-')}
	policyNames := newNamer(maxFortiPolicy, '-')
	for _, g := range j.grants() {
		var to []string
		for _, n := range g.names {
			to = append(to, f.object(&f.addresses, n.String(), "set type fqdn", "set fqdn "+fortiString(n.String())))
		}
		to = append(to, f.prefixes(g.nets)...)
		from := f.prefixes(g.from)
		if len(from) == 0 {
			from = []string{"all"}
		}
		f.policy(policyNames.name(g.rule.ID, g.proto.String()), g.rule, from, to, f.service(g.service))
	}
	var p page
	p.comment("#", j.title())
	p.line("# Set srcintf and dstintf to the interfaces of your cluster and of the internet.")
	for _, part := range []struct {
		name string
		body *page
	}{{"firewall address", &f.addresses}, {"firewall service custom", &f.services}, {"firewall policy", &f.policies}} {
		if part.body.Len() > 0 {
			p.line("config %s", part.name)
			p.Write(part.body.Bytes())
			p.line("end")
		}
	}
	return one("fortigate.conf", p.Bytes())
}

// object returns the name of the object for what, which it makes if need be.
func (f *forti) object(to *page, what string, settings ...string) string {
	if name, ok := f.objects[what]; ok {
		return name
	}
	name := f.names.name("tidegate", strings.ReplaceAll(what, "*", "any"))
	f.objects[what] = name
	to.line("    edit %s", fortiString(name))
	for _, s := range settings {
		to.line("        %s", s)
	}
	to.line("    next")
	return name
}

func (f *forti) prefixes(ps []netip.Prefix) []string {
	var out []string
	for _, p := range ps {
		mask := netip.AddrFrom4(netMask(p.Bits()))
		out = append(out, f.object(&f.addresses, egress.Net{Prefix: p}.String(), "set type ipmask", fmt.Sprintf("set subnet %s %s", p.Addr(), mask)))
	}
	return out
}

func netMask(bits int) [4]byte {
	m := uint32(0xffffffff) << (32 - bits)
	return [4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}
}

func (f *forti) service(s service) string {
	proto := s.proto.Transport().String()
	return f.object(&f.services, proto+"-"+s.ports.String(), fmt.Sprintf("set %s-portrange %s", proto, s.ports))
}

func (f *forti) policy(name string, r *egress.Rule, from, to []string, service string) {
	p := &f.policies
	p.line("    edit 0")
	p.line("        set name %s", fortiString(name))
	p.line(`        set srcintf "any"`)
	p.line(`        set dstintf "any"`)
	p.line("        set srcaddr %s", fortiStrings(from))
	p.line("        set dstaddr %s", fortiStrings(to))
	p.line("        set action accept")
	p.line(`        set schedule "always"`)
	p.line("        set service %s", fortiString(service))
	p.line("        set logtraffic all")
	p.line("        set comments %s", fortiString(clip(oneLine(reason(r)), maxFortiComment)))
	p.line("    next")
}

// fortiString quotes s: a quote or a backslash would end it early.
func fortiString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func fortiStrings(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = fortiString(s)
	}
	return strings.Join(quoted, " ")
}
