package audit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

// The same rule in every spelling of Azure's, and what stands around it.
func TestAzureSpellings(t *testing.T) {
	const rule = `{"ruleType": "ApplicationRule", "name": "r", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["*"], "targetFqdns": ["mcr.microsoft.com"]}`
	const collection = `{"ruleCollectionType": "FirewallPolicyFilterRuleCollection", "name": "c", "priority": 100, "action": {"type": "Allow"}, "rules": [` + rule + `]}`
	const group = `{"name": "g", "priority": 100, "ruleCollections": [` + collection + `]}`
	const arm = `{"name": "p/g", "type": "Microsoft.Network/firewallPolicies/ruleCollectionGroups", "properties": {"priority": 100, "ruleCollections": [` + collection + `]}}`
	for name, text := range map[string]string{
		"az show":         group,
		"az list":         "[" + group + "]",
		"az, byte order":  "\ufeff" + group,
		"resource":        arm,
		"page":            `{"value": [` + arm + `]}`,
		"template":        `{"resources": [` + arm + `]}`,
		"nested":          `{"resources": [{"type": "Microsoft.Resources/deployments", "resources": [` + arm + `]}]}`,
		"template's name": `{"resources": [` + strings.Replace(arm, "p/g", `[concat(parameters('p'), '/g')]`, 1) + `]}`,
		"classic":         `{"type": "Microsoft.Network/azureFirewalls", "name": "fw", "applicationRuleCollections": [{"name": "g/c", "priority": 100, "action": {"type": "Allow"}, "rules": [` + strings.Replace(rule, `"ruleType": "ApplicationRule", `, "", 1) + `]}]}`,
		"classic, ARM":    `{"properties": {"applicationRuleCollections": [{"name": "g/c", "properties": {"priority": 100, "action": {"type": "Allow"}, "rules": [` + strings.Replace(rule, `"ruleType": "ApplicationRule", `, "", 1) + `]}}]}}`,
	} {
		p := read(t, text)
		if len(p.grants) != 1 || p.grants[0].at != "g/c/r" || p.grants[0].text != "mcr.microsoft.com" || p.grants[0].deny || p.Format != AzureFirewall || len(p.Unread) > 0 {
			t.Errorf("%s: %+v, unread %q", name, p.grants, p.Unread)
		}
	}
}

// What is not understood is said, and covers nothing.
func TestUnread(t *testing.T) {
	azure := func(rule string) string {
		return `{"name": "g", "priority": 100, "ruleCollections": [{"name": "c", "priority": 100, "action": {"type": "Allow"}, "rules": [` + rule + `]}]}`
	}
	app := func(fields string) string {
		return azure(`{"ruleType": "ApplicationRule", "name": "r", "protocols": [{"protocolType": "Https", "port": 443}], ` + fields + `}`)
	}
	network := func(fields string) string {
		return azure(`{"ruleType": "NetworkRule", "name": "r", "ipProtocols": ["TCP"], "sourceAddresses": ["*"], ` + fields + `}`)
	}
	for _, row := range []struct{ text, want string }{
		{app(`"sourceAddresses": ["*"], "targetFqdns": ["www.contoso.*"]`), "takes a * on the left only"},
		{app(`"sourceAddresses": ["*"], "targetFqdns": ["a b"]`), "not a name"},
		{app(`"sourceAddresses": ["*"], "targetUrls": ["mcr.microsoft.com/v2/*"]`), "URL"},
		{app(`"sourceAddresses": ["*"], "webCategories": ["news"]`), "web category"},
		{app(`"sourceIpGroups": ["/subscriptions/s/ipGroups/nodes"], "targetFqdns": ["mcr.microsoft.com"]`), "IP group nodes is not in the file"},
		{app(`"sourceAddresses": ["[parameters('nodes')]"], "targetFqdns": ["mcr.microsoft.com"]`), "source"},
		{azure(`{"ruleType": "ApplicationRule", "name": "r", "sourceAddresses": ["*"], "protocols": [{"protocolType": "Mssql", "port": 1433}], "targetFqdns": ["a.b"]}`), "protocol Mssql"},
		{azure(`{"ruleType": "IdpsRule", "name": "r", "sourceAddresses": ["*"]}`), "rule of type"},
		{network(`"destinationFqdns": ["*.ubuntu.com"], "destinationPorts": ["123"]`), "whole names only"},
		{network(`"destinationAddresses": ["1.2.3.4/99"], "destinationPorts": ["443"]`), "destination"},
		{network(`"destinationIpGroups": ["/ipGroups/x"], "destinationPorts": ["443"]`), "IP group x"},
		{network(`"destinationAddresses": ["1.2.3.4"], "destinationPorts": ["443-80"]`), "port"},
		{"acl x time MTWHF 9:00-17:00\nhttp_access allow x\n", "x (time)"},
		{"acl x dstdomain \"/etc/squid/allow.txt\"\nhttp_access allow x\n", "values in the file"},
		{"http_access allow nobody all\n", "nobody"},
		{"include /etc/squid/conf.d/*.conf\nhttp_access deny all\n", "include of /etc/squid/conf.d/*.conf"},
		{"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\nspec: {egress: [{toCIDRSet: [{cidr: 0.0.0.0/0, except: [10.0.0.0/99]}]}]}\n", "10.0.0.0/99"},
		{"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\nspec: {egress: [{toCIDR: [0.0.0.0/0], toPorts: [{ports: [{port: \"443\"}], serverNames: [a.b]}]}]}\n", "serverNames"},
		{"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: a}\nspec: {endpointSelector: {matchLabels: {app: x}}, egress: [{toCIDR: [0.0.0.0/0]}]}\n", "some pods"},
		{network(`"destinationPorts": ["443"]`), "without a destination"},
		{`{"name": "n", "securityRules": [{"name": "r", "priority": 100, "access": "Allow", "direction": "Outbound", "protocol": "Tcp", "sourceAddressPrefix": "*", "destinationApplicationSecurityGroups": [{"id": "x"}], "destinationPortRange": "443"}]}`, "application security groups"},
		{"apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: a}\n", "a CiliumCIDRGroup"},
		{"mcr.microsoft.com\n.contoso.com\n", "line 2"},
	} {
		p := read(t, row.text)
		if !slices.ContainsFunc(p.Unread, func(s string) bool { return strings.Contains(s, row.want) }) {
			t.Errorf("%s: unread %q, want %q", row.text, p.Unread, row.want)
		}
	}
}

