package aks

import (
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

func TestFind(t *testing.T) {
	for _, tc := range []struct{ ask, want string }{
		{"mcr.microsoft.com", "core/mcr extensions/images"},
		{"MCR.Microsoft.com.", "core/mcr extensions/images"},
		{"https://mcr.microsoft.com/v2/", "core/mcr extensions/images"},
		{"https://mcr.microsoft.com:8443", "core/mcr(other) extensions/images(other)"},
		{"http://mcr.microsoft.com", "core/mcr(other) extensions/images(other)"},
		{"mcr.microsoft.com:443", "core/mcr extensions/images"},
		{"eastus.data.mcr.microsoft.com", "core/mcr-data extensions/images"},
		{"*.data.mcr.microsoft.com", "core/mcr-data extensions/images"},
		{"data.mcr.microsoft.com", ""},
		{"aks-x-1.hcp.westus3.azmk8s.io", "core/apiserver"},
		{"aks-x-1.hcp.chinanorth3.cx.prod.service.azk8s.cn", "core/apiserver core/binaries"},
		{"westeurope.dp.kubernetesconfiguration.azure.com", "extensions/config"},
		{"kv1.vault.azure.net", "keyvault/vaults"},
		{"vault.azure.net", "keyvault/vaults(stated)"},
		{"udp://ntp.ubuntu.com:123", "ntp/time"},
		{"@AzureMonitor", "monitor/tag"},
		{"tcp://@AzureMonitor:443", "monitor/tag"},
		{"@AzureCloud.centralfrance", "tunnel/udp tunnel/tcp tunnel/ssh"},
		{"udp://@AzureCloud.westeurope:1194", "tunnel/udp tunnel/tcp(other) tunnel/ssh(other)"},
		{"http://security.ubuntu.com/ubuntu", "ubuntu/archive"},
		{"https://security.ubuntu.com", "ubuntu/archive(other)"},
		{"WIN1", "windows/binaries"},
		{"core/mcr", "core/mcr"},
		{"example.com", ""},
		{"10.0.0.4", ""},
	} {
		q, err := Embedded().ParseQuery(tc.ask)
		if err != nil {
			t.Errorf("%s: %v", tc.ask, err)
			continue
		}
		var got []string
		for _, f := range Embedded().Find(q) {
			id, exact, stated := f.Row.ID, false, true
			for _, l := range f.Lines {
				exact = exact || l.Exact
				stated = stated && l.Stated
			}
			switch {
			case stated:
				id += "(stated)"
			case !exact:
				id += "(other)"
			}
			got = append(got, id)
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%s is for %q, want %q", tc.ask, s, tc.want)
		}
	}
}

func TestParseQueryRefuses(t *testing.T) {
	for ask, want := range map[string]string{
		"":                          "empty",
		"ftp://mcr.microsoft.com":   "protocol",
		"mcr.microsoft.com:0":       "port",
		"mcr.microsoft.com:https":   "port",
		"*mcr.microsoft.com":        "look-alikes",
		"https://mcr microsoft.com": "invalid character",
		"exa mple":                  "not allowed",
	} {
		if _, err := Embedded().ParseQuery(ask); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", ask, err, want)
		}
	}
}

// S61, S62: the star stays inside its label.
func TestSeen(t *testing.T) {
	for ask, want := range map[string]State{
		"md-x.blob.storage.azure.net":            Benign,
		"md-hdd-abc1.blob.storage.azure.net":     Benign,
		"md-x.y.blob.storage.azure.net":          "",
		"mdx.blob.storage.azure.net":             "",
		"umsa1234abcd.blob.core.windows.net":     Informational,
		"umsa.blob.core.windows.net":             "",
		"mydata.blob.core.windows.net":           "",
		"umsa1.evil.blob.core.windows.net":       "",
		"168.63.129.16":                          Platform,
		"http://169.254.169.254/metadata":        Platform,
		"169.254.169.253":                        "",
		"https://md-x.blob.storage.azure.net/$a": Benign,
	} {
		q, err := Embedded().ParseQuery(ask)
		if err != nil {
			t.Fatal(err)
		}
		s, _ := Embedded().FindSeen(q)
		if s.State != want {
			t.Errorf("%s is %q, want %q", ask, s.State, want)
		}
	}
}

func TestPrivateAPIServer(t *testing.T) {
	for name, want := range map[string]bool{
		"a-1.guid.privatelink.westeurope.azmk8s.io":                        true,
		"a.private.westeurope.azmk8s.io":                                   true,
		"a.sub.privatelink.usgovvirginia.cx.aks.containerservice.azure.us": true,
		"a-1.hcp.westeurope.azmk8s.io":                                     false,
		"privatelink.example.com":                                          false,
		"a-1.privatelink.chinaeast2.cx.prod.service.azk8s.cn":              true,
		"a-1.portal.hcp.chinaeast2.cx.prod.service.azk8s.cn":               false,
	} {
		if _, got := PrivateAPIServer(egress.MustParseName(name)); got != want {
			t.Errorf("%s: private is %t, want %t", name, got, want)
		}
	}
}
