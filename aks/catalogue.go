package aks

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"sync"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/egress"
)

// Row is one row of the article across clouds: what is needed, under which
// facts, and why.
type Row struct {
	ID         string      `yaml:"id"`
	Section    string      `yaml:"-"` // of its file, see [Sections]
	Need       egress.Need `yaml:"need"`
	Why        string      `yaml:"why"`    // one sentence for people
	Breaks     string      `yaml:"breaks"` // what is seen without it
	Source     string      `yaml:"source"` // where it is written; its file's if empty
	When       []Feature   `yaml:"when"`   // all of them have to be on
	Unless     []Feature   `yaml:"unless"` // none of them may be on
	Notes      []RowNote   `yaml:"notes"`
	History    []Change    `yaml:"history"`
	NoProtocol bool        `yaml:"no-protocol"` // the article gives the port alone
	All        []Line      `yaml:"all"`         // the article names no cloud
	Public     []Line      `yaml:"public"`
	China      []Line      `yaml:"china"`
	USGov      []Line      `yaml:"usgov"`
	File       string      `yaml:"-"`
	At         int         `yaml:"-"` // its line in File
}

// Line is what a row says for one cloud, for as long as the article said so.
type Line struct {
	Row         string     `yaml:"row"`         // the article row's id; empty when the article has none
	Since       Date       `yaml:"since"`       // zero: from the oldest edition on
	Until       Date       `yaml:"until"`       // the first day without it; zero: still there
	To          []Template `yaml:"to"`          // every one is needed
	Any         []Template `yaml:"any"`         // one is enough; from the widest to the narrowest
	None        string     `yaml:"none"`        // why there is nothing
	Alternative int        `yaml:"alternative"` // its place in a cell that joins clouds by "or"
	Source      string     `yaml:"source"`      // where it is written, if not in the row's source
	Stated      *Stated    `yaml:"stated"`      // where the article says something else
}

// Stated is the article to the letter, where following it would not work or
// would open what is not needed.
type Stated struct {
	To     []Template `yaml:"to"`     // in the place of the line's
	Text   []string   `yaml:"text"`   // the destinations verbatim, where no endpoint can be written that way
	When   []Feature  `yaml:"when"`   // in the place of the row's, if given
	Unless []Feature  `yaml:"unless"` // in the place of the row's, if given
	Take   int        `yaml:"take"`   // the only alternative that the article offers without a condition
	Why    string     `yaml:"why"`    // why it is not followed
}

// RowNote is something to know about a row, such as a contradiction.
type RowNote struct {
	Cloud Cloud  `yaml:"cloud"` // zero: in every cloud
	Level Level  `yaml:"level"`
	Text  string `yaml:"text"`
}

// Change is a change of the article's text that changes no destination.
type Change struct {
	Date Date   `yaml:"date"`
	Text string `yaml:"text"`
}

// Seen is traffic that clusters show and that opens no rule.
type Seen struct {
	Match string `yaml:"match"` // a pattern or an address
	State State  `yaml:"state"`
	Why   string `yaml:"why"`
}

// State says what to make of traffic.
type State string

// The states of rules and of traffic that has none.
const (
	Needed        State = "needed"        // has to be opened at the firewall
	Proxied       State = "proxied"       // goes to the cluster's HTTP proxy, so it belongs into the proxy's list
	Benign        State = "benign"        // may be denied without a trace
	Informational State = "informational" // may be denied, at a small cost
	Platform      State = "platform"      // never passes a firewall
)

// Catalogue is every row, in the order of [Sections]. It must not be changed.
type Catalogue struct {
	Rows    []Row
	Seen    []Seen
	History []Change // of the article as a whole, and of its sections
}

// Sections are the article's, in its order, with their titles.
var sections = []struct{ name, title string }{
	{"required-fqdn", "Every cluster, by name"},
	{"required-network", "Every cluster, by address"},
	{"recommended", "Recommended: updates of Ubuntu"},
	{"gpu", "GPU node pools"},
	{"windows", "Windows node pools"},
	{"workload-identity", "Workload identity"},
	{"defender", "Microsoft Defender for Containers"},
	{"keyvault", "Key Vault provider for secrets"},
	{"monitor", "Azure Monitor"},
	{"policy", "Azure Policy"},
	{"cost-analysis", "Cost analysis"},
	{"extensions", "Cluster extensions"},
	{"proxy", "The cluster's HTTP proxy"},
}

// SectionTitle returns a section's title for people.
func SectionTitle(name string) string {
	for _, s := range sections {
		if s.name == name {
			return s.title
		}
	}
	return name
}

//go:embed catalogue/*.yaml
var embedded embed.FS

// Embedded returns the catalogue of this version. That it reads and passes
// [Lint] is a test's matter, so that it cannot fail here.
var Embedded = sync.OnceValue(func() *Catalogue {
	c, err := ReadCatalogue(embedded)
	if err != nil {
		panic(err)
	}
	return c
})

