package aks

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidegate.io/tidegate/egress"
)

const clustersDir = "testdata/clusters"

var examples = []string{"public-gpu-monitor-policy", "usgov-private-keyvault-wi", "china-windows-cost", "network-isolated", "automatic-vnetint-nap"}

func readExample(t *testing.T, name string) Cluster {
	t.Helper()
	f, err := os.Open(filepath.Join(clustersDir, "example-"+name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newer are the rows that came after the article, as the expectations call them.
var newer = map[string]string{
	"PF8":  "+2025-02-05/packages.aks.azure.com",
	"UF8":  "+2025-02-06/packages.aks.azure.com",
	"CF9":  "+2025-05-08/mcr.azure.cn",
	"DEF4": "+2025-07-03/cloud.defender.microsoft.com",
	"MP10": "+2025-05-27/in.applicationinsights.azure.com",
}

// expectation writes a result as the files beside the clusters do, with what is
// not of the article left out.
func expectation(c *Cluster, res *Result) []string {
	var lines []string
	for _, r := range res.Rules {
		for _, row := range r.Rows {
			if n, ok := newer[row]; ok {
				row = n
			}
			for i, e := range r.To {
				text := e.String()
				if len(r.Stated) > i {
					text = e.Proto.String() + "://" + r.Stated[i] + ":" + e.Ports.String()
				}
				lines = append(lines, strings.Join([]string{row, r.Section, r.Need.String(), text}, "\t"))
			}
		}
	}
	for _, p := range res.Private {
		if n, exact := p.Name.Exact(); exact && n == c.APIServer() {
			lines = append(lines, "private-dns\t-\t-\t"+n.String())
			continue
		}
		lines = append(lines, "private\t-\t-\t"+egress.Endpoint{Proto: egress.HTTPS, Host: p.Name, Ports: egress.Ports{First: p.Port, Last: p.Port}}.String())
	}
	slices.Sort(lines)
	return lines
}

func readExpectation(t *testing.T, name string) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(clustersDir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if line := s.Text(); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// What each example needs was derived by hand, apart from this code: for both
// spellings, both editions, and to the letter.
func TestExamples(t *testing.T) {
	for _, name := range examples {
		for _, edition := range []Date{Oldest, Newest} {
			for _, mode := range []struct {
				file  string
				state bool
			}{{".expect.tsv", false}, {".as-stated.expect.tsv", true}} {
				want := readExpectation(t, "example-"+name+"."+edition.String()+mode.file)
				for _, spelling := range []string{".cli", ".arm"} {
					c := readExample(t, name+spelling)
					res, err := c.Rules(Options{Edition: edition, AsStated: mode.state})
					if err != nil {
						t.Fatal(err)
					}
					if d := cmp.Diff(want, expectation(&c, &res)); d != "" {
						t.Errorf("%s%s, edition %s%s: by hand (-), by program (+)\n%s", name, spelling, edition, mode.file, d)
					}
				}
			}
		}
	}
}

func TestExtensionsAddTheirRows(t *testing.T) {
	f, err := os.Open(clustersDir + "/example-k8s-extension-list.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	es, err := ReadExtensions(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, edition := range []Date{Oldest, Newest} {
		for _, asStated := range []bool{false, true} {
			o := Options{Edition: edition, AsStated: asStated}
			before := readExample(t, "public-gpu-monitor-policy.cli")
			after := before.WithExtensions(es)
			a, errA := before.Rules(o)
			b, errB := after.Rules(o)
			if errA != nil || errB != nil {
				t.Fatal(errA, errB)
			}
			had := expectation(&before, &a)
			adds := slices.DeleteFunc(expectation(&after, &b), func(s string) bool { return slices.Contains(had, s) })
			if d := cmp.Diff(readExpectation(t, "example-k8s-extension-list."+edition.String()+".adds.tsv"), adds); d != "" {
				t.Errorf("edition %s, as stated %t: by hand (-), by program (+)\n%s", edition, asStated, d)
			}
		}
	}
}
