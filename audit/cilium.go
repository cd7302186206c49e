package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/egress"
)

// Cilium's policies: a union of permissions, from which denials are taken. A
// name works only where the same policy sends DNS through Cilium's proxy.

type ciliumDoc struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     *ciliumSpec
	Specs    []ciliumSpec
	Items    []ciliumDoc
}

type ciliumSpec struct {
	EndpointSelector map[string]any `yaml:"endpointSelector"`
	Egress           []ciliumEgress
	EgressDeny       []ciliumEgress `yaml:"egressDeny"`
}

type ciliumEgress struct {
	ToFQDNs []struct {
		MatchName    string `yaml:"matchName"`
		MatchPattern string `yaml:"matchPattern"`
	} `yaml:"toFQDNs"`
	ToCIDR    []string `yaml:"toCIDR"`
	ToCIDRSet []struct {
		CIDR   string
		Except []string
	} `yaml:"toCIDRSet"`
	ToEntities  []string `yaml:"toEntities"`
	ToEndpoints []any    `yaml:"toEndpoints"`
	ToServices  []any    `yaml:"toServices"`
	ToPorts     []struct {
		Ports []struct {
			Port     string
			EndPort  int `yaml:"endPort"`
			Protocol string
		}
		Rules          map[string]any
		ServerNames    []string `yaml:"serverNames"`
		TerminatingTLS any      `yaml:"terminatingTLS"`
	} `yaml:"toPorts"`
}

func (p *Policy) readCilium(b []byte) error {
	p.Format = Cilium
	dns := false
	d := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var doc ciliumDoc
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("policy of Cilium: %w", err)
		}
		for _, doc := range append(doc.Items, doc) {
			switch doc.Kind {
			case "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy":
				more, err := p.ciliumPolicy(&doc)
				if err != nil {
					return err
				}
				dns = dns || more
			case "List", "", "CiliumNetworkPolicyList", "CiliumClusterwideNetworkPolicyList":
			default:
				p.unread(doc.Metadata.Name, "a %s", doc.Kind)
			}
		}
	}
	p.dnsProxy = &dns
	return nil
}

// ciliumPolicy reports whether DNS goes through the proxy.
func (p *Policy) ciliumPolicy(doc *ciliumDoc) (dns bool, err error) {
	specs := doc.Specs
	if doc.Spec != nil {
		specs = append(specs, *doc.Spec)
	}
	for _, s := range specs {
		if len(s.EndpointSelector) > 0 && len(s.Egress)+len(s.EgressDeny) > 0 {
			p.unread(doc.Metadata.Name, "endpointSelector: it is for some pods, and counts as for all of them")
		}
		for i := range s.EgressDeny {
			at := fmt.Sprintf("%s/egressDeny[%d]", join(doc.Metadata.Namespace, doc.Metadata.Name), i)
			if err := p.ciliumEgress(grant{at: at, deny: true, tier: networkTier}, &s.EgressDeny[i]); err != nil {
				return dns, err
			}
		}
		for i := range s.Egress {
			at := fmt.Sprintf("%s/egress[%d]", join(doc.Metadata.Namespace, doc.Metadata.Name), i)
			for _, tp := range s.Egress[i].ToPorts {
				_, rule := tp.Rules["dns"]
				dns = dns || rule
			}
			if err := p.ciliumEgress(grant{at: at, tier: networkTier}, &s.Egress[i]); err != nil {
				return dns, err
			}
		}
	}
	return dns, nil
}

