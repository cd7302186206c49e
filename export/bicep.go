package export

import "tidegate.io/tidegate/internal/bicep"

// writeAzureBicep prints the very properties that the ARM format has.
func writeAzureBicep(j *job) []File {
	var p page
	p.comment("//", j.title())
	p.line("// az deployment group create -g GROUP -f azure-firewall.bicep -p firewallPolicyName=NAME")
	p.line("")
	p.line("@description('The firewall policy that the rules go into.')")
	p.line("param firewallPolicyName string")
	p.line("")
	p.line("resource policy 'Microsoft.Network/firewallPolicies@%s' existing = {", azureAPIVersion)
	p.line("  name: firewallPolicyName")
	p.line("}")
	p.line("")
	p.line("resource rules 'Microsoft.Network/firewallPolicies/ruleCollectionGroups@%s' = {", azureAPIVersion)
	p.line("  parent: policy")
	p.line("  name: %s", bicep.String(j.groupName()))
	p.line("  properties: %s", bicep.Value(encode(j.azure()), "  "))
	p.line("}")
	return one("azure-firewall.bicep", p.Bytes())
}
