package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
)

func explainCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "explain NAME|URL|ENDPOINT|ROW",
		Short: "Say who needs an endpoint, what breaks without it, and where it is written",
		Long: `Explain looks an endpoint up in the catalogue: who needs it, in which cloud, what
breaks without it, where it is written, and what the article contradicts itself in.
It answers no (exit 1) when nothing in the catalogue needs the endpoint.`,
		Example: `  tidegate explain eastus.data.mcr.microsoft.com
  tidegate explain https://packages.aks.azure.com/acs-mirror/healthz
  tidegate explain udp://ntp.ubuntu.com:123
  tidegate explain WIN1`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := explain(aks.Embedded(), args[0])
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if output == "json" {
				err = writeJSON(&b, e)
			} else {
				e.print(&b, painting(cmd.OutOrStdout()))
			}
			if err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(b.Bytes()); err != nil {
				return err
			}
			if !e.Known {
				return answerNo()
			}
			return nil
		},
	}
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

// explanation is what explain prints as JSON.
type explanation struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Asked      string    `json:"asked"`
	Known      bool      `json:"known"` // something needs it, or it is known to be harmless
	Remark     string    `json:"remark,omitempty"`
	Seen       *seenItem `json:"seen,omitempty"`
	Items      []needing `json:"items"`
}

// needing is a row that needs what was asked about.
type needing struct {
	ID      string      `json:"id"`
	Section string      `json:"section"`
	Need    egress.Need `json:"need"`
	When    []string    `json:"when"`
	Why     string      `json:"why"`
	Breaks  string      `json:"breaks"`
	Source  string      `json:"source"`
	Lines   []needLine  `json:"lines"`
	Notes   []string    `json:"notes"`

	Isolated string `json:"isolated,omitempty"` // what takes its place in a network isolated cluster
}

type needLine struct {
	Cloud  string   `json:"cloud"`
	Row    string   `json:"row,omitempty"`
	To     []string `json:"to"`
	Since  aks.Date `json:"since,omitzero"`
	Until  aks.Date `json:"until,omitzero"`
	Stated []string `json:"stated,omitempty"` // the article's words, where they differ
	Exact  bool     `json:"exact"`            // on the protocol and port that were asked about
	Remark string   `json:"remark,omitempty"`
}

func explain(c *aks.Catalogue, text string) (explanation, error) {
	e := explanation{APIVersion: apiVersion, Kind: "Explanation", Asked: text, Items: []needing{}}
	q, err := c.ParseQuery(text)
	if err != nil {
		return e, err
	}
	if seen, ok := c.FindSeen(q); ok {
		e.Known, e.Seen = true, &seenItem{seen.Match, seen.State, seen.Why}
	}
	if cloud, ok := aks.PrivateAPIServer(q.Name); ok {
		e.Known, e.Remark = true, fmt.Sprintf("The name of a private API server in the cloud %s. It leads to an address inside the network: no rule opens it, and DNS has to answer it.", cloud)
	}
	exact, stated := false, ""
	for _, f := range c.Find(q) {
		n := describe(&f)
		for i, l := range n.Lines {
			exact = exact || l.Exact
			if f.Lines[i].Stated {
				stated = l.Remark
			}
		}
		e.Items = append(e.Items, n)
	}
	switch {
	case exact:
		e.Known, e.Remark = true, stated
	case len(e.Items) > 0:
		e.Remark = "Needed, but on another protocol or port than the one asked about; a rule for one does not open the other."
	case !e.Known:
		e.Remark = "Nothing in the catalogue needs it. If it is your own workload's, it needs a rule of your own."
	}
	return e, nil
}

