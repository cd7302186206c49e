package export

import "strings"

// armTemplate is a deployment template: az deployment group create -f FILE -p firewallPolicyName=NAME.
type armTemplate struct {
	Schema         string                  `json:"$schema"`
	ContentVersion string                  `json:"contentVersion"`
	Metadata       map[string]string       `json:"metadata"`
	Parameters     map[string]armParameter `json:"parameters"`
	Resources      []armResource           `json:"resources"`
}

type armParameter struct {
	Type     string            `json:"type"`
	Metadata map[string]string `json:"metadata"`
}

type armResource struct {
	Type       string `json:"type"`
	APIVersion string `json:"apiVersion"`
	Name       string `json:"name"`
	Location   string `json:"location,omitempty"`
	Properties any    `json:"properties"`
}

const (
	armSchema       = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
	azureAPIVersion = "2024-05-01" // has been in every cloud for long
)

func armOf(j *job, parameters map[string]armParameter, r armResource) []byte {
	return encode(armTemplate{armSchema, "1.0.0.0", map[string]string{"description": armText(j.title())}, parameters, []armResource{r}})
}

func writeAzureARM(j *job) []File {
	g := j.azure()
	for _, c := range g.Collections {
		for i := range c.Rules {
			c.Rules[i].Description = armText(c.Rules[i].Description)
		}
	}
	policy := map[string]armParameter{"firewallPolicyName": {"string", map[string]string{"description": "The firewall policy that the rules go into."}}}
	return one("azure-firewall.json", armOf(j, policy, armResource{
		Type: "Microsoft.Network/firewallPolicies/ruleCollectionGroups", APIVersion: azureAPIVersion,
		Name: "[concat(parameters('firewallPolicyName'), '/" + j.groupName() + "')]", Properties: g,
	}))
}

// groupName is how the group of collections is called.
func (j *job) groupName() string { return newNamer(maxAzureName, '-').name("tidegate", j.Name) }

// armText is s as a template has it: a string in brackets would be an
// expression, and run with the rights of whoever deploys.
func armText(s string) string {
	if strings.HasPrefix(s, "[") {
		return "[" + s
	}
	return s
}
