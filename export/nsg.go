package export

import (
	"net/netip"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Priorities of a network security group go to 4096; those before and behind
// ours are left to the owner.
const (
	nsgFirst = 1000
	nsgDeny  = 4000
)

type nsgProperties struct {
	Rules []nsgRule `json:"securityRules"`
}

type nsgRule struct {
	Name       string     `json:"name"`
	Properties nsgDetails `json:"properties"`
}

type nsgDetails struct {
	Description  string   `json:"description"`
	Priority     int      `json:"priority"`
	Direction    string   `json:"direction"`
	Access       string   `json:"access"`
	Protocol     string   `json:"protocol"`
	SourcePort   string   `json:"sourcePortRange"`
	Source       string   `json:"sourceAddressPrefix,omitempty"`
	Sources      []string `json:"sourceAddressPrefixes,omitempty"`
	Destination  string   `json:"destinationAddressPrefix,omitempty"`
	Destinations []string `json:"destinationAddressPrefixes,omitempty"`
	Ports        string   `json:"destinationPortRange"`
}

// maxNSGText is the length of a rule's description.
const maxNSGText = 140

// writeNSG is a network security group: addresses and service tags, and a
// denial of the rest of the internet, which a group permits by itself.
func writeNSG(j *job) []File {
	n := newNamer(maxAzureName, '-')
	rules := []nsgRule{}
	for _, g := range j.grants() {
		// A rule has either prefixes, in any number, or one service tag.
		destinations := [][]string{nsgAddresses(g.nets)}
		if len(g.tags) > 0 {
			destinations = nil
			for _, t := range g.tags {
				destinations = append(destinations, []string{t.Name()})
			}
		}
		for _, to := range destinations {
			if nsgFirst+len(rules) >= nsgDeny {
				j.gap(g.rule, egress.Endpoint{}, "the group has no room for more than %d rules", nsgDeny-nsgFirst)
				continue
			}
			d := nsgDetails{
				Description: armText(clip(oneLine(reason(g.rule)), maxNSGText)), Priority: nsgFirst + len(rules), Direction: "Outbound", Access: "Allow",
				Protocol: nsgProto(g.proto), SourcePort: "*", Ports: g.ports.String(),
			}
			d.Source, d.Sources = "*", nil
			if len(g.from) > 0 {
				d.Source, d.Sources = nsgPrefixes(nsgAddresses(g.from))
			}
			d.Destination, d.Destinations = nsgPrefixes(to)
			rules = append(rules, nsgRule{n.name(g.rule.ID, g.proto.String(), g.ports.String()), d})
		}
	}
	rules = append(rules, nsgRule{n.name("deny internet"), nsgDetails{
		Description: "What no rule permits.", Priority: nsgDeny, Direction: "Outbound", Access: "Deny",
		Protocol: "*", SourcePort: "*", Source: "*", Destination: "Internet", Ports: "*",
	}})
	parameters := map[string]armParameter{"location": {"string", map[string]string{"description": "The region of the group, which is its network's."}}}
	return one("nsg.json", armOf(j, parameters, armResource{
		Type: "Microsoft.Network/networkSecurityGroups", APIVersion: azureAPIVersion, Name: j.groupName(), Location: "[parameters('location')]", Properties: nsgProperties{rules},
	}))
}

func nsgProto(p egress.Proto) string {
	s := p.Transport().String()
	return strings.ToUpper(s[:1]) + s[1:]
}

// nsgAddresses writes prefixes. All addresses of IPv4 are not "*" there, which
// means IPv6 as well.
func nsgAddresses(ps []netip.Prefix) []string {
	var out []string
	for _, p := range ps {
		out = addNew(out, egress.Net{Prefix: p}.String())
	}
	return out
}

// nsgPrefixes are one, or a list.
func nsgPrefixes(list []string) (one string, many []string) {
	if len(list) == 1 {
		return list[0], nil
	}
	return "", list
}
