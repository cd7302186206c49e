package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const module = "tidegate.io/tidegate/"

// A Target is one fuzz function.
type Target struct {
	Package string `json:"package"` // below the module
	Name    string `json:"name"`
	Holds   string `json:"-"` // the first sentence of its comment: what it holds against what
}

// allTargets are those of the module below the working directory, in the order of their packages.
func allTargets(ctx context.Context) ([]Target, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", `{{$d := .Dir}}{{$p := .ImportPath}}{{range .TestGoFiles}}{{$p}} {{$d}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$p}} {{$d}}/{{.}}{{"\n"}}{{end}}`, "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var all []Target
	for line := range strings.Lines(string(out)) {
		pkg, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		in, err := targetsIn(file)
		if err != nil {
			return nil, err
		}
		for _, t := range in {
			t.Package = strings.TrimPrefix(pkg, module)
			all = append(all, t)
		}
	}
	return all, nil
}

// choose returns those that are named, or whose package is. A word that names none is an error; without words all are meant.
func choose(all []Target, words []string) ([]Target, error) {
	if len(words) == 0 {
		return all, nil
	}
	var some []Target
	left := slices.Clone(words)
	for _, t := range all {
		names := func(word string) bool { return word == t.Name || strings.TrimPrefix(word, "./") == t.Package }
		if slices.ContainsFunc(words, names) {
			some, left = append(some, t), slices.DeleteFunc(left, names)
		}
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("there is no target or package %s", strings.Join(left, ", "))
	}
	return some, nil
}

// targetsIn are the fuzz functions of one file.
func targetsIn(file string) ([]Target, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(file), err)
	}
	var all []Target
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Fuzz") {
			t := Target{Name: fn.Name.Name}
			if fn.Doc != nil {
				text := new(doc.Package).Synopsis(fn.Doc.Text())
				t.Holds = strings.TrimLeft(strings.TrimPrefix(text, t.Name), ": ")
			}
			all = append(all, t)
		}
	}
	return all, nil
}

// An Outcome is what came of one target in one run.
type Outcome struct {
	Target
	Inputs  int64   `json:"inputs"`          // tried, mutated under guidance of coverage
	Corpus  int64   `json:"corpus"`          // inputs kept for the coverage that they reach
	Seconds float64 `json:"seconds"`         // with the time of compiling
	Found   string  `json:"found,omitempty"` // the end of what it printed when it failed
}

// String returns a line for who waits.
func (o Outcome) String() string {
	s := fmt.Sprintf("%-10s %-40s %12d inputs %6d kept %5.0f s", o.Package, o.Name, o.Inputs, o.Corpus, o.Seconds)
	if o.Found != "" {
		s += "  FAILED\n" + o.Found
	}
	return s
}

// minimizing is how often go test tries to make an input smaller before it goes on. By default it does that for a minute with
// each that reaches something new, and where those have kilobytes it does nothing else.
const minimizing = "100x"

// run fuzzes the target, for a time or a number of inputs as go test takes them. It is an error when that could not begin.
func (t Target) run(ctx context.Context, howLong string) (Outcome, error) {
	began := time.Now()
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.Name+"$", "-fuzztime", howLong, "-fuzzminimizetime", minimizing, "./"+t.Package).CombinedOutput()
	o := Outcome{Target: t}
	o.Inputs, o.Corpus = progress(out)
	o.Seconds = time.Since(began).Round(time.Second / 10).Seconds()
	if err == nil {
		return o, nil
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return o, ctx.Err()
	case !errors.As(err, &exit) || !bytes.Contains(out, []byte("--- FAIL: "+t.Name)):
		return o, fmt.Errorf("%s %s: %w\n%s", t.Package, t.Name, err, tail(out))
	}
	if !overTime(out) {
		o.Found = tail(out)
	}
	return o, nil
}

// overTime reports whether a run failed at nothing but its end: where the time is over while an input is tried, go test
// sometimes says so in place of PASS.
func overTime(out []byte) bool {
	return bytes.Contains(out, []byte("\n    context deadline exceeded\n")) &&
		!bytes.Contains(out, []byte("Failing input written to")) && !bytes.Contains(out, []byte("failure while testing seed corpus entry"))
}

// progressLine is what go test prints every three seconds, and at the end.
var progressLine = regexp.MustCompile(`(?m)^fuzz: elapsed: .*, execs: (\d+) .*\(total: (\d+)\)`)

// progress returns what the last such line says.
func progress(out []byte) (inputs, corpus int64) {
	all := progressLine.FindAllSubmatch(out, -1)
	if len(all) == 0 {
		return 0, 0
	}
	last := all[len(all)-1]
	inputs, _ = strconv.ParseInt(string(last[1]), 10, 64)
	corpus, _ = strconv.ParseInt(string(last[2]), 10, 64)
	return inputs, corpus
}

// tail is the end of an output, as much as a reader wants of it.
func tail(out []byte) string {
	const lines = 30
	all := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
