package audit

import (
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

// indented is a list's item below a key.
func indented(s string) string { return "  " + strings.ReplaceAll(s, "\n", "\n  ") + "\n" }

// A fix, read back as a policy of its own, meets the need and opens no more.
func TestFixesMeetTheirNeeds(t *testing.T) {
	around := map[Format][2]string{
		AzureFirewall: {`{"resources": [{"type": "Microsoft.Network/firewallPolicies", "name": "p", "properties": {"dnsSettings": {"enableProxy": true}}}, {"name": "p/g", "properties": {"priority": 1, "ruleCollections": [{"name": "c", "priority": 1, "action": {"type": "Allow"}, "rules": [`, `]}]}}]}`},
		NSG:           {`{"name": "n", "defaultSecurityRules": [], "securityRules": [`, `]}`},
		Cilium:        {"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: n}\nspec:\n  egress:\n" + indented(ciliumDNS), "\n"},
		Squid:         {"", "\nhttp_access deny all\n"},
		List:          {"", "\n"},
	}
	for format, wrap := range around {
		for _, to := range []string{
			"https://mcr.microsoft.com:443", "https://*.data.mcr.microsoft.com:443", "http://security.ubuntu.com:80",
			"udp://ntp.ubuntu.com:123", "tcp://20.1.2.3:9000", "tcp://20.1.2.0/28:9000-9010", "udp://0.0.0.0/0:123", "udp://@AzureCloud.westeurope:1194",
		} {
			e := egress.MustParseEndpoint(to)
			r := egress.Rule{ID: "core/x", To: []egress.Endpoint{e}}
			fix := (&Policy{Format: format}).fix(&r, e)
			_, byName := e.Host.(egress.Pattern)
			_, byTag := e.Host.(egress.Tag)
			if cannot := format == NSG && byName || format == Squid && (!byName || !e.Proto.Named()) || format == Cilium && byTag; cannot {
				if !strings.Contains(fix, " ") || strings.ContainsAny(fix, "{\n") {
					t.Errorf("%s cannot say %s, and the fix is %q", format, to, fix)
				}
				continue
			}
			if format == Cilium {
				fix = indented(fix)
			}
			report := read(t, wrap[0]+fix+wrap[1]).Judge(Needs{Rules: []egress.Rule{r}})
			if report.Lacks() || !report.Clean() || len(report.Unread) > 0 {
				t.Errorf("%s: %s: the fix %q leaves %+v, unread %q", format, to, fix, report.Findings, report.Unread)
			}
		}
	}
}

// TestFixesWhereTLSIsSpliced: in the way of the traffic, Squid permits TLS by another line.
func TestFixesWhereTLSIsSpliced(t *testing.T) {
	for _, to := range []string{"https://mcr.microsoft.com:443", "https://*.data.mcr.microsoft.com:443"} {
		e := egress.MustParseEndpoint(to)
		r := egress.Rule{ID: "core/x", Need: egress.Required, To: []egress.Endpoint{e}}
		const none = "acl p443 port 443\nacl tls myportname tls\nssl_bump terminate all\nhttp_access allow CONNECT tls p443\nhttp_access deny all\n"
		before := read(t, none).Judge(Needs{Rules: []egress.Rule{r}})
		if !before.Lacks() {
			t.Fatalf("%s is not missing", to)
		}
		fix := before.Findings[0].Fix
		after := read(t, strings.Replace(none, "ssl_bump", fix+"\nssl_bump", 1)).Judge(Needs{Rules: []egress.Rule{r}})
		if after.Lacks() || !after.Clean() || len(after.Unread) > 0 {
			t.Errorf("%s: the fix %q leaves %+v, unread %q", to, fix, after.Findings, after.Unread)
		}
	}
}
