package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/export"
)

func exportCommand() *cobra.Command {
	var facts factFlags
	var to, folder, report, namespace string
	var widen, from []string
	var strict, quiet bool
	cmd := &cobra.Command{
		Use:   "export --to FORMAT",
		Short: "Write a cluster's rules for the firewall that you have",
		Long: `Export writes the rules of a cluster in the format of another firewall, with the reason
of each where the format has comments. --to list shows the formats, and what each cannot say.

A rule that a format cannot say as it is meant is left out, and said on stderr; nothing is
opened wider unless --allow-widening names how. With --strict that is a no (exit 1).`,
		Example: `  az aks show -g rg -n prod -o json | tidegate export --to azure-firewall --cluster - > rules.json
  tidegate export --to azure-firewall-terraform --allow-widening fqdn-tag --cluster prod.json
  tidegate export --to paloalto --out lists --cluster prod.json
  tidegate export --to list`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "list" {
				listFormats(cmd.OutOrStdout())
				return nil
			}
			format, widenings, err := exportTo(to, widen)
			if err != nil {
				return err
			}
			c, res, err := facts.rules(cmd.InOrStdin())
			if err != nil {
				return err
			}
			policy := exportPolicy(&c, &res)
			policy.Namespace = namespace
			if policy.From, err = clientPrefixes(from); err != nil {
				return err
			}
			out, err := format.Export(policy, widenings...)
			if err != nil {
				return err
			}
			if err := writeExport(cmd.OutOrStdout(), format, out, folder, report == "json"); err != nil {
				return err
			}
			if !quiet && report != "json" {
				printGaps(cmd.ErrOrStderr(), format, res.Notes, out.Gaps)
			}
			if strict && len(out.Gaps) > 0 {
				return answerNo()
			}
			return nil
		},
	}
	facts.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&to, "to", "", "the format, or list")
	fs.StringVar(&folder, "out", "", "write the files into a `FOLDER`, which formats of several files need")
	fs.StringSliceVar(&widen, "allow-widening", nil, "write what the format cannot say wider than it is meant: wildcard, any-address, any-client, fqdn-tag")
	fs.StringSliceVar(&from, "from", nil, "the cluster's clients, `PREFIX`es (default: every client)")
	fs.StringVar(&namespace, "namespace", "default", "the namespace of Kubernetes objects that have one")
	fs.StringVar(&report, "report", "text", "text, or json: the files and the gaps as JSON on stdout")
	fs.BoolVar(&strict, "strict", false, "exit 1 when the format cannot say every rule as it is meant")
	fs.BoolVarP(&quiet, "quiet", "q", false, "no notes and gaps on stderr")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		switch {
		case to == "":
			return errors.New("to which format? give --to, or --to list")
		case report != "text" && report != "json":
			return fmt.Errorf("report %q: want text or json", report)
		}
		return nil
	}
	return cmd
}

func exportTo(name string, widen []string) (*export.Format, []export.Widening, error) {
	format, err := export.Find(name)
	if err != nil {
		return nil, nil, fmt.Errorf("--to: %w", err)
	}
	var out []export.Widening
	for _, w := range widen {
		v, err := export.ParseWidening(w)
		if err != nil {
			return nil, nil, fmt.Errorf("--allow-widening: %w", err)
		}
		out = append(out, v)
	}
	return format, out, nil
}

// exportPolicy is what of the facts a format may need.
func exportPolicy(c *aks.Cluster, res *aks.Result) export.Policy {
	p := export.Policy{Name: c.Name, Rules: res.Egress(), Resolvers: c.DNSServers}
	for _, r := range res.Rules {
		// Microsoft says that the tag stands for every host of the article, and its
		// own reference cluster has rules for add-ons beside it; so do we.
		if r.Section == "required-fqdn" && len(r.Rows) > 0 {
			p.Tagged = append(p.Tagged, r.ID)
		}
	}
	return p
}

func clientPrefixes(texts []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range texts {
		e, err := egress.ParseEndpoint("tcp://" + bracket(s) + ":1")
		n, ok := e.Host.(egress.Net)
		if err != nil || !ok {
			return nil, fmt.Errorf("--from %q: want a prefix such as 10.224.0.0/16", s)
		}
		out = append(out, n.Prefix)
	}
	return out, nil
}

func bracket(s string) string {
	if strings.Contains(s, ":") {
		return "[" + s + "]"
	}
	return s
}

// writeExport prints the one file, or writes all of them into the folder.
func writeExport(w io.Writer, f *export.Format, out export.Output, folder string, report bool) error {
	if folder != "" {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		for _, file := range out.Files {
			if err := os.WriteFile(filepath.Join(folder, file.Name), file.Data, 0o644); err != nil {
				return err
			}
		}
	}
	switch {
	case report:
		return writeJSON(w, exportReport(f, out))
	case folder != "":
		return nil
	case len(out.Files) == 1:
		_, err := w.Write(out.Files[0].Data)
		return err
	case len(out.Files) == 0:
		return nil
	}
	return fmt.Errorf("%s writes several files; give --out FOLDER", f.Name)
}

// exportReportItem is a file of the report.
type exportReportItem struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

type exportReportList struct {
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	Format     string             `json:"format"`
	Files      []exportReportItem `json:"files"`
	Gaps       []export.Gap       `json:"gaps"`
	Limits     []string           `json:"limits"`
}

func exportReport(f *export.Format, out export.Output) exportReportList {
	r := exportReportList{apiVersion, "Export", f.Name, []exportReportItem{}, orEmpty(out.Gaps), orEmpty(f.Limits)}
	for _, file := range out.Files {
		r.Files = append(r.Files, exportReportItem{file.Name, string(file.Data)})
	}
	return r
}

func printGaps(w io.Writer, f *export.Format, notes []aks.Note, gaps []export.Gap) {
	printNotes(w, notes)
	p := painting(w)
	for _, l := range f.Limits {
		fmt.Fprintf(w, "note: %s: %s\n", f.Name, l)
	}
	for _, g := range gaps {
		fmt.Fprintln(w, p.yellow("gap:"), g)
	}
}

func listFormats(w io.Writer) {
	p := painting(w)
	for i, f := range export.Formats() {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s  %s\n", p.bold(f.Name), f.Title)
		if cannot := f.Cannot(); len(cannot) > 0 {
			fmt.Fprintf(w, "  %s\n", wrap("    ", "cannot say: "+strings.Join(cannot, ", ")))
		}
		for _, l := range f.Limits {
			fmt.Fprintf(w, "  %s\n", wrap("    ", l))
		}
	}
}
