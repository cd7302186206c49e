package export

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"tidegate.io/tidegate/egress"
)

// page is a text under construction.
type page struct{ bytes.Buffer }

// line writes one line.
func (p *page) line(format string, args ...any) {
	fmt.Fprintf(p, format+"\n", args...)
}

// maxComment bounds a comment: Squid takes what is beyond 2,048 bytes for the
// next line, nginx has 4,096 for a comment, HAProxy 2,048 for a line.
const maxComment = 1000

// comment writes a comment behind mark. A text never ends it early, for its
// line breaks and control characters become spaces, and never goes on into the
// next line, for it is short and a backslash at its end is dropped: the reason of
// a rule that somebody else wrote must not become a line of the configuration.
func (p *page) comment(mark, text string) {
	p.line("%s %s", mark, strings.TrimRight(clip(oneLine(text), maxComment), ` \`))
}

// because writes the rule's id and reason as a comment.
func (p *page) because(mark string, r *egress.Rule) { p.comment(mark, reason(r)) }

// reason is a rule's id and reason.
func reason(r *egress.Rule) string {
	if r.Why == "" {
		return r.ID
	}
	return r.ID + ": " + r.Why
}

// oneLine is s in valid UTF-8, with a space for everything that is not seen:
// line breaks, control characters, which YAML takes nowhere, and the marks that
// turn the direction of writing, which would show a reader another configuration.
func oneLine(s string) string {
	s = strings.ToValidUTF8(s, "?")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// clip is s in at most n bytes, cut between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[:n]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// namer makes names of objects that are unique in one output, also to targets
// that take A for a, as Squid and Azure do, and hold nothing but letters, digits,
// '-' and, where it is allowed, '_'.
type namer struct {
	max  int // bytes
	sep  byte
	used map[string]bool
}

func newNamer(max int, sep byte) *namer { return &namer{max, sep, map[string]bool{}} }

// name joins words. A name that is taken already is numbered.
func (n *namer) name(words ...string) string {
	base := n.clean(strings.Join(words, string(n.sep)), n.max)
	name := base
	for i := 2; n.used[strings.ToLower(name)]; i++ {
		suffix := fmt.Sprintf("%c%d", n.sep, i)
		name = n.clean(base, n.max-len(suffix)) + suffix
	}
	n.used[strings.ToLower(name)] = true
	return name
}

// clean maps everything else to the separator, and begins and ends with a
// letter or digit, as most targets ask for.
func (n *namer) clean(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return rune(n.sep)
	}, s)
	s = strings.Trim(s, string(n.sep))
	if len(s) > max {
		s = s[:max]
	}
	if s = strings.Trim(s, string(n.sep)); s == "" {
		return "rule"
	}
	return s
}
