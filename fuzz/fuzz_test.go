package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEveryTargetSaysWhatHolds(t *testing.T) {
	t.Chdir("..")
	all, err := allTargets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if atLeast := 50; len(all) < atLeast {
		t.Errorf("%d targets are found, want %d", len(all), atLeast)
	}
	for _, x := range all {
		if x.Holds == "" || strings.ContainsAny(x.Holds, "|\n") {
			t.Errorf("%s %s: its comment does not say what it holds against what: %q", x.Package, x.Name, x.Holds)
		}
	}
}

func TestTargetsAreChosenByNameOrPackage(t *testing.T) {
	all := []Target{{Package: "a", Name: "FuzzOne"}, {Package: "a", Name: "FuzzTwo"}, {Package: "b/c", Name: "FuzzOne"}}
	for _, tt := range []struct {
		words []string
		want  int
	}{{nil, 3}, {[]string{"FuzzOne"}, 2}, {[]string{"./a"}, 2}, {[]string{"b/c", "FuzzTwo"}, 2}} {
		if some, err := choose(all, tt.words); err != nil || len(some) != tt.want {
			t.Errorf("%q chooses %v, %v, want %d", tt.words, some, err, tt.want)
		}
	}
	if _, err := choose(all, []string{"FuzzOne", "FuzzNothing"}); err == nil || !strings.HasSuffix(err.Error(), "package FuzzNothing") {
		t.Errorf("error %v", err)
	}
}

// TestRuns fuzzes two targets of a module made for it: one fails at once.
func TestRuns(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module tidegate.io/tidegate\n\ngo 1.26\n",
		"p/p_test.go": `package p

import "testing"

// FuzzGood holds nothing against nothing.
func FuzzGood(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }

// FuzzBad: does not hold.
func FuzzBad(f *testing.F) { f.Add([]byte("bad")); f.Fuzz(func(t *testing.T, b []byte) { t.Error("does not hold") }) }
`,
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	c := campaign{time: "1000x", results: "results.json", totals: "fuzz.json", report: "fuzz.md"}
	for range 2 {
		if err := c.run(t.Context()); err == nil || !strings.Contains(err.Error(), "p FuzzBad") {
			t.Fatalf("error %v", err)
		}
	}
	totals, err := readTotals("fuzz.json")
	if err != nil {
		t.Fatal(err)
	}
	if good := totals.of(Target{Package: "p", Name: "FuzzGood"}); good.Inputs < 2000 || good.Failed != 0 || good.Last != time.Now().UTC().Format(time.DateOnly) {
		t.Errorf("two runs of 1,000 inputs each: %+v", good)
	}
	if bad := totals.of(Target{Package: "p", Name: "FuzzBad"}); bad.Failed != 2 {
		t.Errorf("two runs that failed: %+v", bad)
	}
	page, err := os.ReadFile("fuzz.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| `p` `FuzzGood` | holds nothing against nothing. | 2,0", "`p` `FuzzBad` failed:", "does not hold", "| 2 targets |"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestProgress(t *testing.T) {
	inputs, corpus := progress([]byte("fuzz: elapsed: 0s, gathering baseline coverage: 0/12 completed\n" +
		"fuzz: elapsed: 3s, execs: 102348 (34110/sec), new interesting: 12 (total: 202)\n" +
		"fuzz: elapsed: 6s, execs: 202348 (33333/sec), new interesting: 14 (total: 204)\nPASS\n"))
	if inputs != 202348 || corpus != 204 {
		t.Errorf("%d inputs, %d kept", inputs, corpus)
	}
}

func TestAnEndIsNoFailure(t *testing.T) {
	const end = "--- FAIL: FuzzX (2.05s)\n    context deadline exceeded\nFAIL\nexit status 1\n"
	for _, tt := range []struct {
		sentence, out string
		want          bool
	}{
		{"the time is over", end, true},
		{"an input was found as well", end + "    Failing input written to testdata/fuzz/FuzzX/1\n", false},
		{"a seed fails", "failure while testing seed corpus entry: FuzzX/seed#0\n" + end, false},
		{"the target says something else", "--- FAIL: FuzzX (2.05s)\n    x_test.go:9: does not hold\n", false},
	} {
		if got := overTime([]byte(tt.out)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.sentence, got, tt.want)
		}
	}
}
