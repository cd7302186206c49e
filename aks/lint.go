package aks

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"

	"tidegate.io/tidegate/egress"
)

// articleRows says how many rows each table of the article has, as ids are
// numbered: PN1 to PN5, and so on. Editions add to their ends.
var articleRows = map[string]int{
	"PN": 5, "PF": 7, "CN": 6, "CF": 8, "UN": 5, "UF": 7, "RC": 2, "GPU": 3, "WIN": 2, "WI": 1, "DEF": 3, "KV": 2,
	"MN": 1, "MP": 9, "MC": 7, "MU": 7, "PP": 3, "PC": 2, "PU": 2, "CA": 2, "EP": 10, "EU": 2,
}

// Problem is what Lint says of one row.
type Problem struct {
	File  string
	Line  int
	Row   string
	Level Level // Warning: wrong. Info: to be weighed.
	Text  string
}

// String is one line: file:line: row: text.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Row, p.Text)
}

// Lint returns what is wrong with a catalogue, and what is worth a second look.
func (c *Catalogue) Lint() []Problem {
	l := linter{ids: map[string]bool{}, rows: map[string]bool{}}
	for i := range c.Rows {
		l.row(&c.Rows[i])
	}
	l.coverage()
	for _, s := range c.Seen {
		if _, err := egress.ParsePattern(s.Match); err != nil && !isAddr(s.Match) {
			l.problems = append(l.problems, Problem{"seen", 0, s.Match, Warning, err.Error()})
		}
	}
	return l.problems
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

type linter struct {
	ids, rows map[string]bool
	problems  []Problem
	at        *Row
}

func (l *linter) say(level Level, format string, args ...any) {
	l.problems = append(l.problems, Problem{l.at.File, l.at.At, l.at.ID, level, fmt.Sprintf(format, args...)})
}

func (l *linter) row(r *Row) {
	l.at = r
	if group, name, ok := strings.Cut(r.ID, "/"); !ok || group == "" || name == "" {
		l.say(Warning, "id: want group/name")
	}
	if l.ids[r.ID] {
		l.say(Warning, "id: there are two of it")
	}
	l.ids[r.ID] = true
	for field, text := range map[string]string{"why": r.Why, "breaks": r.Breaks, "source": r.Source} {
		if text == "" {
			l.say(Warning, "%s: missing", field)
		}
	}
	l.features(slices.Concat(r.When, r.Unless))
	for _, cloud := range Clouds {
		if len(r.All) == 0 && len(r.cloud(cloud)) == 0 {
			l.say(Warning, "%s: missing; if there is nothing, say so: [{none: why}]", cloud)
		}
		l.overlap(r, cloud)
	}
	for _, line := range r.everyLine {
		l.line(line)
	}
}

// overlap: two lines at once would be two rules of one id.
func (l *linter) overlap(r *Row, cloud Cloud) {
	for _, line := range slices.Concat(r.All, r.cloud(cloud)) {
		day := line.Since
		if day.Before(Oldest) {
			day = Oldest
		}
		if n := len(r.Lines(cloud, day)); n > 1 {
			l.say(Warning, "%s: %d lines hold on %s; want one", cloud, n, day)
			return
		}
	}
}

func (l *linter) features(fs []Feature) {
	for _, f := range fs {
		if _, ok := featureRow(f); !ok && f != Always {
			l.say(Warning, "feature %q: there is none of this name", f)
		}
	}
}

func (l *linter) line(line *Line) {
	said := 0
	for _, given := range []bool{len(line.To) > 0, len(line.Any) > 0, line.None != ""} {
		if given {
			said++
		}
	}
	if said != 1 {
		l.say(Warning, "a line must say one of: to, any, none")
	}
	if !line.Until.IsZero() && !line.Since.Before(line.Until) {
		l.say(Warning, "until %s is not after since %s", line.Until, line.Since)
	}
	if line.Row != "" {
		l.rows[line.Row] = true
	}
	ts, _ := line.templates()
	if s := line.Stated; s != nil {
		l.features(slices.Concat(s.When, s.Unless))
		if s.Take < 0 || s.Take > len(line.Any) {
			l.say(Warning, "stated: take %d of %d alternatives", s.Take, len(line.Any))
		}
		if len(s.Text) > 0 && len(s.Text) != len(ts) {
			l.say(Warning, "stated: %d texts for %d destinations", len(s.Text), len(ts))
		}
	}
	for _, t := range ts {
		l.template(t)
	}
}

// template refuses patterns that hold a whole public suffix, and points at
// those that hold other people's names.
func (l *linter) template(t Template) {
	to, err := t.fill(anything)
	if err != nil {
		return // addresses that are not known yet
	}
	for _, e := range to {
		p, ok := e.Host.(egress.Pattern)
		if _, exact := p.Exact(); !ok || exact {
			continue
		}
		fixed := p.Fixed().String()
		if suffix, icann := publicsuffix.PublicSuffix(fixed); icann && suffix == fixed {
			l.say(Warning, "%s holds every name of the public suffix %s", t, fixed)
		}
		if egress.MultiTenant(p.Fixed()) {
			l.say(Info, "%s: any customer can make a name below %s", t, fixed)
		}
	}
}

// coverage asks for every row of the article, and for no gap in what newer
// editions add.
func (l *linter) coverage() {
	last := maps.Clone(articleRows)
	for id := range l.rows {
		prefix := strings.TrimRight(id, "0123456789")
		n, err := strconv.Atoi(id[len(prefix):])
		if _, known := articleRows[prefix]; !known || err != nil || n == 0 {
			l.problems = append(l.problems, Problem{"catalogue", 0, id, Warning, "row: the article has no table of this prefix"})
			continue
		}
		last[prefix] = max(last[prefix], n)
	}
	for _, prefix := range slices.Sorted(maps.Keys(last)) {
		for n := 1; n <= last[prefix]; n++ {
			if id := prefix + strconv.Itoa(n); !l.rows[id] {
				l.problems = append(l.problems, Problem{"catalogue", 0, id, Warning, "row: no line of the catalogue has it"})
			}
		}
	}
}
