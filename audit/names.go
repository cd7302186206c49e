package audit

import (
	"strings"

	"tidegate.io/tidegate/egress"
)

// lead is what may stand to the left of the labels that a set of names spells out.
type lead uint8

const (
	nothing     lead = iota // the labels are the whole name
	below                   // one label or more
	apexOrBelow             // any number of labels, or none
	anyBytes                // anything at all, so that look-alikes are in the set
)

// names is a set of names as its source means it. The zero set holds none.
type names struct {
	lead lead
	// rest is lower case, its labels may hold stars, and a star stays in its label.
	// It is empty only for the set of all names, whose lead is anyBytes.
	rest string
	zero bool // a star may stand for nothing
}

var allNames = names{lead: anyBytes}

// none reports whether the set is the zero set.
func (n names) none() bool { return n == names{} }

// exact reports whether the set holds a single name.
func (n names) exact() bool { return n.lead == nothing && n.plain() }

// has reports whether the set holds a name, given in lower case without a
// trailing dot.
func (n names) has(name string) bool {
	rest := n.rest
	if n.lead == anyBytes {
		return strings.HasSuffix(name, rest)
	}
	for rest != "" {
		if name == "" {
			return false
		}
		ri, ni := strings.LastIndexByte(rest, '.'), strings.LastIndexByte(name, '.')
		if !n.label(rest[ri+1:], name[ni+1:]) {
			return false
		}
		rest, name = rest[:max(ri, 0)], name[:max(ni, 0)]
	}
	switch n.lead {
	case below:
		return name != "" && n.rest != ""
	case apexOrBelow:
		return n.rest != ""
	}
	return name == "" && n.rest != ""
}

// label matches one label, of which every star takes a run of bytes. What
// stands between two stars is looked for as far to the left as it goes, so that
// a pattern of many stars costs no more than its length times the label's.
func (n names) label(pattern, label string) bool {
	part, pattern, star := strings.Cut(pattern, "*")
	if !star {
		return part == label
	}
	if !strings.HasPrefix(label, part) {
		return false
	}
	label = label[len(part):]
	least := 1
	if n.zero {
		least = 0
	}
	for {
		if len(label) < least {
			return false
		}
		if part, pattern, star = strings.Cut(pattern, "*"); !star {
			return strings.HasSuffix(label[least:], part)
		}
		i := strings.Index(label[least:], part)
		if i < 0 {
			return false
		}
		label = label[least+i+len(part):]
	}
}

// fresh stands for a byte that no set spells out: only a wildcard takes it.
const fresh = "\x01"

// covers reports whether every name of the pattern is in the set.
func (n names) covers(p egress.Pattern) bool { return n.holds(namesOf(p)) }

// holds reports whether every name of m is in n too. A set that takes a fresh
// byte takes any run of bytes in its place, for all wildcards are unbounded; so
// one instance for each number of labels that a set can tell apart stands for
// all names.
func (n names) holds(m names) bool {
	switch {
	case m.none() || n.none():
		return false
	case m.lead == anyBytes:
		return n.lead == anyBytes && strings.HasSuffix(m.rest, n.rest)
	case m.exact():
		return n.has(m.rest)
	case n.exact() || n.plain() && !strings.HasSuffix(m.rest, n.rest):
		return false // most pairs of sets, at the cost of a comparison
	}
	for _, instance := range m.instances(fresh) {
		if !n.has(instance) {
			return false
		}
	}
	return true
}

// plain reports whether the labels that the set spells out hold no star.
func (n names) plain() bool { return !strings.Contains(n.rest, "*") }

// overlaps reports whether a name is known that both sets hold.
func (n names) overlaps(m names) bool {
	switch {
	case n.exact():
		return !n.none() && m.has(n.rest)
	case m.exact():
		return !m.none() && n.has(m.rest)
	case n.plain() && m.plain() && !strings.HasSuffix(n.rest, m.rest) && !strings.HasSuffix(m.rest, n.rest):
		return false
	}
	for _, instance := range m.instances(fresh) {
		if n.has(instance) {
			return true
		}
	}
	for _, instance := range n.instances(fresh) {
		if m.has(instance) {
			return true
		}
	}
	return false
}

// instances are names of the set, with fill in the place of stars.
func (n names) instances(fill string) []string {
	bases := []string{strings.ReplaceAll(n.rest, "*", fill)}
	if short := "." + strings.ReplaceAll(n.rest, "*", ""); n.zero && !strings.Contains(short, "..") {
		bases = append(bases, short[1:]) // no label is empty
	}
	var out []string
	for _, base := range bases {
		one := fill + "." + base
		deep := []string{one, fill + "." + one, fill + "." + fill + "." + one}
		switch {
		case n.none():
		case n.rest == "":
			out = append(out, fill, fill+"."+fill)
		case n.lead == nothing:
			out = append(out, base)
		case n.lead == below:
			out = append(out, deep...)
		default:
			out = append(append(out, base), deep...)
		}
	}
	return out
}

// namesOf is a pattern of ours.
func namesOf(p egress.Pattern) names {
	if rest, deep := strings.CutPrefix(p.String(), "*."); deep {
		return names{lead: below, rest: rest}
	}
	return names{rest: p.String()}
}

// Readers of names, one for each dialect. They refuse what no name can be.

// azureNames reads a target of an application rule: a star may stand to the
// left only, and what follows it need not begin a label.
func azureNames(s string) (names, bool) {
	s = lower(s)
	rest, star := strings.CutPrefix(s, "*")
	switch {
	case s == "*":
		return allNames, true
	case !star:
		return spelled(nothing, s)
	case strings.HasPrefix(rest, "."):
		return spelled(below, rest[1:])
	}
	return spelled(anyBytes, rest)
}

// ciliumNames reads a matchPattern: a star takes any part of one label, nothing
// included; two in front of the first dot take labels.
func ciliumNames(s string) (names, bool) {
	s = lower(s)
	if s == "*" || s == "**" {
		return allNames, true
	}
	n, ok := names{}, false
	if rest, deep := strings.CutPrefix(s, "**."); deep {
		n, ok = starred(below, rest)
	} else {
		n, ok = starred(nothing, s)
	}
	n.zero = true
	return n, ok
}

// squidNames reads a dstdomain: a leading dot takes everything below, and the
// name itself.
func squidNames(s string) (names, bool) {
	if rest, dot := strings.CutPrefix(lower(s), "."); dot {
		return spelled(apexOrBelow, rest)
	}
	return spelled(nothing, lower(s))
}

// plainNames reads a pattern of ours, and the star alone.
func plainNames(s string) (names, bool) {
	s = lower(s)
	if s == "*" {
		return allNames, true
	}
	p, err := egress.ParsePattern(s)
	if err != nil {
		return names{}, false
	}
	return namesOf(p), true
}

func spelled(l lead, rest string) (names, bool) {
	if strings.Contains(rest, "*") {
		return names{}, false
	}
	return starred(l, rest)
}

func starred(l lead, rest string) (names, bool) {
	probe := strings.ReplaceAll(rest, "*", "x")
	if l == anyBytes {
		probe = "x" + probe
	}
	_, err := egress.ParseName(probe)
	return names{lead: l, rest: rest}, err == nil
}

// lower is ASCII only, as names are compared.
func lower(s string) string {
	s = strings.TrimSuffix(s, ".")
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for i, c := range b {
				if 'A' <= c && c <= 'Z' {
					b[i] = c + 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
