package audit

import (
	"encoding/json"
	"fmt"
	"strings"

	"tidegate.io/tidegate/egress"
)

// fix is the rule that meets a need, in the policy's own format; it never opens
// more than the need.
func (p *Policy) fix(r *egress.Rule, e egress.Endpoint) string {
	switch p.Format {
	case AzureFirewall:
		return fixAzure(r, e)
	case Terraform:
		return fixTerraform(r, e)
	case NSG:
		return fixNSG(r, e)
	case Cilium:
		return fixCilium(e)
	case Squid:
		return fixSquid(r, e, p.splices)
	}
	return e.String()
}

var azureWords = map[egress.Proto]string{egress.TCP: "TCP", egress.UDP: "UDP", egress.HTTP: "Http", egress.HTTPS: "Https"}

// ruleName is a rule's id as Azure takes it.
func ruleName(id string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, id)
}

// middle reports whether a pattern has a star that Azure does not take.
func middle(h egress.Host) bool {
	p, ok := h.(egress.Pattern)
	return ok && strings.Contains(strings.TrimPrefix(p.String(), "*."), "*")
}

const azureMiddle = "Azure Firewall takes a * on the left only: list the names that the log shows, one by one"

// destination is an address or a tag as Azure writes it.
func destination(h egress.Host) string {
	switch h := h.(type) {
	case egress.Net:
		if h.Bits() == 0 {
			return "*"
		}
		return h.String()
	case egress.Tag:
		return h.Name()
	}
	return h.String()
}

func oneLineJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

func fixAzure(r *egress.Rule, e egress.Endpoint) string {
	if middle(e.Host) {
		return azureMiddle
	}
	name, any := ruleName(r.ID), []string{"*"}
	if e.Proto.Named() {
		type protocol struct {
			Type string `json:"protocolType"`
			Port int    `json:"port"`
		}
		return oneLineJSON(struct {
			Type      string     `json:"ruleType"`
			Name      string     `json:"name"`
			Sources   []string   `json:"sourceAddresses"`
			Protocols []protocol `json:"protocols"`
			Targets   []string   `json:"targetFqdns"`
		}{"ApplicationRule", name, any, []protocol{{azureWords[e.Proto], int(e.Ports.First)}}, []string{e.Host.String()}})
	}
	rule := struct {
		Type      string   `json:"ruleType"`
		Name      string   `json:"name"`
		Protocols []string `json:"ipProtocols"`
		Sources   []string `json:"sourceAddresses"`
		Addresses []string `json:"destinationAddresses,omitempty"`
		FQDNs     []string `json:"destinationFqdns,omitempty"`
		Ports     []string `json:"destinationPorts"`
	}{"NetworkRule", name, []string{azureWords[e.Proto]}, any, nil, nil, []string{e.Ports.String()}}
	if _, byName := e.Host.(egress.Pattern); byName {
		rule.FQDNs = []string{e.Host.String()}
	} else {
		rule.Addresses = []string{destination(e.Host)}
	}
	return oneLineJSON(rule)
}

func fixTerraform(r *egress.Rule, e egress.Endpoint) string {
	if middle(e.Host) {
		return azureMiddle
	}
	name := ruleName(r.ID)
	if e.Proto.Named() {
		return fmt.Sprintf("rule {\n  name              = %q\n  source_addresses  = [\"*\"]\n  destination_fqdns = [%q]\n  protocols {\n    type = %q\n    port = %d\n  }\n}",
			name, e.Host, azureWords[e.Proto], e.Ports.First)
	}
	field := "destination_addresses"
	if _, byName := e.Host.(egress.Pattern); byName {
		field = "destination_fqdns"
	}
	return fmt.Sprintf("rule {\n  name                  = %q\n  protocols             = [%q]\n  source_addresses      = [\"*\"]\n  %-21s = [%q]\n  destination_ports     = [%q]\n}",
		name, azureWords[e.Proto], field, destination(e.Host), e.Ports.String())
}

func fixNSG(r *egress.Rule, e egress.Endpoint) string {
	if _, byName := e.Host.(egress.Pattern); byName {
		return "a network security group has no names: permit the port to Internet here, and the name at a firewall"
	}
	dst := destination(e.Host)
	if dst == "*" {
		dst = "Internet"
	}
	return oneLineJSON(map[string]any{"name": ruleName(r.ID), "properties": map[string]any{
		"access": "Allow", "direction": "Outbound", "protocol": strings.ToUpper(e.Proto.Transport().String()[:1]) + e.Proto.Transport().String()[1:],
		"sourceAddressPrefix": "VirtualNetwork", "sourcePortRange": "*", "destinationAddressPrefix": dst, "destinationPortRange": e.Ports.String(),
	}})
}

func fixCilium(e egress.Endpoint) string {
	port := fmt.Sprintf("port: %q, ", fmt.Sprint(e.Ports.First))
	if e.Ports.Last > e.Ports.First {
		port += fmt.Sprintf("endPort: %d, ", e.Ports.Last)
	}
	to := ""
	switch h := e.Host.(type) {
	case egress.Pattern:
		switch name, exact := h.Exact(); {
		case exact:
			to = fmt.Sprintf("toFQDNs: [{matchName: %q}]", name)
		case strings.HasPrefix(h.String(), "*."):
			to = fmt.Sprintf("toFQDNs: [{matchPattern: %q}]", "*"+h.String())
		default:
			to = fmt.Sprintf("toFQDNs: [{matchPattern: %q}]", h)
		}
	case egress.Net:
		to = fmt.Sprintf("toCIDR: [%q]", h.Prefix)
	default:
		return "Cilium has no service tags: --service-tags writes them out as prefixes"
	}
	return fmt.Sprintf("- %s\n  toPorts: [{ports: [{%sprotocol: %s}]}]", to, port, strings.ToUpper(e.Proto.Transport().String()))
}

func fixSquid(r *egress.Rule, e egress.Endpoint, splices bool) string {
	p, byName := e.Host.(egress.Pattern)
	if !byName || !e.Proto.Named() {
		return "Squid forwards HTTP and HTTPS only: this one needs a rule at the packet filter"
	}
	text := p.String()
	acl := strings.ReplaceAll(ruleName(r.ID), "-", "_")
	switch {
	case middle(p):
		return "Squid's dstdomain takes a wildcard on the left only: list the names that the log shows, one by one"
	case strings.HasPrefix(text, "*."):
		text = text[1:]
	}
	if splices && e.Proto == egress.HTTPS {
		return fmt.Sprintf("acl %s ssl::server_name %s\nacl %s_port port %s\nssl_bump splice %s %s_port # before: ssl_bump terminate all", acl, text, acl, e.Ports, acl, acl)
	}
	method := ""
	if e.Proto == egress.HTTPS {
		method = " CONNECT"
	}
	return fmt.Sprintf("acl %s dstdomain %s\nacl %s_port port %s\nhttp_access allow%s %s %s_port # before: http_access deny all", acl, text, acl, e.Ports, method, acl, acl)
}
