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
// valid during the call only. It accepts no more than encoding/json does, and
// costs a tenth.
func eachField(b []byte, f func(key, value []byte)) error {
	s := scanner{b: b}
	s.space()
	if !s.take('{') {
		return errNotJSON
	}
	err := s.fields(func(key []byte, isString bool, value []byte) {
		if isString {
			value = unquote(value)
		}
		f(unquote(key), value)
	}, 0)
	if s.space(); err == nil && s.i < len(s.b) {
		err = errNotJSON
	}
	return err
}

// scanner walks JSON without allocating.
type scanner struct {
	b []byte
	i int
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
func (s *scanner) fields(f func(key []byte, isString bool, value []byte), depth int) error {
	for s.space(); !s.take('}'); s.space() {
		key, ok := s.str()
		if s.space(); !ok || !s.take(':') {
			return errNotJSON
		}
		s.space()
		start := s.i
		isString := s.i < len(s.b) && s.b[s.i] == '"'
		if err := s.value(depth); err != nil {
			return err
		}
		if f != nil {
			f(key, isString, s.b[start:s.i])
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

func (s *scanner) value(depth int) error {
	if s.i == len(s.b) || depth > maxDepth {
		return errNotJSON
	}
	switch c := s.b[s.i]; {
	case c == '"':
		if _, ok := s.str(); !ok {
			return errNotJSON
		}
	case c == '{':
		s.i++
		return s.fields(nil, depth+1)
	case c == '[':
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

// str reads a string, and returns it with its quotes.
func (s *scanner) str() ([]byte, bool) {
	start := s.i
	if !s.take('"') {
		return nil, false
	}
	plain := true
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			q := s.b[start:s.i]
			return q, plain || json.Valid(q)
		case c == '\\':
			plain = false
			s.i++
		case c < 0x20:
			return nil, false
		}
	}
	return nil, false
}

// unquote is a string's text; without escapes that is a part of b.
func unquote(b []byte) []byte {
	inner := b[1 : len(b)-1]
	for _, c := range inner {
		if c == '\\' || c >= utf8.RuneSelf {
			var s string
			if json.Unmarshal(b, &s) == nil {
				return []byte(s)
			}
			return inner
		}
	}
	return inner
}
