package aks

import (
	"encoding/csv"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// The catalogue, to the letter and on the day of the article, is exactly the
// article: 96 rows, 141 destinations.
func TestAsStatedIsTheArticle(t *testing.T) {
	f, err := os.Open("testdata/rows.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	want, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want = want[1:]
	var got [][]string
	ids := map[string]bool{}
	for _, d := range Embedded().List(Oldest, true) {
		got = append(got, []string{d.Row, d.Alternative, d.Section, d.Cloud, d.Kind, d.Text, d.Proto, d.Port, d.Need})
		ids[d.Row] = true
	}
	if len(got) != 141 || len(ids) != 96 {
		t.Errorf("%d destinations of %d rows, want 141 of 96", len(got), len(ids))
	}
	slices.SortFunc(got, slices.Compare[[]string])
	slices.SortFunc(want, slices.Compare[[]string])
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the article's rows (-) and the catalogue (+):\n%s", d)
	}
}

func TestCatalogueErrorsNameFileAndLine(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"an unknown key", "section: gpu\nrows:\n- id: a/b\n  colour: red\n", "x.yaml:4: field colour not found"},
		{"a doubled key", "section: gpu\nrows:\n- id: a/b\n  why: x\n  why: y\n", `x.yaml:5: mapping key "why" already defined at line 4`},
		{"an unknown section", "section: gpus\nrows:\n- id: a/b\n", `x.yaml:1: section "gpus"`},
		{"an unknown placeholder", "section: gpu\nrows:\n- id: a/b\n  all: [{to: [\"https://{regoin}.a.b:443\"]}]\n", `no placeholder is called "regoin"`},
		{"an endpoint without a port", "section: gpu\nrows:\n- id: a/b\n  all: [{to: [\"https://a.b.c\"]}]\n", "no port"},
		{"a date that is none", "section: gpu\nrows:\n- id: a/b\n  all: [{since: 2025-02-30, to: [\"https://a.b.c:443\"]}]\n", `date "2025-02-30"`},
		{"a second document", "section: gpu\n---\nsection: gpu\n", "x.yaml: a second document"},
		{"not YAML", "section: [\n", "x.yaml"},
	} {
		_, err := ReadCatalogue(fstest.MapFS{"x.yaml": {Data: []byte(tc.text)}})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestEmbeddedCatalogueIsClean(t *testing.T) {
	for _, p := range Embedded().Lint() {
		if p.Level == Warning {
			t.Error(p)
		}
	}
}
