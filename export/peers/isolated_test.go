package peers

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestIsolatedBicep reads what package isolated writes for its example clusters, and holds each resource against the ARM
// template of the same plan.
func TestIsolatedBicep(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		missing(t, "node", "scripts/setup-exporters installs it")
	}
	if _, err := os.Stat("bicep/node_modules/web-tree-sitter"); err != nil {
		missing(t, "the grammar of Bicep", "npm ci --ignore-scripts in export/peers/bicep installs it")
	}
	files, err := filepath.Glob("../../isolated/testdata/*.bicep")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		arm, err := os.ReadFile(strings.TrimSuffix(file, ".bicep") + ".arm.json")
		if err != nil {
			t.Fatal(err)
		}
		if err := sameResources(text, arm); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, spoil := range [][2]string{{"'registry'\n", "'registry\n"}, {"parent: zone", "parent zone"}, {"'Disabled'", "'Enabled'"}, {"aks-managed-repository", "repository"}} {
			if sameResources([]byte(strings.Replace(string(text), spoil[0], spoil[1], 1)), arm) == nil {
				t.Errorf("%s: %q in the place of %q is not refused", file, spoil[1], spoil[0])
			}
		}
	}
}

func sameResources(text, arm []byte) error {
	resources, err := parseBicep(text)
	if err != nil {
		return err
	}
	var template struct {
		Resources []struct {
			Type, APIVersion string
			Properties       any
		}
	}
	if err := json.Unmarshal(arm, &template); err != nil {
		return err
	}
	if len(resources) != len(template.Resources) {
		return fmt.Errorf("%d resources, and %d in the template", len(resources), len(template.Resources))
	}
	for i, r := range template.Resources {
		if kind := r.Type + "@" + r.APIVersion; kind != resources[i].Kind {
			return fmt.Errorf("%s is %s in the template", resources[i].Kind, kind)
		}
		// The reader takes true and false for words.
		if diff := cmp.Diff(words(r.Properties), words(resources[i].Body.Properties)); diff != "" {
			return fmt.Errorf("%s: not what the template has: %s", r.Type, diff)
		}
	}
	return nil
}

// words are values with booleans as the Bicep reader gives them.
func words(v any) any {
	switch v := v.(type) {
	case bool:
		return map[string]any{"expression": fmt.Sprint(v)}
	case []any:
		for i := range v {
			v[i] = words(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = words(v[k])
		}
	}
	return v
}
