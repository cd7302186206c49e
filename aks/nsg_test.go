package aks

import (
	"strings"
	"testing"
)

// S9, S10: AKS does not support blocking inside the network.
func TestLintNSG(t *testing.T) {
	rule := func(priority, access, src, dst, port string) string {
		return `{"name": "r` + priority + `", "properties": {"access": "` + access + `", "direction": "Outbound", "priority": ` + priority +
			`, "protocol": "*", "sourceAddressPrefix": "` + src + `", "destinationAddressPrefix": "` + dst + `", "destinationPortRange": "` + port + `"}}`
	}
	for _, tc := range []struct {
		name  string
		rules []string
		want  string // the names of the rules that block inside
	}{
		{"nothing", nil, ""},
		{"the nodes' subnet", []string{rule("100", "Deny", "10.224.0.0/16", "10.224.0.0/16", "*")}, "r100"},
		{"kubelet's port", []string{rule("100", "Deny", "VirtualNetwork", "VirtualNetwork", "10250")}, "r100"},
		{"everything", []string{rule("4000", "Deny", "*", "*", "*")}, "r4000"},
		{"everything, the network let through before", []string{rule("4000", "Deny", "*", "*", "*"), rule("100", "Allow", "VirtualNetwork", "VirtualNetwork", "*")}, ""},
		{"everything, one port let through before", []string{rule("100", "Allow", "VirtualNetwork", "VirtualNetwork", "443"), rule("4000", "Deny", "*", "*", "*")}, "r4000"},
		{"the internet", []string{rule("4000", "Deny", "*", "Internet", "*")}, ""},
		{"an address outside", []string{rule("100", "Deny", "*", "20.1.0.0/16", "*")}, ""},
	} {
		notes, err := LintNSG(strings.NewReader(`{"name": "g", "properties": {"securityRules": [` + strings.Join(tc.rules, ",") + `]}}`))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range notes {
			got = append(got, strings.Split(n.Text, `"`)[1])
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%s: %q blocks inside, want %q", tc.name, s, tc.want)
		}
	}
	if _, err := LintNSG(strings.NewReader(clusterJSON(""))); err == nil {
		t.Error("a cluster is taken for a security group")
	}
}
