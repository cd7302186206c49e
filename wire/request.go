package wire

import (
	"bufio"
	"strconv"
	"strings"
)

const (
	// MaxHead is the most bytes that the head of a request may have. Use a bufio.Reader of
	// at least this size: a line must fit into it. Servers commonly stop at 8 KiB.
	MaxHead = 16 << 10

	// MaxFields is the most header fields, and the most trailer fields, of a request.
	MaxFields = 100

	maxMethod = 32 // bytes; the longest registered one has 17
)

// Form is the form of a request target (RFC 9112, section 3.2).
type Form uint8

// The forms.
const (
	Origin   Form = iota // GET /path
	Absolute             // GET http://host/path, to a proxy
	Connect              // CONNECT host:port, to a proxy
	Asterisk             // OPTIONS *
)

// Framing says where the body of a request ends (RFC 9112, section 6.3).
type Framing uint8

// The framings.
const (
	NoBody  Framing = iota // no body
	Sized                  // Content-Length
	Chunked                // Transfer-Encoding: chunked
)

// Field is a header field; Value has no white space around it.
type Field struct{ Name, Value string }

// Request is the head of an HTTP/1 request, read so that it has one meaning. What decides
// about routing and framing exists once: Host, Content-Length and Transfer-Encoding are not
// among Fields, so no handling of fields can bring a second one back.
type Request struct {
	Method    string
	Form      Form
	Target    string    // path and query; "*" for Asterisk, "" for Connect
	Authority Authority // from the target if it has one, else from Host
	Minor     int       // of HTTP/1.1 or HTTP/1.0
	Framing   Framing
	Length    int64   // of the body, for Sized
	Fields    []Field // in order
}

// ReadRequest reads the head of the next request, line by line, and leaves br at the first
// byte of the body. It returns io.EOF when the connection ends before the first byte, and a
// [Fault] at the first line that an honest client does not send; nothing after a Fault can be
// made sense of, so the connection must be closed.
func ReadRequest(br *bufio.Reader) (*Request, error) {
	lines := lineReader{br: br, left: MaxHead}
	line, err := lines.next()
	if err != nil {
		return nil, err
	}
	r := &Request{}
	target, err := r.parseLine(string(line))
	if err != nil {
		return nil, err
	}
	fields, err := lines.fields()
	if err != nil {
		return nil, err
	}
	h, err := r.sort(fields)
	if err != nil {
		return nil, err
	}
	if err := r.parseTarget(target); err != nil {
		return nil, err
	}
	if err := r.settleHost(h.hosts); err != nil {
		return nil, err
	}
	if err := r.settleFraming(h.lengths, h.codings); err != nil {
		return nil, err
	}
	return r, nil
}

// Tokens returns the elements, in lower case, of all the lists in fields of that name, which
// is how Connection and Upgrade are to be read (RFC 9110, section 5.6.1): a look at the first
// field misses the "h2c" in a second one.
func (r *Request) Tokens(name string) []string {
	var tokens []string
	for _, f := range r.Fields {
		if !equalFold(f.Name, name) {
			continue
		}
		for t := range strings.SplitSeq(f.Value, ",") {
			if t = strings.Trim(t, " \t"); t != "" {
				tokens = append(tokens, lower(t))
			}
		}
	}
	return tokens
}

