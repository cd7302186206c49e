//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Results is what a run writes as "figures": everything that the report is made of. Fields are only ever added.
type Results struct {
	Machine Machine   `json:"machine"`
	Commit  string    `json:"commit"`
	Date    time.Time `json:"date"`
	Seconds float64   `json:"seconds"`
	Quick   bool      `json:"quick,omitempty"`
	Rounds  int       `json:"rounds"`  // asked for, of each measurement
	Foreign float64   `json:"foreign"` // share of the machine above which a round is repeated
	Worst   float64   `json:"worstForeign"`

	// Heard is the share that others used in the loudest round that was kept of each test.
	Heard map[string]float64 `json:"heard"`

	Discarded  int         `json:"discardedRounds"`
	Missing    []string    `json:"missing,omitempty"` // peers that could not be measured, and why
	Tables     []*Table    `json:"tables"`
	Goals      []Goal      `json:"goals"`
	Violations []Violation `json:"violations"` // what had to be zero and was not
}

// A Table is one measurement: a row for each mode or size.
type Table struct {
	Test    string   `json:"test"`
	Title   string   `json:"title"`
	Note    string   `json:"note,omitempty"`
	Columns []Column `json:"columns"`
	Rows    []Row    `json:"rows"`
}

// A Column says what a Figure of a row is.
type Column struct {
	Name string `json:"name"`
	Unit string `json:"unit,omitempty"`
}

// A Row has one Figure a column; a nil one was not measured.
type Row struct {
	Name    string    `json:"name"`
	Figures []*Figure `json:"figures"`
}

// A Goal is a promise of the project beside what was measured.
type Goal struct {
	ID     string  `json:"id"`
	Text   string  `json:"text"`
	Limit  float64 `json:"limit"`
	AtMost bool    `json:"atMost"` // else at least
	Unit   string  `json:"unit,omitempty"`
	Figure Figure  `json:"figure"`
	Met    bool    `json:"met"`
	Test   string  `json:"test"` // that measured it
}

// A Violation is something that must not happen and did.
type Violation struct {
	Test string `json:"test"`
	Mode string `json:"mode"`
	What string `json:"what"`
}

func (r *Results) start(b *bench) {
	*r = Results{Machine: thisMachine(), Date: b.began.UTC().Truncate(time.Second),
		Quick: b.quick, Rounds: b.options.rounds, Foreign: b.foreign, Heard: map[string]float64{}, Violations: []Violation{}}
	if out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output(); err == nil {
		r.Commit = strings.TrimSpace(string(out))
	}
}

func (r *Results) finish(b *bench) {
	r.Seconds = time.Since(b.began).Seconds()
	r.Discarded = b.discarded
	r.Violations = append(r.Violations, b.violations...)
}

func (r *Results) table(test, title string, columns ...Column) *Table {
	t := &Table{Test: test, Title: title, Columns: columns}
	r.Tables = append(r.Tables, t)
	return t
}

func (t *Table) row(name string, figures ...*Figure) {
	t.Rows = append(t.Rows, Row{name, figures})
}

// heard notes how much of the machine others used in a round that is kept.
func (r *Results) heard(test string, foreign float64) {
	r.Heard[test], r.Worst = max(r.Heard[test], foreign), max(r.Worst, foreign)
}

// loud reports whether others used more of the machine during a test than may be.
func (r *Results) loud(test string) bool { return r.Heard[test] > r.Foreign }

// atMost and atLeast hold a figure against a goal. It is met when its median is; the interval is for the reader.
func (r *Results) atMost(id, text string, limit float64, unit string, f Figure) {
	r.Goals = append(r.Goals, Goal{ID: id, Text: text, Limit: limit, AtMost: true, Unit: unit, Figure: f, Met: f.Rounds > 0 && f.Median <= limit})
}

func (r *Results) atLeast(id, text string, limit float64, unit string, f Figure) {
	r.Goals = append(r.Goals, Goal{ID: id, Text: text, Limit: limit, Unit: unit, Figure: f, Met: f.Rounds > 0 && f.Median >= limit})
}

func (f Figure) String() string {
	if f.Rounds == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%s–%s)", number(f.Median), number(f.Low), number(f.High))
}

// number prints three digits that count.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// print shows a table on the terminal.
func (b *bench) print(t *Table) {
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = strings.TrimSpace(c.Name + " " + c.Unit)
	}
	fmt.Printf("\n%s %s\n%-26s %s\n", t.Test, t.Title, "", strings.Join(names, " | "))
	for _, r := range t.Rows {
		cells := make([]string, len(r.Figures))
		for i, f := range r.Figures {
			cells[i] = "–"
			if f != nil {
				cells[i] = f.String()
			}
		}
		fmt.Printf("%-26s %s\n", r.Name, strings.Join(cells, " | "))
	}
}
