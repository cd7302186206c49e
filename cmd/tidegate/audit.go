package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/audit"
	"tidegate.io/tidegate/egress"
)

func auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Hold the firewall that you have against what a cluster needs",
		Long: `Audit reads another firewall's policy or log, or the list that AKS itself gives for a
cluster, and holds it against the cluster's rules.`,
		Example: `  tidegate audit policy firewall.json --cluster prod.json
  tidegate audit log PT1H.json --cluster prod.json
  tidegate audit endpoints endpoints.json --cluster prod.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(auditPolicyCommand(), auditLogCommand(), auditEndpointsCommand())
	return cmd
}

func auditPolicyCommand() *cobra.Command {
	var facts factFlags
	var output string
	var from []string
	cmd := &cobra.Command{
		Use:   "policy FILE...",
		Short: "Say what a firewall's policy lacks, and where it is wider than needed",
		Long: `Policy reads one of these, which it tells apart by itself, and - from stdin:

  Azure Firewall   az network firewall policy rule-collection-group show (or list) -o json,
                   an exported template, or the classic az network firewall show
  Terraform        terraform show -json, of a plan or a state
  NSG              az network nsg show -o json
  Cilium           CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, YAML or JSON
  Squid            squid.conf
  a list           a destination a line, or what export and rules print as CSV, JSON or YAML

