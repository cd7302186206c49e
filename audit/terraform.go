package audit

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// A plan or a state, as `terraform show -json` and `tofu show -json` print
// them. What a plan does not know yet is not in it.

type tfShow struct {
	PlannedValues *tfValues `json:"planned_values"`
	Values        *tfValues
}

type tfValues struct {
	RootModule tfModule `json:"root_module"`
}

type tfModule struct {
	Resources    []tfResource
	ChildModules []tfModule `json:"child_modules"`
}

type tfResource struct {
	Address, Mode, Type string
	Values              json.RawMessage
}

type tfGroup struct {
	Name         string
	Priority     int
	Policy       string         `json:"firewall_policy_id"`
	Applications []tfCollection `json:"application_rule_collection"`
	Networks     []tfCollection `json:"network_rule_collection"`
}

type tfCollection struct {
	Name     string
	Priority int
	Action   string
	Rules    []tfRule `json:"rule"`
}

type tfRule struct {
	Name             string
	SourceAddresses  []string    `json:"source_addresses"`
	SourceIPGroups   []string    `json:"source_ip_groups"`
	Protocols        tfProtocols // words of a network rule
	FQDNs            []string    `json:"destination_fqdns"`
	FQDNTags         []string    `json:"destination_fqdn_tags"`
	URLs             []string    `json:"destination_urls"`
	WebCategories    []string    `json:"web_categories"`
	TerminateTLS     bool        `json:"terminate_tls"`
	Addresses        []string    `json:"destination_addresses"`
	AddressGroups    []string    `json:"destination_ip_groups"`
	DestinationPorts []string    `json:"destination_ports"`
}

type tfProtocols []azureProtocol

func (ps *tfProtocols) UnmarshalJSON(b []byte) error {
	var words []string
	if json.Unmarshal(b, &words) == nil {
		for _, w := range words {
			*ps = append(*ps, azureProtocol{word: w})
		}
		return nil
	}
	var objects []struct {
		Type string
		Port int
	}
	if err := json.Unmarshal(b, &objects); err != nil {
		return err
	}
	for _, o := range objects {
		*ps = append(*ps, azureProtocol{ProtocolType: o.Type, Port: o.Port})
	}
	return nil
}

type tfNSGRule struct {
	Name, Access, Direction, Protocol string
	Priority                          int
	Source                            string   `json:"source_address_prefix"`
	Sources                           []string `json:"source_address_prefixes"`
	Destination                       string   `json:"destination_address_prefix"`
	Destinations                      []string `json:"destination_address_prefixes"`
	Port                              string   `json:"destination_port_range"`
	Ports                             []string `json:"destination_port_ranges"`
}

func (p *Policy) readTerraform(b []byte) error {
	var show tfShow
	if err := json.Unmarshal(b, &show); err != nil {
		return fmt.Errorf("terraform show: %w", err)
	}
	values := show.PlannedValues
	if values == nil {
		values = show.Values
	}
	if values == nil {
		return fmt.Errorf("terraform show: neither values nor planned_values in it")
	}
	t := tfReader{azureReader: azureReader{Policy: p, groups: map[string][]netip.Prefix{}}}
	p.Format = Terraform
	if err := t.module(&values.RootModule, t.ipGroup, 0); err != nil {
		return err
	}
	if err := t.module(&values.RootModule, t.resource, 0); err != nil {
		return err
	}
	return t.looseRules()
}

type tfReader struct{ azureReader }

func (t *tfReader) module(m *tfModule, each func(*tfResource) error, depth int) error {
	for i := range m.Resources {
		if r := &m.Resources[i]; r.Mode != "data" && len(r.Values) > 0 {
			if err := each(r); err != nil {
				return fmt.Errorf("%s: %w", r.Address, err)
			}
		}
	}
	for i := range m.ChildModules {
		if depth < maxNesting {
			if err := t.module(&m.ChildModules[i], each, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tfReader) ipGroup(r *tfResource) error {
	if r.Type != "azurerm_ip_group" {
		return nil
	}
	var g struct {
		Name  string
		CIDRs []string
	}
	if err := json.Unmarshal(r.Values, &g); err != nil {
		return err
	}
	t.group(g.Name, g.CIDRs)
	return nil
}

func (t *tfReader) resource(r *tfResource) error {
	switch r.Type {
	case "azurerm_firewall_policy":
		var v struct {
			Name string
			Base string `json:"base_policy_id"`
			DNS  []struct {
				Proxy bool `json:"proxy_enabled"`
			}
		}
		if err := json.Unmarshal(r.Values, &v); err != nil {
			return err
		}
		if v.Base != "" {
			t.inherits(v.Name, v.Base)
		}
		on := len(v.DNS) > 0 && v.DNS[0].Proxy
		t.dnsProxy = &on
	case "azurerm_firewall_policy_rule_collection_group":
		var g tfGroup
		if err := json.Unmarshal(r.Values, &g); err != nil {
			return err
		}
		return t.ruleGroup(&g)
	case "azurerm_network_security_group":
		var g struct {
			Name  string
			Rules []tfNSGRule `json:"security_rule"`
		}
		if err := json.Unmarshal(r.Values, &g); err != nil {
			return err
		}
		rules := []nsgRule{}
		for i := range g.Rules {
			rules = append(rules, g.Rules[i].rule())
		}
		if len(rules) == 0 {
			return nil // its rules are resources of their own, or it has none
		}
		return t.securityGroup(g.Name, &azureFields{SecurityRules: &rules})
	case "azurerm_network_security_rule":
		var v tfNSGRule
		if err := json.Unmarshal(r.Values, &v); err != nil {
			return err
		}
		t.loose = append(t.loose, v.rule())
	}
	return nil
}

func (t *tfReader) ruleGroup(g *tfGroup) error {
	t.Format = Terraform
	t.owner = t.groupOf(policyOf("", g.Policy))
	for kind, list := range map[string][]tfCollection{"ApplicationRule": g.Applications, "NetworkRule": g.Networks} {
		for _, c := range list {
			out := azureCollection{Name: c.Name}
			out.Priority = c.Priority
			out.Action = &struct{ Type string }{c.Action}
			for i := range c.Rules {
				out.Rules = append(out.Rules, c.Rules[i].rule(kind))
			}
			if err := t.collection(g.Name, []int{g.Priority}, &out, kind); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *tfRule) rule(kind string) azureRule {
	out := azureRule{
		Name: r.Name, SourceAddresses: r.SourceAddresses, SourceIPGroups: r.SourceIPGroups,
		Protocols: azureProtocols(r.Protocols), TerminateTLS: r.TerminateTLS, FQDNTags: r.FQDNTags, TargetURLs: r.URLs, WebCategories: r.WebCategories,
		DestinationAddresses: r.Addresses, DestinationIPGroups: r.AddressGroups, DestinationPorts: r.DestinationPorts,
	}
	if kind == "ApplicationRule" {
		out.TargetFQDNs = r.FQDNs
	} else {
		out.DestinationFQDNs = r.FQDNs
	}
	return out
}

func (r *tfNSGRule) rule() nsgRule {
	return nsgRule{Name: r.Name, Priority: r.Priority, nsgFields: nsgFields{
		Access: r.Access, Direction: strings.TrimSpace(r.Direction), Protocol: r.Protocol,
		SourceAddressPrefix: r.Source, SourceAddressPrefixes: r.Sources, DestinationAddressPrefix: r.Destination,
		DestinationAddressPrefixes: r.Destinations, DestinationPortRange: r.Port, DestinationPortRanges: r.Ports,
	}}
}
