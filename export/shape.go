package export

import (
	"regexp"
	"strings"

	"tidegate.io/tidegate/egress"
)

// shape is a set of kinds of patterns.
type shape uint8

// The kinds. A pattern may be of several: *.a-*.b.c is below and inner.
const (
	shapeExact shape = 1 << iota // a.b.c
	shapeBelow                   // *.b.c, any depth, and not b.c
	shapeLabel                   // a.*.b.c, exactly one label
	shapeInner                   // md-*.b.c, one or more bytes of a label
)

const shapeAll = shapeExact | shapeBelow | shapeLabel | shapeInner

var shapeWords = map[shape]string{
	shapeExact: "names",
	shapeBelow: "*.a.b",
	shapeLabel: "a.*.b.c",
	shapeInner: "md-*.a.b",
}

func shapeOf(p egress.Pattern) shape {
	s := shape(0)
	for i, label := range strings.Split(p.String(), ".") {
		switch {
		case !strings.Contains(label, "*"):
		case label != "*":
			s |= shapeInner
		case i == 0:
			s |= shapeBelow
		default:
			s |= shapeLabel
		}
	}
	if s == 0 {
		return shapeExact
	}
	return s
}

func (s shape) holds(t shape) bool { return s&t == t }

// missing is the first kind of s that has lacks, in words. Where there are no
// names at all, it is names.
func (s shape) missing(has shape) string {
	if has == 0 {
		return shapeWords[shapeExact]
	}
	for k := shapeExact; k <= shapeInner; k <<= 1 {
		if s.holds(k) && !has.holds(k) {
			return shapeWords[k]
		}
	}
	return shapeWords[shapeExact]
}

// words is missing, as part of a sentence.
func (s shape) words(has shape) string {
	if has == 0 {
		return "names"
	}
	return "pattern like " + s.missing(has)
}

// lacks names every kind that is not in s. Without names there are no others.
func (s shape) lacks() string {
	if s == 0 {
		return shapeWords[shapeExact]
	}
	var words []string
	for k := shapeBelow; k <= shapeInner; k <<= 1 {
		if !s.holds(k) {
			words = append(words, shapeWords[k])
		}
	}
	return strings.Join(words, " or ")
}

// spelling is how a target wants names to be spelled. The zero spelling is as DNS
// has them, with underscores, of one label, and of 253 bytes.
type spelling struct {
	is  *regexp.Regexp // a name, or what follows "*."
	not string         // what else DNS takes, in words
}

func (s spelling) takes(p egress.Pattern) bool {
	return s.is == nil || s.is.MatchString(strings.TrimPrefix(p.String(), "*."))
}

// belowFixed is the narrowest pattern of the form *.a.b that holds all of p; ok
// is false for a name.
func belowFixed(p egress.Pattern) (wide egress.Pattern, ok bool) {
	if _, exact := p.Exact(); exact {
		return p, false
	}
	wide, err := egress.ParsePattern("*." + p.Fixed().String())
	return wide, err == nil
}

// expression is an anchored regular expression, alike in POSIX extended syntax,
// PCRE and RE2, for names in lower case. For what is not lower case it has to
// be matched without regard to case.
func expression(p egress.Pattern) string {
	const one = "[a-z0-9_-]+"
	labels := strings.Split(p.String(), ".")
	for i, label := range labels {
		if label == "*" && i == 0 {
			labels[i] = "(" + one + `\.)*` + one
			continue
		}
		labels[i] = strings.ReplaceAll(label, "*", one)
	}
	return "^" + strings.Join(labels, `\.`) + "$"
}
