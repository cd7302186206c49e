//go:build linux

package lab

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Report is what came of a run of cases.
type Report struct {
	Title   string // what cluster this is
	Plain   bool   // without a gateway: everything has to arrive
	Results []Result
	Took    time.Duration
}

// OK reports whether everything came as it must.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.Results, func(x Result) bool { return !x.As(r.Plain) })
}

// maxUnexpected bounds the list of what came out wrong: past it, one cause has many effects.
const maxUnexpected = 30

// WriteTable writes the report for people, at most 100 columns wide.
func (r *Report) WriteTable(w io.Writer, colour bool) error {
	p := &painter{colour: colour}
	needs, misses := r.split()
	if r.Title != "" {
		fmt.Fprintf(p, "%s\n\n", clip(r.Title, tableWidth))
	}
	p.section("WHAT A NODE NEEDS", "PASSED", "WHERE", needs, r.Plain, notable)
	if r.Plain {
		p.section("WHAT A GATEWAY HAS TO STOP", "ARRIVED", "", misses, true, func([]Result) string { return "" })
	} else {
		p.section("WHAT MUST NOT LEAVE", "DENIED", "WHY", misses, false, reasonCounts)
	}
	p.unexpected(r)
	p.verdict(r, needs, misses)
	_, err := io.WriteString(w, p.String())
	return err
}

func (r *Report) split() (needs, misses []Result) {
	for _, x := range r.Results {
		if len(x.Deny) == 0 {
			needs = append(needs, x)
		} else {
			misses = append(misses, x)
		}
	}
	return needs, misses
}

// notable is what a group of needs is about, and how long the slowest took where that is notable.
func notable(g []Result) string {
	var parts []string
	for _, x := range g {
		if x.About != "" && !slices.Contains(parts, x.About) {
			parts = append(parts, x.About)
		}
	}
	const stall = time.Second
	if longest := slices.MaxFunc(g, func(a, b Result) int { return cmp.Compare(a.Took, b.Took) }).Took; longest > stall {
		parts = append(parts, "slowest "+round(longest))
	}
	return strings.Join(parts, ", ")
}

func round(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}

// reasonCounts lists the reasons of the denials, the most frequent first.
func reasonCounts(g []Result) string {
	counts := map[string]int{}
	for _, x := range g {
		if x.Denied {
			counts[x.Reason.String()]++
		}
	}
	words := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for i, word := range words {
		words[i] = fmt.Sprintf("%s %d", word, counts[word])
	}
	return strings.Join(words, ", ")
}

// A painter writes the table.
type painter struct {
	strings.Builder
	colour bool
}

const (
	tableWidth = 100
	groupWidth = 34
	countWidth = 12
)

func (p *painter) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

const (
	bold  = "1"
	red   = "31"
	green = "32"
	grey  = "90"
)

func (p *painter) section(title, count, note string, results []Result, plain bool, notes func([]Result) string) {
	if len(results) == 0 {
		return
	}
	fmt.Fprintln(p, p.paint(bold, strings.TrimRight(fmt.Sprintf("%-*s  %-*s  %s", groupWidth, title, countWidth, count, note), " ")))
	for _, group := range groups(results) {
		good := 0
		for _, x := range group {
			if x.As(plain) {
				good++
			}
		}
		mark, code := "ok", green
		if good < len(group) {
			mark, code = "NO", red
		}
		name := clip(group[0].Group, groupWidth-4)
		line := fmt.Sprintf(" %s %-*s  %-*s  ", p.paint(code, mark), groupWidth-4, name, countWidth, fmt.Sprintf("%d of %d", good, len(group)))
		indent := groupWidth + countWidth + 4
		for i, part := range wrap(notes(group), tableWidth-indent) {
			part = clip(part, tableWidth-indent)
			if i > 0 {
				line = strings.Repeat(" ", indent)
			}
			fmt.Fprintln(p, strings.TrimRight(line+p.paint(grey, part), " "))
		}
	}
	fmt.Fprintln(p)
}

// groups gathers results by group, in the order in which the cases were made.
func groups(results []Result) [][]Result {
	var order []string
	by := map[string][]Result{}
	for _, x := range results {
		if by[x.Group] == nil {
			order = append(order, x.Group)
		}
		by[x.Group] = append(by[x.Group], x)
	}
	all := make([][]Result, len(order))
	for i, name := range order {
		all[i] = by[name]
	}
	return all
}

