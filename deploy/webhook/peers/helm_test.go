package peers

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

const (
	chartDir  = "../chart"
	namespace = "tidegate-webhook"
)

// TestHelmRendersTheManifests: for every golden file of the chart, Helm makes
// the same objects of the same values.
func TestHelmRendersTheManifests(t *testing.T) {
	values, err := filepath.Glob(chartDir + "/testdata/*.values.yaml")
	if err != nil || len(values) == 0 {
		t.Fatalf("no values beside the chart: %v", err)
	}
	for _, file := range values {
		t.Run(filepath.Base(file), func(t *testing.T) {
			manifests, err := os.ReadFile(strings.TrimSuffix(file, ".values.yaml") + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			given, err := common.ReadValuesFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]any{}
			objects(t, want, manifests)
			if diff := cmp.Diff(want, render(t, given)); diff != "" {
				t.Errorf("objects (-manifests +helm):\n%s", diff)
			}
		})
	}
}

// TestHelmRefusesWhatTheCommandRefuses: the chart's schema stands in for the
// command's checks.
func TestHelmRefusesWhatTheCommandRefuses(t *testing.T) {
	for name, edit := range map[string]map[string]any{
		"no name of an API server":       {"apiServer": ""},
		"an address":                     {"apiServer": "10.0.0.1"},
		"no image":                       {"image": ""},
		"no replica":                     {"replicas": 0},
		"a namespace that is none":       {"namespaces": []any{`a"b`}},
		"an annotation that is none":     {"optOut": "a b"},
		"a value that the chart has not": {"replica": 2},
	} {
		given := map[string]any{"apiServer": "a.hcp.westeurope.azmk8s.io", "image": "registry.example/tidegate:1"}
		for k, v := range edit {
			given[k] = v
		}
		if _, err := renderValues(t, given); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func renderValues(t *testing.T, given map[string]any) (map[string]string, error) {
	t.Helper()
	c, err := loader.LoadDir(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	values, err := util.ToRenderValues(c, given, common.ReleaseOptions{Name: "any", Namespace: namespace}, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, values)
}

// render returns the objects that Helm makes, by kind and name.
func render(t *testing.T, given map[string]any) map[string]any {
	t.Helper()
	files, err := renderValues(t, given)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	for _, text := range files {
		objects(t, all, []byte(text))
	}
	return all
}

// objects adds the objects in a file of YAML documents to all.
func objects(t *testing.T, all map[string]any, text []byte) {
	t.Helper()
	for doc := range bytes.SplitSeq(text, []byte("---\n")) {
		var o map[string]any
		if err := yaml.Unmarshal(doc, &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if o != nil {
			all[o["kind"].(string)+" "+o["metadata"].(map[string]any)["name"].(string)] = o
		}
	}
}
