package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// A Run is what results.json has under "fuzz".
type Run struct {
	Date     time.Time `json:"date"`
	Time     string    `json:"time"` // of each target
	Outcomes []Outcome `json:"targets"`
}

// Totals are what all runs together have tried.
type Totals struct {
	APIVersion string  `json:"apiVersion"`
	Kind       string  `json:"kind"`
	Targets    []Total `json:"targets"`
}

// A Total is one target's.
type Total struct {
	Target
	Inputs  int64   `json:"inputs"`
	Seconds float64 `json:"seconds"`
	Failed  int     `json:"failedRuns"`
	Last    string  `json:"last"` // day of the last run
}

// readTotals reads the file, if there is one. Without a name there are none.
func readTotals(file string) (*Totals, error) {
	t := &Totals{APIVersion: "tidegate.io/v1", Kind: "FuzzTotals"}
	if file == "" {
		return t, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		err = json.Unmarshal(text, t)
	}
	if err != nil {
		return nil, fmt.Errorf("totals %s: %w", file, err)
	}
	return t, nil
}

func (t *Totals) write(file string) error {
	text, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func (t *Totals) add(o Outcome, day time.Time) {
	i := slices.IndexFunc(t.Targets, func(x Total) bool { return x.Package == o.Package && x.Name == o.Name })
	if i < 0 {
		i, t.Targets = len(t.Targets), append(t.Targets, Total{Target: o.Target})
	}
	x := &t.Targets[i]
	x.Inputs += o.Inputs
	x.Seconds += o.Seconds
	x.Last = day.Format(time.DateOnly)
	if o.Found != "" {
		x.Failed++
	}
}

func (t *Totals) of(target Target) Total {
	for _, x := range t.Targets {
		if x.Package == target.Package && x.Name == target.Name {
			return x
		}
	}
	return Total{}
}

// report writes the page: each target, what it holds, how much was tried, and what failed in this run.
func report(file string, run Run, totals *Totals, targets []Target) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# Fuzzing

Written by `+"`make fuzz`"+`, which runs every fuzz target of the module, each for FUZZTIME; the last run gave each %s, on %s. A target
holds code against an oracle, not only against crashes: what that is stands in its comment and below. Inputs are mutated under guidance of
coverage and counted over all runs (docs/fuzz.json). What a run finds is mended, and stays in testdata/fuzz as a test that `+"`make test`"+` runs.

| target | what holds | inputs in all | last run |
|---|---|---:|---|
`, run.Time, run.Date.Format(time.DateOnly))
	var sum int64
	for _, t := range targets {
		x := totals.of(t)
		sum += x.Inputs
		fmt.Fprintf(&b, "| `%s` `%s` | %s | %s | %s |\n", t.Package, t.Name, t.Holds, thousands(x.Inputs), x.Last)
	}
	fmt.Fprintf(&b, "| %d targets | | %s | |\n", len(targets), thousands(sum))
	for _, o := range run.Outcomes {
		if o.Found != "" {
			fmt.Fprintf(&b, "\n`%s` `%s` failed:\n\n```\n%s\n```\n", o.Package, o.Name, o.Found)
		}
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
