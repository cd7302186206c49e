package aks

import (
	"os"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

func readTags(t *testing.T, cloud string) *ServiceTags {
	t.Helper()
	f, err := os.Open("testdata/servicetags/ServiceTags_" + cloud + ".json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tags, err := ReadServiceTags(f)
	if err != nil {
		t.Fatal(err)
	}
	return tags
}

// S17: each region leads to the one AzureCloud tag that the file has for it.
func TestEveryRegionHasItsTag(t *testing.T) {
	for cloud, file := range map[Cloud]string{Public: "Public", China: "China", USGov: "AzureGovernment"} {
		tags := readTags(t, file)
		if tags.Cloud != cloud {
			t.Errorf("%s is read as the cloud %s", file, tags.Cloud)
		}
		for _, region := range Regions(cloud) {
			if strings.HasSuffix(region, "euap") || strings.HasSuffix(region, "stg") || region == "usgoviowa" {
				continue // not published
			}
			tag, err := egress.ParseTag("AzureCloud." + TagRegion(region))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tags.Prefixes(tag); err != nil {
				t.Errorf("%s: %v", region, err)
			}
		}
	}
	for region, want := range map[string]string{
		"francecentral": "centralfrance", "francesouth": "southfrance", "germanywestcentral": "germanywc", "germanynorth": "germanyn", "norwayeast": "norwaye",
		"norwaywest": "norwayw", "switzerlandnorth": "switzerlandn", "switzerlandwest": "switzerlandw", "brazilsoutheast": "brazilse", "chilecentral": "chilec",
		"westeurope": "westeurope", "chinanorth3": "chinanorth3", "usgovvirginia": "usgovvirginia",
	} {
		if got := TagRegion(region); got != want {
			t.Errorf("the tag's region of %s is %s, want %s", region, got, want)
		}
	}
}

func TestResolveWritesTagsOut(t *testing.T) {
	tags := readTags(t, "Public")
	rules := []egress.Rule{{ID: "tunnel/udp", To: []egress.Endpoint{
		egress.MustParseEndpoint("udp://@AzureCloud.centralfrance:1194"), egress.MustParseEndpoint("https://a.b.c:443"),
	}}}
	out, err := tags.Resolve(rules)
	if err != nil {
		t.Fatal(err)
	}
	if len(out[0].To) != 3 || len(rules[0].To) != 2 {
		t.Errorf("resolved to %v, of %v", out[0].To, rules[0].To)
	}
	if _, err := egress.Compile(out, nil); err != nil {
		t.Error(err)
	}
}

func TestServiceTagErrors(t *testing.T) {
	tags := readTags(t, "AzureGovernment")
	for name, want := range map[string]string{
		"AzureCloud.westeurope":       "service tag AzureCloud.westeurope is not in the file for the cloud usgov (change 375)",
		"AzureFrontDoor.FirstParty":   "service tag AzureFrontDoor.FirstParty is not in the file",
		"AzureCloud.norwayeast":       "it is spelled AzureCloud.norwaye",
		"AzureCloud.switzerlandnorth": "it is spelled AzureCloud.switzerlandn",
	} {
		tag, err := egress.ParseTag(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tags.Resolve([]egress.Rule{{ID: "x/y", To: []egress.Endpoint{{Proto: egress.TCP, Host: tag, Ports: egress.Ports{First: 443, Last: 443}}}}})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "rule x/y") {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
	for _, tc := range []struct{ name, text, want string }{
		{"a cluster", clusterJSON(""), "JSON of something else"},
		{"Germany", `{"cloud": "AzureGermany", "values": [{"name": "AzureCloud"}]}`, `cloud "AzureGermany" has no AKS`},
		{"a prefix that is none", `{"cloud": "Public", "values": [{"name": "AzureCloud", "properties": {"addressPrefixes": ["1.2.3"]}}]}`, "service tags: AzureCloud: "},
		{"not JSON", "tags", "not JSON"},
	} {
		if _, err := ReadServiceTags(strings.NewReader(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
	list := `{"changeNumber": "12", "cloud": "public", "values": [{"name": "AzureCloud", "properties": {"changeNumber": "3", "addressPrefixes": ["20.0.0.0/8"]}}]}`
	if got, err := ReadServiceTags(strings.NewReader(list)); err != nil || got.Change != "12" {
		t.Errorf("the resource manager's list: %v, %v", got, err)
	}
}
