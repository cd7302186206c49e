package peers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidegate.io/tidegate/export/exporttest"
)

// bicepResource is a resource of a Bicep file, as bicep/read.mjs prints it.
type bicepResource struct {
	Name, Kind string
	Existing   bool
	Body       struct {
		Name       any
		Parent     any
		Properties any
	}
}

// parseBicep reads a file with the grammar that editors use. Bicep's compiler
// is in no registry of packages: what types it would find wrong is found in the
// ARM template, whose values these have to be.
func parseBicep(data []byte) ([]bicepResource, error) {
	cmd := exec.Command("node", "bicep/read.mjs")
	cmd.Stdin = bytes.NewReader(data)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, &stderr)
	}
	var resources []bicepResource
	return resources, json.Unmarshal(out, &resources)
}

// readBicep holds a file against the ARM template of the same policy.
func readBicep(data, arm []byte) error {
	resources, err := parseBicep(data)
	if err != nil {
		return err
	}
	if len(resources) != 2 || !resources[0].Existing || resources[1].Existing {
		return errors.New("not a policy that exists and a group of rules")
	}
	want, err := properties(arm, "Microsoft.Network/firewallPolicies/ruleCollectionGroups")
	if err != nil {
		return err
	}
	var values any
	if err := json.Unmarshal(want, &values); err != nil {
		return err
	}
	rules := resources[1]
	if diff := cmp.Diff(unescaped(values), rules.Body.Properties); diff != "" {
		return fmt.Errorf("not what the ARM template has: %s", diff)
	}
	if diff := cmp.Diff(map[string]any{"expression": "policy"}, rules.Body.Parent); diff != "" {
		return fmt.Errorf("its parent is not the policy: %s", diff)
	}
	if !strings.HasPrefix(rules.Kind, "Microsoft.Network/firewallPolicies/ruleCollectionGroups@") {
		return fmt.Errorf("kind %q", rules.Kind)
	}
	return nil
}

// unescaped are the values of a template: a doubled bracket is a literal one.
func unescaped(v any) any {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, "[[") {
			return v[1:]
		}
	case []any:
		for i := range v {
			v[i] = unescaped(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = unescaped(v[k])
		}
	}
	return v
}

func TestBicep(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		missing(t, "node", "scripts/setup-exporters installs it")
	}
	if _, err := os.Stat("bicep/node_modules/web-tree-sitter"); err != nil {
		missing(t, "the grammar of Bicep", "npm ci --ignore-scripts in export/peers/bicep installs it")
	}
	outputs(t, "azure-firewall-bicep", "azure-firewall.bicep", func(policy string, data []byte) error {
		return readBicep(data, armOf(t, policy))
	})
	arm := armOf(t, "every-shape")
	refuses(t, everyShape(t, "azure-firewall-bicep", "azure-firewall.bicep"), []spoil{
		{"  parent: policy\n", "  parent policy\n"},
		{"'ntp.example.com'", `"ntp.example.com"`},
		{"'dns/exact: A name that shows none.'", "'dns/exact: A 'name' that shows none.'"},
		{"rules: [", "rules: {"},
		{"resource rules 'Microsoft", "resource 'Microsoft"},
		{`\${expr}`, `${expr}`},     // it parses, and is no literal
		{`\\ */`, `\ */`},           // an escape that Bicep has not
		{"port: 443", "port: 8443"}, // it parses, and is another rule
	}, func(data []byte) error { return readBicep(data, arm) })
}

func armOf(t *testing.T, policy string) []byte {
	t.Helper()
	if _, ok := exporttest.Hard()[policy]; ok {
		return written(t, "azure-firewall", "azure-firewall.json", policy)
	}
	data, err := os.ReadFile(filepath.Join("..", "testdata", "azure-firewall", policy, "azure-firewall.json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
