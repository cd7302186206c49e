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

func auditEndpointsCommand() *cobra.Command {
	var facts factFlags
	var output string
	cmd := &cobra.Command{
		Use:   "endpoints FILE",
		Short: "Compare the list that AKS itself gives for a cluster with ours",
		Long: `Endpoints reads what AKS lists for a cluster (outboundNetworkDependenciesEndpoints), and
says where it differs from the cluster's rules, and why. It is a third opinion: AKS's
list is older than its documentation, and says nothing of add-ons.

It exits 1 when AKS lists something that the catalogue does not know.`,
		Example: `  az aks egress-endpoints list -g rg -n prod -o json > endpoints.json
  tidegate audit endpoints endpoints.json --cluster prod.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			listed, err := readFile(args[0], cmd.InOrStdin(), aks.ReadListed)
			if err != nil {
				return err
			}
			_, res, err := facts.rules(cmd.InOrStdin())
			if err != nil {
				return err
			}
			items := compareListed(listed, res.Rules)
			var b bytes.Buffer
			if err := printListed(&b, output, painting(cmd.OutOrStdout()), items); err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(b.Bytes()); err != nil {
				return err
			}
			if slices.ContainsFunc(items, func(i listedItem) bool { return i.In == "aks" && i.Rule == "" }) {
				return answerNo()
			}
			return nil
		},
	}
	facts.add(cmd)
	outputFlag(cmd, &output, "table", "json")
	return cmd
}

// listedItem is an endpoint of either list.
type listedItem struct {
	In       string          `json:"in"` // aks, tidegate or both
	Endpoint egress.Endpoint `json:"endpoint"`
	Category string          `json:"category,omitempty"` // AKS's
	Rule     string          `json:"rule,omitempty"`     // ours
	Why      string          `json:"why"`
}

func compareListed(listed []aks.Listed, rules []aks.Rule) []listedItem {
	items := []listedItem{}
	for _, l := range listed {
		item := listedItem{In: "aks", Endpoint: l.Endpoint, Category: l.Category}
		for _, r := range rules {
			if slices.ContainsFunc(r.To, func(e egress.Endpoint) bool { return e.Covers(l.Endpoint) }) {
				item.In, item.Rule, item.Why = "both", r.ID, r.Why
				break
			}
		}
		if item.In == "aks" {
			item.Rule, item.Why = whyNoRule(l.Endpoint)
		}
		items = append(items, item)
	}
	for _, r := range rules {
		for _, e := range r.To {
			if slices.ContainsFunc(listed, func(l aks.Listed) bool { return l.Endpoint.Covers(e) }) {
				continue
			}
			items = append(items, listedItem{In: "tidegate", Endpoint: e, Rule: r.ID, Why: whyNotListed(e, &r, listed)})
		}
	}
	order := []string{"aks", "tidegate", "both"}
	slices.SortStableFunc(items, func(a, b listedItem) int { return slices.Index(order, a.In) - slices.Index(order, b.In) })
	return items
}

// whyNoRule asks the catalogue why a cluster has no rule for something.
func whyNoRule(e egress.Endpoint) (id, why string) {
	c := aks.Embedded()
	q, err := c.ParseQuery(e.String())
	if err != nil {
		return "", "The catalogue does not have it."
	}
	found := c.Find(q)
	if len(found) == 0 {
		return "", "The catalogue does not have it: AKS's list is ahead of it, or holds something of the past."
	}
	row := found[0].Row
	why = row.Why
	if len(row.When) > 0 {
		why += " It is switched on by " + features(row.When) + "."
	}
	if len(row.Unless) > 0 {
		why += " It is switched off by " + features(row.Unless) + "."
	}
	return row.ID, why
}

func features(fs []aks.Feature) string {
	var out []string
	for _, f := range fs {
		out = append(out, string(f))
	}
	return strings.Join(out, ", ")
}

// addons are the sections that AKS's list leaves out as a whole.
var addons = []string{"monitor", "policy", "defender", "keyvault", "cost-analysis", "workload-identity", "extensions"}

func whyNotListed(e egress.Endpoint, r *aks.Rule, listed []aks.Listed) string {
	for _, l := range listed {
		if e.Covers(l.Endpoint) {
			return fmt.Sprintf("AKS lists only %s, which is a part of it.", l.Endpoint)
		}
	}
	switch {
	case slices.Contains(addons, r.Section):
		return "AKS's list says nothing of add-ons. " + r.Why
	case len(r.Rows) == 0:
		return "Neither AKS's list nor the article has it. " + r.Why
	}
	return "The article has it (" + strings.Join(r.Rows, " ") + "). " + r.Why
}

func printListed(w io.Writer, output string, p paint, items []listedItem) error {
	if output == "json" {
		return writeJSON(w, struct {
			APIVersion string       `json:"apiVersion"`
			Kind       string       `json:"kind"`
			Items      []listedItem `json:"items"`
		}{apiVersion, "EndpointsAudit", items})
	}
	titles := map[string]string{"aks": "Only AKS lists", "tidegate": "Only the rules have", "both": "In both"}
	last := ""
	for _, i := range items {
		if i.In != last {
			if last != "" {
				fmt.Fprintln(w)
			}
			fmt.Fprintln(w, p.bold(titles[i.In]))
			last = i.In
		}
		from := i.Rule
		if i.Category != "" {
			from = strings.TrimSpace(clean(i.Category) + "  " + i.Rule)
		}
		fmt.Fprintf(w, "  %s  %s\n", i.Endpoint, p.dim(from))
		if i.In != "both" {
			fmt.Fprintf(w, "      %s\n", wrap("      ", i.Why))
		}
	}
	return nil
}
