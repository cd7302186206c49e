package export

import (
	"fmt"
	"strings"
)

// writeAzureTerraform prints the group for the azurerm provider.
func writeAzureTerraform(j *job) []File {
	g := j.azure()
	var p page
	p.comment("#", j.title())
	p.line("")
	p.line(`variable "firewall_policy_id" {`)
	p.line(`  description = "The firewall policy that the rules go into."`)
	p.line(`  type        = string`)
	p.line(`}`)
	p.line("")
	p.line(`resource "azurerm_firewall_policy_rule_collection_group" %s {`, hclString(newNamer(64, '_').name("tidegate", j.Name)))
	hclAttributes(&p, "  ", [][2]string{{"name", hclString(j.groupName())}, {"firewall_policy_id", "var.firewall_policy_id"}, {"priority", fmt.Sprint(g.Priority)}})
	for _, c := range g.Collections {
		kind := map[string]string{"network": "network_rule_collection", "application": "application_rule_collection"}[c.Name]
		p.line("")
		p.line("  %s {", kind)
		hclAttributes(&p, "    ", [][2]string{{"name", hclString(c.Name)}, {"priority", fmt.Sprint(c.Priority)}, {"action", hclString(c.Action.Type)}})
		for _, r := range c.Rules {
			p.line("")
			terraformRule(&p, &r)
		}
		p.line("  }")
	}
	p.line("}")
	return one("azure-firewall.tf", p.Bytes())
}

func terraformRule(p *page, r *azureRule) {
	// Network rules have a description since version 3.75 of the provider.
	attributes := [][2]string{{"name", hclString(r.Name)}, {"description", hclString(r.Description)}}
	list := func(name string, values []string) {
		if len(values) > 0 {
			attributes = append(attributes, [2]string{name, hclList(values)})
		}
	}
	list("source_addresses", r.Sources)
	list("destination_fqdns", append(r.TargetFQDNs, r.FQDNs...))
	list("destination_fqdn_tags", r.FQDNTags)
	list("protocols", r.IPProtocols)
	list("destination_addresses", r.Addresses)
	list("destination_ports", r.Ports)
	p.line("    rule {")
	hclAttributes(p, "      ", attributes)
	for _, protocol := range r.Protocols {
		p.line("")
		p.line("      protocols {")
		hclAttributes(p, "        ", [][2]string{{"type", hclString(protocol.Type)}, {"port", fmt.Sprint(protocol.Port)}})
		p.line("      }")
	}
	p.line("    }")
}

// hclAttributes aligns the equals signs, as terraform fmt does.
func hclAttributes(p *page, indent string, attributes [][2]string) {
	width := 0
	for _, a := range attributes {
		width = max(width, len(a[0]))
	}
	for _, a := range attributes {
		p.line("%s%-*s = %s", indent, width, a[0], a[1])
	}
}

func hclList(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = hclString(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// hclString quotes s; what would start a template is escaped.
func hclString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "${", "$${", "%{", "%%{", "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + `"`
}
