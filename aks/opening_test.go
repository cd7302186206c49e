package aks

import (
	"os"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

// TestOpenings: an opening is what its feature adds and nothing more, for every feature in every cloud.
func TestOpenings(t *testing.T) {
	for _, cloud := range Clouds {
		c, err := Plan(cloud, Regions(cloud)[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range Openable() {
			o, err := c.With(Isolated, "test").Open(Options{}, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range o.Added {
				row := slices.IndexFunc(Embedded().Rows, func(row Row) bool { return row.ID == r.ID })
				if len(Embedded().Rows[row].When) == 0 {
					t.Errorf("%s, %s: it opens %s, which every cluster has", cloud, f, r.ID)
				}
				for _, e := range r.To {
					if NeverOpened(e) {
						t.Errorf("%s, %s: it opens %s", cloud, f, e)
					}
				}
			}
		}
	}
}

// TestOpeningIsOnTheClustersWord: what is on already is a difference too.
func TestOpeningIsOnTheClustersWord(t *testing.T) {
	f, err := os.Open("testdata/clusters/example-network-isolated.arm.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	before, err := c.Open(Options{}, "policy")
	if err != nil {
		t.Fatal(err)
	}
	after, err := c.With("policy", "test").Open(Options{}, "policy")
	if err != nil || len(after.Added) == 0 || len(after.Added) != len(before.Added) {
		t.Errorf("%d rules and %d: %v", len(before.Added), len(after.Added), err)
	}
}

func TestBreadth(t *testing.T) {
	for text, want := range map[string]string{
		"https://a.example.com:443":            "0 one name",
		"https://*.dp.example.com:443":         "1 any number of names, all of one service",
		"https://*.vault.azure.net:443":        "3 any number of names, and any customer strangers",
		"https://*.ods.opinsights.azure.com:1": "3 any number of names, and any customer strangers",
		"tcp://20.1.2.3:443":                   "0 one address",
		"tcp://20.1.2.0/24:443":                "2 256 addresses strangers",
		"tcp://[2603:1000::/32]:443":           "2 2^96 addresses strangers",
		"tcp://@AzureMonitor:443":              "3 every address of a service tag strangers",
		"udp://0.0.0.0/0:123":                  "4 every address strangers",
	} {
		b := BreadthOf(egress.MustParseEndpoint(text).Host)
		words := strings.SplitN(want, " ", 2)
		what := strings.TrimSuffix(words[1], " strangers")
		if b.MultiTenant != strings.HasSuffix(want, "strangers") || !strings.HasPrefix(b.What, what) || string(rune('0'+b.Rank)) != words[0] {
			t.Errorf("%s: %+v, want %s", text, b, want)
		}
	}
}

// TestZones: each cloud's own, or none.
func TestZones(t *testing.T) {
	for cloud, want := range map[Cloud]string{
		Public: "privatelink.azurecr.io privatelink.vaultcore.azure.net 5 privatelink.file.core.windows.net",
		China:  "privatelink.azurecr.cn privatelink.vaultcore.azure.cn 0 privatelink.file.core.chinacloudapi.cn",
		USGov:  "privatelink.azurecr.us privatelink.vaultcore.usgovcloudapi.net 6 privatelink.file.core.usgovcloudapi.net",
	} {
		c := Cluster{Cloud: cloud, FileCSI: true}
		c = c.With(KeyVault, "test").With(Monitor, "test")
		var got []string
		for _, e := range c.PrivateEndpoints() {
			if e.Feature == Monitor {
				got = append(got, string(rune('0'+len(e.Zones))))
				continue
			}
			got = append(got, strings.Join(e.Zones, ","))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", cloud, got, want)
		}
	}
}
