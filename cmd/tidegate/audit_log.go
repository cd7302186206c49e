package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/audit"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/export"
)

func auditLogCommand() *cobra.Command {
	var facts factFlags
	var output, against, to string
	var suggest []string
	var all bool
	cmd := &cobra.Command{
		Use:   "log FILE...",
		Short: "Say what a firewall's log means to a cluster",
		Long: `Log reads the lines of Azure Firewall's structured logs (AZFWApplicationRule,
AZFWNetworkRule, AZFWDnsQuery), of the older AzureDiagnostics form, and of Tidegate's own
flow log, in any mixture and of any length; - is stdin. It sorts destinations into

  denied and required    something is broken now
  denied and unknown     nobody here knows what it is for
  denied and benign      known, and may stay denied
  allowed and unneeded   let through, and in no rule of the cluster

--suggest prints rules instead that would allow the classes given, required, optional,
unknown or unneeded, for a gateway's file or in the format that --to names. --against decides every connection again by
another policy, a firewall's or a gateway's file, and lists what changes.

It exits 1 when something required is denied, or a decision changes.`,
		Example: `  tidegate audit log PT1H.json --cluster prod.json
  az monitor log-analytics query -w WORKSPACE --analytics-query 'AZFWApplicationRule' -o json |
    tidegate audit log - --cluster prod.json --suggest required,unknown --to azure-firewall`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			needs, _, err := facts.needs(cmd.InOrStdin())
			if err != nil {
				return err
			}
			options := audit.LogOptions{Needs: needs, Seen: seenBenign}
			if against != "" {
				if options.Against, options.BySource, err = proposed(against, needs); err != nil {
					return err
				}
			}
			log := audit.NewLog(options)
			if err := readLogs(cmd.InOrStdin(), args, log); err != nil {
				return err
			}
			log.Close()
			return reportLog(cmd.OutOrStdout(), cmd.ErrOrStderr(), log, logView{output, suggest, to, against != "", all})
		},
	}
	facts.add(cmd)
	cmd.Flags().StringSliceVar(&suggest, "suggest", nil, "print rules that would allow these `CLASSES`: required, optional, unknown, unneeded")
	cmd.Flags().StringVar(&to, "to", "", "the `FORMAT` of what is suggested, as of export (default: a gateway's file)")
	cmd.Flags().StringVar(&against, "against", "", "decide again by the policy in `FILE`, and list what changes")
	cmd.Flags().BoolVar(&all, "all", false, "list what is allowed and needed too")
	outputFlag(cmd, &output, "table", "json")
	return cmd
}

func seenBenign(n egress.Name, a netip.Addr) (why string, benign, known bool) {
	s, ok := aks.Embedded().FindSeen(aks.Query{Name: n, Addr: a})
	return s.Why, s.State == aks.Benign, ok
}

// proposed reads the policy of --against: a gateway's file or a firewall's.
func proposed(name string, needs audit.Needs) (decide func(egress.Conn) bool, bySource bool, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, false, err
	}
	if bytes.Contains(b, []byte("kind: Gateway")) {
		g, err := readGateway(name)
		if err != nil {
			return nil, false, err
		}
		policy, err := g.Policy()
		if err != nil {
			return nil, false, err
		}
		return func(c egress.Conn) bool { return policy.Decide(c).Action == egress.Allow }, true, nil
	}
	policy, err := audit.ReadPolicy(name, bytes.NewReader(b))
	if err != nil {
		return nil, false, err
	}
	return policy.Decider(needs), policy.TellsClients(), nil
}

func readLogs(stdin io.Reader, names []string, log *audit.Log) error {
	for _, name := range names {
		_, err := readFile(name, stdin, func(r io.Reader) (struct{}, error) { return struct{}{}, log.Read(r) })
		if err != nil {
			return err
		}
	}
	if log.Lines > 0 && log.Skipped == log.Lines {
		return fmt.Errorf("%s: no line of it is of a kind that is understood; want Azure Firewall's logs or Tidegate's, as JSON lines", strings.Join(names, ", "))
	}
	return nil
}

