package main

import (
	"slices"
	"testing"

	"tidegate.io/tidegate/check"
	"tidegate.io/tidegate/isolated"
)

const isolatedExample = "../../aks/testdata/clusters/example-network-isolated.arm.json"

// TestIsolatedCheckTries: names inside, the registry, each artefact, and nothing wanted that is outside.
func TestIsolatedCheckTries(t *testing.T) {
	for _, tt := range []struct {
		registry, prefix string
		want             []string
	}{
		{"", isolated.Prefix, []string{
			"registry://bootstrapacr7f3k2.azurecr.io:443", "https://bootstrapacr7f3k2.westeurope.data.azurecr.io:443",
			"artefact://bootstrapacr7f3k2.azurecr.io:443/aks-managed-repository/oss/v2/kubernetes/pause:3.6",
			"artefact://bootstrapacr7f3k2.azurecr.io:443/aks-managed-repository/aks/packages/kubernetes/kubelet:v1.34.2 for linux/amd64:ubuntu 22.04",
		}},
		{"mirror.corp.example:5000", "", []string{
			"registry://mirror.corp.example:5000", "artefact://mirror.corp.example:5000/oss/v2/kubernetes/pause:3.6",
		}},
	} {
		f := isolatedCheckFlags{registry: tt.registry, prefix: tt.prefix}
		f.facts.cluster, f.facts.monitorVia = isolatedExample, "fqdn"
		p, err := f.plan(nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		kinds := map[check.Kind]int{}
		for _, x := range p.Targets {
			got = append(got, x.String())
			kinds[x.Kind]++
			if !x.Forbidden && !x.Private {
				t.Errorf("%s may be anywhere", x)
			}
			if x.Forbidden && x.Kind == check.Artefact {
				t.Errorf("%s: forbidden %t", x, x.Forbidden)
			}
		}
		for _, w := range append(tt.want, "https://mcr.microsoft.com:443", "tcp://8.8.8.8:443") {
			if !slices.Contains(got, w) {
				t.Errorf("%s is not tried: %q", w, got)
			}
		}
		if kinds[check.APIServer] != 1 || kinds[check.Konnectivity] != 1 || kinds[check.Registry] != 1 || kinds[check.Artefact] < 10 {
			t.Errorf("%v", kinds)
		}
	}
}
