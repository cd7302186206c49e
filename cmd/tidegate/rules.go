package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
)

func rulesCommand() *cobra.Command {
	var facts factFlags
	var output string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Print the rules that a cluster needs",
		Long: `Rules prints every endpoint that a cluster has to reach, with the reason.

The cluster is given as its JSON, or, before it exists, by cloud, region and features.
What cannot be known from that is said on stderr, and has a flag.`,
		Example: `  az aks show -g rg -n prod -o json | tidegate rules --cluster -
  tidegate rules --cloud public --region westeurope --with monitor,keyvault
  tidegate rules --cluster prod.json --extensions ext.json -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, res, err := facts.rules(cmd.InOrStdin())
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if err := printRules(&b, output, painting(cmd.OutOrStdout()), &c, &res); err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(b.Bytes()); err != nil {
				return err
			}
			if !quiet {
				printNotes(cmd.ErrOrStderr(), res.Notes)
			}
			return nil
		},
	}
	facts.add(cmd)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no notes on stderr")
	outputFlag(cmd, &output, "table", "json", "yaml", "csv", "markdown")
	return cmd
}

// ruleList is what rules prints as JSON: docs/rules-json.md.
type ruleList struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Edition    aks.Date         `json:"edition"`
	AsStated   bool             `json:"asStated,omitempty"`
	Cluster    clusterItem      `json:"cluster"`
	Items      []ruleItem       `json:"items"`
	Private    []aks.Check      `json:"private"`
	MayResolve []egress.Pattern `json:"mayResolve"`
	Seen       []seenItem       `json:"seen"`
	Notes      []aks.Note       `json:"notes"`

	Endpoints []aks.PrivateEndpoint `json:"privateEndpoints,omitempty"` // of an isolated cluster
}

type clusterItem struct {
	Name         string        `json:"name,omitempty"`
	Cloud        aks.Cloud     `json:"cloud"`
	Region       string        `json:"region,omitempty"`
	APIServer    egress.Name   `json:"apiServer,omitzero"`
	OutboundType string        `json:"outboundType,omitempty"`
	Features     []aks.Feature `json:"features"`
	Subnets      []string      `json:"subnets,omitempty"`
}

type ruleItem struct {
	ID      string            `json:"id"`
	Section string            `json:"section"`
	Need    egress.Need       `json:"need"`
	State   aks.State         `json:"state"`
	To      []egress.Endpoint `json:"to"`
	Stated  []string          `json:"stated,omitempty"`
	Why     string            `json:"why"`
	Because []string          `json:"because,omitempty"`
	Source  string            `json:"source"`
	Rows    []string          `json:"rows"`
}

type seenItem struct {
	Match string    `json:"match"`
	State aks.State `json:"state"`
	Why   string    `json:"why"`
}

func listRules(c *aks.Cluster, res *aks.Result) ruleList {
	l := ruleList{
		APIVersion: apiVersion, Kind: "Rules", Edition: res.Edition, AsStated: res.AsStated,
		Cluster: clusterItem{c.Name, c.Cloud, c.Region, res.APIServer, c.OutboundType, orEmpty(c.On()), c.Subnets},
		Items:   []ruleItem{}, Private: orEmpty(res.Private), MayResolve: orEmpty(res.MayResolve), Seen: []seenItem{}, Notes: orEmpty(res.Notes),
		Endpoints: res.Endpoints,
	}
	for _, r := range res.Rules {
		l.Items = append(l.Items, ruleItem{r.ID, r.Section, r.Need, r.State, r.To, r.Stated, r.Why, r.Because, r.Source, orEmpty(r.Rows)})
	}
	for _, s := range res.Seen {
		l.Seen = append(l.Seen, seenItem(s))
	}
	return l
}

// orEmpty makes JSON say [] where there is nothing.
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func printRules(w io.Writer, output string, p paint, c *aks.Cluster, res *aks.Result) error {
	switch output {
	case "json":
		return writeJSON(w, listRules(c, res))
	case "yaml":
		return writeYAML(w, listRules(c, res))
	case "csv":
		return writeCSV(w, []string{"id", "section", "need", "state", "to", "why", "source", "rows"}, ruleRows(res))
	case "markdown":
		markdownRules(w, c, res)
		return nil
	}
	tableRules(w, p, c, res)
	return nil
}

// ruleRows has one row for each endpoint.
func ruleRows(res *aks.Result) [][]string {
	var rows [][]string
	for _, r := range res.Rules {
		for _, e := range r.To {
			rows = append(rows, []string{r.ID, r.Section, r.Need.String(), string(r.State), e.String(), r.Why, r.Source, strings.Join(r.Rows, " ")})
		}
	}
	return rows
}

func markdownRules(w io.Writer, c *aks.Cluster, res *aks.Result) {
	fmt.Fprintf(w, "# Outbound rules: %s\n", title(c, res))
	for _, s := range bySection(res.Rules) {
		fmt.Fprintf(w, "\n## %s\n\n", aks.SectionTitle(s[0].Section))
		var rows [][]string
		for _, r := range s {
			for _, e := range r.To {
				rows = append(rows, []string{r.ID, needed(&r), e.String(), r.Why, strings.Join(r.Rows, " ")})
			}
		}
		writeMarkdown(w, []string{"Rule", "Need", "To", "Why", "Rows"}, rows)
	}
	if len(res.Private) > 0 {
		fmt.Fprint(w, "\n## To be reached inside the network\n\n")
		var rows [][]string
		for _, check := range res.Private {
			rows = append(rows, []string{fmt.Sprintf("%s:%d", check.Name, check.Port), check.Zone, check.Why})
		}
		writeMarkdown(w, []string{"Name", "Zone", "Why"}, rows)
	}
	if len(res.Notes) > 0 {
		fmt.Fprint(w, "\n## Notes\n\n")
		for _, n := range res.Notes {
			fmt.Fprintf(w, "* %s: %s%s\n", n.Level, about(n), clean(n.Text))
		}
	}
}

func tableRules(w io.Writer, p paint, c *aks.Cluster, res *aks.Result) {
	fmt.Fprintln(w, p.bold(title(c, res)))
	var rows [][]string
	var heads []int // rows before which a section begins
	sections := bySection(res.Rules)
	for _, s := range sections {
		heads = append(heads, len(rows))
		for _, r := range s {
			rows = append(rows, tableRows(p, &r)...)
		}
	}
	var b bytes.Buffer
	writeColumns(&b, "  ", rows)
	lines := strings.SplitAfter(b.String(), "\n")
	for i, s := range sections {
		end := len(rows)
		if i+1 < len(heads) {
			end = heads[i+1]
		}
		fmt.Fprintf(w, "\n%s\n%s", p.bold(aks.SectionTitle(s[0].Section)), strings.Join(lines[heads[i]:end], ""))
	}
	tablePrivate(w, p, res.Private)
	if len(res.Endpoints) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold("In the place of rules: private endpoints"))
	}
	for _, e := range res.Endpoints {
		textEndpoint(w, p, e)
	}
}

// tableRows is a rule with its endpoints one below the other, last in the row
// because they are of any length.
func tableRows(p paint, r *aks.Rule) [][]string {
	var rows [][]string
	id, article, said := r.ID, strings.Join(r.Rows, " "), mark(r)
	for _, e := range r.To {
		rows = append(rows, []string{id, p.dim(article), strings.TrimSpace(e.String() + "  " + p.dim(said))})
		id, article, said = "", "", ""
	}
	return rows
}

func tablePrivate(w io.Writer, p paint, checks []aks.Check) {
	if len(checks) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", p.bold("To be reached inside the network, by private addresses"))
	for _, c := range checks {
		fmt.Fprintf(w, "  %s:%d\n", c.Name, c.Port)
		text := c.Why
		if c.Zone != "" {
			text += " Zone: " + c.Zone + "."
		}
		fmt.Fprintf(w, "      %s\n", p.dim(wrap("      ", text)))
	}
}

// mark is said of a rule that is not simply required.
func mark(r *aks.Rule) string {
	var words []string
	if r.Need != egress.Required {
		words = append(words, r.Need.String())
	}
	if r.State != aks.Needed {
		words = append(words, string(r.State))
	}
	if len(r.Rows) == 0 {
		words = append(words, "not in the article")
	}
	return strings.Join(words, ", ")
}

func needed(r *aks.Rule) string {
	if r.State != aks.Needed {
		return r.Need.String() + ", " + string(r.State)
	}
	return r.Need.String()
}

// title is the cluster in one line.
func title(c *aks.Cluster, res *aks.Result) string {
	words := []string{}
	for _, s := range []string{clean(c.Name), c.Cloud.String(), c.Region, "edition " + res.Edition.String()} {
		if s != "" {
			words = append(words, s)
		}
	}
	if res.AsStated {
		words = append(words, "as stated")
	}
	n := 0
	for _, r := range res.Rules {
		n += len(r.To)
	}
	words = append(words, count(len(res.Rules), "rule"))
	if n > 0 {
		words = append(words, count(n, "endpoint"))
	}
	return strings.Join(words, " · ")
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// bySection splits rules, which stand in the order of sections.
func bySection(rules []aks.Rule) [][]aks.Rule {
	var out [][]aks.Rule
	for i := range rules {
		if i == 0 || rules[i].Section != rules[i-1].Section {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], rules[i])
	}
	return out
}

// printNotes says what the rules do not, most serious first. Destinations that
// several rules share are only counted: JSON has each.
func printNotes(w io.Writer, notes []aks.Note) {
	p := painting(w)
	sharing := 0
	for _, level := range []aks.Level{aks.Warning, aks.Info} {
		for _, n := range notes {
			switch {
			case n.Level != level:
			case n.Code == "shared":
				sharing++
			default:
				printNote(w, p, n)
			}
		}
	}
	if sharing > 0 {
		printNote(w, p, aks.Note{Text: count(sharing, "destination") + " needed by several rules; each stays a rule of its own, and -o json names them."})
	}
}

func printNote(w io.Writer, p paint, n aks.Note) {
	word := map[aks.Level]string{aks.Info: "note:", aks.Warning: "warning:"}[n.Level]
	text := word + " " + about(n) + clean(n.Text)
	if isTerminal(w) {
		text = wrap("    ", text)
	}
	if n.Level == aks.Warning {
		word = p.yellow(word)
	}
	_, text, _ = strings.Cut(text, " ")
	fmt.Fprintln(w, word, text)
}

func about(n aks.Note) string {
	if n.About == "" {
		return ""
	}
	return n.About + ": "
}
