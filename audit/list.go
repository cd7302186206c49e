package audit

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/egress"
)

// A plain list holds a destination a line: an endpoint (https://a.b:443), a
// name, a name with a port, an address or a prefix. A name alone is taken for
// HTTPS on port 443, and a slash at the end of a name is that of a URL list.
// Where some end with one, what does not is open to the right: Palo Alto's URL
// lists take a.b for a.b.evil.example too. CSV and JSON as this program prints them are lists too. The stars mean what
// they mean in package egress.

func (p *Policy) readList(b []byte) error {
	p.Format = List
	lines := strings.Split(string(b), "\n")
	if head := strings.Split(strings.TrimSpace(lines[0]), ","); slices.Contains(head, "host") || slices.Contains(head, "to") {
		return p.readCSV(b)
	}
	understood := false
	for i, line := range lines {
		line, _, _ = strings.Cut(line, "#")
		line = strings.Trim(strings.TrimSpace(line), `",`)
		if line == "" || strings.HasPrefix(line, "//") || strings.HasPrefix(line, ";") {
			continue
		}
		at := fmt.Sprintf("line %d", i+1)
		ok, err := p.addDestination(at, line)
		if err != nil {
			return err
		}
		understood = understood || ok
	}
	if slashed := func(g grant) bool { return strings.HasSuffix(g.text, "/") }; slices.ContainsFunc(p.grants, slashed) {
		for i := range p.grants {
			g := &p.grants[i]
			g.open = !g.to.names.none() && !strings.Contains(g.text, "/")
		}
	}
	if !understood {
		return fmt.Errorf("no line of it is a destination, as in https://mcr.microsoft.com:443")
	}
	return nil
}

func (p *Policy) addDestination(at, s string) (bool, error) {
	e, err := listed(s)
	if err != nil {
		p.unread(at, "%q: %v", s, err)
		return false, nil
	}
	return true, p.add(ofEndpoint(at, s, e))
}

// listed reads one destination of a list.
func listed(s string) (egress.Endpoint, error) {
	if strings.Contains(s, "://") {
		if e, err := egress.ParseEndpoint(s); err == nil {
			return e, nil
		}
		scheme, rest, _ := strings.Cut(s, "://")
		rest = strings.TrimRight(rest, "/")
		port := map[string]string{"http": ":80", "https": ":443"}[strings.ToLower(scheme)]
		return egress.ParseEndpoint(strings.ToLower(scheme) + "://" + rest + port)
	}
	if p, ok := azurePrefixes(s); ok && len(p) == 1 {
		return egress.Endpoint{Proto: egress.TCP, Host: egress.Net{Prefix: p[0]}, Ports: egress.Ports{First: 443, Last: 443}}, nil
	}
	host, port, ok := strings.Cut(strings.TrimRight(s, "/"), ":")
	if !ok {
		port = "443"
	}
	proto := "https"
	if port == "80" {
		proto = "http"
	}
	return egress.ParseEndpoint(proto + "://" + host + ":" + port)
}

func ofEndpoint(at, text string, e egress.Endpoint) grant {
	g := grant{at: at, text: text, tier: networkTier, protos: []egress.Proto{e.Proto}, ports: e.Ports}
	switch h := e.Host.(type) {
	case egress.Pattern:
		g.to.names = namesOf(h)
	case egress.Net:
		g.to.net = h.Prefix
	case egress.Tag:
		g.to.tag = h.Name()
	}
	return g
}

var yamlList = regexp.MustCompile(`(?m)^kind:\s*"?(EndpointList|Rules)"?\s*$`)

// readYAMLList reads the same as JSON.
func (p *Policy) readYAMLList(b []byte) error {
	var doc struct{ Items []map[string]any }
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	items, err := json.Marshal(doc.Items)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	return p.readItems(items)
}

// readItems reads the items of `export --to json` and of `rules -o json`.
func (p *Policy) readItems(b []byte) error {
	p.Format = List
	var items []struct {
		ID, Rule           string
		To                 []string
		Proto, Host, Ports string
		Kind               string
		From               []string
	}
	if err := json.Unmarshal(b, &items); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, it := range items {
		at := it.ID + it.Rule
		to := it.To
		if it.Host != "" {
			to = append(to, itemText(it.Proto, it.Kind, it.Host, it.Ports))
		}
		for _, s := range to {
			if err := p.addItem(at, s, it.From); err != nil {
				return err
			}
		}
	}
	return nil
}

func itemText(proto, kind, host, ports string) string {
	switch {
	case kind == "tag":
		host = "@" + host
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	return proto + "://" + host + ":" + ports
}

func (p *Policy) addItem(at, s string, from []string) error {
	e, err := egress.ParseEndpoint(s)
	if err != nil {
		return fmt.Errorf("list: %s: %w", at, err)
	}
	g := ofEndpoint(at, s, e)
	for _, f := range from {
		prefix, err := netip.ParsePrefix(f)
		if err != nil {
			return fmt.Errorf("list: %s: %w", at, err)
		}
		g.from = append(g.from, prefix)
	}
	return p.add(g)
}

// readCSV reads the columns of `export --to csv` and of `rules -o csv`.
func (p *Policy) readCSV(b []byte) error {
	r := csv.NewReader(bytes.NewReader(b))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		return fmt.Errorf("CSV: %w", err)
	}
	column := func(row []string, names ...string) string {
		for _, name := range names {
			if i := slices.Index(rows[0], name); i >= 0 && i < len(row) {
				return strings.TrimPrefix(row[i], "'") // a guard against spreadsheets
			}
		}
		return ""
	}
	for i, row := range rows[1:] {
		at := column(row, "rule", "id")
		if at == "" {
			at = fmt.Sprintf("row %d", i+2)
		}
		s := column(row, "to")
		if s == "" {
			s = itemText(column(row, "proto"), column(row, "kind"), column(row, "host"), column(row, "ports"))
		}
		if err := p.addItem(at, s, strings.Fields(column(row, "from"))); err != nil {
			return err
		}
	}
	return nil
}