func (p *Policy) ciliumEgress(g grant, e *ciliumEgress) error {
	targets := p.ciliumTargets(g.at, e)
	if len(targets) == 0 {
		return nil
	}
	if len(e.ToPorts) == 0 {
		g.protos, g.ports = []egress.Proto{egress.TCP, egress.UDP}, allPorts
		return p.addAll(g, targets)
	}
	for _, tp := range e.ToPorts {
		g.inspect = tp.TerminatingTLS != nil
		if len(tp.ServerNames) > 0 {
			p.unread(g.at, "serverNames, which narrow the rule further, so that it counts as permitting nothing")
			continue
		}
		for _, port := range tp.Ports {
			written := port.Port
			if port.EndPort > 0 {
				written += "-" + strconv.Itoa(port.EndPort)
			}
			ports, ok := azurePorts(written)
			if written == "0" || written == "" {
				ports, ok = allPorts, true
			}
			if !ok {
				p.unread(g.at, "port %q", written)
				continue
			}
			g.ports = ports
			switch strings.ToUpper(port.Protocol) {
			case "TCP":
				g.protos = []egress.Proto{egress.TCP}
			case "UDP":
				g.protos = []egress.Proto{egress.UDP}
			case "", "ANY":
				g.protos = []egress.Proto{egress.TCP, egress.UDP}
			default:
				p.unread(g.at, "protocol %q", port.Protocol)
				continue
			}
			if err := p.addAll(g, targets); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Policy) addAll(g grant, targets []writtenTarget) error {
	for _, t := range targets {
		g.text, g.to, g.open = t.text, t.to, t.open
		if err := p.add(g); err != nil {
			return err
		}
	}
	return nil
}

func (p *Policy) ciliumTargets(at string, e *ciliumEgress) []writtenTarget {
	var out []writtenTarget
	for _, f := range e.ToFQDNs {
		text, read := f.MatchName, wholeName
		if text == "" {
			text, read = f.MatchPattern, ciliumNames
		}
		if n, ok := read(text); ok {
			out = append(out, writtenTarget{text: text, to: target{names: n}})
		} else {
			p.unread(at, "name %q", text)
		}
	}
	for _, s := range e.ToCIDR {
		out = append(out, p.ciliumCIDR(at, s, nil)...)
	}
	for _, c := range e.ToCIDRSet {
		out = append(out, p.ciliumCIDR(at, c.CIDR, c.Except)...)
	}
	for _, s := range e.ToEntities {
		switch s {
		case "all", "world":
			out = append(out, writtenTarget{text: s, to: target{net: anyAddr}}, writtenTarget{text: s, to: target{net: anyAddr6}})
		case "world-ipv4":
			out = append(out, writtenTarget{text: s, to: target{net: anyAddr}})
		case "world-ipv6":
			out = append(out, writtenTarget{text: s, to: target{net: anyAddr6}})
		case "kube-apiserver":
			out = append(out, writtenTarget{text: s, to: target{tag: s}})
		}
	}
	return out
}

// ciliumCIDR is a prefix without its holes. Everything without what no name may
// lead to is still everything, for a name.
func (p *Policy) ciliumCIDR(at, s string, except []string) []writtenTarget {
	prefixes, ok := azurePrefixes(s)
	if !ok || len(prefixes) != 1 {
		p.unread(at, "CIDR %q", s)
		return nil
	}
	left := prefixes
	for _, hole := range except {
		holes, ok := azurePrefixes(hole)
		if !ok {
			p.unread(at, "CIDR %q", hole)
			return nil
		}
		for _, h := range holes {
			if prefixes[0].Bits() > 0 || !guardedPrefix(h) {
				left = cutOut(left, h)
			}
		}
	}
	var out []writtenTarget
	for _, l := range left {
		out = append(out, writtenTarget{text: s, to: target{net: l}})
	}
	return out
}

func guardedPrefix(p netip.Prefix) bool {
	return slices.ContainsFunc(egress.GuardedRanges(), func(g netip.Prefix) bool { return holdsPrefix(g, p) })
}

func cutOut(ps []netip.Prefix, hole netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		switch {
		case !p.Overlaps(hole):
			out = append(out, p)
		case hole.Bits() > p.Bits():
			out = append(out, minus(p, hole)...)
		}
	}
	return out
}

// wholeName reads a name without any wildcard.
func wholeName(s string) (names, bool) { return spelled(nothing, lower(s)) }