func TestWhatIsNoPolicyIsRefused(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"", "empty input"},
		{"{", "JSON"},
		{"{}", "no rule in it"},
		{"[]", "no rule in it"},
		{"hello world", "no line of it is a destination"},
		{`{"format_version": "1.2"}`, "neither values nor planned_values"},
		{`{"ruleCollections": [{"name": "c"}]}`, `collection "c": no action`},
		{"apiVersion: cilium.io/v2\nkind: [\n", "policy of Cilium"},
		{`{"kind": "EndpointList", "items": [{"rule": "r", "proto": "https", "host": "a", "ports": "x"}]}`, "list: r"},
		{"rule,to\nr,nonsense\n", "list: r"},
	} {
		if _, err := ReadPolicy("f", strings.NewReader(row.text)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v, want %q", row.text, err, row.want)
		}
	}
}

func TestIPGroupsOfTheSameFile(t *testing.T) {
	p := read(t, `{"resources": [
 {"type": "Microsoft.Network/ipGroups", "name": "nodes", "properties": {"ipAddresses": ["10.224.0.0/16", "10.9.0.1-10.9.0.2"]}},
 {"type": "Microsoft.Network/firewallPolicies/ruleCollectionGroups", "name": "p/g", "properties": {"priority": 1, "ruleCollections": [{"name": "c", "priority": 1, "action": {"type": "Allow"}, "rules": [
  {"ruleType": "ApplicationRule", "name": "r", "protocols": [{"protocolType": "Https", "port": 443}], "sourceIpGroups": ["[resourceId('Microsoft.Network/ipGroups', 'nodes')]"], "targetFqdns": ["a.example"]}]}]}}]}`)
	if got, want := fmt.Sprint(p.grants[0].from), "[10.224.0.0/16 10.9.0.1/32 10.9.0.2/32]"; got != want || len(p.Unread) > 0 {
		t.Errorf("from %s, want %s; unread %q", got, want, p.Unread)
	}
}

func TestRangesOfAddresses(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"10.0.0.0-10.0.0.255", "[10.0.0.0/24]"},
		{"10.0.0.1-10.0.0.4", "[10.0.0.1/32 10.0.0.2/31 10.0.0.4/32]"},
		{"0.0.0.0-255.255.255.255", "[0.0.0.0/0]"},
		{"2001:db8::-2001:db8::1", "[2001:db8::/127]"},
		{"10.0.0.4", "[10.0.0.4/32]"},
		{"10.0.0.5/24", "[10.0.0.0/24]"},
		{"10.0.0.2-10.0.0.1", "[]"},
		{"10.0.0.1-::1", "[]"},
		{"fe80::1%eth0", "[]"},
	} {
		ps, _ := azurePrefixes(row.text)
		if got := fmt.Sprint(ps); got != row.want {
			t.Errorf("%s: %s, want %s", row.text, got, row.want)
		}
	}
}

