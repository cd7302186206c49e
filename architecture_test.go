// Package tidegate_test holds the whole module against ARCHITECTURE.md.
package tidegate_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "tidegate.io/tidegate/"

// mayImport is the table of ARCHITECTURE.md: what each package may import of
// this module, besides egress. cmd/tidegate joins them all.
var mayImport = map[string][]string{
	"egress":            {},
	"aks":               {},
	"wire":              {},
	"wire/wiretest":     {"wire"},
	"kernel":            {},
	"gateway":           {"wire"},
	"dnsproxy":          {},
	"httpproxy":         {"wire"},
	"audit":             {},
	"flowlog":           {},
	"web":               {"flowlog"},
	"why":               {},
	"check":             {},
	"config":            {"aks"},
	"webhook":           {},
	"mirror":            {},
	"export":            {"internal/bicep"},
	"isolated":          {"aks", "internal/bicep"},
	"export/exporttest": {},
	"lab":               {"internal/netns", "wire/wiretest"},
	"fault":             {"internal/netns", "internal/results", "kernel", "lab", "wire"},

	"deploy/webhook/chart": {},

	"e2e":        {},
	"e2e/app":    {},
	"fuzz":       {"internal/results"},                                                                 // likewise
	"bench":      {"bench/load", "internal/netns", "internal/results", "lab", "wire", "wire/wiretest"}, // a program of its own
	"bench/load": {"internal/netns", "wire"},

	"internal/bicep":           {},
	"internal/netns":           {},
	"internal/results":         {},
	"internal/netns/netnstest": {"internal/netns"},
}

type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Doc        string
	GoFiles    []string
}

func list(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Doc,GoFiles", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImports(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == "cmd/tidegate" || len(p.GoFiles) == 0 {
			continue
		}
		may, known := mayImport[name]
		if !known {
			t.Errorf("package %s is not in the table; if it should be, say so here and in ARCHITECTURE.md", name)
			continue
		}
		for _, i := range p.Imports {
			own, ours := strings.CutPrefix(i, module)
			switch {
			case name == "egress" && strings.Contains(i, "."):
				t.Errorf("egress imports %s: the decision stays pure, and readable alone", i)
			case ours && own != "egress" && !slices.Contains(may, own):
				t.Errorf("%s imports %s; if it should, say so here and in ARCHITECTURE.md", name, own)
			}
		}
	}
}

func TestEveryPackageIsDocumented(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}