Several files are parts of one policy, such as rule collection groups shown one by one.
Wildcards mean what they mean to the product. What could not be understood is said on
stderr, and covers nothing. It exits 1 when something required is missing or denied.`,
		Example: `  az network firewall policy rule-collection-group list -g rg --policy-name p -o json |
    tidegate audit policy - --cluster prod.json
  terraform show -json plan.out | tidegate audit policy - --cluster prod.json --from 10.224.0.0/16`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if slices.Contains(args, "-") && facts.cluster == "-" {
				return errors.New("the policy and --cluster are both -: stdin holds one of them")
			}
			clients, err := parsePrefixes("--from", from)
			if err != nil {
				return err
			}
			policy, err := readForeign(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			needs, res, err := facts.needs(cmd.InOrStdin())
			if err != nil {
				return err
			}
			needs.From = clients
			report := policy.Judge(needs)
			var b bytes.Buffer
			if err := printAudit(&b, output, painting(cmd.OutOrStdout()), strings.Join(args, " "), &report, res); err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(b.Bytes()); err != nil {
				return err
			}
			printUnread(cmd.ErrOrStderr(), report.Unread)
			if report.Lacks() {
				return answerNo()
			}
			return nil
		},
	}
	facts.add(cmd)
	cmd.Flags().StringSliceVar(&from, "from", nil, "the `PREFIX`es of the cluster's nodes, to which rules with sources are compared")
	outputFlag(cmd, &output, "table", "json")
	return cmd
}

// readForeign reads a firewall's policy, which may come in several files.
func readForeign(names []string, stdin io.Reader) (*audit.Policy, error) {
	var policies []*audit.Policy
	for _, name := range names {
		p, err := readFile(name, stdin, func(r io.Reader) (*audit.Policy, error) { return audit.ReadPolicy("policy", r) })
		if err != nil {
			return nil, err
		}
		policies = append(policies, p)
	}
	return audit.Join(names, policies)
}

func parsePrefixes(flag string, texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range texts {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%s %q: want a prefix, such as 10.224.0.0/16", flag, s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// needs are the cluster's rules as package audit takes them. Service tags stay
// tags, for a policy may name them too.
func (f *factFlags) needs(stdin io.Reader) (audit.Needs, *aks.Result, error) {
	tagsFile := f.serviceTags
	f.serviceTags = ""
	_, res, err := f.rules(stdin)
	if err != nil {
		return audit.Needs{}, nil, err
	}
	documented := map[string]bool{}
	for _, r := range res.Rules {
		documented[r.ID] = len(r.Rows) > 0
	}
	needs := audit.Needs{Rules: res.Egress(), APIServer: res.APIServer, Tagged: func(id string) bool { return documented[id] }}
	if tagsFile == "" {
		return needs, &res, nil
	}
	tags, err := readFile(tagsFile, nil, aks.ReadServiceTags)
	if err != nil {
		return needs, &res, err
	}
	needs.Prefixes = func(name string) []netip.Prefix {
		tag, err := egress.ParseTag(name)
		if err != nil {
			return nil
		}
		ps, err := tags.Prefixes(tag)
		if err != nil {
			return nil // a tag that the file does not know has no known addresses
		}
		return ps
	}
	return needs, &res, nil
}

// auditReport is what audit policy prints as JSON.
type auditReport struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Format     audit.Format    `json:"format"`
	Edition    aks.Date        `json:"edition"`
	OK         bool            `json:"ok"` // nothing required is missing
	Findings   []audit.Finding `json:"findings"`
	Covered    []audit.Cover   `json:"covered"`
	Others     []audit.Cover   `json:"others"`
	Unread     []string        `json:"unread"`
}

func printAudit(w io.Writer, output string, p paint, file string, r *audit.Report, res *aks.Result) error {
	if output == "json" {
		return writeJSON(w, auditReport{apiVersion, "PolicyAudit", r.Format, res.Edition, !r.Lacks(), orEmpty(r.Findings), orEmpty(r.Covered), orEmpty(r.Others), orEmpty(r.Unread)})
	}
	fmt.Fprintln(w, p.bold(strings.Join([]string{clean(file), string(r.Format), count(len(res.Egress()), "rule"), "edition " + res.Edition.String()}, " · ")))
	last := audit.Kind("")
	for _, f := range r.Findings {
		if f.Kind != last {
			fmt.Fprintf(w, "\n%s\n", p.bold(kindTitles[f.Kind]))
			last = f.Kind
		}
		printPolicyFinding(w, p, &f)
	}
	if r.Clean() {
		fmt.Fprintf(w, "\n%s\n", p.green("Everything that is needed is open, and nothing wider."))
	}
	printCovers(w, p, r)
	return nil
}

var kindTitles = map[audit.Kind]string{
	audit.Missing: "Missing", audit.Denied: "Denied", audit.PartlyDenied: "Denied in part",
	audit.TLSInspection: "TLS inspection over the API server", audit.NoDNSProxy: "Names without a DNS proxy",
	audit.Masked: "Network rules before application rules", audit.Unreachable: "Never asked",
	audit.Wide: "Wider than needed, the widest first", audit.Retired: "Retired",
}

func printPolicyFinding(w io.Writer, p paint, f *audit.Finding) {
	head := []string{f.Need}
	if !f.Endpoint.IsZero() {
		head = append(head, f.Endpoint.String())
	}
	if f.Need == "" {
		head = []string{clean(f.At), clean(f.Text)}
	}
	level := f.Level.String()
	switch f.Level {
	case audit.Error:
		level = p.red(level)
	case audit.Warning:
		level = p.yellow(level)
	}
	fmt.Fprintf(w, "  %s  %s\n", level, strings.TrimSpace(strings.Join(head, "  ")))
	fmt.Fprintf(w, "      %s\n", wrap("      ", clean(f.Why)))
	if f.Breaks != "" {
		fmt.Fprintf(w, "      %s\n", p.dim(wrap("      ", f.Breaks)))
	}
	if f.Fix != "" {
		for i, line := range strings.Split(f.Fix, "\n") {
			fmt.Fprintf(w, "      %s%s\n", [...]string{"fix: ", "     "}[min(i, 1)], line)
		}
	}
}

func printCovers(w io.Writer, p paint, r *audit.Report) {
	if len(r.Covered) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold("Covered, and by what"))
		var rows [][]string
		for _, c := range r.Covered {
			rows = append(rows, []string{c.Need, c.Endpoint.String(), p.dim(clean(c.At)) + "  " + clean(c.Text)})
		}
		writeColumns(w, "  ", rows)
	}
	if len(r.Others) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold("Open, and not for the cluster itself"))
		var rows [][]string
		for _, c := range r.Others {
			rows = append(rows, []string{clean(c.Text), p.dim(clean(c.At))})
		}
		writeColumns(w, "  ", rows)
	}
}

// shownUnread bounds what is said on stderr; JSON has all.
const shownUnread = 20

func printUnread(w io.Writer, unread []string) {
	p := painting(w)
	for i, u := range unread {
		if i == shownUnread {
			fmt.Fprintln(w, p.yellow("not understood:"), count(len(unread)-i, "more destination"))
			return
		}
		fmt.Fprintln(w, p.yellow("not understood:"), clean(u))
	}
}
