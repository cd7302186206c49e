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

// A SiegeReport is what came of a [Siege].
type SiegeReport struct {
	Quick   bool
	Trials  []Trial
	Missing []string // servers that were not installed
	Again   int      // tries that were repeated, alone: what should have arrived did not, and nobody had refused it
	Took    time.Duration
}

// OK reports whether nothing that must not reached a server, and everything that must did.
func (r *SiegeReport) OK() bool {
	return !slices.ContainsFunc(r.Trials, func(t Trial) bool { return !t.OK() })
}

// Void returns the attacks that fail by themselves.
func (r *SiegeReport) Void() []Trial {
	return slices.DeleteFunc(slices.Clone(r.Trials), func(t Trial) bool { return !t.Void() })
}

// A KindCount is what came of one family of tactics.
type KindCount struct {
	Name    string         `json:"name"`
	Attacks int            `json:"attacks"` // that were tried
	Arrived int            `json:"arrived"` // without a gateway; the others are void
	Stopped int            `json:"stopped"` // by the gateway, of all
	Twins   int            `json:"twins"`   // honest twins of attacks
	Passed  int            `json:"passed"`  // of them
	Odd     int            `json:"odd"`     // legal oddities
	OddOK   int            `json:"oddPassed"`
	Reasons map[string]int `json:"reasons,omitempty"` // of the denials
}

// Counts counts by family, in the order of [Kinds].
func (r *SiegeReport) Counts() []KindCount {
	var counts []KindCount
	for i := range r.Trials {
		t := &r.Trials[i]
		n := slices.IndexFunc(counts, func(c KindCount) bool { return c.Name == t.Kind })
		if n < 0 {
			n = len(counts)
			counts = append(counts, KindCount{Name: t.Kind, Reasons: map[string]int{}})
		}
		counts[n].add(t)
	}
	slices.SortStableFunc(counts, func(a, b KindCount) int { return cmp.Compare(kindIndex(a.Name), kindIndex(b.Name)) })
	return counts
}

func kindIndex(name string) int {
	return slices.IndexFunc(Kinds(), func(k Kind) bool { return k.Name == name })
}

func (c *KindCount) add(t *Trial) {
	passed := bit(t.Twin.As(false))
	if t.Evil == nil {
		c.Odd++
		c.OddOK += passed
		return
	}
	c.Attacks++
	c.Arrived += bit(t.Control.Reached)
	c.Stopped += bit(t.Stopped())
	c.Twins++
	c.Passed += passed
	if t.Through.Denied {
		c.Reasons[t.Through.Reason.String()]++
	}
}

// sum adds all families up.
func sum(counts []KindCount) KindCount {
	all := KindCount{Name: "all"}
	for _, c := range counts {
		all.Attacks += c.Attacks
		all.Arrived += c.Arrived
		all.Stopped += c.Stopped
		all.Twins += c.Twins
		all.Passed += c.Passed
		all.Odd += c.Odd
		all.OddOK += c.OddOK
	}
	return all
}

// WriteTable writes the report for people, at most 100 columns wide.
func (r *SiegeReport) WriteTable(w io.Writer, colour bool) error {
	p := &painter{colour: colour}
	const row = "%-30s %8s %9s %9s %9s %9s   %s"
	fmt.Fprintln(p, p.paint(bold, strings.TrimRight(fmt.Sprintf("   "+row, "WHAT AN ATTACKER TRIES", "ATTACKS", "ARRIVED*", "STOPPED", "TWINS OK", "ODD OK", ""), " ")))
	counts := r.Counts()
	for _, c := range append(counts, sum(counts)) {
		code, mark := green, "ok"
		if c.Stopped < c.Attacks || c.Passed < c.Twins || c.OddOK < c.Odd {
			code, mark = red, "NO"
		}
		line := fmt.Sprintf(row, clip(c.Name, 30), fmt.Sprint(c.Attacks), fmt.Sprint(c.Arrived), fmt.Sprint(c.Stopped), fmt.Sprint(c.Passed), odd(c), "")
		fmt.Fprintf(p, "%s %s\n", p.paint(code, mark), strings.TrimRight(line, " "))
	}
	fmt.Fprintf(p, "\n* without a gateway. An attack that does not arrive there is void: it fails by itself.\n")
	r.writeReasons(p, counts)
	r.writeVoid(p)
	r.writeUnexpected(p)
	r.writeVerdict(p, sum(counts))
	_, err := io.WriteString(w, p.String())
	return err
}

func odd(c KindCount) string {
	if c.Odd == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", c.OddOK, c.Odd)
}

