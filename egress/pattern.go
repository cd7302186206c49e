package egress

import (
	"errors"
	"fmt"
	"strings"
)

// maxStars bounds the wildcards of one pattern: two are what Azure's own
// endpoint lists need, and a bound keeps a pattern readable.
const maxStars = 2

// Pattern is a set of names, in three forms:
//
//	a.b.c        that name
//	*.b.c        one or more labels before b.c, never b.c itself
//	a.*.b.c      exactly one label in the place of the star
//	md-*.b.c     the star is one or more bytes of its own label
//
// It is comparable; the zero Pattern matches nothing.
type Pattern struct{ s string }

// ParsePattern reads a pattern and puts it into canonical form. What looks like
// a pattern and means something else in another product ("*a.b", ".a.b",
// "**.a.b", "*") is refused with the spelling that was probably meant. At least
// the last two labels must be fixed.
func ParsePattern(s string) (Pattern, error) {
	if err := checkPattern(s); err != nil {
		return Pattern{}, fmt.Errorf("pattern %q: %w", clip(s), err)
	}
	return Pattern{lower(strings.TrimSuffix(s, "."))}, nil
}

// MustParsePattern is ParsePattern for constants: it panics on an error.
func MustParsePattern(s string) Pattern {
	p, err := ParsePattern(s)
	if err != nil {
		panic(err)
	}
	return p
}

// Exactly returns the pattern that matches n and nothing else.
func Exactly(n Name) Pattern { return Pattern(n) }

func checkPattern(s string) error {
	switch {
	case s == "*":
		return errors.New("any name at all; name what is needed, or use an address rule")
	case strings.HasPrefix(s, "**."):
		return fmt.Errorf("write %q for one or more labels", s[1:])
	case strings.HasPrefix(s, "."):
		return fmt.Errorf("write %q for names below it, and %q as well if it is needed itself", "*"+s, s[1:])
	}
	s = strings.TrimSuffix(s, ".")
	if strings.IndexByte(s, '*') < 0 {
		return checkName(s)
	}
	labels := strings.Count(s, ".") + 1
	stars := 0
	for label := range strings.SplitSeq(s, ".") {
		labels--
		n := strings.Count(label, "*")
		stars += n
		switch {
		case n == 0:
			continue
		case n > 1:
			return errors.New("more than one * in a label")
		case len(label) > 1 && label[0] == '*':
			return fmt.Errorf("a * that begins a longer label also matches look-alikes; write \"*.\" before %q", label[1:])
		case labels < 2:
			return errors.New("the last two labels must not hold a *")
		}
	}
	if stars > maxStars {
		return fmt.Errorf("more than %d wildcards", maxStars)
	}
	// With each star in the shape of an ordinary byte, the rest is a name.
	return checkName(strings.ReplaceAll(s, "*", "x"))
}

// Exact returns the one name that p matches, if it is only one.
func (p Pattern) Exact() (Name, bool) {
	if p.s == "" || strings.IndexByte(p.s, '*') >= 0 {
		return Name{}, false
	}
	return Name(p), true
}

// Match reports whether n is in the set. It does not allocate.
func (p Pattern) Match(n Name) bool {
	if p.s == "" || n.s == "" {
		return false
	}
	pat, name := p.s, n.s
	for {
		pi, ni := strings.LastIndexByte(pat, '.'), strings.LastIndexByte(name, '.')
		label := pat[pi+1:]
		if pi < 0 && label == "*" {
			return true // leading star: this label and any number before it
		}
		if !matchLabel(label, name[ni+1:]) {
			return false
		}
		if pi < 0 || ni < 0 {
			return pi < 0 && ni < 0
		}
		pat, name = pat[:pi], name[:ni]
	}
}

func matchLabel(pat, label string) bool {
	star := strings.IndexByte(pat, '*')
	if star < 0 {
		return pat == label
	}
	before, after := pat[:star], pat[star+1:]
	return len(label) > len(before)+len(after) && strings.HasPrefix(label, before) && strings.HasSuffix(label, after)
}

// Fixed returns the labels to the right of the last wildcard: the narrowest
// domain that holds every name of the set. For an exact pattern it is the name.
func (p Pattern) Fixed() Name {
	star := strings.LastIndexByte(p.s, '*')
	if star < 0 {
		return Name(p)
	}
	rest := p.s[star:]
	return Name{rest[strings.IndexByte(rest, '.')+1:]}
}

// plain reports whether every name below Fixed matches: the form "*.b.c".
func (p Pattern) plain() bool { return strings.LastIndexByte(p.s, '*') == 0 }

// String returns the canonical text.
func (p Pattern) String() string { return p.s }

// MarshalText is String.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.s), nil }

// UnmarshalText is ParsePattern.
func (p *Pattern) UnmarshalText(b []byte) error {
	q, err := ParsePattern(string(b))
	if err != nil {
		return err
	}
	*p = q
	return nil
}
