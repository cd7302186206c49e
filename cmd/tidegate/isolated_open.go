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

func isolatedOpenCommand() *cobra.Command {
	var facts factFlags
	var output string
	cmd := &cobra.Command{
		Use:   "open FEATURE…",
		Short: "What features would open in a cluster that nothing leaves, widest first, and what is instead",
		Long: `Open prints the difference that features make to a network isolated cluster: each
endpoint that a firewall would have to permit, how much it opens, and whether strangers can
be behind it, which is where data can be carried out to. Where a private endpoint takes an
opening's place it says so, since that opens nothing. Microsoft's registry is never in the
difference: images come from the registry that the cluster boots from.

Features: ` + strings.Join(openable(), ", ") + `.`,
		Example: `  tidegate isolated open policy --cluster prod.json
  tidegate isolated open keyvault --cloud public --region westeurope --key-vault kv-prod`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var features []aks.Feature
			for _, a := range args {
				f, err := aks.ParseFeature(a)
				if err != nil {
					return err
				}
				features = append(features, f)
			}
			c, err := facts.facts(cmd.InOrStdin())
			if err != nil {
				return err
			}
			o, err := facts.options()
			if err != nil {
				return err
			}
			opening, err := c.Open(o, features...)
			if err != nil {
				return unfilledHint(err)
			}
			var b bytes.Buffer
			d := describeOpening(&opening)
			if output == "json" {
				err = writeJSON(&b, d)
			} else {
				d.print(&b, painting(cmd.OutOrStdout()))
			}
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b.Bytes())
			return err
		},
	}
	facts.add(cmd)
	cmd.ValidArgs = openable()
	outputFlag(cmd, &output, "text", "json")
	return cmd
}

func openable() []string {
	var words []string
	for _, f := range aks.Openable() {
		words = append(words, string(f))
	}
	return words
}

// openingDocument is an opening as JSON.
type openingDocument struct {
	APIVersion string                `json:"apiVersion"`
	Kind       string                `json:"kind"`
	Features   []aks.Feature         `json:"features"`
	Added      []openedItem          `json:"added"` // the widest first
	Instead    []aks.PrivateEndpoint `json:"instead"`
	Notes      []aks.Note            `json:"notes"`
}

type openedItem struct {
	Endpoint egress.Endpoint `json:"endpoint"`
	Rule     string          `json:"rule"`
	Need     egress.Need     `json:"need"`
	Why      string          `json:"why"`
	Breadth  aks.Breadth     `json:"breadth"`
}

func describeOpening(o *aks.Opening) openingDocument {
	d := openingDocument{apiVersion, "Opening", o.Features, []openedItem{}, orEmpty(o.Instead), orEmpty(o.Notes)}
	for _, r := range o.Added {
		for _, e := range r.To {
			d.Added = append(d.Added, openedItem{e, r.ID, r.Need, r.Why, aks.BreadthOf(e.Host)})
		}
	}
	slices.SortStableFunc(d.Added, func(a, b openedItem) int { return b.Breadth.Rank - a.Breadth.Rank })
	return d
}

func (d *openingDocument) print(w io.Writer, p paint) {
	var words []string
	for _, f := range d.Features {
		words = append(words, string(f))
	}
	strangers := 0
	for _, x := range d.Added {
		if x.Breadth.MultiTenant {
			strangers++
		}
	}
	fmt.Fprintf(w, "%s\n", p.bold(fmt.Sprintf("%s · %s, %d with strangers behind", strings.Join(words, ", "), count(len(d.Added), "endpoint"), strangers)))
	if len(d.Instead) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold(p.green("Instead, without opening anything: a private endpoint")))
		for _, e := range d.Instead {
			textEndpoint(w, p, e)
		}
	}
	if len(d.Added) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold("Opened in a cluster that nothing leaves, the widest first"))
	}
	var rows [][]string
	for _, x := range d.Added {
		what := x.Breadth.What
		if x.Breadth.MultiTenant {
			what = p.red(what)
		}
		rows = append(rows, []string{p.yellow("+"), x.Endpoint.String(), p.dim(x.Rule), what})
	}
	writeColumns(w, "  ", rows)
	for _, n := range d.Notes {
		fmt.Fprintf(w, "\n  %s\n", wrap("  ", about(n)+n.Text))
	}
}
