package audit

import (
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

type nsgRule struct {
	Name     string
	Priority int
	nsgFields
	Properties *struct {
		Priority int
		nsgFields
	} // the resource manager's form
}

type nsgFields struct {
	Access, Direction          string
	Protocol                   string
	SourceAddressPrefix        string
	SourceAddressPrefixes      []string
	DestinationAddressPrefix   string
	DestinationAddressPrefixes []string
	DestinationPortRange       string
	DestinationPortRanges      []string

	SourceApplicationSecurityGroups      []any
	DestinationApplicationSecurityGroups []any
}

// builtinPriority is where the rules begin that every group has.
const builtinPriority = 65000

// nsgDefaults are the outbound rules that every group ends with, where the file
// leaves them out.
var nsgDefaults = []nsgRule{
	{Name: "AllowInternetOutBound", Priority: 65001, nsgFields: nsgFields{Access: "Allow", Direction: "Outbound", Protocol: "*", SourceAddressPrefix: "*", DestinationAddressPrefix: "Internet", DestinationPortRange: "*"}},
	{Name: "DenyAllOutBound", Priority: 65500, nsgFields: nsgFields{Access: "Deny", Direction: "Outbound", Protocol: "*", SourceAddressPrefix: "*", DestinationAddressPrefix: "*", DestinationPortRange: "*"}},
}

func (a *azureReader) securityGroup(name string, f *azureFields) error {
	if a.Format != Terraform || len(a.grants) == 0 {
		a.Format = NSG
	}
	a.nsgs = append(a.nsgs, lastName(name))
	rules := *f.SecurityRules
	if f.DefaultSecurityRules != nil {
		rules = append(rules[:len(rules):len(rules)], f.DefaultSecurityRules...)
	} else {
		rules = append(rules[:len(rules):len(rules)], nsgDefaults...)
	}
	for i := range rules {
		if err := a.securityRule(name, &rules[i]); err != nil {
			return err
		}
	}
	return nil
}

// looseRules reads the rules that are resources of their own. Exports repeat
// there what the group holds already.
func (a *azureReader) looseRules() error {
	if len(a.loose) == 0 {
		return nil
	}
	if len(a.nsgs) == 0 {
		return a.securityGroup("", &azureFields{SecurityRules: &a.loose})
	}
	for _, r := range a.loose {
		if !slices.ContainsFunc(a.grants, func(g grant) bool { return g.nsg && strings.HasSuffix(g.at, "/"+r.Name) }) && strings.EqualFold(r.fields().Direction, "Outbound") {
			a.unread(r.Name, "a security rule beside groups that lack it")
		}
	}
	return nil
}

// fields are the rule's in either spelling.
func (r *nsgRule) fields() *nsgFields {
	if r.Properties != nil {
		return &r.Properties.nsgFields
	}
	return &r.nsgFields
}

func (a *azureReader) securityRule(group string, r *nsgRule) error {
	f, priority := r.fields(), r.Priority
	if r.Properties != nil {
		priority = r.Properties.Priority
	}
	if !strings.EqualFold(f.Direction, "Outbound") {
		return nil
	}
	g := grant{at: join(lastName(group), r.Name), deny: !strings.EqualFold(f.Access, "Allow"), tier: networkTier, priority: []int{priority}}
	g.nsg = true
	g.builtin = priority >= builtinPriority
	if len(f.SourceApplicationSecurityGroups)+len(f.DestinationApplicationSecurityGroups) > 0 {
		a.unread(g.at, "application security groups, whose members are not in the file")
		return nil
	}
	switch strings.ToLower(f.Protocol) {
	case "tcp":
		g.protos = []egress.Proto{egress.TCP}
	case "udp":
		g.protos = []egress.Proto{egress.UDP}
	case "*":
		g.protos = []egress.Proto{egress.TCP, egress.UDP}
	default:
		return nil // ICMP, AH, ESP
	}
	sources := given(f.SourceAddressPrefix, f.SourceAddressPrefixes)
	if !whole(sources) {
		from, ok := a.addresses(sources, nil, g.at, "source")
		if !ok && !g.deny {
			return nil
		}
		g.from = from
	}
	for _, written := range given(f.DestinationPortRange, f.DestinationPortRanges) {
		ports, ok := azurePorts(written)
		if !ok {
			a.unread(g.at, "port %q", written)
			continue
		}
		g.ports = ports
		if err := a.securityTargets(g, given(f.DestinationAddressPrefix, f.DestinationAddressPrefixes)); err != nil {
			return err
		}
	}
	return nil
}

func (a *azureReader) securityTargets(g grant, destinations []string) error {
	for _, s := range destinations {
		if strings.EqualFold(s, "VirtualNetwork") {
			continue // inside is not egress
		}
		ts, ok := azureTargets(s)
		if !ok {
			a.unread(g.at, "destination %q", s)
		}
		for _, t := range ts {
			g.text, g.to = t.text, t.to
			if err := a.add(g); err != nil {
				return err
			}
		}
	}
	return nil
}

// whole reports whether a source holds every node.
func whole(sources []string) bool {
	for _, s := range sources {
		if s == "*" || strings.EqualFold(s, "Any") || strings.EqualFold(s, "VirtualNetwork") {
			return true
		}
	}
	return false
}

func given(one string, many []string) []string {
	if one == "" {
		return many
	}
	return append(many[:len(many):len(many)], one)
}
