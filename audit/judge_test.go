package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

// needs are those of a small cluster: names of every shape, a service tag, and
// an address.
func needs() Needs {
	rule := func(id string, need egress.Need, to ...string) egress.Rule {
		r := egress.Rule{ID: id, Need: need, Why: "why " + id}
		for _, s := range to {
			r.To = append(r.To, egress.MustParseEndpoint(s))
		}
		return r
	}
	return Needs{
		APIServer: egress.MustParseName("c-1.hcp.westeurope.azmk8s.io"),
		Rules: []egress.Rule{
			rule("api", egress.Required, "https://c-1.hcp.westeurope.azmk8s.io:443"),
			rule("mcr", egress.Required, "https://mcr.microsoft.com:443"),
			rule("data", egress.Required, "https://*.data.mcr.microsoft.com:443"),
			rule("ubuntu", egress.Recommended, "http://security.ubuntu.com:80"),
			rule("tag", egress.Optional, "udp://@AzureCloud.westeurope:1194"),
			rule("tunnel", egress.Required, "tcp://20.1.2.3:9000"),
		},
		Prefixes: func(tag string) []netip.Prefix {
			if lower(tag) == "azuremonitor" {
				return []netip.Prefix{netip.MustParsePrefix("20.50.0.0/16"), netip.MustParsePrefix("2603::/32")}
			}
			return nil
		},
		Tagged: func(id string) bool { return id != "tunnel" && id != "tag" },
	}
}

const azureClean = `{"resources": [
 {"type": "Microsoft.Network/firewallPolicies", "name": "p", "properties": {"dnsSettings": {"enableProxy": true}}},
 {"type": "Microsoft.Network/firewallPolicies/ruleCollectionGroups", "name": "p/aks", "properties": {"priority": 300, "ruleCollections": [
  {"ruleCollectionType": "FirewallPolicyFilterRuleCollection", "name": "net", "priority": 100, "action": {"type": "Allow"}, "rules": [
   {"ruleType": "NetworkRule", "name": "tag", "ipProtocols": ["UDP"], "sourceAddresses": ["10.224.0.0/16"], "destinationAddresses": ["AzureCloud.westeurope"], "destinationPorts": ["1194"]},
   {"ruleType": "NetworkRule", "name": "tunnel", "ipProtocols": ["TCP"], "sourceAddresses": ["10.224.0.0/16"], "destinationAddresses": ["20.1.2.3"], "destinationPorts": ["9000"]}]},
  {"ruleCollectionType": "FirewallPolicyFilterRuleCollection", "name": "app", "priority": 200, "action": {"type": "Allow"}, "rules": [
   {"ruleType": "ApplicationRule", "name": "api", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["10.224.0.0/16"], "targetFqdns": ["c-1.hcp.westeurope.azmk8s.io"], "terminateTLS": false},
   {"ruleType": "ApplicationRule", "name": "mcr", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["10.224.0.0/16"], "targetFqdns": ["mcr.microsoft.com", "*.data.mcr.microsoft.com"]},
   {"ruleType": "ApplicationRule", "name": "ubuntu", "protocols": [{"protocolType": "Http", "port": 80}], "sourceAddresses": ["10.224.0.0/16"], "targetFqdns": ["security.ubuntu.com"]}]}]}}]}`

const terraformClean = `{"format_version": "1.2", "planned_values": {"root_module": {"child_modules": [{"resources": [
 {"address": "azurerm_firewall_policy.p", "mode": "managed", "type": "azurerm_firewall_policy", "values": {"name": "p", "dns": [{"proxy_enabled": true}]}},
 {"address": "azurerm_firewall_policy_rule_collection_group.g", "mode": "managed", "type": "azurerm_firewall_policy_rule_collection_group", "values": {"name": "aks", "priority": 300,
  "network_rule_collection": [{"name": "net", "priority": 100, "action": "Allow", "rule": [
   {"name": "tag", "protocols": ["UDP"], "source_addresses": ["*"], "destination_addresses": ["AzureCloud.westeurope"], "destination_ports": ["1194"]},
   {"name": "tunnel", "protocols": ["TCP"], "source_addresses": ["*"], "destination_addresses": ["20.1.2.3"], "destination_ports": ["9000"]}]}],
  "application_rule_collection": [{"name": "app", "priority": 200, "action": "Allow", "rule": [
   {"name": "api", "protocols": [{"type": "Https", "port": 443}], "source_addresses": ["*"], "destination_fqdns": ["c-1.hcp.westeurope.azmk8s.io"], "terminate_tls": false},
   {"name": "mcr", "protocols": [{"type": "Https", "port": 443}], "source_addresses": ["*"], "destination_fqdns": ["mcr.microsoft.com", "*.data.mcr.microsoft.com"]},
   {"name": "ubuntu", "protocols": [{"type": "Http", "port": 80}], "source_addresses": ["*"], "destination_fqdns": ["security.ubuntu.com"]}]}]}}]}]}}}`

