package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// apiVersion of everything that is printed as JSON or YAML. Fields are only
// ever added.
const apiVersion = "tidegate.io/v1"

// outputFlag adds -o with the formats that a command has; the first is the default.
func outputFlag(cmd *cobra.Command, to *string, formats ...string) {
	cmd.Flags().StringVarP(to, "output", "o", formats[0], strings.Join(formats, ", "))
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, *to) {
			return fmt.Errorf("output %q: want %s", *to, strings.Join(formats, ", "))
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

// writeJSON prints v for programs and people: indented, with <, > and & as they are.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeYAML prints v with the names and the order of its JSON, and with every
// string quoted, so that no reader takes a word for something else.
func writeYAML(w io.Writer, v any) error {
	var b bytes.Buffer
	if err := writeJSON(&b, v); err != nil {
		return err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(b.Bytes(), &n); err != nil {
		return err
	}
	block(&n, false)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return err
	}
	return e.Close()
}

// block turns JSON's braces into YAML's lines; keys need no quotes.
func block(n *yaml.Node, key bool) {
	if key {
		n.Style = 0
	} else if len(n.Content) > 0 {
		n.Style &^= yaml.FlowStyle
	}
	for i, c := range n.Content {
		block(c, n.Kind == yaml.MappingNode && i%2 == 0)
	}
}

func writeCSV(w io.Writer, head []string, rows [][]string) error {
	c := csv.NewWriter(w)
	if err := c.Write(head); err != nil {
		return err
	}
	return c.WriteAll(rows)
}

// writeMarkdown prints a table; what would end a cell is escaped.
func writeMarkdown(w io.Writer, head []string, rows [][]string) {
	escape := strings.NewReplacer("|", `\|`, "*", `\*`, "<", `\<`, "\n", " ")
	line := func(cells []string, escaped bool) {
		for _, cell := range cells {
			if escaped {
				cell = clean(escape.Replace(cell))
			}
			fmt.Fprintf(w, "| %s ", cell)
		}
		fmt.Fprintln(w, "|")
	}
	line(head, false)
	fmt.Fprintln(w, strings.Repeat("|---", len(head))+"|")
	for _, r := range rows {
		line(r, true)
	}
}

// writeColumns aligns rows; the last column is as long as it is.
func writeColumns(w io.Writer, indent string, rows [][]string) {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(plain(cell)))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		b.WriteString(indent)
		for i, cell := range r {
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(plain(cell))+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// paint colours text where people look at it.
type paint bool

// painting: colour is for terminals, and not for those who said NO_COLOR.
func painting(w io.Writer) paint {
	return paint(os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

func (p paint) code(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) bold(s string) string   { return p.code("1", s) }
func (p paint) dim(s string) string    { return p.code("2", s) }
func (p paint) red(s string) string    { return p.code("31", s) }
func (p paint) green(s string) string  { return p.code("32", s) }
func (p paint) yellow(s string) string { return p.code("33", s) }

// plain is s without paint.
func plain(s string) string {
	for {
		before, rest, ok := strings.Cut(s, "\x1b[")
		if !ok {
			return s
		}
		_, after, _ := strings.Cut(rest, "m")
		s = before + after
	}
}

// clean takes control characters out of what came from a file, so that a
// cluster's name cannot repaint the terminal of whoever looks at it.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
}

// width is what people's terminals are taken to hold.
const width = 100

// wrap breaks text into lines that fit behind indent; every line but the first
// begins with indent. Words are never broken.
func wrap(indent, text string) string {
	var b strings.Builder
	column := len(indent)
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
