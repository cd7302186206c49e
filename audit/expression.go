package audit

import (
	"regexp"
	"strings"
)

// Squid's expressions (dstdom_regex, ssl::server_name_regex) match anywhere in a
// name unless they are anchored. Of the language only what people write for
// names is understood; the rest is a finding, and covers nothing.

var (
	// oneLabel is one or more bytes of a label.
	oneLabel  = regexp.MustCompile(`\[(?:a-z0-9_-|a-z0-9-|\^\.|\\w-|a-zA-Z0-9-|a-zA-Z0-9_-)\]\+`)
	foreign   = regexp.MustCompile(`\\[A-Z]|[^ -~]`) // a class such as \W, which is another in lower case, and what no name holds
	plainName = regexp.MustCompile(`^[a-z0-9_` + label + `-]+(\.[a-z0-9_` + label + `-]+)*$`)
)

// label stands in an expression for what oneLabel matches: a byte that none has, for a star is
// the expression's own.
const label = "\x00"

// expressionLeads are what people write for the labels to the left.
var expressionLeads = []struct {
	text     string
	anchored bool // it means this behind a ^, and elsewhere without one
	lead     lead
}{
	{`(` + label + `\.)*` + label + `\.`, true, below}, // any labels, and one
	{`(.*\.)?`, true, apexOrBelow},
	{`(.+\.)?`, true, apexOrBelow},
	{`(` + label + `\.)*`, true, apexOrBelow},
	{`.*\.`, true, below},
	{`.+\.`, true, below},
	{`.*`, true, anyBytes},
	{`(^|\.)`, false, apexOrBelow},
	{`.*\.`, false, below},
	{`.+\.`, false, below},
	{`\.`, false, below},
	{`.*`, false, anyBytes},
	{``, false, anyBytes},
	{``, true, nothing},
}

// expressionNames reads an expression as a set of names: no more than it takes,
// where an unescaped dot is taken for a dot. open means that anything may follow
// the name; ok is false where the set cannot be said.
func expressionNames(s string) (n names, open, ok bool) {
	if foreign.MatchString(s) {
		return names{}, false, false
	}
	rest, end := strings.CutSuffix(s, "$")
	rest, begin := strings.CutPrefix(strings.ToLower(oneLabel.ReplaceAllString(rest, label)), "^")
	switch {
	case rest == "" && begin && end: // the empty name, which nobody has
		return names{}, false, false
	case rest == "", rest == ".*", rest == ".+":
		return allNames, false, true
	}
	for _, l := range expressionLeads {
		after, found := strings.CutPrefix(rest, l.text)
		if !found || l.anchored != begin {
			continue
		}
		after = strings.ReplaceAll(after, `\.`, ".")
		if !plainName.MatchString(after) || l.lead == anyBytes && strings.Contains(after, label) {
			return names{}, false, false
		}
		n, ok = starred(l.lead, strings.ReplaceAll(after, label, "*"))
		return n, !end, ok
	}
	return names{}, false, false
}