const nsgClean = `{"name": "nodes", "securityRules": [
 {"name": "tag", "priority": 100, "access": "Allow", "direction": "Outbound", "protocol": "Udp", "sourceAddressPrefix": "*", "destinationAddressPrefix": "AzureCloud.westeurope", "destinationPortRange": "1194"},
 {"name": "tunnel", "priority": 110, "access": "Allow", "direction": "Outbound", "protocol": "Tcp", "sourceAddressPrefix": "VirtualNetwork", "destinationAddressPrefixes": ["20.1.2.3/32"], "destinationPortRanges": ["9000"]},
 {"name": "in", "priority": 110, "access": "Allow", "direction": "Inbound", "protocol": "*", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*", "destinationPortRange": "*"},
 {"name": "deny", "priority": 4000, "access": "Deny", "direction": "Outbound", "protocol": "*", "sourceAddressPrefix": "*", "destinationAddressPrefix": "Internet", "destinationPortRange": "*"}]}`

const ciliumClean = `apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: aks}
spec:
  endpointSelector: {}
  egress:
  - toEndpoints: [{matchLabels: {k8s-app: kube-dns}}]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchPattern: "*"}]}
  - toFQDNs:
    - matchName: c-1.hcp.westeurope.azmk8s.io
    - matchName: mcr.microsoft.com
    - matchPattern: "**.data.mcr.microsoft.com"
    toPorts: [{ports: [{port: "443", protocol: TCP}]}]
  - toFQDNs: [{matchName: security.ubuntu.com}]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
  - toCIDR: [20.1.2.3/32]
    toPorts: [{ports: [{port: "9000", protocol: TCP}]}]
`

const squidClean = `http_port 3128
acl nodes src 10.224.0.0/16
acl SSL_ports port 443
acl Safe_ports port 80 443
acl api dstdomain c-1.hcp.westeurope.azmk8s.io
acl mcr dstdomain mcr.microsoft.com
acl data dstdomain .data.mcr.microsoft.com
acl ubuntu dstdomain security.ubuntu.com
acl p443 port 443
acl p80 port 80
http_access deny !Safe_ports
http_access deny CONNECT !SSL_ports
http_access allow CONNECT nodes api p443
http_access allow CONNECT nodes mcr p443
http_access allow CONNECT nodes data p443
http_access allow nodes ubuntu p80
http_access deny all
`

const spliceClean = `http_port 127.0.0.1:3128
http_port 3129 intercept name=plain
https_port 3130 intercept name=tls ssl-bump cert=/etc/squid/dummy.pem
acl nodes src 10.224.0.0/16
acl plain myportname plain
acl tls myportname tls
acl hello at_step SslBump1
acl p443 port 443
acl p80 port 80
acl ubuntu dstdom_regex -i ^security\.ubuntu\.com$
acl api ssl::server_name c-1.hcp.westeurope.azmk8s.io
acl mcr ssl::server_name_regex -i ^mcr\.microsoft\.com$ ^([a-z0-9_-]+\.)*[a-z0-9_-]+\.data\.mcr\.microsoft\.com$
ssl_bump peek hello
ssl_bump splice nodes p443 api
ssl_bump splice nodes p443 mcr
ssl_bump terminate all
http_access allow CONNECT tls p443
http_access allow plain !CONNECT nodes p80 ubuntu
http_access deny all
`

const listClean = `# what prod needs
https://c-1.hcp.westeurope.azmk8s.io:443
mcr.microsoft.com/
*.data.mcr.microsoft.com/
http://security.ubuntu.com
udp://@AzureCloud.westeurope:1194
tcp://20.1.2.3:9000
`

// without are the needs that a format cannot say at all, left out of the clean
// policy's test.
var without = map[string][]string{"cilium": {"tag"}, "squid": {"tag", "tunnel"}, "splice": {"tag", "tunnel"}, "nsg": {"api", "mcr", "data", "ubuntu"}}

