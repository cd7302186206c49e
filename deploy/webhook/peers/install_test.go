package peers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
)

// TestEverythingInstalls: the API server takes what the command prints and what
// Helm makes of the chart, for every set of values that the chart has golden
// files of, without a field that it does not know, and without a warning.
func TestEverythingInstalls(t *testing.T) {
	c := openCluster(t)
	c.kubectl("", "create", "namespace", namespace)
	c.kubectl("", "label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
	values, err := filepath.Glob(chartDir + "/testdata/*.values.yaml")
	if err != nil || len(values) == 0 {
		t.Fatalf("no values beside the chart: %v", err)
	}
	dry := func(what, manifests string) {
		t.Run(what, func(t *testing.T) {
			on := *c
			on.t = t
			out := on.kubectl(manifests, "apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-")
			if !strings.Contains(out, "mutatingwebhookconfiguration.admissionregistration.k8s.io/tidegate-webhook created (server dry run)") {
				t.Errorf("kubectl prints\n%s", out)
			}
		})
	}
	dry("the command's", c.manifest)
	for _, file := range values {
		given, err := common.ReadValuesFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files, err := renderValues(t, given)
		if err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for _, text := range files {
			all.WriteString("---\n" + text + "\n")
		}
		dry("Helm's of "+filepath.Base(file), all.String())
		golden, err := os.ReadFile(strings.TrimSuffix(file, ".values.yaml") + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		dry("the golden file of "+filepath.Base(file), string(golden))
	}
}
