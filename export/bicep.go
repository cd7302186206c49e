package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

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
	p.line("  name: %s", bicepString(j.groupName()))
	fmt.Fprint(&p, "  properties: ")
	bicepValue(&p, json.NewDecoder(bytes.NewReader(encode(j.azure()))), "  ")
	p.line("}")
	return one("azure-firewall.bicep", p.Bytes())
}

var bicepKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// bicepValue prints the next value of d, and the end of its line. JSON that we
// encoded ourselves has no errors, and no value but strings, numbers, lists
// and objects.
func bicepValue(p *page, d *json.Decoder, indent string) {
	token, err := d.Token()
	if err != nil {
		panic(err)
	}
	switch v := token.(type) {
	case string:
		p.line("%s", bicepString(v))
	case json.Delim:
		p.line("%s", v)
		for d.More() {
			fmt.Fprint(p, indent+"  ")
			if v == '{' {
				key, err := d.Token()
				if err != nil {
					panic(err)
				}
				name := key.(string)
				if !bicepKey.MatchString(name) {
					name = bicepString(name)
				}
				fmt.Fprint(p, name+": ")
			}
			bicepValue(p, d, indent+"  ")
		}
		end, err := d.Token()
		if err != nil {
			panic(err)
		}
		p.line("%s%s", indent, end)
	default:
		p.line("%v", v)
	}
}

// bicepString quotes s; what would start an interpolation is escaped.
func bicepString(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, "${", `\${`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + "'"
}
