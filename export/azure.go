package export

import (
	"fmt"
	"net/netip"
	"slices"

	"tidegate.io/tidegate/egress"
)

// An Azure Firewall policy's rule collection group, as the resource manager
// has it (Microsoft.Network/firewallPolicies/ruleCollectionGroups). The ARM,
// Bicep and Terraform formats are three spellings of it.

type azureGroup struct {
	Priority    int               `json:"priority"`
	Collections []azureCollection `json:"ruleCollections"`
}

type azureCollection struct {
	Type     string      `json:"ruleCollectionType"`
	Name     string      `json:"name"`
	Priority int         `json:"priority"`
	Action   azureAction `json:"action"`
	Rules    []azureRule `json:"rules"`
}

type azureAction struct {
	Type string `json:"type"`
}

// azureRule is an application rule or a network rule, which share their first
// fields.
type azureRule struct {
	Type        string   `json:"ruleType"`
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Sources     []string `json:"sourceAddresses"`

	Protocols   []azureProtocol `json:"protocols,omitempty"`
	TargetFQDNs []string        `json:"targetFqdns,omitempty"`
	FQDNTags    []string        `json:"fqdnTags,omitempty"`

	IPProtocols []string `json:"ipProtocols,omitempty"`
	Addresses   []string `json:"destinationAddresses,omitempty"`
	FQDNs       []string `json:"destinationFqdns,omitempty"`
	Ports       []string `json:"destinationPorts,omitempty"`
}

type azureProtocol struct {
	Type string `json:"protocolType"`
	Port int    `json:"port"`
}

const (
	azureGroupPriority = 300
	azureNetwork       = 100
	azureApplication   = 200

	// maxAzureAppPort is the highest port of an application rule.
	maxAzureAppPort = 64000
	maxAzureName    = 80
	// maxAzureText bounds a description; what is longer has its source to be read.
	maxAzureText = 400

	aksTag = "AzureKubernetesService"
)

var azureProtos = map[egress.Proto]string{egress.TCP: "TCP", egress.UDP: "UDP", egress.HTTP: "Http", egress.HTTPS: "Https"}

var azureCan = can{
	protos: allProtos,
	// A * to the left takes any number of labels, and not the name itself. Network
	// rules take names only.
	names: shapeExact | shapeBelow, dnsNames: shapeExact,
	nets: true, tags: true, sources: true, ranges: true,
}

var azureLimits = []string{
	"Network rules with names need the firewall's DNS proxy, and clients that use it.",
	"A network rule that permits port 443 to an address comes before every application rule.",
	"TLS inspection must not be switched on for the API server's name.",
	"--allow-widening fqdn-tag writes the tag AzureKubernetesService in the place of what every cluster needs; the rest stays as it is.",
}

func (j *job) azure() azureGroup {
	n := newNamer(maxAzureName, '-')
	network := azureCollection{"FirewallPolicyFilterRuleCollection", "network", azureNetwork, azureAction{"Allow"}, []azureRule{}}
	application := network
	application.Name, application.Priority = "application", azureApplication
	tagged := j.azureTag()
	if tagged {
		application.Rules = append(application.Rules, azureRule{
			Type: "ApplicationRule", Name: n.name(aksTag), Sources: azureSources(j.From), FQDNTags: []string{aksTag},
			Description: "The hosts that Microsoft lists for AKS, in its own words; the list is not published.",
			Protocols:   []azureProtocol{{"Http", 80}, {"Https", 443}},
		})
	}
	for _, g := range j.grants() {
		if tagged && j.inTag(&g) {
			continue
		}
		r := azureRule{Description: clip(oneLine(reason(g.rule)), maxAzureText), Sources: azureSources(g.from)}
		if g.proto.Named() {
			for _, port := range j.azureAppPorts(&g) {
				a := r
				a.Type, a.Name = "ApplicationRule", n.name(g.rule.ID, g.proto.String(), fmt.Sprint(port))
				a.Protocols = []azureProtocol{{azureProtos[g.proto], port}}
				a.TargetFQDNs = texts(g.names)
				application.Rules = append(application.Rules, a)
			}
			continue
		}
		r.Type, r.Name = "NetworkRule", n.name(g.rule.ID, g.proto.String(), g.ports.String())
		r.IPProtocols, r.Ports = []string{azureProtos[g.proto]}, []string{g.ports.String()}
		r.FQDNs = texts(g.names)
		r.Addresses = azureAddresses(g.nets)
		for _, t := range g.tags {
			r.Addresses = append(r.Addresses, t.Name())
		}
		network.Rules = append(network.Rules, r)
	}
	group := azureGroup{Priority: azureGroupPriority, Collections: []azureCollection{}}
	for _, c := range []azureCollection{network, application} {
		if len(c.Rules) > 0 {
			group.Collections = append(group.Collections, c)
		}
	}
	return group
}

// azureTag reports whether the FQDN tag is written, which has to be asked for:
// what it opens is not published, is the same for every cluster, and changes.
func (j *job) azureTag() bool {
	if len(j.Tagged) == 0 || !slices.Contains(j.allow, WidenTag) {
		return false
	}
	j.gaps = append(j.gaps, Gap{
		Why:      fmt.Sprintf("the tag %s stands for %d rules; it opens the hosts of every AKS feature and region, and its contents are not published", aksTag, len(j.Tagged)),
		Widening: WidenTag, Widened: true,
	})
	return true
}

// inTag reports whether the tag stands for the grant: its rule is one of the
// documented, for all clients of the policy, on the tag's two services.
func (j *job) inTag(g *grant) bool {
	onTag := g.service == service{egress.HTTP, egress.Ports{First: 80, Last: 80}} || g.service == service{egress.HTTPS, egress.Ports{First: 443, Last: 443}}
	return onTag && len(g.rule.From) == 0 && slices.Contains(j.Tagged, g.rule.ID)
}

// azureAppPorts are the ports of an application rule, which has no ranges.
func (j *job) azureAppPorts(g *grant) []int {
	first, last := int(g.ports.First), int(g.ports.Last)
	why := ""
	switch {
	case last > maxAzureAppPort:
		why = fmt.Sprintf("application rules take ports up to %d", maxAzureAppPort)
	case last-first >= maxExpanded:
		why = fmt.Sprintf("application rules have no ranges of ports, and %d ports are too many to write out", last-first+1)
	}
	if why != "" {
		for _, p := range g.names {
			j.gap(g.rule, egress.Endpoint{Proto: g.proto, Host: p, Ports: g.ports}, "%s", why)
		}
		return nil
	}
	var out []int
	for p := first; p <= last; p++ {
		out = append(out, p)
	}
	return out
}

func azureSources(from []netip.Prefix) []string {
	if len(from) == 0 {
		return []string{"*"}
	}
	return azureAddresses(from)
}

// azureAddresses writes prefixes; all addresses are a star.
func azureAddresses(ps []netip.Prefix) []string {
	var out []string
	for _, p := range ps {
		s := egress.Net{Prefix: p}.String()
		if p.Bits() == 0 {
			s = "*"
		}
		out = addNew(out, s)
	}
	return out
}

func texts(ps []egress.Pattern) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}
