package wire

import (
	"bufio"
	"bytes"
	"io"
	"strings"
)

// lineReader reads lines that end in CR LF, of left bytes altogether.
type lineReader struct {
	br   *bufio.Reader
	left int
}

// next returns a line without its end; it is good until the next read. io.EOF means that
// there was not a byte of it. A bare LF and a bare CR are refused: to some servers they end a
// line, to others they do not.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.br.ReadSlice('\n')
	l.left -= len(line)
	switch {
	case l.left < 0 || err == bufio.ErrBufferFull:
		return nil, ErrHeadSize
	case err == io.EOF && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || !allText(text) {
		return nil, ErrLine
	}
	return text, nil
}

func allText(b []byte) bool {
	for _, c := range b {
		if !isText(c) {
			return false
		}
	}
	return true
}

// fields reads field lines up to and including the empty line (RFC 9112, section 5).
func (l *lineReader) fields() ([]Field, error) {
	var fields []Field
	for {
		line, err := l.next()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil || len(line) == 0 {
			return fields, err
		}
		if len(fields) == MaxFields {
			return nil, ErrFields
		}
		f, err := parseField(string(line))
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
}

// parseField reads one line. White space before the colon makes another field of it to some
// servers ("Host :"), and at the beginning a continuation of the line before.
func parseField(line string) (Field, error) {
	if line[0] == ' ' || line[0] == '\t' {
		return Field{}, ErrFold
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || !all(name, isToken) {
		return Field{}, ErrField
	}
	return Field{name, strings.Trim(value, " \t")}, nil
}