// AppendHead appends the head as one canonical text, in origin form whatever the form it came
// in; of CONNECT, in the form that CONNECT has. Reading it again gives the same Request, but
// for [Absolute], which comes back as [Origin] or [Asterisk].
func (r *Request) AppendHead(b []byte) []byte {
	b = append(append(b, r.Method...), ' ')
	if r.Form == Connect {
		b = r.Authority.append(b)
	} else {
		b = append(b, r.Target...)
	}
	b = append(b, " HTTP/1."...)
	b = strconv.AppendInt(b, int64(r.Minor), 10)
	b = append(b, "\r\nHost: "...)
	b = append(r.Authority.append(b), "\r\n"...)
	for _, f := range r.Fields {
		b = append(append(b, f.Name...), ": "...)
		b = append(append(b, f.Value...), "\r\n"...)
	}
	switch r.Framing {
	case Sized:
		b = append(b, "Content-Length: "...)
		b = append(strconv.AppendInt(b, r.Length, 10), "\r\n"...)
	case Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	return append(b, "\r\n"...)
}

// parseLine reads the request line (RFC 9112, section 3): exactly two spaces. Anything looser
// has been used to make a filter see another method or target than the server.
func (r *Request) parseLine(line string) (target string, err error) {
	method, rest, _ := strings.Cut(line, " ")
	if method == "" || len(method) > maxMethod || !all(method, isToken) {
		return "", ErrMethod
	}
	target, version, ok := strings.Cut(rest, " ")
	switch {
	case method == "PRI" && strings.HasPrefix(version, "HTTP/2"):
		return "", ErrHTTP2 // RFC 9113, section 3.4
	case !ok || version != "HTTP/1.0" && version != "HTTP/1.1":
		return "", ErrHTTP
	}
	r.Method, r.Minor = method, int(version[7]-'0')
	return target, nil
}

// parseTarget tells the four forms apart. The form must fit the method: a CONNECT in another
// form, or another method in the form of CONNECT, is read differently by different servers.
func (r *Request) parseTarget(s string) (err error) {
	const scheme = "http://"
	switch {
	case r.Method == "CONNECT":
		r.Form = Connect
		if r.Authority, err = ParseAuthority(s); err == nil && r.Authority.Port == 0 {
			err = ErrHost
		}
		return err
	case s == "*" && r.Method == "OPTIONS":
		r.Form, r.Target = Asterisk, s
		return nil
	case strings.HasPrefix(s, "/"):
		r.Target = s
	case len(s) > len(scheme) && equalFold(s[:len(scheme)], scheme):
		r.Form = Absolute
		host, path := cutPath(s[len(scheme):])
		if r.Authority, err = ParseAuthority(host); err != nil {
			return err
		}
		switch {
		case path == "" && r.Method == "OPTIONS":
			r.Target = "*" // RFC 9112, section 3.2.4
			return nil
		case !strings.HasPrefix(path, "/"):
			path = "/" + path
		}
		r.Target = path
	default:
		return ErrTarget
	}
	if !validTarget(r.Target) {
		return ErrTarget
	}
	return nil
}

// cutPath cuts behind the authority. All else but / and ? that could end it is refused as a
// part of the host.
func cutPath(s string) (authority, path string) {
	if i := strings.IndexAny(s, "/?"); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// validTarget reports whether each byte is one of a path and query, and each percent sign
// stands before two hexadecimal digits.
func validTarget(s string) bool {
	if !all(s, isTarget) {
		return false
	}
	for {
		i := strings.IndexByte(s, '%')
		if i < 0 {
			return true
		}
		if len(s) < i+3 || !isHex(s[i+1]) || !isHex(s[i+2]) {
			return false
		}
		s = s[i+3:]
	}
}

// headers are the values of the fields that may exist once.
type headers struct{ hosts, lengths, codings []string }

// sort keeps aside what decides about routing and framing.
func (r *Request) sort(fields []Field) (headers, error) {
	var h headers
	for _, f := range fields {
		switch {
		case equalFold(f.Name, "Host"):
			h.hosts = append(h.hosts, f.Value)
		case equalFold(f.Name, "Content-Length"):
			h.lengths = append(h.lengths, f.Value)
		case equalFold(f.Name, "Transfer-Encoding"):
			h.codings = append(h.codings, f.Value)
		default:
			r.Fields = append(r.Fields, f)
		}
	}
	if len(h.hosts) > 1 {
		return h, ErrTwoHosts
	}
	return h, nil
}

// settleHost holds Host against the target. Of an absolute target, RFC 9112, section 3.2.2,
// says to ignore Host, and servers exist that do not. HTTP/1.0 has no Host field, so its
// absence is fine where the target names the server.
func (r *Request) settleHost(hosts []string) error {
	named := r.Form == Absolute || r.Form == Connect
	if len(hosts) == 0 {
		if named && r.Minor == 0 {
			return nil
		}
		return ErrNoHost
	}
	host, err := ParseAuthority(hosts[0])
	if err != nil {
		return err
	}
	if !named {
		r.Authority = host
		return nil
	}
	if host.Host != r.Authority.Host || !r.samePort(host.Port) {
		return ErrHostDiffer
	}
	return nil
}

// samePort reports whether the port of Host agrees with the target's. 80 may be left out of
// either; of CONNECT, many clients leave it out of Host whatever it is.
func (r *Request) samePort(port uint16) bool {
	if r.Form == Connect && port == 0 {
		return true
	}
	orDefault := func(p uint16) uint16 {
		if p == 0 {
			return 80
		}
		return p
	}
	return orDefault(port) == orDefault(r.Authority.Port)
}

// settleFraming decides where the body ends. Whatever two servers could read in two ways hides
// a second request in the body of the first (RFC 9112, section 11.2).
func (r *Request) settleFraming(lengths, codings []string) error {
	switch {
	case len(lengths) > 0 && len(codings) > 0:
		return ErrFraming
	case len(codings) > 0:
		if len(codings) > 1 || !equalFold(codings[0], "chunked") || r.Minor == 0 {
			return ErrCoding
		}
		r.Framing = Chunked
	case len(lengths) > 0:
		const maxDigits = 18 // all of them fit into an int64
		if len(lengths) > 1 || lengths[0] == "" || len(lengths[0]) > maxDigits || !all(lengths[0], isDigit) {
			return ErrLength
		}
		r.Framing = Sized
		r.Length, _ = strconv.ParseInt(lengths[0], 10, 64)
	}
	if r.Form == Connect { // what follows is the tunnel (RFC 9110, section 9.3.6)
		if r.Framing == Chunked || r.Length > 0 {
			return ErrFraming
		}
		r.Framing = NoBody // WinHTTP sends "Content-Length: 0"
	}
	return nil
}