func (p *painter) unexpected(r *Report) {
	var bad []Result
	for _, x := range r.Results {
		if !x.As(r.Plain) {
			bad = append(bad, x)
		}
	}
	if len(bad) == 0 {
		return
	}
	fmt.Fprintln(p, p.paint(bold, "NOT AS EXPECTED"))
	for i, x := range bad {
		if i == maxUnexpected {
			fmt.Fprintf(p, "  … and %d more\n", len(bad)-i)
			break
		}
		fmt.Fprintf(p, "  %s\n", clip(x.Group+": a node "+x.Name, tableWidth-2))
		fmt.Fprintf(p, "    %s\n", p.paint(red, clip(x.explain(r.Plain), tableWidth-4)))
	}
	fmt.Fprintln(p)
}

// explain says how a result differs from what was expected.
func (r Result) explain(plain bool) string {
	var parts []string
	switch {
	case len(r.Deny) == 0 || plain:
		parts = append(parts, "did not arrive")
		if r.Reached {
			parts[0] = "arrived"
		}
	case r.Reached:
		parts = append(parts, "ARRIVED")
	case !r.Denied:
		parts = append(parts, "stopped, but the log does not say so")
	}
	if r.Denied {
		parts = append(parts, "denied: "+r.Reason.String())
		if len(r.Deny) > 0 {
			want := make([]string, len(r.Deny))
			for i, w := range r.Deny {
				want[i] = w.String()
			}
			parts = append(parts, "expected "+strings.Join(want, " or "))
		}
	}
	if r.Err != nil {
		parts = append(parts, r.Err.Error())
	}
	return strings.Join(parts, "; ")
}

func (p *painter) verdict(r *Report, needs, misses []Result) {
	count := func(results []Result) (good int) {
		for _, x := range results {
			if x.As(r.Plain) {
				good++
			}
		}
		return good
	}
	word, code := "PASS", green
	if !r.OK() {
		word, code = "FAIL", red
	}
	stopped := "were stopped"
	if r.Plain {
		stopped = "arrived, for nothing stops them"
	}
	fmt.Fprintf(p, "%s  %d of %d needs were met; %d of %d near misses %s; %s\n",
		p.paint(code, word), count(needs), len(needs), count(misses), len(misses), stopped, round(r.Took))
}

// clip shortens s to n runes.
func clip(s string, n int) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, s)
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// wrap breaks a list at its commas into lines of at most width; there is always one line.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for i, item := range strings.Split(s, ", ") {
		if i > 0 {
			item = ", " + item
		}
		if len(line)+len(item) > width && line != "" {
			lines = append(lines, line+",")
			line, item = "", strings.TrimPrefix(item, ", ")
		}
		line += item
	}
	return append(lines, line)
}

// MarshalJSON writes the report in its stable form.
func (r *Report) MarshalJSON() ([]byte, error) {
	type item struct {
		Group   string  `json:"group"`
		Name    string  `json:"name"`
		Expect  string  `json:"expect"` // "pass" or "deny"
		OK      bool    `json:"ok"`
		Reached bool    `json:"reached"`
		Denied  bool    `json:"denied"`
		Reason  string  `json:"reason,omitempty"`
		Rule    string  `json:"rule,omitempty"`
		Error   string  `json:"error,omitempty"`
		Seconds float64 `json:"seconds"`
	}
	items := make([]item, len(r.Results))
	for i, x := range r.Results {
		items[i] = item{
			Group: x.Group, Name: x.Name, Expect: "pass", OK: x.As(r.Plain), Reached: x.Reached, Denied: x.Denied, Rule: x.Rule,
			Seconds: x.Took.Seconds(),
		}
		if len(x.Deny) > 0 {
			items[i].Expect = "deny"
		}
		if x.Denied {
			items[i].Reason = x.Reason.String()
		}
		if x.Err != nil {
			items[i].Error = x.Err.Error()
		}
	}
	return json.Marshal(map[string]any{
		"apiVersion": "tidegate.io/v1", "kind": "LabReport", "title": r.Title, "ok": r.OK(), "gateway": !r.Plain, "seconds": r.Took.Seconds(), "items": items,
	})
}
