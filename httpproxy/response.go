package httpproxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"tidegate.io/tidegate/wire"
)

// errResponse is wrapped by what is wrong with an answer that cannot be read in exactly one
// way. Sent on, its body could be taken for the answer to the next request.
var errResponse = errors.New("malformed response")

// untilClose is the framing of a body that ends with its connection (RFC 9112, section
// 6.3, item 8); only answers have it.
const untilClose wire.Framing = 255

// response is the head of an answer. What decides about its framing is not among fields.
type response struct {
	status  int
	reason  string
	fields  []wire.Field
	framing wire.Framing
	length  int64 // for wire.Sized; for an answer without a body, what was stated
	stated  bool  // length was stated
	close   bool  // the server closes the connection after it
}

// interim reports whether another answer follows (RFC 9110, section 15.2).
func (r *response) interim() bool { return r.status < 200 }

// readResponse reads the head of the answer to a request of that method and leaves br at the
// first byte of its body.
func readResponse(br *bufio.Reader, method string) (*response, error) {
	left := wire.MaxHead
	line, err := readLine(br, &left)
	if err != nil {
		return nil, err
	}
	r := &response{}
	minor, err := r.parseStatus(line)
	if err != nil {
		return nil, err
	}
	framing, err := r.readFields(br, &left)
	if err != nil {
		return nil, err
	}
	tokens := connection(r.fields)
	if len(tokens) > wire.MaxFields {
		return nil, fmt.Errorf("%w: %d members of Connection", errResponse, len(tokens))
	}
	r.close = minor == 0
	for _, t := range tokens {
		r.close = r.close || t == "close"
	}
	return r, r.settle(framing, method, minor)
}

// readLine reads a line that ends in CR LF, of left bytes at most.
func readLine(br *bufio.Reader, left *int) (string, error) {
	line, err := br.ReadSlice('\n')
	*left -= len(line)
	switch {
	case *left < 0 || errors.Is(err, bufio.ErrBufferFull):
		return "", fmt.Errorf("%w: head longer than %d bytes", errResponse, wire.MaxHead)
	case err == io.EOF && len(line) > 0:
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.ContainsFunc(text, isControl) {
		return "", fmt.Errorf("%w: line %.64q", errResponse, line)
	}
	return string(text), nil
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// parseStatus reads the status line (RFC 9112, section 4).
func (r *response) parseStatus(line string) (minor int, err error) {
	version, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(code, 10, 16)
	if err != nil || len(code) != 3 || n < 100 || version != "HTTP/1.0" && version != "HTTP/1.1" {
		return 0, fmt.Errorf("%w: status line %.64q", errResponse, line)
	}
	r.status, r.reason = int(n), reason
	return int(version[7] - '0'), nil
}

// framingFields are the values of the two fields that say where a body ends.
type framingFields struct{ lengths, codings []string }

// readFields reads the field lines and keeps aside what decides about framing.
func (r *response) readFields(br *bufio.Reader, left *int) (f framingFields, err error) {
	for n := 0; ; n++ {
		line, err := readLine(br, left)
		switch {
		case errors.Is(err, io.EOF):
			return f, io.ErrUnexpectedEOF
		case err != nil || line == "":
			return f, err
		case n == wire.MaxFields:
			return f, fmt.Errorf("%w: more than %d fields", errResponse, wire.MaxFields)
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return f, fmt.Errorf("%w: field %.64q", errResponse, line)
		}
		value = strings.Trim(value, " \t")
		switch {
		case strings.EqualFold(name, "Content-Length"):
			f.lengths = append(f.lengths, value)
		case strings.EqualFold(name, "Transfer-Encoding"):
			f.codings = append(f.codings, value)
		default:
			r.fields = append(r.fields, wire.Field{Name: name, Value: value})
		}
	}
}

// settle decides where the body ends (RFC 9112, section 6.3).
func (r *response) settle(f framingFields, method string, minor int) error {
	switch {
	case len(f.lengths) > 0 && len(f.codings) > 0:
		return fmt.Errorf("%w: two framings", errResponse)
	case len(f.codings) > 1 || len(f.codings) == 1 && (minor == 0 || !strings.EqualFold(f.codings[0], "chunked")):
		return fmt.Errorf("%w: transfer coding %.64q", errResponse, f.codings)
	case len(f.codings) == 1:
		r.framing = wire.Chunked
	case len(f.lengths) > 0:
		const maxDigits = 18 // all of them fit into an int64
		n, err := strconv.ParseUint(f.lengths[0], 10, 63)
		if err != nil || len(f.lengths) > 1 || len(f.lengths[0]) > maxDigits {
			return fmt.Errorf("%w: content length %.64q", errResponse, f.lengths)
		}
		r.framing, r.length, r.stated = wire.Sized, int64(n), true
	default:
		r.framing = untilClose
	}
	return r.settleBodiless(method)
}

// settleBodiless is about the answers that have no body whatever their fields say. A 204 or
// an interim answer may not even say it; where one does, what follows it is a guess.
func (r *response) settleBodiless(method string) error {
	switch {
	case r.interim() || r.status == 204:
		if r.framing == wire.Chunked || r.length > 0 {
			return fmt.Errorf("%w: a body with status %d", errResponse, r.status)
		}
		r.framing, r.stated = wire.NoBody, false
	case method == "HEAD" || r.status == 304:
		r.framing = wire.NoBody
	}
	r.close = r.close || r.framing == untilClose
	return nil
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' {
			continue
		}
		if strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// body reads the body from br, and nothing beyond it.
func (r *response) body(br *bufio.Reader) io.Reader {
	if r.framing == untilClose {
		return br
	}
	return (&wire.Request{Framing: r.framing, Length: r.length}).Body(br)
}

// appendHead appends the head as it is for the client. framing is that of the body towards
// it, and last says that the connection is closed after it.
func (r *response) appendHead(b []byte, framing wire.Framing, last bool) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.status), 10)
	b = append(append(append(b, ' '), r.reason...), "\r\n"...)
	for _, f := range r.fields {
		b = append(append(b, f.Name...), ": "...)
		b = append(append(b, f.Value...), "\r\n"...)
	}
	switch {
	case framing == wire.Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.stated:
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, r.length, 10), "\r\n"...)
	}
	if last {
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, "\r\n"...)
}
