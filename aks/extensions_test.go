package aks

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// S54: marketplace rows are for extensions that have a plan.
func TestFluxAloneNeedsNoMarketplace(t *testing.T) {
	es, err := ReadExtensions(strings.NewReader(`{"value": [{"name": "flux", "plan": null, "properties": {"extensionType": "microsoft.flux"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	res := rulesOf(t, readExample(t, "public-gpu-monitor-policy.cli").WithExtensions(es), Options{})
	for _, id := range ids(res) {
		if strings.HasPrefix(id, "extensions/marketplace") || id == "extensions/metering" {
			t.Errorf("%s is on", id)
		}
	}
	if to(res, "extensions/config") == "" || !hasNote(res, "own-list") || hasNote(res, "extensions-unknown") {
		t.Errorf("rules %v, notes %v", ids(res), res.Notes)
	}
	none := rulesOf(t, readExample(t, "public-gpu-monitor-policy.cli").WithExtensions(nil), Options{})
	if hasNote(none, "extensions-unknown") || to(none, "extensions/config") != "" {
		t.Error("an empty list is not taken for an answer")
	}
}

func TestAzuresOwnListIsCompared(t *testing.T) {
	f, err := os.Open(clustersDir + "/example-outboundNetworkDependenciesEndpoints.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := readExample(t, "public-gpu-monitor-policy.cli")
	if c.Listed, err = ReadListed(f); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range rulesOf(t, c, Options{}).Notes {
		if n.Code == "azure-lists" || n.Code == "azure-omits" {
			got = append(got, n.Code+" "+n.About)
		}
	}
	want := []string{
		"azure-lists ", // ntp.ubuntu.com
		"azure-omits core/mcr-data", "azure-omits core/binaries", "azure-omits ubuntu/snapshot",
		"azure-omits gpu/nvidia-github", "azure-omits gpu/nvidia-download", "azure-omits gpu/docker-download",
	}
	if !slices.Equal(got, want) {
		t.Errorf("differences %q, want %q", got, want)
	}
	for _, bad := range []string{"", "x", "{}", `[{"endpoints": []}]`, `[{"category": "a", "endpoints": [{"domainName": "a b", "endpointDetails": [{"port": 443, "protocol": "Https"}]}]}]`} {
		if _, err := ReadListed(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}
