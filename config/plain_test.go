package config

import (
	"reflect"
	"testing"
)

// plainly are rules that are read by sight, and notPlainly some that must be left to the
// YAML reader.
var (
	plainly = []string{
		"  - id: a\n    to: [\"https://a.example:443\", https://*.b.example:443, 'tcp://[fd00::1]:22']\n",
		"- id: a\n  from: [prod]\n  to:\n  - https://a.example:443\n  - \"*\"\n- id: b\n  to: []\n",
		"  # first\n  - id: a # here\n    to:   # there\n\n      -   https://a.example:443  # and here\n# or there\n      - null.example\n    why: because 1 < 2, and so on, isn't it\n",
		"  - to: [\n      a,\n      \"b\",\n\n    ]\n    id: \"x: y\"\n    need: optional\n    source: 'https://docs.example/#1'\n    why: \"für alle\"\nstate: /tmp\n",
		"  - id: a\n    to: [ a , b, ]",
		"    - id: 0x10\n      why: 2020-01-01\nstate: x",
	}
	notPlainly = []string{
		"", "  []\n", "  - id: a\n   why: b\n", "  - id: &a x\n  - id: *a\n", "  - id: a\n    id: b\n", "  - id: a\n    other: b\n", "  - {id: a}\n",
		"  - id: null\n", "  - id: ~\n", "  - id:\n", "  - id: a\n    why: one\n      two\n", "  - id: a\n    why: |\n      one\n", "  - id: a\n    why: \"one\n      two\"\n",
		"  - id: \"\\n\"\n", "  - id: 'it''s'\n", "  - id: a: b\n", "  - id: a:\n", "  - id: a\tb\n", "  - id: a\r\n", "  - id: a\u2028b\n", "  - id: !!str a\n", "  - id: \xff\n",
		"  - to: [a, [b]]\n", "  - to: [null]\n", "  - to: [a: b]\n", "  - to: [a,, b]\n", "  - to: [a\n    b]\n", "  - to: [a\n", "  - to: [a]b\n", "  - to: [\n---\n]\n",
		"  - to:\n    - a\n     - b\n", "  - to:\n    - - a\n", "  - to:\n    - null\n", "  - to:\n  - a\n", "  -\n", "  - id: a\n -\n", "- id: a\n-\n",
		"  - id: a\n...\n", "  - id: a\n---\nkind: x\n", "  - id: a\nrules: []\n", "  - id: a\nstate: [\n",
	}
)

const before = head + "clusters: []\nrules:\n"

func TestPlainRulesAreReadBySight(t *testing.T) {
	for _, s := range plainly {
		if _, _, ok := cutRules([]byte(before + s)); !ok {
			t.Errorf("left to the YAML reader:\n%s", s)
		}
		sameAsYAML(t, before+s)
	}
	for _, s := range notPlainly {
		sameAsYAML(t, before+s)
	}
	for _, s := range []string{"state: \"\nrules:\n  - id: a\n\"\n", "state: [\nrules:\n  - id: a\n", "state: |\nrules:\n  - id: a\n", "{\nrules:\n  - id: a\n", "{}\nrules:\n  - id: a\n", "rules: []\nrules:\n  - id: a\n", "a\nrules:\n  - id: a\n"} {
		sameAsYAML(t, s)
		sameAsYAML(t, head+s)
	}
}

// sameAsYAML fails unless parse says of a text what the YAML reader says of it.
func sameAsYAML(t *testing.T, text string) {
	t.Helper()
	got, err := parse([]byte(text))
	want, wanted := parseYAML([]byte(text))
	switch {
	case (err == nil) != (wanted == nil), err != nil && err.Error() != wanted.Error():
		t.Errorf("%q: error %v, want %v", text, err, wanted)
	case err == nil && !reflect.DeepEqual(got, want):
		t.Errorf("%q:\n%+v, want\n%+v", text, got, want)
	}
}

// FuzzPlainRules: rules that are read by sight are what the YAML reader makes of the whole file, or it reads the file itself.
func FuzzPlainRules(f *testing.F) {
	for _, s := range append(plainly, notPlainly...) {
		f.Add("", s)
	}
	f.Add("state: \"", "- id: a\n\"\n")
	f.Fuzz(func(t *testing.T, between, s string) {
		sameAsYAML(t, head+between+"\nrules:\n"+s)
	})
}
