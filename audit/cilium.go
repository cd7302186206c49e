package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
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
	Egress     []ciliumEgress
	EgressDeny []ciliumEgress `yaml:"egressDeny"`
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
			p.unread(g.at, "serverNames, which narrow the rule further")
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
	cidrs := e.ToCIDR
	for _, c := range e.ToCIDRSet {
		if len(c.Except) > 0 {
			p.unread(at, "%s without %s: such a hole is not judged", c.CIDR, strings.Join(c.Except, ", "))
		}
		cidrs = append(cidrs, c.CIDR)
	}
	for _, s := range cidrs {
		if prefix, err := netip.ParsePrefix(s); err == nil {
			out = append(out, writtenTarget{text: s, to: target{net: prefix.Masked()}})
		} else if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, writtenTarget{text: s, to: target{net: netip.PrefixFrom(a, a.BitLen())}})
		} else {
			p.unread(at, "CIDR %q", s)
		}
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

// wholeName reads a name without any wildcard.
func wholeName(s string) (names, bool) { return spelled(nothing, lower(s)) }
