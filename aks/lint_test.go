package aks

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestLintFinds(t *testing.T) {
	const row = "- id: a/b\n  why: w\n  breaks: b\n  source: s\n"
	for _, tc := range []struct{ name, text, want string }{
		{"two of an id", row + "  all: [{to: [\"https://a.b.c:443\"]}]\n" + row + "  all: [{to: [\"https://a.b.c:443\"]}]\n", "x.yaml:8: a/b: id: there are two of it"},
		{"a hole", row + "  public: [{to: [\"https://a.b.c:443\"]}]\n  china: [{none: why}]\n", "x.yaml:3: a/b: usgov: missing"},
		{"two lines at once", row + "  all: [{to: [\"https://a.b.c:443\"]}, {since: 2025-02-05, to: [\"https://a.b.c:443\"]}]\n", "public: 2 lines hold on 2025-02-05"},
		{"no reason", "- id: a/b\n  breaks: b\n  source: s\n  all: [{to: [\"https://a.b.c:443\"]}]\n", "why: missing"},
		{"a feature that is none", row + "  when: [gpus]\n  all: [{to: [\"https://a.b.c:443\"]}]\n", `feature "gpus"`},
		{"nothing said", row + "  all: [{row: PF1}]\n", "a line must say one of: to, any, none"},
		{"times that do not fit", row + "  all: [{since: 2025-02-05, until: 2025-02-05, to: [\"https://a.b.c:443\"]}]\n", "until 2025-02-05 is not after since"},
		{"a public suffix", row + "  all: [{to: [\"https://*.co.uk:443\"]}]\n", "public suffix co.uk"},
		{"other people's names", row + "  all: [{to: [\"https://*.blob.core.windows.net:443\"]}]\n", "any customer can make a name below blob.core.windows.net"},
		{"rows of the article that are missing", row + "  all: [{row: PF1, to: [\"https://a.b.c:443\"]}]\n", "PF2: row: no line of the catalogue has it"},
		{"a row of no table", row + "  all: [{row: XX1, to: [\"https://a.b.c:443\"]}]\n", "XX1: row: the article has no table of this prefix"},
		{"words that are too few", row + "  all: [{to: [\"https://a.b.c:443\"], stated: {text: [a, b]}}]\n", "2 texts for 1 destinations"},
	} {
		c, err := ReadCatalogue(fstest.MapFS{"x.yaml": {Data: []byte("section: gpu\nrows:\n" + tc.text)}})
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		var all []string
		for _, p := range c.Lint() {
			all = append(all, p.String())
		}
		if s := strings.Join(all, "\n"); !strings.Contains(s, tc.want) {
			t.Errorf("%s: %q is not in\n%s", tc.name, tc.want, s)
		}
	}
}
