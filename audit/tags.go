package audit

import (
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// tagNames are the names whose addresses Microsoft documents to be behind a
// service tag, for policies that know no names. A name that needs two tags is
// under the one that is easily forgotten too.
var tagNames = []struct {
	tags  []string // all of them
	names []names
}{
	{[]string{"azureresourcemanager"}, []names{{rest: "management.azure.com"}, {rest: "management.chinacloudapi.cn"}, {rest: "management.usgovcloudapi.net"}}},
	{[]string{"azureactivedirectory"}, []names{{rest: "login.microsoftonline.com"}, {rest: "login.microsoftonline.us"}, {rest: "login.chinacloudapi.cn"}}},
	{[]string{"microsoftcontainerregistry", "azurefrontdoor.firstparty"}, []names{{rest: "mcr.microsoft.com"}, {lead: below, rest: "data.mcr.microsoft.com"}}},
	{[]string{"azuremonitor"}, []names{
		{lead: below, rest: "ods.opinsights.azure.com"}, {lead: below, rest: "oms.opinsights.azure.com"}, {lead: below, rest: "monitoring.azure.com"},
		{lead: below, rest: "ingest.monitor.azure.com"}, {lead: below, rest: "handler.control.monitor.azure.com"}, {rest: "dc.services.visualstudio.com"},
	}},
}

// byServiceTag returns the tags of the policy by whose addresses a named
// endpoint is reached, if they hold all of them.
func (j *judge) byServiceTag(e egress.Endpoint) (at, text string, ok bool) {
	p, named := e.Host.(egress.Pattern)
	if !named {
		return "", "", false
	}
	for _, t := range tagNames {
		if !slices.ContainsFunc(t.names, func(n names) bool { return n.covers(p) }) {
			continue
		}
		var rules, tags []string
		for _, want := range t.tags {
			for i := range j.grants {
				g := &j.grants[i]
				if !g.deny && lower(g.to.tag) == want && g.speaks(e.Proto) && within(e.Ports, g.ports) && g.admits(j.needs.From) {
					rules, tags = append(rules, g.at), append(tags, g.text)
					break
				}
			}
		}
		if len(tags) == len(t.tags) {
			return strings.Join(slices.Compact(rules), ", "), "by the addresses of " + strings.Join(tags, " and "), true
		}
	}
	return "", "", false
}
