package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// example is the command whose output docs/rules-json.md shows.
var example = []string{"rules", "--cloud", "usgov", "--region", "usgovvirginia", "--with", "workload-identity", "--without", "ubuntu", "--api-access", "none", "-o", "json"}

func TestDocumentedJSON(t *testing.T) {
	doc, err := os.ReadFile("../../docs/rules-json.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```json\n")
	want, _, _ := strings.Cut(rest, "```")
	var out, errs bytes.Buffer
	if code := run(example, nil, &out, &errs); code != exitYes {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	if out.String() != want {
		t.Errorf("docs/rules-json.md shows another output than: tidegate %s\n%s", strings.Join(example, " "), out.String())
	}
	if !strings.Contains(string(doc), "tidegate "+strings.Join(example, " ")) {
		t.Error("docs/rules-json.md does not name the command")
	}
}

func TestExitCodes(t *testing.T) {
	const planned = "--cloud public --region westeurope "
	for line, want := range map[string]int{
		"rules " + planned:                     exitYes,
		"rules --cloud aws":                    exitUsage,
		"rules --cluster -":                    exitUsage,
		"rules " + planned + "-o xml":          exitUsage,
		"explain mcr.microsoft.com":            exitYes,
		"explain example.com":                  exitNo,
		"explain a..b":                         exitUsage,
		"catalogue lint":                       exitYes,
		"catalogue diff 2024-12-11":            exitUsage,
		"catalogue diff 2024-12-11 2026-06-18": exitNo,
		"decide " + planned + "--bound https|mcr.microsoft.com:443": exitYes,
		"decide " + planned + "https|mcr.microsoft.com:443":         exitNo,
		"decide " + planned + "tcp|20.1.2.3:443":                    exitUndecided,
		"decide " + planned + "smoke":                               exitUsage,
	} {
		args := strings.Fields(line)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "|", " ")
		}
		var out, errs bytes.Buffer
		if got := run(args, strings.NewReader("not a cluster"), &out, &errs); got != want {
			t.Errorf("%s: exit %d, want %d: %s", line, got, want, errs.String())
		}
		if want == exitUsage && (out.Len() > 0 || errs.Len() == 0) {
			t.Errorf("%s: stdout %q, stderr %q", line, out.String(), errs.String())
		}
	}
}

// Each of the article's 64 statements is named by docs/statements.md, in order
// and once.
func TestEveryStatementIsAccountedFor(t *testing.T) {
	doc, err := os.ReadFile("../../docs/statements.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t, ".", "../../aks", "../../egress", "../../e2e", "../../deploy/webhook/peers")
	for _, name := range regexp.MustCompile(`\bTest\w+`).FindAllString(string(doc), -1) {
		if !tests[name] {
			t.Errorf("there is no test %s", name)
		}
	}
	n := 0
	for line := range strings.Lines(string(doc)) {
		if !strings.HasPrefix(line, "| S") {
			continue
		}
		n++
		cells := strings.Split(line, "|")
		if strings.TrimSpace(cells[1]) != "S"+strconv.Itoa(n) || len(cells) < 5 || strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("want S%d, with what it says and where it is, in %q", n, line)
		}
	}
	if n != 64 {
		t.Errorf("%d statements, want 64", n)
	}
}

// testNames are the tests of some packages.
func testNames(t *testing.T, folders ...string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, folder := range folders {
		files, err := filepath.Glob(folder + "/*_test.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no tests: %v", folder, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(b), -1) {
				names[m[1]] = true
			}
		}
	}
	return names
}
