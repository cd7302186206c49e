package aks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// nsg is a network security group, in both spellings.
type nsg struct {
	Name          string
	SecurityRules *[]nsgRule // nil: not a security group
	Properties    struct{ SecurityRules *[]nsgRule }
}

type nsgRule struct {
	nsgFields
	Name       string
	Properties *nsgFields // the resource manager's form
}

type nsgFields struct {
	Access, Direction          string
	Priority                   int
	Protocol                   string
	SourceAddressPrefix        string
	SourceAddressPrefixes      []string
	DestinationAddressPrefix   string
	DestinationAddressPrefixes []string
	DestinationPortRange       string
	DestinationPortRanges      []string
}

// LintNSG reads the network security group of a nodes' subnet, as `az network
// nsg show` or the resource manager prints it, and warns of rules that block
// traffic inside the network: AKS does not support that, and it is not what
// firewalls are for. (Between pods, network policies are.)
func LintNSG(r io.Reader) ([]Note, error) {
	b, err := readBounded(r, maxListJSON)
	if err != nil {
		return nil, fmt.Errorf("network security group: %w", err)
	}
	var g nsg
	if err := json.Unmarshal(b, &g); err != nil {
		return nil, fmt.Errorf("network security group: %w", jsonError(b, err))
	}
	found := g.SecurityRules
	if found == nil {
		found = g.Properties.SecurityRules
	}
	if found == nil {
		return nil, errors.New("network security group: JSON of something else; want the output of: az network nsg show")
	}
	rules := *found
	for i := range rules {
		if rules[i].Properties != nil {
			rules[i].nsgFields = *rules[i].Properties
		}
	}
	slices.SortStableFunc(rules, func(a, b nsgRule) int { return a.Priority - b.Priority })
	var notes []Note
	opened := map[string]bool{} // directions in which everything inside is allowed by now
	for _, rule := range rules {
		direction := strings.ToLower(rule.Direction)
		inside := anyInside(rule.SourceAddressPrefix, rule.SourceAddressPrefixes) && anyInside(rule.DestinationAddressPrefix, rule.DestinationAddressPrefixes)
		switch {
		case !inside:
		case !strings.EqualFold(rule.Access, "Deny"):
			opened[direction] = opened[direction] || rule.opensNetwork()
		case !opened[direction]:
			notes = append(notes, Note{Warning, "blocks-inside", "", fmt.Sprintf("Rule %q of the network security group (%s, priority %d) denies traffic inside the network, which AKS does not support; use network policies between pods.", rule.Name, direction, rule.Priority)})
		}
	}
	return notes, nil
}

// opensNetwork reports whether the rule lets everything inside the network
// through, so that a later denial does not reach it.
func (f *nsgFields) opensNetwork() bool {
	whole := func(s string) bool { return s == "*" || strings.EqualFold(s, "VirtualNetwork") }
	return f.Protocol == "*" && f.DestinationPortRange == "*" && whole(f.SourceAddressPrefix) && whole(f.DestinationAddressPrefix)
}

// anyInside reports whether one of the prefixes may hold an address of the
// network. Prefixes of the internet do not.
func anyInside(one string, many []string) bool {
	return slices.ContainsFunc(append(many, one), func(s string) bool {
		if s == "*" || strings.EqualFold(s, "Any") || strings.EqualFold(s, "VirtualNetwork") {
			return true
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			return err == nil && a.IsPrivate()
		}
		return p.Bits() == 0 || p.Addr().IsPrivate()
	})
}
