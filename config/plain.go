package config

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// plainText reads rules that are written plainly, as
//
//	rules:
//	  - id: payments/stripe
//	    from: [prod]
//	    to:
//	      - https://api.stripe.com:443
//
// in a tenth of the time of the YAML reader: nearly all of a large file is of this
// form. It knows nothing of errors. What it does not know by sight is left to the
// YAML reader, with the whole file; what it does read, that reads alike.
type plainText struct {
	text string // the present line; there is none when done is set
	line int    // its number
	rest string // what follows it
	done bool
}

// cutRules takes the section rules out of a text that is read alike without it: in its
// place there are empty lines.
func cutRules(text []byte) (rest []byte, rules []fileRule, ok bool) {
	begin := bytes.Index(text, []byte("\nrules:\n")) + 1
	if begin == 0 || !isMapping(text[:begin]) {
		return nil, nil, false
	}
	section := begin + len("rules:\n")
	p := plainText{line: bytes.Count(text[:section], []byte("\n")), rest: string(text[section:])}
	p.next()
	if rules, ok = p.rules(); !ok {
		return nil, nil, false
	}
	end := len(text)
	if !p.done {
		end -= len(p.text) + len(p.rest)
		if p.rest != "" || text[len(text)-1] == '\n' {
			end-- // the line's own end
		}
	}
	if !printable(text[section:end]) {
		return nil, nil, false
	}
	rest = append(bytes.Clone(text[:section]), bytes.Repeat([]byte("\n"), bytes.Count(text[section:end], []byte("\n")))...)
	return append(rest, text[end:]...), rules, true
}

// isMapping reports whether a text is a whole document, so that what follows begins
// outside of all quotes and brackets.
func isMapping(text []byte) bool {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return true // comments
	case err != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode:
		return false
	}
	return errors.Is(dec.Decode(&doc), io.EOF)
}

// printable reports whether the YAML reader takes all characters for what they look like.
func printable(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if c := text[i]; c >= ' ' && c <= '~' || c == '\n' {
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
		i += n - 1
	}
	return true
}

// next goes to the next line that is neither empty nor a comment.
func (p *plainText) next() {
	for p.rest != "" {
		p.text, p.rest, _ = strings.Cut(p.rest, "\n")
		p.line++
		if !blank(strings.TrimLeft(p.text, " ")) {
			return
		}
	}
	p.done = true
}

// blank reports whether s, behind a space or at the beginning of a line, says nothing.
func blank(s string) bool { return s == "" || s[0] == '#' }

func (p *plainText) indent() int {
	if p.done {
		return -1
	}
	return len(p.text) - len(strings.TrimLeft(p.text, " "))
}

// item reports whether the line is an item of a list at a column.
func (p *plainText) item(column int) bool {
	return !p.done && p.indent() == column && strings.HasPrefix(p.text[column:], "- ")
}

// rules reads up to the next key of the file.
func (p *plainText) rules() (rules []fileRule, ok bool) {
	column := p.indent()
	for p.item(column) {
		var r fileRule
		if !p.rule(&r, column+2) {
			return nil, false
		}
		rules = append(rules, r)
	}
	return rules, len(rules) > 0 && (p.done || p.indent() == 0 && p.text[0] != '-')
}

// rule reads one whose keys are at a column.
func (p *plainText) rule(r *fileRule, column int) bool {
	words := map[string]*word{"id": &r.ID, "why": &r.Why, "source": &r.Source, "need": &r.Need}
	lists := map[string]*[]word{"from": &r.From, "to": &r.To}
	for first := true; first || p.indent() == column; first = false {
		key, value, found := strings.Cut(p.text[column:], ":")
		trimmed := strings.TrimLeft(value, " ")
		if !found || value != "" && trimmed == value {
			return false
		}
		w, l := words[key], lists[key]
		delete(words, key) // it must not come twice
		delete(lists, key)
		switch {
		case w != nil && p.word(w, trimmed):
		case l != nil && strings.HasPrefix(trimmed, "[") && p.flow(l, trimmed[1:]):
		case l != nil && blank(trimmed) && p.block(l, column):
		default:
			return false
		}
	}
	return p.indent() < column
}

// word reads a line that ends with a scalar.
func (p *plainText) word(w *word, s string) bool {
	text, rest, ok := scalar(s)
	if !ok || !blank(strings.TrimLeft(rest, " ")) {
		return false
	}
	*w = word{text, p.line}
	p.next()
	return true
}

// block reads a list of one item a line.
func (p *plainText) block(list *[]word, column int) bool {
	p.next()
	in := p.indent()
	for in >= column && p.item(in) {
		var w word
		if !p.word(&w, strings.TrimLeft(p.text[in+2:], " ")) {
			return false
		}
		*list = append(*list, w)
	}
	return len(*list) > 0
}

// flow reads a list in brackets behind the first of them, which may go on over lines.
func (p *plainText) flow(list *[]word, s string) bool {
	*list = make([]word, 0, strings.Count(s, ",")+1)
	for {
		s = strings.TrimLeft(s, " ")
		if s == "" {
			if p.next(); p.indent() <= 0 {
				return false
			}
			s = p.text
			continue
		}
		if s[0] == ']' {
			s = s[1:]
			break
		}
		text, rest, ok := flowScalar(s)
		if !ok {
			return false
		}
		*list = append(*list, word{text, p.line})
		s = strings.TrimLeft(rest, " ")
		if strings.HasPrefix(s, ",") {
			s = s[1:]
		} else if !strings.HasPrefix(s, "]") {
			return false
		}
	}
	if s != "" && (s[0] != ' ' || !blank(strings.TrimLeft(s, " "))) {
		return false
	}
	p.next()
	return true
}

// scalar reads one that a line ends with, up to the space in front of a comment.
func scalar(s string) (text, rest string, ok bool) {
	if text, rest, ok = quoted(s); ok {
		return text, rest, rest == "" || rest[0] == ' '
	}
	if s == "" || !alphanumeric(s[0]) {
		return "", "", false
	}
	if at := strings.Index(s, " #"); at >= 0 {
		s, rest = s[:at], s[at:]
	}
	s = strings.TrimRight(s, " ")
	return s, rest, !strings.Contains(s, ": ") && !strings.HasSuffix(s, ":") && !strings.EqualFold(s, "null")
}

// flowScalar reads one of a list in brackets.
func flowScalar(s string) (text, rest string, ok bool) {
	if text, rest, ok = quoted(s); ok {
		return text, rest, true
	}
	n := 0
	for n < len(s) && (alphanumeric(s[n]) || n > 0 && strings.IndexByte("._*/@:-", s[n]) >= 0) {
		n++
	}
	return s[:n], s[n:], n > 0 && s[n-1] != ':' && !strings.EqualFold(s[:n], "null")
}

// quoted reads a scalar in quotes in which nothing is escaped.
func quoted(s string) (text, rest string, ok bool) {
	if s == "" || s[0] != '"' && s[0] != '\'' {
		return "", "", false
	}
	text, rest, ok = strings.Cut(s[1:], s[:1])
	if s[0] == '\'' {
		return text, rest, ok && !strings.HasPrefix(rest, "'")
	}
	return text, rest, ok && strings.IndexByte(text, '\\') < 0
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
