package audit

import (
	"encoding/json"
	"errors"
	"unicode/utf8"
)

var errNotJSON = errors.New("not a JSON object")

// maxDepth bounds objects within objects of a log's line: real ones have three.
const maxDepth = 64

// eachField calls f for every field of a JSON object, in order, with the value
// as it stands; a string's is without its quotes and escapes. The slices are
// valid during the call only. The fields of an object called inner are given in
// its place. It accepts no more than encoding/json does, and costs a tenth.
func eachField(b []byte, inner string, f func(key, value []byte)) error {
	s := scanner{b: b, inner: inner}
	s.space()
	if !s.take('{') {
		return errNotJSON
	}
	err := s.fields(f, 0)
	if s.space(); err == nil && s.i < len(s.b) {
		err = errNotJSON
	}
	return err
}

// scanner walks JSON without allocating.
type scanner struct {
	b     []byte
	i     int
	inner string
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// fields reads on behind the opening brace.
func (s *scanner) fields(f func(key, value []byte), depth int) error {
	for s.space(); !s.take('}'); s.space() {
		key, ok := s.str()
		if s.space(); !ok || !s.take(':') {
			return errNotJSON
		}
		s.space()
		if err := s.field(key, f, depth); err != nil {
			return err
		}
		if s.space(); s.take(',') {
			if s.space(); s.i < len(s.b) && s.b[s.i] == '}' {
				return errNotJSON
			}
		} else if s.i == len(s.b) || s.b[s.i] != '}' {
			return errNotJSON
		}
	}
	return nil
}

// field reads one value and gives it to f.
func (s *scanner) field(key []byte, f func(key, value []byte), depth int) error {
	if s.i == len(s.b) {
		return errNotJSON
	}
	start := s.i
	switch {
	case s.b[s.i] == '"':
		value, ok := s.str()
		if !ok {
			return errNotJSON
		}
		if f != nil {
			f(key, value)
		}
	case s.b[s.i] == '{' && f != nil && s.inner != "" && string(key) == s.inner && depth < maxDepth:
		s.i++
		return s.fields(f, depth+1)
	default:
		if err := s.value(depth); err != nil {
			return err
		}
		if f != nil {
			f(key, s.b[start:s.i])
		}
	}
	return nil
}

func (s *scanner) value(depth int) error {
	if s.i == len(s.b) || depth > maxDepth {
		return errNotJSON
	}
	switch s.b[s.i] {
	case '"':
		if _, ok := s.str(); !ok {
			return errNotJSON
		}
	case '{':
		s.i++
		return s.fields(nil, depth+1)
	case '[':
		return s.array(func([]byte) {}, depth+1)
	default:
		start := s.i
		for s.i < len(s.b) && !ends(s.b[s.i]) {
			s.i++
		}
		if !literal(s.b[start:s.i]) {
			return errNotJSON
		}
	}
	return nil
}

// array calls f for every element.
func (s *scanner) array(f func([]byte), depth int) error {
	if !s.take('[') {
		return errNotJSON
	}
	for s.space(); !s.take(']'); s.space() {
		start := s.i
		if err := s.value(depth); err != nil {
			return err
		}
		f(s.b[start:s.i])
		if s.space(); s.take(',') {
			if s.space(); s.i < len(s.b) && s.b[s.i] == ']' {
				return errNotJSON
			}
		} else if s.i == len(s.b) || s.b[s.i] != ']' {
			return errNotJSON
		}
	}
	return nil
}

func ends(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\t', '\r', '\n':
		return true
	}
	return false
}

// literal is a number, true, false or null. What is not plain is left to the
// library.
func literal(b []byte) bool {
	switch string(b) {
	case "true", "false", "null":
		return true
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return len(b) > 0 && json.Valid(b)
		}
	}
	return len(b) > 0 && (len(b) == 1 || b[0] != '0')
}

// plainBytes are those of a string that stand for themselves.
var plainBytes = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str reads a string, and returns its text; without escapes that is a part of b.
func (s *scanner) str() ([]byte, bool) {
	start := s.i
	if !s.take('"') {
		return nil, false
	}
	for s.i < len(s.b) && plainBytes[s.b[s.i]] {
		s.i++
	}
	if s.take('"') {
		return s.b[start+1 : s.i-1], true
	}
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			var text string
			err := json.Unmarshal(s.b[start:s.i], &text)
			return []byte(text), err == nil
		case c == '\\':
			s.i++
		case c < 0x20:
			return nil, false
		}
	}
	return nil, false
}