var cleanPolicies = map[string]string{
	"azure": azureClean, "terraform": terraformClean, "nsg": nsgClean, "cilium": ciliumClean, "squid": squidClean, "splice": spliceClean, "list": listClean,
}

func needsOf(format string) Needs {
	n := needs()
	n.From = []netip.Prefix{netip.MustParsePrefix("10.224.0.0/16")}
	n.Rules = slices.DeleteFunc(n.Rules, func(r egress.Rule) bool { return slices.Contains(without[format], r.ID) })
	return n
}

func read(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := ReadPolicy("policy", strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return p
}

func TestCleanPoliciesHaveNoFindings(t *testing.T) {
	for format, text := range cleanPolicies {
		r := read(t, text).Judge(needsOf(format))
		if len(r.Findings) > 0 || len(r.Unread) > 0 || len(r.Others) > 0 {
			t.Errorf("%s: findings %+v, unread %q, others %+v", format, r.Findings, r.Unread, r.Others)
		}
		if got, want := len(r.Covered), len(needsOf(format).Rules); got != want {
			t.Errorf("%s: %d of %d needs covered", format, got, want)
		}
	}
}

// What is reported covered, the policy decides to allow, connection by
// connection, and what is missing it denies.
func TestReportsAgreeWithDecisions(t *testing.T) {
	texts := map[string][]string{}
	for format, text := range cleanPolicies {
		texts[format] = append(texts[format], text)
	}
	for _, row := range planted {
		texts[row.format] = append(texts[row.format], strings.Replace(cleanPolicies[row.format], row.old, row.new, 1))
	}
	asked := 0
	for format, all := range texts {
		for _, text := range all {
			p, n := read(t, text), needsOf(format)
			r, allows := p.Judge(n), p.Decider(n)
			for _, rule := range n.Rules {
				for _, e := range rule.To {
					covered := slices.ContainsFunc(r.Covered, func(c Cover) bool { return c.Need == rule.ID && c.Endpoint == e })
					for _, c := range conns(e) {
						asked++
						if got := allows(c); got != covered && (covered || !strings.HasPrefix(e.Host.String(), "*.")) && !partly(&r, e) {
							t.Errorf("%s: %s covered: %v, but the policy's decision on %s is %v\n%s", format, e, covered, c, got, text)
						}
					}
				}
			}
		}
	}
	t.Logf("%d connections", asked)
}

func partly(r *Report, e egress.Endpoint) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Endpoint == e && (f.Kind == PartlyDenied || strings.Contains(f.Why, "not to all of the cluster's clients"))
	})
}

// conns are connections that an endpoint permits. Of a service tag no address
// is known.
func conns(e egress.Endpoint) []egress.Conn {
	src := "10.224.0.4"
	switch h := e.Host.(type) {
	case egress.Pattern:
		var out []egress.Conn
		for _, name := range namesOf(h).instances("q7") {
			out = append(out, connection(e.Proto, src, "", name, e.Ports.First))
		}
		return out
	case egress.Net:
		return []egress.Conn{connection(e.Proto, src, h.Addr().String(), "", e.Ports.Last)}
	}
	return nil
}

// short is a finding as the rows below say it.
func short(f Finding) string {
	about := f.Need
	if about == "" {
		about = f.At + " " + f.Text
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Level, f.Kind, about))
}