// Names behind documented service tags are met by them, for policies that know
// no names.
func TestNamesBehindServiceTags(t *testing.T) {
	nsg := func(tags ...string) string {
		b, _ := json.Marshal(tags)
		return `{"name": "n", "securityRules": [
 {"name": "tags", "priority": 100, "access": "Allow", "direction": "Outbound", "protocol": "Tcp", "sourceAddressPrefix": "*", "destinationAddressPrefixes": ` + string(b) + `, "destinationPortRange": "443"},
 {"name": "deny", "priority": 200, "access": "Deny", "direction": "Outbound", "protocol": "*", "sourceAddressPrefix": "*", "destinationAddressPrefix": "Internet", "destinationPortRange": "*"}]}`
	}
	need := Needs{Rules: []egress.Rule{{ID: "mcr", To: []egress.Endpoint{egress.MustParseEndpoint("https://*.data.mcr.microsoft.com:443")}}}}
	for _, row := range []struct {
		tags  []string
		lacks bool
	}{
		{[]string{"MicrosoftContainerRegistry", "AzureFrontDoor.FirstParty"}, false},
		{[]string{"MicrosoftContainerRegistry"}, true}, // its data comes from the other
		{[]string{"AzureMonitor"}, true},
	} {
		if r := read(t, nsg(row.tags...)).Judge(need); r.Lacks() != row.lacks {
			t.Errorf("%v: lacks %v: %+v", row.tags, r.Lacks(), r)
		}
	}
}

// A firewall and the security groups before it are not taken for one.
func TestBarriersAreKeptApart(t *testing.T) {
	tf := func(resources string) string {
		return `{"format_version": "1.2", "values": {"root_module": {"resources": [` + resources + `]}}}`
	}
	const group = `{"address": "n", "mode": "managed", "type": "azurerm_network_security_group", "values": {"name": "nodes", "security_rule": [
 {"name": "deny", "priority": 100, "access": "Deny", "direction": "Outbound", "protocol": "*", "source_address_prefix": "*", "destination_address_prefix": "*", "destination_port_range": "*"}]}}`
	const firewall = `{"address": "g", "mode": "managed", "type": "azurerm_firewall_policy_rule_collection_group", "values": {"name": "aks", "priority": 1, "application_rule_collection": [
 {"name": "c", "priority": 1, "action": "Allow", "rule": [{"name": "r", "protocols": [{"type": "Https", "port": 443}], "source_addresses": ["*"], "destination_fqdns": ["mcr.microsoft.com"]}]}]}}`
	for _, text := range []string{tf(group + "," + firewall), tf(firewall + "," + group)} {
		p := read(t, text)
		if p.Format != Terraform || len(p.grants) != 1 || len(p.Unread) != 1 || !strings.Contains(p.Unread[0], "nodes") {
			t.Errorf("format %s, %d grants, unread %q", p.Format, len(p.grants), p.Unread)
		}
	}
	if p := read(t, tf(group)); p.Format != NSG || !p.grants[0].nsg {
		t.Errorf("a security group alone: %+v", p)
	}
	// An export writes the rules of a group twice.
	rule := `"priority": 100, "access": "Allow", "direction": "Outbound", "protocol": "Tcp", "sourceAddressPrefix": "*", "destinationAddressPrefix": "1.2.3.4", "destinationPortRange": "443"`
	child := `{"type": "Microsoft.Network/networkSecurityGroups/securityRules", "name": "[concat(parameters('n'), '/web')]", "properties": {` + rule + `}}`
	whole := `{"type": "Microsoft.Network/networkSecurityGroups", "name": "n", "properties": {"securityRules": [{"name": "web", "properties": {` + rule + `}}]}}`
	for _, text := range []string{`{"resources": [` + whole + "," + child + `]}`, `{"resources": [` + whole + `]}`, `{"resources": [` + child + `]}`} {
		p := read(t, text)
		if p.Format != NSG || len(p.Unread) > 0 || p.grants[0].text != "1.2.3.4" || p.grants[0].priority[0] != 100 || slices.ContainsFunc(p.grants[1:], func(g grant) bool { return !g.builtin }) {
			t.Errorf("%s: %+v, unread %q", text, p.grants, p.Unread)
		}
	}
	if _, err := ReadPolicy("f", strings.NewReader(tf(group+","+group))); err == nil || !strings.Contains(err.Error(), "several network security groups") {
		t.Errorf("two groups: %v", err)
	}
}

// A policy of a product's largest size is judged in bounded time.
func TestLargePolicies(t *testing.T) {
	for _, n := range []int{1000, 50_000} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "acl a%d dstdomain n%d.example\nhttp_access allow CONNECT a%d\n", i, i, i)
		}
		start := time.Now()
		r := read(t, b.String()).Judge(needs())
		t.Logf("%d destinations: %v", n, time.Since(start).Round(time.Millisecond))
		if said := len(r.Unread) > 0; said != (n > maxCompared) {
			t.Errorf("%d destinations: unread %q", n, r.Unread)
		}
	}
}