func (r *SiegeReport) writeReasons(p *painter, counts []KindCount) {
	all := map[string]int{}
	for _, c := range counts {
		for reason, n := range c.Reasons {
			all[reason] += n
		}
	}
	words := slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Or(cmp.Compare(all[b], all[a]), cmp.Compare(a, b)) })
	for i, word := range words {
		words[i] = fmt.Sprintf("%s %d", word, all[word])
	}
	fmt.Fprintln(p, "  Denied for:")
	for _, line := range wrap(strings.Join(words, ", "), tableWidth-4) {
		fmt.Fprintf(p, "    %s\n", p.paint(grey, line))
	}
	fmt.Fprintln(p)
}

func (r *SiegeReport) writeVoid(p *painter) {
	void := map[string]int{}
	for _, t := range r.Void() {
		name, _, _ := strings.Cut(t.Name, ", over ")
		name, _, _ = strings.Cut(name, ", with TLS")
		if t.Needs != "" {
			name += " (needs " + t.Needs + ")"
		}
		void[t.Kind+": a client "+name]++
	}
	if len(void) == 0 {
		return
	}
	fmt.Fprintln(p, p.paint(bold, "VOID"))
	for i, name := range slices.Sorted(maps.Keys(void)) {
		if i == maxUnexpected {
			fmt.Fprintf(p, "  … and %d more\n", len(void)-i)
			break
		}
		fmt.Fprintf(p, "  %4d  %s\n", void[name], clip(name, tableWidth-8))
	}
	fmt.Fprintln(p)
}

func (r *SiegeReport) writeUnexpected(p *painter) {
	bad := slices.DeleteFunc(slices.Clone(r.Trials), func(t Trial) bool { return t.OK() })
	if len(bad) == 0 {
		return
	}
	fmt.Fprintln(p, p.paint(bold, "NOT AS EXPECTED"))
	for i, t := range bad {
		if i == maxUnexpected {
			fmt.Fprintf(p, "  … and %d more\n", len(bad)-i)
			break
		}
		fmt.Fprintf(p, "  %s\n", clip(fmt.Sprintf("%s: a client %s, gso=%t", t.Kind, t.Name, t.GSO), tableWidth-2))
		if !t.Stopped() {
			fmt.Fprintf(p, "    %s\n", p.paint(red, "the attack REACHED its server"))
		}
		if !t.Twin.As(false) {
			fmt.Fprintf(p, "    %s\n", p.paint(red, clip("its honest twin did not pass: "+t.Twin.explain(false), tableWidth-4)))
		}
	}
	fmt.Fprintln(p)
}

func (r *SiegeReport) writeVerdict(p *painter, all KindCount) {
	word, code := "PASS", green
	if !r.OK() {
		word, code = "FAIL", red
	}
	for _, m := range r.Missing {
		fmt.Fprintf(p, "%s is not installed: the lab's own server stood in for it\n", m)
	}
	if r.Again > 0 {
		fmt.Fprintf(p, "%d tries that should have arrived, and that nobody refused, were repeated alone\n", r.Again)
	}
	fmt.Fprintf(p, "%s  %d of %d attacks were stopped; %d of %d honest twins and %d of %d legal oddities passed; %s\n",
		p.paint(code, word), all.Stopped, all.Attacks, all.Passed, all.Twins, all.OddOK, all.Odd, round(r.Took))
}

// MarshalJSON writes the report in its stable form, the value of "attacks" in a results file.
func (r *SiegeReport) MarshalJSON() ([]byte, error) {
	type item struct {
		Kind      string  `json:"kind"`
		Name      string  `json:"name"`
		Source    string  `json:"source"`
		Needs     string  `json:"needs,omitempty"` // of the server's machine, or the attack is void
		GSO       bool    `json:"gso"`
		OK        bool    `json:"ok"`
		Attack    bool    `json:"attack"`            // false: a legal oddity
		Control   bool    `json:"control,omitempty"` // it arrives without a gateway
		Stopped   bool    `json:"stopped,omitempty"`
		Denied    string  `json:"denied,omitempty"` // the reason
		TwinOK    bool    `json:"twinPassed"`
		TwinError string  `json:"twinError,omitempty"`
		Seconds   float64 `json:"seconds"`
	}
	items := make([]item, len(r.Trials))
	for i := range r.Trials {
		t := &r.Trials[i]
		items[i] = item{
			Kind: t.Kind, Name: t.Name, Source: t.Source, Needs: t.Needs, GSO: t.GSO, OK: t.OK(), Attack: t.Evil != nil,
			Control: t.Control.Reached, Stopped: t.Evil != nil && t.Stopped(), TwinOK: t.Twin.As(false), Seconds: (t.Through.Took + t.Twin.Took).Seconds(),
		}
		if t.Through.Denied {
			items[i].Denied = t.Through.Reason.String()
		}
		if !t.Twin.As(false) {
			items[i].TwinError = t.Twin.explain(false)
		}
	}
	counts := r.Counts()
	return json.Marshal(map[string]any{
		"ok": r.OK(), "quick": r.Quick, "seconds": r.Took.Seconds(), "missing": r.Missing, "again": r.Again, "families": counts, "all": sum(counts), "cases": items,
	})
}
