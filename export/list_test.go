package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/export/exporttest"
)

// TestListsAgree reads the three lists back: they hold the same rows, which are
// those of the policy, whatever its texts are.
func TestListsAgree(t *testing.T) {
	policies := clusters(t)
	for name, rules := range exporttest.Hard() {
		policies[name] = Policy{Name: name, Rules: rules}
	}
	for name, policy := range policies {
		t.Run(name, func(t *testing.T) {
			var fromJSON, fromYAML list
			if err := json.Unmarshal(listFile(t, "json", policy), &fromJSON); err != nil {
				t.Fatal(err)
			}
			var generic any
			if err := yaml.Unmarshal(listFile(t, "yaml", policy), &generic); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(encode(generic), &fromYAML); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fromJSON, fromYAML); diff != "" {
				t.Errorf("JSON and YAML differ: %s", diff)
			}
			cells, err := csv.NewReader(bytes.NewReader(listFile(t, "csv", policy))).ReadAll()
			if err != nil || len(cells) != len(fromJSON.Items)+1 {
				t.Fatalf("CSV: %d rows, JSON: %d: %v", len(cells), len(fromJSON.Items), err)
			}
			seen := map[string]int{}
			for i, row := range fromJSON.Items {
				want := row.cells()
				for k := range want { // a reader of CSV takes the two line breaks for one
					want[k] = strings.ReplaceAll(want[k], "\r\n", "\n")
					cells[i+1][k] = strings.TrimPrefix(cells[i+1][k], "'")
					want[k] = strings.TrimPrefix(want[k], "'")
				}
				if diff := cmp.Diff(want, cells[i+1]); diff != "" {
					t.Errorf("CSV and JSON differ: %s", diff)
				}
				seen[row.Rule]++
			}
			wanted := map[string]int{}
			for _, r := range policy.Rules {
				wanted[strings.ToValidUTF8(r.ID, "\ufffd")] = len(r.To)
			}
			if !maps.Equal(seen, wanted) {
				t.Errorf("rows of rules: %s", cmp.Diff(wanted, seen))
			}
		})
	}
}

func listFile(t *testing.T, format string, p Policy) []byte {
	t.Helper()
	f, err := Find(format)
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.Export(p)
	if err != nil {
		t.Fatal(err)
	}
	return out.Files[0].Data
}
