package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
)

func catalogueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "catalogue",
		Short: "The endpoints of AKS as a whole: list, compare editions, check",
		Example: `  tidegate catalogue list -o markdown
  tidegate catalogue diff 2024-12-11 2026-06-18`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(catalogueList(), catalogueDiff(), catalogueLint())
	return cmd
}

func catalogueList() *cobra.Command {
	var output, edition string
	var asStated bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print every destination of every cloud, alternatives included",
		Long: `List prints every destination of the article, in every cloud and with the alternatives
that it leaves open. What one cluster needs is a part of it: tidegate rules.`,
		Example: `  tidegate catalogue list
  tidegate catalogue list --edition 2024-12-11 --as-stated -o csv > article.csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := aks.ParseEdition(edition)
			if err != nil {
				return err
			}
			var b bytes.Buffer
			if err := printDestinations(&b, output, d, asStated); err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b.Bytes())
			return err
		},
	}
	cmd.Flags().StringVar(&edition, "edition", "", "the article as it stood on a day (default: the newest)")
	cmd.Flags().BoolVar(&asStated, "as-stated", false, "the article to the letter, rather than what works")
	outputFlag(cmd, &output, "table", "csv", "json", "yaml", "markdown")
	return cmd
}

var destinationHead = []string{"row_id", "alternative", "section", "cloud", "kind", "destination", "protocol", "port", "level", "id"}

func destinationRow(d aks.Destination) []string {
	return []string{d.Row, d.Alternative, d.Section, d.Cloud, d.Kind, d.Text, d.Proto, d.Port, d.Need, d.ID}
}

// destinationItem is an item of catalogue list -o json.
type destinationItem struct {
	ID          string `json:"id"`
	Row         string `json:"row,omitempty"`
	Alternative string `json:"alternative,omitempty"`
	Section     string `json:"section"`
	Cloud       string `json:"cloud"`
	Kind        string `json:"kind"`
	Destination string `json:"destination"`
	Protocol    string `json:"protocol,omitempty"`
	Port        string `json:"port"`
	Need        string `json:"need"`
}

func printDestinations(w io.Writer, output string, edition aks.Date, asStated bool) error {
	all := aks.Embedded().List(edition, asStated)
	var rows [][]string
	items := []destinationItem{}
	for _, d := range all {
		rows = append(rows, destinationRow(d))
		items = append(items, destinationItem{d.ID, d.Row, d.Alternative, d.Section, d.Cloud, d.Kind, d.Text, d.Proto, d.Port, d.Need})
	}
	list := struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Edition    aks.Date          `json:"edition"`
		AsStated   bool              `json:"asStated,omitempty"`
		Items      []destinationItem `json:"items"`
	}{apiVersion, "Catalogue", edition, asStated, items}
	switch output {
	case "csv":
		return writeCSV(w, destinationHead, rows)
	case "json":
		return writeJSON(w, list)
	case "yaml":
		return writeYAML(w, list)
	case "markdown":
		writeMarkdown(w, destinationHead, rows)
		return nil
	}
	tableDestinations(w, all)
	return nil
}

// tableDestinations keeps what fits a terminal.
func tableDestinations(w io.Writer, all []aks.Destination) {
	rows := [][]string{{"ID", "CLOUD", "ROW", "DESTINATION"}}
	for _, d := range all {
		row := d.Row
		if d.Alternative != "" {
			row += "." + d.Alternative
		}
		rows = append(rows, []string{d.ID, d.Cloud, row, destinationText(d)})
	}
	writeColumns(w, "", rows)
}

// destinationText adds protocol and port where the text does not hold them.
func destinationText(d aks.Destination) string {
	text := d.Text
	if strings.Contains(text, "://") {
		return text
	}
	if d.Proto != "" {
		text += " " + d.Proto
	}
	if d.Kind == "fqdn" {
		text += ":" + d.Port
	}
	return text
}

func catalogueDiff() *cobra.Command {
	return &cobra.Command{
		Use:   "diff A B",
		Short: "Say how one edition of the article differs from another",
		Long: `Diff prints the destinations that the article lost (-) and gained (+) from one day to
another, and what changed in its text besides (~). Like diff(1) it exits 0 when there is
no difference, and 1 when there is.`,
		Example: "  tidegate catalogue diff 2024-12-11 2026-06-18",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var days [2]aks.Date
			for i, a := range args {
				d, err := aks.ParseEdition(a)
				if err != nil {
					return err
				}
				days[i] = d
			}
			if days[1].Before(days[0]) {
				return fmt.Errorf("%s is later than %s: want the earlier edition first", days[0], days[1])
			}
			d := aks.Embedded().Diff(days[0], days[1])
			printDiff(cmd.OutOrStdout(), d)
			if len(d.Removed)+len(d.Added)+len(d.Text) > 0 {
				return answerNo()
			}
			return nil
		},
	}
}

func printDiff(w io.Writer, d aks.Diff) {
	p := painting(w)
	var rows [][]string
	for _, side := range []struct {
		sign string
		list []aks.Destination
	}{{p.red("-"), d.Removed}, {p.green("+"), d.Added}} {
		for _, x := range side.list {
			rows = append(rows, []string{side.sign, x.Row, x.Cloud, x.ID, destinationText(x)})
		}
	}
	writeColumns(w, "", rows)
	for _, c := range d.Text {
		fmt.Fprintf(w, "%s %s\n", p.yellow("~"), wrap("    ", c.Date.String()+"  "+c.Text))
	}
}

func catalogueLint() *cobra.Command {
	return &cobra.Command{
		Use:   "lint [FOLDER]",
		Short: "Check the catalogue, or one in a folder of YAML files",
		Long: `Lint reads a catalogue strictly and checks it: every row of the article is there once,
every cloud is accounted for, placeholders and features exist, no pattern holds a public
suffix. It exits 1 when something is wrong. Notes are things to be weighed.`,
		Example: `  tidegate catalogue lint
  tidegate catalogue lint aks/catalogue`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := aks.Embedded()
			if len(args) == 1 {
				var err error
				if c, err = aks.ReadCatalogue(os.DirFS(args[0])); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
			}
			wrong := 0
			for _, problem := range c.Lint() {
				word := "note"
				if problem.Level == aks.Warning {
					word = "error"
					wrong++
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", word, problem)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s, %d wrong\n", count(len(c.Rows), "row"), wrong)
			if wrong > 0 {
				return answerNo()
			}
			return nil
		},
	}
}