func describe(f *aks.Finding) needing {
	r := f.Row
	n := needing{
		ID: r.ID, Section: r.Section, Need: r.Need, When: []string{}, Why: r.Why, Breaks: r.Breaks, Source: r.Source, Lines: []needLine{}, Notes: []string{},
		Isolated: aks.WhenIsolated(r),
	}
	for _, w := range r.When {
		n.When = append(n.When, string(w))
	}
	for _, u := range r.Unless {
		n.When = append(n.When, "not "+string(u))
	}
	for _, l := range f.Lines {
		n.Lines = append(n.Lines, describeLine(&l))
	}
	for _, note := range r.Notes {
		text := note.Text
		if note.Cloud != 0 {
			text = note.Cloud.String() + ": " + text
		}
		n.Notes = append(n.Notes, text)
	}
	return n
}

func describeLine(l *aks.FoundLine) needLine {
	d := needLine{Cloud: cloudWord(l.Cloud), Row: l.Line.Row, To: []string{}, Since: l.Line.Since, Until: l.Line.Until, Exact: l.Exact}
	for _, t := range append(l.Line.To, l.Line.Any...) {
		d.To = append(d.To, t.Text())
	}
	if s := l.Line.Stated; s != nil {
		d.Stated = append(d.Stated, s.Text...)
		for _, t := range s.To {
			d.Stated = append(d.Stated, t.Text())
		}
		d.Remark = s.Why
	}
	if l.Line.None != "" {
		d.Remark = l.Line.None
	}
	if l.Line.Row == "" && l.Line.None == "" {
		d.Remark = "Not in the article."
	}
	return d
}

func cloudWord(c aks.Cloud) string {
	if c == 0 {
		return "all"
	}
	return c.String()
}

func (e *explanation) print(w io.Writer, p paint) {
	fmt.Fprintln(w, p.bold(e.Asked))
	if e.Remark != "" {
		fmt.Fprintf(w, "  %s\n", wrap("  ", e.Remark))
	}
	if e.Seen != nil {
		fmt.Fprintf(w, "\n%s %s\n  %s\n", p.bold(e.Seen.Match), p.green(string(e.Seen.State)), wrap("  ", e.Seen.Why))
	}
	for i := range e.Items {
		e.Items[i].print(w, p)
	}
}

func (n *needing) print(w io.Writer, p paint) {
	need := n.Need.String()
	if len(n.When) > 0 {
		need += " with " + strings.Join(n.When, ", ")
	}
	fmt.Fprintf(w, "\n%s  %s, %s\n", p.bold(n.ID), aks.SectionTitle(n.Section), need)
	fmt.Fprintf(w, "  %s\n", wrap("  ", n.Why))
	fmt.Fprintf(w, "  %s\n", wrap("  ", "Without it: "+n.Breaks))
	var rows [][]string
	for _, l := range n.Lines {
		rows = append(rows, l.rows()...)
	}
	writeColumns(w, "    ", rows)
	for _, note := range append(n.remarks(), n.Notes...) {
		fmt.Fprintf(w, "  %s\n", wrap("    ", "* "+note))
	}
	if n.Isolated != "" {
		fmt.Fprintf(w, "  %s\n", wrap("  ", "In an isolated cluster: "+n.Isolated))
	}
	fmt.Fprintf(w, "  %s\n", p.dim(n.Source))
}

// remarks are what is said of single lines, each once.
func (n *needing) remarks() []string {
	var out []string
	for _, l := range n.Lines {
		if l.Remark != "" && len(l.To) > 0 && !slices.Contains(out, l.Remark) {
			out = append(out, l.Remark)
		}
	}
	return out
}

// rows are the line's destinations, one below the other.
func (l *needLine) rows() [][]string {
	remark := ""
	if !l.Since.IsZero() {
		remark += "since " + l.Since.String() + " "
	}
	if !l.Until.IsZero() {
		remark += "until " + l.Until.String()
	}
	var rows [][]string
	cloud, row := l.Cloud, l.Row
	for _, to := range l.To {
		rows = append(rows, []string{cloud, row, to, strings.TrimSpace(remark)})
		cloud, row, remark = "", "", ""
	}
	if len(l.To) == 0 {
		return [][]string{{cloud, "-", l.Remark, ""}}
	}
	if len(l.Stated) > 0 {
		rows = append(rows, []string{"", "", "the article: " + strings.Join(l.Stated, ", "), ""})
	}
	return rows
}
