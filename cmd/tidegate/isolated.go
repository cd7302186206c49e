package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/isolated"
)

func isolatedCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "isolated",
		Short: "Clusters without any way out: what makes them so, whether they are, what an opening costs",
		Long: `A network isolated cluster boots from a private registry, and nothing leaves it. These
commands plan that for one cluster, check it from inside its network, and show what each
later opening adds. None of them opens Microsoft's registry.`,
		Example: `  tidegate isolated plan --cluster prod.json
  tidegate isolated check --cluster prod.json
  tidegate isolated open policy --cluster prod.json`,
	}
	cmd.AddCommand(isolatedPlanCommand(), isolatedCheckCommand(), isolatedOpenCommand())
	return cmd
}

func isolatedPlanCommand() *cobra.Command {
	var facts factFlags
	var o isolated.Options
	var output string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "What isolates a cluster: steps in their order, commands, templates, what is not supported",
		Long: `Plan prints the steps that isolate a cluster, in the order in which nothing is cut off
before its replacement is in use; what of this very cluster is not supported; the private
endpoints that its add-ons need, with their DNS zones; and what its nodes ask the registry
for. Without --registry the registry is one that AKS makes and keeps.

-o commands is a file of sh, -o bicep and -o arm are the registry and what belongs to it
to be deployed, -o images is the list for tidegate mirror preload.

Exit status: 0 it can be isolated, 1 something is not supported, 2 asked wrongly.`,
		Example: `  az aks show -g rg -n prod -o json | tidegate isolated plan --cluster -
  tidegate isolated plan --cluster prod.json --registry acrprod -o commands
  tidegate isolated plan --cluster prod.json --registry acrprod -o bicep > isolated.bicep
  tidegate isolated plan --cluster prod.json -o images > images.txt`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := facts.facts(cmd.InOrStdin())
			if err != nil {
				return err
			}
			p, err := isolated.PlanFor(&c, o)
			if err != nil {
				return err
			}
			b, err := printPlan(&p, output, painting(cmd.OutOrStdout()))
			if err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(b); err != nil {
				return err
			}
			if p.Unsupported() {
				return answerNo()
			}
			return nil
		},
	}
	facts.addCluster(cmd)
	cmd.Flags().StringVar(&o.Registry, "registry", "", "the `NAME` of a registry of your own, to be made (default: the cluster's, or one that AKS makes)")
	cmd.Flags().StringVar(&o.Subnet, "subnet", "", "the resource `ID` of the subnet for its private endpoint (default: the nodes' own)")
	cmd.Flags().StringVar(&o.Outbound, "outbound-type", "none", "none, or block")
	outputFlag(cmd, &output, "text", "json", "commands", "bicep", "arm", "images")
	return cmd
}

// planDocument is a plan as JSON.
type planDocument struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	isolated.Plan
}

func printPlan(p *isolated.Plan, output string, paint paint) ([]byte, error) {
	var b bytes.Buffer
	switch output {
	case "json":
		err := writeJSON(&b, planDocument{apiVersion, "IsolationPlan", *p})
		return b.Bytes(), err
	case "commands":
		return p.Script(), nil
	case "bicep":
		return p.Bicep()
	case "arm":
		return p.ARM()
	case "images":
		printImages(&b, p)
	default:
		textPlan(&b, paint, p)
	}
	return b.Bytes(), nil
}

// printImages writes one image a line, as mirror preload reads them; an image of
// several platforms is there once.
func printImages(w io.Writer, p *isolated.Plan) {
	seen := map[string]bool{}
	for _, a := range p.Artefacts {
		if !seen[a.Image] {
			seen[a.Image] = true
			fmt.Fprintf(w, "%s/%s\n", isolated.Upstream, a.Image)
		}
	}
}

func textPlan(w io.Writer, p paint, plan *isolated.Plan) {
	words := []string{clean(plan.Cluster), plan.Cloud.String(), plan.Region}
	switch {
	case plan.Isolated:
		words = append(words, "isolated already, as its file says")
	case plan.Unsupported():
		words = append(words, "cannot be isolated as it is")
	}
	fmt.Fprintln(w, p.bold(strings.Join(words, " · ")))
	textFindings(w, p, plan.Findings)
	fmt.Fprintf(w, "\n%s\n", p.bold("Steps, in this order"))
	for i, s := range plan.Steps {
		fmt.Fprintf(w, "  %d. %s  %s\n     %s\n", i+1, p.bold(s.Title), p.dim(string(s.State)), wrap("     ", s.Why))
		for _, c := range s.Commands {
			fmt.Fprintf(w, "     %s %s\n", p.dim("$"), c)
		}
	}
	if len(plan.Records) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold("Names that must lead to private addresses"))
		var rows [][]string
		for _, r := range plan.Records {
			rows = append(rows, []string{r.FQDN, "A " + r.Name + " in " + r.Zone, p.dim("member " + r.Member)})
		}
		writeColumns(w, "  ", rows)
	}
	fmt.Fprintf(w, "\n%s\n", p.bold("Private endpoints"))
	for _, e := range plan.Endpoints {
		textEndpoint(w, p, e)
	}
	fmt.Fprintf(w, "\n%s\n", p.bold("What nodes ask the registry for when they boot"))
	var rows [][]string
	for _, a := range plan.Artefacts {
		rows = append(rows, []string{a.Image, a.Platform, p.dim(a.Why)})
	}
	writeColumns(w, "  ", rows)
	for _, s := range plan.LeftOut {
		fmt.Fprintf(w, "  %s\n", wrap("  ", s))
	}
}

func textFindings(w io.Writer, p paint, findings []isolated.Finding) {
	for _, s := range []struct {
		is    isolated.Severity
		title string
	}{
		{isolated.Unsupported, p.red("Not supported: has to change first")},
		{isolated.Warning, p.yellow("Will not work, or gets out")},
		{isolated.Info, "Good to know"},
	} {
		first := true
		for _, f := range findings {
			if f.Severity != s.is {
				continue
			}
			if first {
				fmt.Fprintf(w, "\n%s\n", p.bold(s.title))
			}
			first = false
			fmt.Fprintf(w, "  - %s\n", wrap("    ", clean(f.Text)))
			if f.About != "" {
				fmt.Fprintf(w, "    %s\n", p.dim(clean(f.About)))
			}
		}
	}
}

func textEndpoint(w io.Writer, p paint, e aks.PrivateEndpoint) {
	fmt.Fprintf(w, "  %s  %s\n    %s\n", p.bold(e.Service), p.dim(e.Resource+", group "+e.Group), wrap("    ", e.Why))
	for _, z := range e.Zones {
		fmt.Fprintf(w, "      zone %s\n", z)
	}
	if len(e.Zones) == 0 {
		fmt.Fprintf(w, "      its zones in this cloud are not in Microsoft's list; ask before you rely on it\n")
	}
}