// Every row plants one defect into a clean policy, by exchanging a piece of it.
var planted = []struct {
	format, old, new string
	want             []string // all findings
}{
	// Azure Firewall.
	{"azure", `"mcr.microsoft.com", `, ``, []string{"error missing mcr"}},
	{"azure", `, "*.data.mcr.microsoft.com"`, ``, []string{"error missing data"}},
	{"azure", `"*.data.mcr.microsoft.com"`, `"data.mcr.microsoft.com"`, []string{"error missing data"}},
	{"azure", `"*.data.mcr.microsoft.com"`, `"eastus.data.mcr.microsoft.com"`, []string{"error missing data"}},
	{"azure", `"*.data.mcr.microsoft.com"`, `"*data.mcr.microsoft.com"`, []string{"warning wide aks/app/mcr *data.mcr.microsoft.com"}},
	{"azure", `"*.data.mcr.microsoft.com"`, `"*.microsoft.com"`, []string{"warning wide aks/app/mcr *.microsoft.com"}},
	{"azure", `"*.data.mcr.microsoft.com"`, `"*.com"`, []string{"warning wide aks/app/mcr *.com"}},
	{"azure", `["mcr.microsoft.com", "*.data.mcr.microsoft.com"]`, `["*"]`, []string{"warning unreachable aks/app/ubuntu", "warning wide aks/app/mcr *"}[1:]},
	{"azure", `"c-1.hcp.westeurope.azmk8s.io"`, `"*.hcp.westeurope.azmk8s.io"`, []string{"warning wide aks/app/api *.hcp.westeurope.azmk8s.io"}},
	{"azure", `"c-1.hcp.westeurope.azmk8s.io"`, `"c-2.hcp.westeurope.azmk8s.io"`, []string{"error missing api"}},
	{"azure", `"c-1.hcp.westeurope.azmk8s.io"], "terminateTLS": false`, `"c-1.hcp.westeurope.azmk8s.io"], "terminateTLS": true`, []string{"error tls-inspection aks/app/api c-1.hcp.westeurope.azmk8s.io"}},
	{"azure", `"protocolType": "Http", "port": 80`, `"protocolType": "Https", "port": 443`, []string{"warning missing ubuntu"}},
	{"azure", `"protocolType": "Http", "port": 80`, `"protocolType": "Http", "port": 8080`, []string{"warning missing ubuntu"}},
	{"azure", `"targetFqdns": ["security.ubuntu.com"]`, `"targetFqdns": ["security.ubuntu.com", "*.blob.core.windows.net"]`, []string{"warning wide aks/app/ubuntu *.blob.core.windows.net"}},
	{"azure", `"targetFqdns": ["security.ubuntu.com"]`, `"targetFqdns": ["security.ubuntu.com", "*.windows.net"]`, []string{"warning wide aks/app/ubuntu *.windows.net"}},
	{"azure", `"targetFqdns": ["security.ubuntu.com"]`, `"targetFqdns": ["security.ubuntu.com", "apt.dockerproject.org"]`, []string{"warning retired aks/app/ubuntu apt.dockerproject.org"}},
	{"azure", `"targetFqdns": ["security.ubuntu.com"]`, `"targetFqdns": ["security.ubuntu.com"], "fqdnTags": ["WindowsUpdate"]`, []string{"warning wide aks/app/ubuntu WindowsUpdate"}},
	{"azure", `"targetFqdns": ["security.ubuntu.com"]`, `"targetFqdns": ["*.tun.westeurope.azmk8s.io"]`, []string{"warning missing ubuntu", "warning retired aks/app/ubuntu *.tun.westeurope.azmk8s.io"}},
	{"azure", `["AzureCloud.westeurope"]`, `["AzureCloud"]`, []string{"warning wide aks/net/tag AzureCloud"}},
	{"azure", `["AzureCloud.westeurope"]`, `["AzureCloud.northeurope"]`, []string{"info missing tag", "warning wide aks/net/tag AzureCloud.northeurope"}},
	{"azure", `["AzureCloud.westeurope"]`, `["*"]`, []string{"warning wide aks/net/tag *"}},
	{"azure", `"destinationPorts": ["1194"]`, `"destinationPorts": ["1195"]`, []string{"info missing tag", "warning wide aks/net/tag AzureCloud.westeurope"}},
	{"azure", `["UDP"]`, `["TCP"]`, []string{"info missing tag", "warning wide aks/net/tag AzureCloud.westeurope"}},
	{"azure", `["UDP"]`, `["ICMP"]`, []string{"info missing tag"}},
	{"azure", `["20.1.2.3"]`, `["20.1.2.4"]`, []string{"error missing tunnel"}},
	{"azure", `["20.1.2.3"]`, `["20.0.0.0/8"]`, []string{"warning wide aks/net/tunnel 20.0.0.0/8"}},
	{"azure", `["20.1.2.3"]`, `["20.1.0.0-20.1.255.255"]`, []string{"warning wide aks/net/tunnel 20.1.0.0-20.1.255.255"}},
	{"azure", `"destinationPorts": ["9000"]`, `"destinationPorts": ["1-65535"]`, []string{"warning wide aks/net/tunnel 20.1.2.3"}},
	{"azure", `"destinationAddresses": ["20.1.2.3"], "destinationPorts": ["9000"]`, `"destinationAddresses": ["20.1.2.3", "*"], "destinationPorts": ["9000", "443"]`,
		[]string{"warning masked aks/net/tunnel *", "warning wide aks/net/tunnel *"}},
	{"azure", `"destinationAddresses": ["20.1.2.3"], "destinationPorts": ["9000"]`, `"destinationAddresses": ["20.1.2.3", "AzureMonitor"], "destinationPorts": ["9000", "443"]`,
		[]string{"warning masked aks/net/tunnel AzureMonitor", "warning wide aks/net/tunnel AzureMonitor"}},
	{"azure", `"action": {"type": "Allow"}, "rules": [
   {"ruleType": "ApplicationRule"`, `"action": {"type": "Deny"}, "rules": [
   {"ruleType": "ApplicationRule"`, []string{"error denied api", "error denied data", "error denied mcr", "warning denied ubuntu"}},
	{"azure", `"name": "app", "priority": 200, "action": {"type": "Allow"}, "rules": [`,
		`"name": "block", "priority": 150, "action": {"type": "Deny"}, "rules": [{"ruleType": "ApplicationRule", "name": "ms", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["*"], "targetFqdns": ["*.microsoft.com"]}]},
  {"ruleCollectionType": "FirewallPolicyFilterRuleCollection", "name": "app", "priority": 200, "action": {"type": "Allow"}, "rules": [`,
		[]string{"error denied data", "error denied mcr", "warning unreachable aks/app/mcr mcr.microsoft.com"}},
	{"azure", `"name": "app", "priority": 200, "action": {"type": "Allow"}, "rules": [`,
		`"name": "block", "priority": 150, "action": {"type": "Deny"}, "rules": [{"ruleType": "ApplicationRule", "name": "one", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["*"], "targetFqdns": ["eastus.data.mcr.microsoft.com"]}]},
  {"ruleCollectionType": "FirewallPolicyFilterRuleCollection", "name": "app", "priority": 200, "action": {"type": "Allow"}, "rules": [`,
		[]string{"warning partly-denied data"}},
	{"azure", `"name": "mcr", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["10.224.0.0/16"]`, `"name": "mcr", "protocols": [{"protocolType": "Https", "port": 443}], "sourceAddresses": ["10.224.0.0/24"]`,
		[]string{"error missing data", "error missing mcr"}},
	{"azure", `"targetFqdns": ["security.ubuntu.com"]`, `"targetFqdns": ["security.ubuntu.com"], "sourceIpGroups": ["/subscriptions/s/ipGroups/g"], "sourceAddresses": []`, []string{"warning missing ubuntu"}},
	{"azure", `"enableProxy": true}`, `"enableProxy": false}`, nil},
	{"azure", `"enableProxy": true}}},`, `"enableProxy": false}}},
 {"type": "Microsoft.Network/firewallPolicies/ruleCollectionGroups", "name": "p/ntp", "properties": {"priority": 400, "ruleCollections": [{"name": "n", "priority": 100, "action": {"type": "Allow"}, "rules": [
   {"ruleType": "NetworkRule", "name": "ntp", "ipProtocols": ["UDP"], "sourceAddresses": ["*"], "destinationFqdns": ["ntp.ubuntu.com"], "destinationPorts": ["123"]}]}]}},`,
		[]string{"warning no-dns-proxy ntp/n/ntp"}},
	{"azure", `"properties": {"dnsSettings": {"enableProxy": true}}},`, `"properties": {}},
 {"type": "Microsoft.Network/firewallPolicies/ruleCollectionGroups", "name": "p/ntp", "properties": {"priority": 400, "ruleCollections": [{"name": "n", "priority": 100, "action": {"type": "Allow"}, "rules": [
   {"ruleType": "NetworkRule", "name": "ntp", "ipProtocols": ["UDP"], "sourceAddresses": ["*"], "destinationFqdns": ["ntp.ubuntu.com"], "destinationPorts": ["123"]}]}]}},`,
		[]string{"warning no-dns-proxy ntp/n/ntp"}},
	{"azure", `{"type": "Microsoft.Network/firewallPolicies", "name": "p", "properties": {"dnsSettings": {"enableProxy": true}}},`, `
 {"type": "Microsoft.Network/firewallPolicies/ruleCollectionGroups", "name": "p/ntp", "properties": {"priority": 400, "ruleCollections": [{"name": "n", "priority": 100, "action": {"type": "Allow"}, "rules": [
   {"ruleType": "NetworkRule", "name": "ntp", "ipProtocols": ["UDP"], "sourceAddresses": ["*"], "destinationFqdns": ["ntp.ubuntu.com"], "destinationPorts": ["123"]}]}]}},`,
		[]string{"info no-dns-proxy ntp/n/ntp"}},
	{"azure", `"targetFqdns": ["mcr.microsoft.com", "*.data.mcr.microsoft.com"]`, `"fqdnTags": ["AzureKubernetesService"]`, []string{"warning wide aks/app/mcr AzureKubernetesService"}},

	// Terraform.
	{"terraform", `"mcr.microsoft.com", `, ``, []string{"error missing mcr"}},
	{"terraform", `"*.data.mcr.microsoft.com"`, `"*.mcr.microsoft.com"`, []string{"warning wide aks/app/mcr *.mcr.microsoft.com"}},
	{"terraform", `"terminate_tls": false`, `"terminate_tls": true`, []string{"error tls-inspection aks/app/api c-1.hcp.westeurope.azmk8s.io"}},
	{"terraform", `["20.1.2.3"], "destination_ports": ["9000"]`, `["*"], "destination_ports": ["443", "9000"]`, []string{"warning masked aks/net/tunnel *", "warning wide aks/net/tunnel *"}},
	{"terraform", `["20.1.2.3"], "destination_ports": ["9000"]`, `["20.1.2.3"], "destination_fqdns": ["ntp.ubuntu.com"], "destination_ports": ["9000", "123"]`, nil},
	{"terraform", `{"proxy_enabled": true}]`, `{"proxy_enabled": false}]`, nil},
	{"terraform", `"application_rule_collection": [{"name": "app", "priority": 200, "action": "Allow"`, `"application_rule_collection": [{"name": "app", "priority": 200, "action": "Deny"`,
		[]string{"error denied api", "error denied data", "error denied mcr", "warning denied ubuntu"}},
	{"terraform", `"destination_fqdns": ["security.ubuntu.com"]`, `"destination_fqdns": ["gcr.azk8s.cn"]`, []string{"warning missing ubuntu", "warning retired aks/app/ubuntu gcr.azk8s.cn"}},

	// Network security groups.
	{"nsg", `"20.1.2.3/32"`, `"20.1.2.4/32"`, []string{"error missing tunnel"}},
	{"nsg", `"20.1.2.3/32"`, `"20.0.0.0/10"`, []string{"warning wide nodes/tunnel 20.0.0.0/10"}},
	{"nsg", `"AzureCloud.westeurope"`, `"AzureCloud"`, []string{"warning wide nodes/tag AzureCloud"}},
	{"nsg", `"AzureCloud.westeurope"`, `"Internet"`, []string{"warning wide nodes/tag Internet"}},
	{"nsg", `"name": "deny", "priority": 4000`, `"name": "deny", "priority": 105`, []string{"error denied tunnel", "warning unreachable nodes/tunnel 20.1.2.3/32"}},
	{"nsg", `"name": "deny", "priority": 4000, "access": "Deny"`, `"name": "deny", "priority": 4000, "access": "Allow"`, []string{"warning wide nodes/deny Internet"}},
	{"nsg", `"destinationPortRanges": ["9000"]`, `"destinationPortRanges": ["9001"]`, []string{"error missing tunnel"}},
	{"nsg", `"sourceAddressPrefix": "VirtualNetwork"`, `"sourceAddressPrefix": "10.9.0.0/24"`, []string{"error missing tunnel"}},

	// Cilium.
	{"cilium", `"**.data.mcr.microsoft.com"`, `"*.data.mcr.microsoft.com"`, []string{"error missing data"}},
	{"cilium", `"**.data.mcr.microsoft.com"`, `"*"`, []string{"warning wide aks/egress[1] *"}},
	{"cilium", `"**.data.mcr.microsoft.com"`, `"**.microsoft.com"`, []string{"warning wide aks/egress[1] **.microsoft.com"}},
	{"cilium", `matchName: mcr.microsoft.com`, `matchName: example.com`, []string{"error missing mcr"}},
	{"cilium", `rules: {dns: [{matchPattern: "*"}]}`, ``, []string{"error no-dns-proxy aks/egress[1], aks/egress[2]"}},
	{"cilium", `- toCIDR: [20.1.2.3/32]`, `- toEntities: [world]`, []string{"warning wide aks/egress[3] world"}},
	{"cilium", `- toCIDR: [20.1.2.3/32]`, `- toCIDRSet: [{cidr: 20.1.2.0/24, except: [20.1.2.0/28]}]`, []string{"error missing tunnel"}},
	{"cilium", `- toCIDR: [20.1.2.3/32]`, `- toCIDRSet: [{cidr: 20.1.2.0/24, except: [20.1.2.128/28]}]`, nil},
	{"cilium", "toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]", "toPorts: [{ports: [{port: \"80\", protocol: TCP}], serverNames: [a.b]}]", []string{"warning missing ubuntu"}},
	{"cilium", `- toCIDR: [20.1.2.3/32]`, `- toCIDRSet: [{cidr: 20.1.0.0/16}]`, []string{"warning wide aks/egress[3] 20.1.0.0/16"}},
	{"cilium", "\n    toPorts: [{ports: [{port: \"80\", protocol: TCP}]}]", ``, []string{"warning wide aks/egress[2] security.ubuntu.com"}},
	{"cilium", "  egress:\n", "  egressDeny:\n  - toCIDR: [20.0.0.0/8]\n  egress:\n", []string{"error denied tunnel", "warning unreachable aks/egress[3] 20.1.2.3/32"}},
	{"cilium", `{port: "443", protocol: TCP}`, `{port: "443", protocol: UDP}`, []string{"error missing api", "error missing data", "error missing mcr"}},

	// Squid.
	{"squid", "dstdomain .data.mcr.microsoft.com", "dstdomain data.mcr.microsoft.com", []string{"error missing data"}},
	{"squid", "dstdomain .data.mcr.microsoft.com", "dstdomain .mcr.microsoft.com", []string{"warning wide line 15 .mcr.microsoft.com"}},
	{"squid", "http_access allow CONNECT nodes mcr p443\n", "", []string{"error missing mcr"}},
	{"squid", "http_access allow nodes ubuntu p80", "http_access allow nodes", []string{"warning wide line 16 any name"}},
	{"squid", "acl SSL_ports port 443", "acl SSL_ports port 8443", []string{"error denied api", "error denied data", "error denied mcr", "warning unreachable line 13 c-1.hcp.westeurope.azmk8s.io", "warning unreachable line 14 mcr.microsoft.com", "warning unreachable line 15 .data.mcr.microsoft.com"}},
	{"squid", "http_access deny all\n", "http_access deny all\nssl_bump bump all\n", []string{"error tls-inspection line 18: ssl_bump bump"}},
	{"squid", "http_access deny !Safe_ports", "http_access deny all", []string{"error denied api", "error denied data", "error denied mcr", "warning denied ubuntu",
		"warning unreachable line 13 c-1.hcp.westeurope.azmk8s.io", "warning unreachable line 14 mcr.microsoft.com", "warning unreachable line 15 .data.mcr.microsoft.com", "warning unreachable line 16 security.ubuntu.com"}},
	{"squid", "http_access allow CONNECT nodes mcr p443", "http_access allow CONNECT nodes mcr p443 office_hours", []string{"error missing mcr"}},
	{"squid", "src 10.224.0.0/16", "src 10.225.0.0/16", []string{"error missing api", "error missing data", "error missing mcr", "warning missing ubuntu"}},

	{"squid", "http_access allow nodes ubuntu p80", "acl all_ms url_regex microsoft\nhttp_access allow nodes all_ms\nhttp_access allow nodes ubuntu p80", []string{"warning unclear line 17 all_ms (url_regex)"}},
	{"squid", "acl data dstdomain .data.mcr.microsoft.com", `acl data dstdom_regex \.data\.mcr\.microsoft\.com$`, nil},
	{"squid", "acl data dstdomain .data.mcr.microsoft.com", `acl data dstdom_regex \.data\.mcr\.microsoft\.com`, []string{`warning wide line 15 \.data\.mcr\.microsoft\.com`}},
	{"squid", "acl data dstdomain .data.mcr.microsoft.com", `acl data dstdom_regex data\.mcr\.microsoft\.com$`, []string{`warning wide line 15 data\.mcr\.microsoft\.com$`}},
	{"squid", "acl data dstdomain .data.mcr.microsoft.com", `acl data dstdom_regex -i (^|\.)microsoft\.com$`, []string{`warning wide line 15 (^|\.)microsoft\.com$`}},
	{"squid", "acl mcr dstdomain mcr.microsoft.com", `acl mcr dstdom_regex ^mcr\.(microsoft|azure)\.com$`, []string{"error missing mcr", `warning unclear line 14 mcr (^mcr\.(microsoft|azure)\.com$)`}},
	{"squid", "http_access allow CONNECT nodes api p443", "acl bad dstdom_regex (evil|bad)\nhttp_access deny bad\nhttp_access allow CONNECT nodes api p443", []string{"warning unclear line 14 bad ((evil|bad))"}},

	// Squid in the way of the traffic.
	{"splice", `^mcr\.microsoft\.com$ `, ``, []string{"error missing mcr"}},
	{"splice", `[a-z0-9_-]+\.data\.mcr\.microsoft\.com$`, `[a-z0-9_-]+\.mcr\.microsoft\.com$`, []string{`warning wide line 15 ^([a-z0-9_-]+\.)*[a-z0-9_-]+\.mcr\.microsoft\.com$`}},
	{"splice", `^([a-z0-9_-]+\.)*[a-z0-9_-]+\.data`, `^[a-z0-9_-]+\.data`, []string{"error missing data"}},
	{"splice", "ssl_bump splice nodes p443 api\n", "", []string{"error missing api"}},
	{"splice", "ssl_bump splice nodes p443 api\n", "ssl_bump bump nodes p443 api\n", []string{"error tls-inspection line 14: ssl_bump bump"}},
	{"splice", "ssl_bump splice nodes p443 mcr\n", "ssl_bump splice nodes p443\n", []string{"warning wide line 15 any name"}},
	{"splice", "ssl_bump terminate all\n", "ssl_bump splice all\n", []string{"warning wide line 17 any name"}},
	{"splice", `^security\.ubuntu\.com$`, `^security\.ubuntu\.com`, []string{`warning wide line 18 ^security\.ubuntu\.com`}},
	{"splice", "ssl_bump peek hello\n", "acl evil ssl::server_name .data.mcr.microsoft.com\nssl_bump terminate evil\nssl_bump peek hello\n", []string{"error denied data"}},

	// Lists.
	{"list", "mcr.microsoft.com/\n*", "*", []string{"error missing mcr"}},
	{"list", "mcr.microsoft.com/\n*", "mcr.microsoft.com\n*", []string{"warning wide line 3 mcr.microsoft.com"}},
	{"list", "*.data.mcr", "*data.mcr", []string{"error missing data"}},
	{"list", "*.data.mcr.microsoft.com/", "*.azurecr.io/", []string{"error missing data", "warning wide line 4 *.azurecr.io/"}},
	{"list", "http://security.ubuntu.com", "security.ubuntu.com/", []string{"warning missing ubuntu"}},
	{"list", "tcp://20.1.2.3:9000", "tcp://0.0.0.0/0:9000", []string{"warning wide line 7 tcp://0.0.0.0/0:9000"}},
	{"list", "https://c-1.hcp", "https://c-1.c-2.hcp", []string{"error missing api"}},
	{"list", "tcp://20.1.2.3:9000", "tcp://20.1.2.3:9000\nacs-mirror.azureedge.net/", []string{"warning retired line 8 acs-mirror.azureedge.net/"}},
}

func TestPlantedDefects(t *testing.T) {
	for _, row := range planted {
		clean := cleanPolicies[row.format]
		if strings.Count(clean, row.old) != 1 {
			t.Errorf("%s: %q is in the clean policy %d times", row.format, row.old, strings.Count(clean, row.old))
			continue
		}
		r := read(t, strings.Replace(clean, row.old, row.new, 1)).Judge(needsOf(row.format))
		var got []string
		for _, f := range r.Findings {
			got = append(got, short(f))
			if f.Why == "" || f.Level == Error && (f.Kind == Missing || f.Kind == Denied) && f.Fix == "" {
				t.Errorf("%s: %s says too little: %+v", row.format, short(f), f)
			}
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(row.want))
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q for %q:\n got %q\nwant %q", row.format, row.new, row.old, got, want)
		}
		broken := slices.ContainsFunc(row.want, func(s string) bool {
			return strings.HasPrefix(s, "error missing") || strings.HasPrefix(s, "error denied")
		})
		if r.Lacks() != broken {
			t.Errorf("%s: %q: lacks %v", row.format, row.new, r.Lacks())
		}
	}
	if len(planted) < 60 {
		t.Errorf("%d defects, want 60", len(planted))
	}
}
