package aks

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Query is what people ask the catalogue about.
type Query struct {
	Text  string
	ID    string       // a row's id, the catalogue's or the article's
	Name  egress.Name  // zero: not about a name
	Addr  netip.Addr   // invalid: not about an address
	Tag   egress.Tag   // zero: not about a service tag
	Proto egress.Proto // zero: any
	Port  uint16       // 0: any
}

// ParseQuery reads a name, a pattern, a URL, an endpoint, host:port, an address,
// a service tag, or the id of a row. A pattern is asked about by one of its
// instances.
func (c *Catalogue) ParseQuery(s string) (Query, error) {
	q := Query{Text: s}
	host := s
	if c.hasID(s) {
		q.ID = s
		return q, nil
	}
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		var err error
		if q.Proto, err = egress.ParseProto(strings.ToLower(scheme)); err != nil {
			return q, err
		}
		u, err := url.Parse(s)
		if err != nil {
			var of *url.Error
			if errors.As(err, &of) {
				err = of.Err
			}
			return q, fmt.Errorf("%q: %w", s, err)
		}
		if host = u.Hostname(); strings.HasPrefix(rest, "@") {
			host = "@" + host // an endpoint's service tag; a URL reads an empty user there
		}
		if err := q.port(u.Port()); err != nil {
			return q, err
		}
		if u.Port() == "" {
			q.Port = map[egress.Proto]uint16{egress.HTTP: 80, egress.HTTPS: 443}[q.Proto]
		}
	} else if h, port, ok := strings.Cut(s, ":"); ok && !strings.Contains(port, ":") {
		if err := q.port(port); err != nil {
			return q, err
		}
		host = h
	}
	return q, q.host(host)
}

func (q *Query) port(s string) error {
	if s == "" {
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("%q: port %q: want 1 to 65535", q.Text, s)
	}
	q.Port = uint16(n)
	return nil
}

func (q *Query) host(s string) (err error) {
	if tag, ok := strings.CutPrefix(s, "@"); ok {
		q.Tag, err = egress.ParseTag(tag)
		return err
	}
	if q.Addr, err = netip.ParseAddr(s); err == nil {
		return nil
	}
	if strings.Contains(s, "*") {
		if _, err := egress.ParsePattern(s); err != nil {
			return err
		}
		s = strings.ReplaceAll(s, "*", "x")
	}
	q.Name, err = egress.ParseName(s)
	return err
}

func (c *Catalogue) hasID(s string) bool {
	for i := range c.Rows {
		if c.Rows[i].ID == s {
			return true
		}
		for _, l := range c.Rows[i].everyLine {
			if l.Row == s && s != "" {
				return true
			}
		}
	}
	return false
}

// Finding is a row that a query is about.
type Finding struct {
	Row   *Row
	Lines []FoundLine
}

// FoundLine is one line of a row that a query is about.
type FoundLine struct {
	Cloud  Cloud // zero: the article names none
	Line   *Line
	Stated bool // only to the letter: following it would not work
	Exact  bool // protocol and port are the row's; else the row wants others
}

// Find returns the rows that a query is about, of every cloud and edition.
func (c *Catalogue) Find(q Query) []Finding {
	var out []Finding
	for i := range c.Rows {
		f := Finding{Row: &c.Rows[i]}
		for cloud, l := range f.Row.everyLine {
			if found, ok := q.line(f.Row, cloud, l); ok {
				f.Lines = append(f.Lines, found)
			}
		}
		if len(f.Lines) > 0 {
			out = append(out, f)
		}
	}
	return out
}

func (q *Query) line(r *Row, cloud Cloud, l *Line) (FoundLine, bool) {
	f := FoundLine{Cloud: cloud, Line: l, Exact: true}
	if q.ID != "" {
		return f, q.ID == r.ID || q.ID == l.Row
	}
	ts, _ := l.templates()
	if same, exact := q.among(ts); same {
		f.Exact = exact
		return f, true
	}
	if l.Stated != nil {
		same, exact := q.among(l.Stated.To)
		f.Stated, f.Exact = true, exact
		return f, same
	}
	return f, false
}

// among reports whether a template holds the query's host, and whether one
// does on its protocol and port too.
func (q *Query) among(ts []Template) (same, exact bool) {
	for _, t := range ts {
		to, err := t.fill(anything)
		if err != nil {
			continue
		}
		for _, e := range to {
			if q.hostOf(e.Host) {
				same = true
				exact = exact || q.Port == 0 || e.Ports.Has(q.Port) && (q.Proto == 0 || q.Proto == e.Proto)
			}
		}
	}
	return same, exact
}

// anything fills a placeholder with a wildcard; where that cannot be written,
// not at all.
func anything(name string) ([]string, bool) {
	switch name {
	case "location", "region", "cluster-region-name":
		return []string{"*"}, true
	case "Region":
		return []string{"anywhere"}, true
	}
	return nil, true
}

func (q *Query) hostOf(h egress.Host) bool {
	switch h := h.(type) {
	case egress.Pattern:
		return h.Match(q.Name)
	case egress.Tag:
		want, _, regional := strings.Cut(h.Name(), ".")
		have, _, _ := strings.Cut(q.Tag.Name(), ".")
		return q.Tag.Name() != "" && strings.EqualFold(want, have) && (regional || strings.EqualFold(h.Name(), q.Tag.Name()))
	}
	return false
}

// FindSeen returns what is known of traffic that opens no rule.
func (c *Catalogue) FindSeen(q Query) (Seen, bool) {
	for _, s := range c.Seen {
		if s.Is(q.Name, q.Addr) {
			return s, true
		}
	}
	return Seen{}, false
}

// Is reports whether the traffic goes to this name or address.
func (s *Seen) Is(n egress.Name, a netip.Addr) bool {
	if addr, err := netip.ParseAddr(s.Match); err == nil {
		return addr == a
	}
	p, err := egress.ParsePattern(s.Match)
	return err == nil && p.Match(n)
}

// PrivateAPIServer reports whether n is an API server's name on a private link
// or a private zone, which no rule ever opens.
func PrivateAPIServer(n egress.Name) (Cloud, bool) {
	cloud, region, err := apiServerName(n)
	if err != nil {
		return 0, false
	}
	labels := strings.Split(n.String(), ".")
	at := slices.Index(labels, region)
	return cloud, at > 0 && (labels[at-1] == "privatelink" || labels[at-1] == "private")
}
