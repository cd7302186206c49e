package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

func groupOf(policy, name string, priority int, action, fqdn string) string {
	return fmt.Sprintf(`{"id": "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/firewallPolicies/%s/ruleCollectionGroups/%s", "name": %[2]q, "priority": %d, "ruleCollections": [
		{"name": "c", "priority": 100, "action": {"type": %q}, "rules": [{"ruleType": "ApplicationRule", "name": "r", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["*"], "targetFqdns": [%q]}]}]}`, policy, name, priority, action, fqdn)
}

const childPolicy = `{"id": "/subscriptions/s/x/firewallPolicies/Child", "name": "Child", "type": "Microsoft.Network/FirewallPolicies", "basePolicy": {"id": "/subscriptions/s/x/firewallPolicies/Parent"}}`

func tfPolicies(rules ...string) string {
	return `{"format_version": "1.2", "values": {"root_module": {"resources": [
		{"mode": "managed", "type": "azurerm_firewall_policy", "values": {"name": "parent"}},
		{"mode": "managed", "type": "azurerm_firewall_policy", "values": {"name": "child", "base_policy_id": "/x/firewallPolicies/parent"}},` + strings.Join(rules, ",") + `]}}}`
}

func tfGroupOf(policy string, priority int, action, fqdn string) string {
	return fmt.Sprintf(`{"mode": "managed", "type": "azurerm_firewall_policy_rule_collection_group", "values": {"name": "g", "priority": %d, "firewall_policy_id": "/x/firewallPolicies/%s",
		"application_rule_collection": [{"name": "c", "priority": 100, "action": %q, "rule": [{"name": "r", "protocols": [{"type": "Https", "port": 443}], "source_addresses": ["*"], "destination_fqdns": [%q]}]}]}}`, priority, policy, action, fqdn)
}

// TestInheritedRulesComeFirst: whatever the priorities, a parent's rules are asked before its child's.
func TestInheritedRulesComeFirst(t *testing.T) {
	needs := Needs{Rules: []egress.Rule{{ID: "mcr", To: []egress.Endpoint{egress.MustParseEndpoint("https://mcr.microsoft.com:443")}}}}
	deny, allow := groupOf("parent", "pg", 60000, "Deny", "*.microsoft.com"), groupOf("child", "cg", 100, "Allow", "mcr.microsoft.com")
	for _, row := range []struct {
		what   string
		files  []string
		want   string // the need's finding; "" is none
		unread string
	}{
		{"the parent denies", []string{"[" + childPolicy + "," + allow + "," + deny + "]"}, "error denied mcr", ""},
		{"the parent permits", []string{"[" + childPolicy + "," + groupOf("child", "cg", 100, "Deny", "*") + "," + groupOf("parent", "pg", 60000, "Allow", "mcr.microsoft.com") + "]"}, "", ""},
		{"in files of their own", []string{"[" + allow + "]", "[" + deny + "]", childPolicy}, "error denied mcr", ""},
		{"one policy, by priority", []string{"[" + groupOf("p", "a", 100, "Allow", "mcr.microsoft.com") + "," + groupOf("p", "b", 200, "Deny", "*.microsoft.com") + "]"}, "", ""},
		{"nobody says which is the parent", []string{"[" + allow + "," + deny + "]"}, "", "which of them inherits from which"},
		{"the parent is not there", []string{"[" + childPolicy + "," + allow + "]"}, "", "inherits the rules of parent, which come first and are not in the file"},
		{"in a template", []string{`{"resources": [
			{"type": "Microsoft.Network/firewallPolicies", "name": "child", "properties": {"basePolicy": {"id": "[resourceId('Microsoft.Network/firewallPolicies', 'parent')]"}}},
			{"type": "Microsoft.Network/firewallPolicies/ruleCollectionGroups", "name": "child/cg", "properties": {"priority": 100, "ruleCollections": [{"name": "c", "priority": 100, "action": {"type": "Allow"}, "rules": [{"ruleType": "ApplicationRule", "name": "r", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["*"], "targetFqdns": ["mcr.microsoft.com"]}]}]}},
			{"type": "Microsoft.Network/firewallPolicies/ruleCollectionGroups", "name": "parent/pg", "properties": {"priority": 900, "ruleCollections": [{"name": "c", "priority": 100, "action": {"type": "Deny"}, "rules": [{"ruleType": "ApplicationRule", "name": "r", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["*"], "targetFqdns": ["*"]}]}]}}]}`}, "error denied mcr", ""},
		{"in Terraform's state", []string{tfPolicies(tfGroupOf("child", 100, "Allow", "mcr.microsoft.com"), tfGroupOf("parent", 900, "Deny", "*.microsoft.com"))}, "error denied mcr", ""},
		{"in Terraform's state, and the parent permits", []string{tfPolicies(tfGroupOf("child", 100, "Deny", "*.microsoft.com"), tfGroupOf("parent", 900, "Allow", "mcr.microsoft.com"))}, "", ""},
	} {
		var policies []*Policy
		for _, text := range row.files {
			policies = append(policies, read(t, text))
		}
		p, err := Join(make([]string, len(policies)), policies)
		if err != nil {
			t.Fatalf("%s: %v", row.what, err)
		}
		r := p.Judge(needs)
		got := ""
		for _, f := range r.Findings {
			if f.Need == "mcr" {
				got = short(f)
			}
		}
		if got != row.want {
			t.Errorf("%s: %q, want %q", row.what, got, row.want)
		}
		if has := slices.ContainsFunc(r.Unread, func(s string) bool { return strings.Contains(s, row.unread) }); row.unread != "" && !has || row.unread == "" && len(r.Unread) > 0 {
			t.Errorf("%s: unread %q, want %q", row.what, r.Unread, row.unread)
		}
	}
}
