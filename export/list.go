package export

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/egress"
)

// Plain lists hold every rule as it is, a row for each endpoint.

type listRow struct {
	Rule   string      `json:"rule"`
	Need   egress.Need `json:"need"`
	Proto  string      `json:"proto"`
	Kind   string      `json:"kind"` // name, wildcard, address or tag
	Host   string      `json:"host"`
	Ports  string      `json:"ports"`
	From   []string    `json:"from"`
	Why    string      `json:"why"`
	Source string      `json:"source"`
}

type list struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Cluster    string    `json:"cluster"`
	Items      []listRow `json:"items"`
}

var listHead = []string{"rule", "need", "proto", "kind", "host", "ports", "from", "why", "source"}

func (j *job) list() list {
	l := list{"tidegate.io/v1", "EndpointList", j.Name, []listRow{}}
	for i := range j.Rules {
		r := &j.Rules[i]
		from := r.From
		if len(from) == 0 {
			from = j.From
		}
		row := listRow{Rule: valid(r.ID), Need: r.Need, From: []string{}, Why: valid(r.Why), Source: valid(r.Source)}
		for _, p := range from {
			row.From = append(row.From, p.String())
		}
		for _, e := range r.To {
			row.Proto, row.Ports = e.Proto.String(), e.Ports.String()
			row.Kind, row.Host = kindOf(e.Host)
			l.Items = append(l.Items, row)
		}
	}
	return l
}

func kindOf(h egress.Host) (kind, text string) {
	switch h := h.(type) {
	case egress.Pattern:
		if _, exact := h.Exact(); !exact {
			return "wildcard", h.String()
		}
		return "name", h.String()
	case egress.Tag:
		return "tag", h.Name()
	}
	return "address", h.String()
}

// valid is s in UTF-8, which is what JSON would make of it.
func valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

func (r *listRow) cells() []string {
	return []string{r.Rule, r.Need.String(), r.Proto, r.Kind, r.Host, r.Ports, strings.Join(r.From, " "), r.Why, r.Source}
}

// writeCSV guards cells that a spreadsheet would take for a formula, which is
// how a reason written by somebody else would come to run there.
func writeCSV(j *job) []File {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Write(listHead) //nolint:errcheck // a buffer takes everything
	for _, r := range j.list().Items {
		cells := r.cells()
		for i, c := range cells {
			if c != "" && strings.ContainsRune("=+-@\t\r", rune(c[0])) {
				cells[i] = "'" + c
			}
		}
		w.Write(cells) //nolint:errcheck // a buffer takes everything
	}
	w.Flush()
	return one("rules.csv", b.Bytes())
}

func writeJSON(j *job) []File { return one("rules.json", encode(j.list())) }

// encode is v in indented JSON. It panics on what cannot be encoded, which is
// a mistake in a format, never in the data.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func writeYAML(j *job) []File {
	l := j.list()
	var items []*yaml.Node
	for _, r := range l.Items {
		items = append(items, object(
			"rule", r.Rule, "need", r.Need.String(), "proto", r.Proto, "kind", r.Kind, "host", r.Host, "ports", r.Ports,
			"from", orNone(r.From), "why", r.Why, "source", r.Source,
		))
	}
	doc := object("apiVersion", l.APIVersion, "kind", l.Kind, "cluster", l.Cluster, "items", orNone(items))
	return one("rules.yaml", encodeYAML(headed(doc, j.title())))
}

// orNone is the list, or [].
func orNone[T any](items []T) any {
	if len(items) == 0 {
		return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	}
	return array(items)
}

func encodeYAML(docs ...*yaml.Node) []byte {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, d := range docs {
		if err := e.Encode(d); err != nil {
			panic(err) // nodes that we made
		}
	}
	_ = e.Close() // a buffer takes all
	return b.Bytes()
}

func writeMarkdown(j *job) []File {
	escape := strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "<", `&lt;`, "`", "\\`", "[", `\[`)
	var p page
	p.line("# Outbound rules of %s", escape.Replace(oneLine(j.Name)))
	p.line("")
	p.line("| %s |", strings.Join(listHead, " | "))
	p.line("%s", strings.Repeat("|---", len(listHead))+"|")
	for _, r := range j.list().Items {
		cells := r.cells()
		for i := range cells {
			cells[i] = escape.Replace(oneLine(cells[i]))
		}
		p.line("| %s |", strings.Join(cells, " | "))
	}
	return one("rules.md", p.Bytes())
}