type logView struct {
	output  string
	suggest []string
	to      string
	against bool
	all     bool
}

// logReport is what audit log prints as JSON.
type logReport struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Lines      uint64        `json:"lines"`
	Events     uint64        `json:"events"`
	Skipped    uint64        `json:"skipped"`
	Crowded    uint64        `json:"crowded,omitempty"`
	Groups     []audit.Group `json:"groups"`
	Unused     []string      `json:"unused"`
}

func reportLog(stdout, stderr io.Writer, log *audit.Log, v logView) error {
	var b bytes.Buffer
	var err error
	changes := slices.ContainsFunc(log.Groups, func(g audit.Group) bool { return g.Changes })
	switch {
	case len(v.suggest) > 0:
		err = printSuggestions(&b, stderr, log, v.suggest, v.to)
	case v.output == "json":
		err = writeJSON(&b, logReport{apiVersion, "LogAudit", log.Lines, log.Events, log.Skipped, log.Crowded, orEmpty(log.Groups), orEmpty(log.Unused)})
	case v.against:
		printChanges(&b, painting(stdout), log)
	default:
		printLog(&b, painting(stdout), log, v.all)
	}
	if err != nil {
		return err
	}
	if _, err := stdout.Write(b.Bytes()); err != nil {
		return err
	}
	if log.Skipped > 0 {
		fmt.Fprintf(stderr, "%d of %s not understood\n", log.Skipped, count(int(log.Lines), "line"))
	}
	if log.Crowded > 0 {
		fmt.Fprintf(stderr, "%s about destinations beyond those that can be told apart\n", count(int(log.Crowded), "line"))
	}
	if len(v.suggest) == 0 && (v.against && changes || !v.against && log.Has(audit.Broken)) {
		return answerNo()
	}
	return nil
}

var classTitles = map[audit.Class]string{
	audit.Broken:   "Denied and required: broken now",
	audit.Lacking:  "Denied, and needed by something that is not required",
	audit.Unknown:  "Denied and unknown",
	audit.Harmless: "Denied and benign",
	audit.Unruled:  "Allowed, and in no rule of the cluster",
	audit.Needed:   "Allowed and needed",
}

func printLog(w io.Writer, p paint, log *audit.Log, all bool) {
	fmt.Fprintln(w, p.bold(strings.Join([]string{count(int(log.Lines), "line"), count(int(log.Events), "event"), count(len(log.Groups), "destination")}, " · ")))
	last := audit.Class("")
	for _, g := range log.Groups {
		if g.Class == audit.Needed && !all {
			continue
		}
		if g.Class != last {
			fmt.Fprintf(w, "\n%s\n", p.bold(classTitles[g.Class]))
			last = g.Class
		}
		printGroup(w, p, &g)
	}
	if len(log.Unused) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold("Rules that no line was about"))
		fmt.Fprintf(w, "  %s\n", wrap("  ", strings.Join(log.Unused, " ")))
	}
}

func printGroup(w io.Writer, p paint, g *audit.Group) {
	to := clean(g.To)
	if g.Class == audit.Broken {
		to = p.red(to)
	}
	fmt.Fprintf(w, "  %s\n", strings.TrimSpace(to+"  "+g.Need))
	words := []string{count(int(g.Count), "time")}
	if !g.First.IsZero() {
		words = append(words, g.First.Format("2006-01-02 15:04:05"))
		if !g.Last.Equal(g.First) {
			words[1] += " to " + g.Last.Format("2006-01-02 15:04:05")
		}
	}
	words = append(words, sources(g))
	if g.Rule != "" {
		words = append(words, "by "+clean(g.Rule))
	}
	fmt.Fprintf(w, "      %s\n", p.dim(strings.Join(words, " · ")))
	if g.Why != "" {
		fmt.Fprintf(w, "      %s\n", wrap("      ", g.Why))
	}
}

// shownSources is how many clients a line holds.
const shownSources = 3

