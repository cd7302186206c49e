package aks

import (
	"cmp"
	"slices"
	"strconv"
)

// Destination is one destination of the catalogue, as it is listed.
type Destination struct {
	Row         string // the article row's id; empty when the article has none
	Alternative string // its place among alternatives; empty when it has none
	Section     string
	Cloud       string // public, china, usgov, or all
	Kind        string // network or fqdn
	Text        string // as the article writes it, or an endpoint
	Proto, Port string
	Need        string
	ID          string // of the catalogue's row
}

// List returns every destination of an edition, those of all clouds and
// alternatives included: what the article says to the letter (asStated), or
// what works.
func (c *Catalogue) List(edition Date, asStated bool) []Destination {
	var out []Destination
	for i := range c.Rows {
		r := &c.Rows[i]
		for cloud, l := range r.everyLine {
			if !l.in(edition) || (asStated && l.Row == "") {
				continue
			}
			out = append(out, r.destinations(cloud, l, asStated)...)
		}
	}
	return out
}

func (r *Row) destinations(cloud Cloud, l *Line, asStated bool) []Destination {
	ts, alternatives := l.templates()
	var texts []string
	if asStated && l.Stated != nil {
		texts = l.Stated.Text
		if len(l.Stated.To) > 0 {
			ts = l.Stated.To
		}
	}
	var out []Destination
	for i, t := range ts {
		d := Destination{
			Row: l.Row, Section: r.Section, Cloud: cmp.Or(cloud.String(), "all"), Kind: t.kind(),
			Text: t.Text(), Proto: t.proto(), Port: t.ports(), Need: r.Need.String(), ID: r.ID,
		}
		switch {
		case alternatives:
			d.Alternative = strconv.Itoa(i + 1)
		case l.Alternative > 0:
			d.Alternative = strconv.Itoa(l.Alternative)
		}
		if asStated {
			d.Text = t.stated()
			if i < len(texts) {
				d.Text = texts[i]
			}
			if r.NoProtocol {
				d.Proto = ""
			}
		}
		out = append(out, d)
	}
	return out
}

// Diff is how one edition differs from another.
type Diff struct {
	Removed, Added []Destination // as the article states them
	Text           []Change      // what changed besides, in the order of time
}

// Diff returns what changed from one edition to another, later one.
func (c *Catalogue) Diff(from, to Date) Diff {
	before, after := c.List(from, true), c.List(to, true)
	d := Diff{Removed: without(before, after), Added: without(after, before)}
	changes := slices.Clone(c.History)
	for i := range c.Rows {
		for _, h := range c.Rows[i].History {
			changes = append(changes, Change{h.Date, c.Rows[i].ID + ": " + h.Text})
		}
	}
	for _, h := range changes {
		if from.Before(h.Date) && !to.Before(h.Date) {
			d.Text = append(d.Text, h)
		}
	}
	slices.SortStableFunc(d.Text, func(a, b Change) int { return cmp.Compare(a.Date.s, b.Date.s) })
	return d
}

func without(list, other []Destination) []Destination {
	var out []Destination
	for _, d := range list {
		if !slices.Contains(other, d) {
			out = append(out, d)
		}
	}
	return out
}