// ReadCatalogue reads every .yaml file of fsys. Unknown and doubled keys are
// errors; every error names file and line.
func ReadCatalogue(fsys fs.FS) (*Catalogue, error) {
	names, err := yamlFiles(fsys)
	if err != nil {
		return nil, err
	}
	c := &Catalogue{}
	for _, name := range names {
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		if err := c.add(name, b); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(c.Rows, func(a, b Row) int { return sectionIndex(a.Section) - sectionIndex(b.Section) })
	slices.SortStableFunc(c.History, func(a, b Change) int { return bytes.Compare([]byte(a.Date.s), []byte(b.Date.s)) })
	return c, nil
}

func yamlFiles(fsys fs.FS) ([]string, error) {
	names, err := fs.Glob(fsys, "catalogue/*.yaml")
	if err == nil && len(names) == 0 {
		names, err = fs.Glob(fsys, "*.yaml")
	}
	if err == nil && len(names) == 0 {
		err = errors.New("no .yaml file")
	}
	return names, err
}

func sectionIndex(name string) int {
	for i, s := range sections {
		if s.name == name {
			return i
		}
	}
	return -1
}

// catalogueFile is one section of the catalogue.
type catalogueFile struct {
	Section string   `yaml:"section"`
	Source  string   `yaml:"source"`
	History []Change `yaml:"history"`
	Rows    []Row    `yaml:"rows"`
	Seen    []Seen   `yaml:"seen"`
}

func (c *Catalogue) add(name string, b []byte) error {
	var f catalogueFile
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	switch err := d.Decode(&f); {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s: empty", name)
	case err != nil:
		return yamlError(name, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: a second document", name)
	}
	if len(f.Rows) > 0 && sectionIndex(f.Section) < 0 {
		return fmt.Errorf("%s:1: section %q: there is none of this name", name, f.Section)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(b, &root); err != nil {
		return yamlError(name, err)
	}
	lines := rowLines(&root)
	for i, r := range f.Rows {
		r.Section, r.File = f.Section, name
		if i < len(lines) { // rows that a merge key brings in have no line of their own
			r.At = lines[i]
		}
		if r.Source == "" {
			r.Source = f.Source
		}
		c.Rows = append(c.Rows, r)
	}
	c.Seen = append(c.Seen, f.Seen...)
	c.History = append(c.History, f.History...)
	return nil
}

// rowLines are the lines on which the rows begin.
func rowLines(root *yaml.Node) []int {
	var lines []int
	top := root.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		if top[i].Value == "rows" {
			for _, row := range top[i+1].Content {
				lines = append(lines, row.Line)
			}
		}
	}
	return lines
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)`)

// yamlError puts the file in front of the line that the YAML library names.
func yamlError(name string, err error) error {
	texts := []string{err.Error()}
	var all *yaml.TypeError
	if errors.As(err, &all) {
		texts = texts[:0]
		for _, e := range all.Errors {
			texts = append(texts, fmt.Sprint(e))
		}
	}
	var errs []error
	for _, text := range texts {
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			errs = append(errs, fmt.Errorf("%s:%s: %s", name, m[1], m[2]))
			continue
		}
		errs = append(errs, fmt.Errorf("%s: %s", name, text))
	}
	return errors.Join(errs...)
}

// Row returns the row with this id.
func (c *Catalogue) Row(id string) (Row, bool) {
	for _, r := range c.Rows {
		if r.ID == id {
			return r, true
		}
	}
	return Row{}, false
}

// Lines are what the row says for a cloud in an edition.
func (r *Row) Lines(c Cloud, edition Date) []Line {
	var out []Line
	for _, l := range append(slices.Clone(r.All), r.cloud(c)...) {
		if l.in(edition) {
			out = append(out, l)
		}
	}
	return out
}

func (r *Row) cloud(c Cloud) []Line {
	switch c {
	case Public:
		return r.Public
	case China:
		return r.China
	case USGov:
		return r.USGov
	}
	return nil
}

// everyLine visits the lines of all clouds; those that name no cloud come as
// the zero Cloud.
func (r *Row) everyLine(yield func(Cloud, *Line) bool) {
	for _, of := range []struct {
		cloud Cloud
		lines []Line
	}{{0, r.All}, {Public, r.Public}, {China, r.China}, {USGov, r.USGov}} {
		for i := range of.lines {
			if !yield(of.cloud, &of.lines[i]) {
				return
			}
		}
	}
}

// in reports whether the article said this on the edition's day.
func (l *Line) in(edition Date) bool {
	return !edition.Before(l.Since) && (l.Until.IsZero() || edition.Before(l.Until))
}

// templates are the line's destinations: every one needed, or alternatives.
func (l *Line) templates() (ts []Template, alternatives bool) {
	if len(l.Any) > 0 {
		return l.Any, true
	}
	return l.To, false
}

// source is where the line is written.
func (r *Row) source(l *Line) string {
	if l.Source != "" {
		return l.Source
	}
	return r.Source
}
