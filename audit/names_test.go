package audit

import (
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

func TestDialects(t *testing.T) {
	readers := map[string]func(string) (names, bool){"azure": azureNames, "cilium": ciliumNames, "squid": squidNames, "list": plainNames}
	for _, row := range []struct{ dialect, written, name, want string }{
		{"azure", "*.a.example", "x.a.example", "yes"},
		{"azure", "*.a.example", "x.y.a.example", "yes"},
		{"azure", "*.a.example", "a.example", "no"},
		{"azure", "*.a.example", "xa.example", "no"},
		{"azure", "*a.example", "a.example", "yes"},
		{"azure", "*a.example", "th3a.example", "yes"},
		{"azure", "*a.example", "x.a.example", "yes"},
		{"azure", "*", "anything.example", "yes"},
		{"azure", "A.Example.", "a.example", "yes"},
		{"azure", "*.com", "a.com", "yes"},
		{"azure", "a.*.example", "", "refused"},
		{"azure", "*.*.example", "", "refused"},
		{"cilium", "*.a.example", "x.a.example", "yes"},
		{"cilium", "*.a.example", "x.y.a.example", "no"},
		{"cilium", "**.a.example", "x.y.a.example", "yes"},
		{"cilium", "**.a.example", "a.example", "no"},
		{"cilium", "md-*.a.example", "md-.a.example", "yes"},
		{"cilium", "md-*.a.example", "md-1.b.a.example", "no"},
		{"cilium", "a*b*c.example", "a1b2c.example", "yes"},
		{"cilium", "a*b*c.example", "abc.example", "yes"},
		{"cilium", "a*b*c.example", "ac.example", "no"},
		{"cilium", "a*b*b.example", "abxb.example", "yes"},
		{"cilium", "a*b*b.example", "ab.example", "no"},
		{"cilium", strings.Repeat("a*", 30) + "b.example", strings.Repeat("a", 62) + ".example", "no"}, // in no time
		{"cilium", "*", "x.y.example", "yes"},
		{"squid", ".a.example", "a.example", "yes"},
		{"squid", ".a.example", "x.y.a.example", "yes"},
		{"squid", ".a.example", "xa.example", "no"},
		{"squid", "a.example", "x.a.example", "no"},
		{"list", "*.a.example", "x.y.a.example", "yes"},
		{"list", "*.a.example", "a.example", "no"},
		{"list", "md-*.a.example", "md-.a.example", "no"},
		{"list", ".a.example", "", "refused"},
		{"list", "*a.example", "", "refused"},
	} {
		got := "refused"
		if n, ok := readers[row.dialect](row.written); ok {
			got = map[bool]string{true: "yes", false: "no"}[n.has(row.name)]
		}
		if got != row.want {
			t.Errorf("%s: %s has %s: %s, want %s", row.dialect, row.written, row.name, got, row.want)
		}
	}
}

func TestSetsOfNames(t *testing.T) {
	for _, row := range []struct {
		n          names
		need       string
		covers, ov bool
	}{
		{names{lead: below, rest: "a.example", zero: false}, "*.a.example", true, true},
		{names{lead: below, rest: "a.example", zero: false}, "a.example", false, false},
		{names{lead: nothing, rest: "*.a.example", zero: true}, "*.a.example", false, true}, // one label does not cover all
		{names{lead: nothing, rest: "*.a.example", zero: true}, "x.a.example", true, true},
		{names{lead: apexOrBelow, rest: "a.example", zero: false}, "a.example", true, true},
		{names{lead: anyBytes, rest: "a.example", zero: false}, "*.a.example", true, true},
		{names{lead: nothing, rest: "x.a.example", zero: false}, "*.a.example", false, true}, // part of it
		{names{lead: nothing, rest: "md-1.a.example", zero: false}, "md-*.a.example", false, true},
		{names{lead: below, rest: "x.a.example", zero: false}, "*.a.example", false, true},
		{names{lead: below, rest: "b.example", zero: false}, "*.a.example", false, false},
		{allNames, "*.a.example", true, true},
		{names{}, "*.a.example", false, false},
	} {
		p := egress.MustParsePattern(row.need)
		if got := row.n.covers(p); got != row.covers {
			t.Errorf("%+v covers %s: %v", row.n, row.need, got)
		}
		if got := row.n.overlaps(namesOf(p)); got != row.ov {
			t.Errorf("%+v overlaps %s: %v", row.n, row.need, got)
		}
	}
}

// Sets of our own dialect agree with egress, which decides the same question
// in another way.
func FuzzCovers(f *testing.F) {
	f.Add("*.a.example", "x.*.a.example")
	f.Add("md-*.b.a.example", "md-1*.b.a.example")
	f.Add("a.*.b.example", "*.b.example")
	f.Fuzz(func(t *testing.T, wide, narrow string) {
		w, err := egress.ParsePattern(wide)
		if err != nil {
			return
		}
		p, err := egress.ParsePattern(narrow)
		if err != nil {
			return
		}
		n, ok := plainNames(wide)
		if !ok {
			t.Fatalf("%q is a pattern, and was refused", wide)
		}
		// The fresh instance has a single byte, and so is the worst case of a set
		// with two stars a label, which patterns do not have.
		if got, want := n.covers(p), w.Covers(p); got != want {
			t.Fatalf("%s covers %s: %v, egress says %v", wide, narrow, got, want)
		}
		if name, exact := p.Exact(); exact && n.has(name.String()) != w.Match(name) {
			t.Fatalf("%s has %s: %v", wide, narrow, n.has(name.String()))
		}
		if n.covers(p) && !n.overlaps(namesOf(p)) {
			t.Fatalf("%s covers %s and does not overlap", wide, narrow)
		}
		if strings.Contains(wide, "..") {
			t.Fatal("a pattern with an empty label")
		}
	})
}