func sources(g *audit.Group) string {
	if len(g.Sources) == 0 {
		return "no source"
	}
	shown := clean(strings.Join(g.Sources[:min(len(g.Sources), shownSources)], ", "))
	switch more := len(g.Sources) - shownSources; {
	case g.More:
		return fmt.Sprintf("%s and more than %d others", shown, more)
	case more > 0:
		return fmt.Sprintf("%s and %s", shown, count(more, "other"))
	}
	return "from " + shown
}

func printChanges(w io.Writer, p paint, log *audit.Log) {
	n := 0
	for _, g := range log.Groups {
		if !g.Changes {
			continue
		}
		n++
		change := p.green("denied now, allowed then")
		if g.Allowed {
			change = p.red("allowed now, denied then")
		}
		fmt.Fprintf(w, "%s  %s\n", change, strings.TrimSpace(clean(g.To)+"  "+g.Need))
		fmt.Fprintf(w, "      %s\n", p.dim(strings.Join([]string{count(int(g.Count), "time"), sources(&g)}, " · ")))
	}
	if n == 0 {
		fmt.Fprintf(w, "%s: nothing changes.\n", count(len(log.Groups), "destination"))
	}
}

var suggested = map[string]audit.Class{"required": audit.Broken, "optional": audit.Lacking, "unknown": audit.Unknown, "unneeded": audit.Unruled}

// suggestions are rules that would allow the chosen classes; what no rule can be for is said on stderr.
func suggestions(stderr io.Writer, log *audit.Log, classes []string) ([]egress.Rule, error) {
	var chosen []audit.Class
	for _, c := range classes {
		class, ok := suggested[c]
		if !ok {
			return nil, fmt.Errorf("--suggest %q: want required, optional, unknown or unneeded", c)
		}
		chosen = append(chosen, class)
	}
	var rules []egress.Rule
	for _, g := range log.Groups {
		if !slices.Contains(chosen, g.Class) {
			continue
		}
		e, err := g.Endpoint()
		if err != nil {
			fmt.Fprintf(stderr, "no rule for %s: %v\n", clean(g.To), err)
			continue
		}
		why := g.Why
		if g.Need == "" || why == "" {
			why = fmt.Sprintf("seen %s, %s; say what it is for", count(int(g.Count), "time"), sources(&g))
		}
		rules = append(rules, egress.Rule{ID: fmt.Sprintf("seen/%d", len(rules)+1), To: []egress.Endpoint{e}, Why: why})
	}
	if len(rules) == 0 {
		return nil, errors.New("--suggest: the log has no such line")
	}
	return rules, nil
}

// printSuggestions prints rules as a gateway's file has them, or in a format of export.
func printSuggestions(w, stderr io.Writer, log *audit.Log, classes []string, format string) error {
	rules, err := suggestions(stderr, log, classes)
	if err != nil {
		return err
	}
	if format != "" {
		text, gaps, err := rulesIn(format, rules)
		for _, g := range gaps {
			fmt.Fprintf(stderr, "gap: %s\n", clean(g.String()))
		}
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		return err
	}
	type rule struct {
		ID  string   `json:"id"`
		To  []string `json:"to"`
		Why string   `json:"why"`
	}
	var list []rule
	for _, r := range rules {
		list = append(list, rule{r.ID, []string{r.To[0].String()}, r.Why})
	}
	return writeYAML(w, map[string]any{"rules": list})
}

// rulesIn writes a few rules in a format of export that has one file.
func rulesIn(format string, rules []egress.Rule) (string, []export.Gap, error) {
	f, err := export.Find(format)
	if err != nil {
		return "", nil, fmt.Errorf("--to: %w", err)
	}
	out, err := f.Export(export.Policy{Name: "suggested", Rules: rules})
	switch {
	case err != nil:
		return "", nil, err
	case len(out.Files) > 1:
		return "", out.Gaps, fmt.Errorf("--to %s: it writes several files; choose a format of one", format)
	case len(out.Files) == 0:
		return "", out.Gaps, nil
	}
	return string(out.Files[0].Data), out.Gaps, nil
}
