package e2e

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

var update = flag.Bool("update", false, "write what was seen into docs/troubleshooting.md")

// A sight is what was seen when a rule was missing.
type sight struct {
	loss
	dns    string
	says   string // as it stands in the document
	reason egress.Reason
}

const document = "../docs/troubleshooting.md"

// The table stands between these lines.
const (
	tableBegin = "<!-- what the end-to-end test saw: begin -->\n"
	tableEnd   = "<!-- what the end-to-end test saw: end -->\n"
)

// holdDocument compares the table with what was seen, or writes it.
func holdDocument(t *testing.T, seen []sight) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	old, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", document)
	}
	table := tableOf(seen)
	switch {
	case t.Failed() || len(seen) < rows(): // a part was asked for, or is wrong
	case *update:
		if err := os.WriteFile(document, []byte(before+tableBegin+table+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	case old != table:
		t.Errorf("%s says\n%s\nand this was seen, which -update writes:\n%s", document, old, table)
	}
}

// rows is how many the whole table has.
func rows() (n int) {
	for _, l := range losses {
		n += len(ways)
		if l.only != "" {
			n += 1 - len(ways)
		}
	}
	return n
}

func tableOf(seen []sight) string {
	var b strings.Builder
	b.WriteString("| without | DNS is | it says | the flow log says |\n|---|---|---|---|\n")
	for i, s := range seen {
		rule := fmt.Sprintf("`%s`: %s", s.rule, s.what)
		if i > 0 && seen[i-1].rule == s.rule && seen[i-1].what == s.what {
			rule = ""
		}
		fmt.Fprintf(&b, "| %s | %s | `%s` | `%s` |\n", rule, s.dns, strings.ReplaceAll(s.says, "|", "\\|"), s.reason)
	}
	return b.String()
}

// changing are the parts of a message that are others each time.
var changing = []struct {
	form *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`^at \S+: `), ""}, // the app's own words
	{regexp.MustCompile(`(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?|\[[0-9a-f:]+\](?::\d+)?`), "…"},
	{regexp.MustCompile(`tidegate/app-\d+`), "tidegate/app"},
	{regexp.MustCompile(`sha256:[0-9a-f]{64}`), "sha256:…"},
	{regexp.MustCompile(`after \d+ ms`), "after … ms"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]+Z `), ""},
	{regexp.MustCompile(`\s+`), " "},
}

// plain is a message without what changes, and of what curl says its last line.
func plain(said string) string {
	if i := strings.LastIndex(said, "curl: ("); i >= 0 {
		said = said[i:]
	}
	for _, c := range changing {
		said = c.form.ReplaceAllString(said, c.by)
	}
	return strings.TrimSpace(said)
}
