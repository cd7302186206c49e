package why

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"tidegate.io/tidegate/egress"
)

// A Finding is what was found out about a line of a text, and about others that say the same.
type Finding struct {
	Line      int    // the first; from 1
	Text      string // of the first, without line ends, not longer than maxText
	Count     int    // lines that say the same
	Step      Step   // what was being done; no ID: not known
	Way       Way    // how it failed; no ID: not said
	Endpoints []egress.Endpoint
	APIServer bool // the API server is what was to be reached, and the text does not say its name
	First     time.Time
	Last      time.Time // when, as far as the lines say; zero otherwise
}

// The bounds of what is read: a log may have any size, and be made by anybody.
const (
	maxFindings = 256
	maxLine     = 1 << 20 // a status message of the resource manager is JSON within JSON, in one line
	maxText     = 400
)

// Read finds what is known in a text, the same thing once, in the order of its first lines. It reads to the end in constant
// memory. Lines longer than 1 MiB are an error.
func Read(r io.Reader) ([]Finding, error) {
	var found []Finding
	at := map[string]int{}
	var connected []egress.Endpoint
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for n := 1; lines.Scan(); n++ {
		f, ok := read(lines.Text(), connected)
		if !ok {
			if strings.HasPrefix(lines.Text(), curlConnected) {
				connected = endpointsOf(lines.Text())
			}
			continue
		}
		key := fmt.Sprint(f.Step.ID, f.Way.ID, f.Endpoints)
		i, seen := at[key]
		switch {
		case seen:
			found[i].again(f)
		case len(found) < maxFindings:
			f.Line, f.Count = n, 1
			at[key] = len(found)
			found = append(found, f)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return found, fmt.Errorf("read: a line is longer than %d bytes", maxLine)
	} else if err != nil {
		return found, fmt.Errorf("read: %w", err)
	}
	return found, nil
}

func (f *Finding) again(o Finding) {
	f.Count++
	if !o.First.IsZero() && (f.First.IsZero() || o.First.Before(f.First)) {
		f.First = o.First
	}
	if o.Last.After(f.Last) {
		f.Last = o.Last
	}
}

// unquote takes one level of JSON's quoting away, for JSON within JSON.
var unquote = strings.NewReplacer(`\n`, " ", `\"`, `"`, `\\`, `\`)

// How curl -v, with which nodes ask, says that an address failed, which it goes on to tell by name, what it is connected to,
// and afterwards, without the name, how that failed.
const (
	curlTried     = "* connect to "
	curlConnected = "* Connected to "
	curlFailed    = "curl: ("
)

// read looks at one line. It is worth telling if it says what was being done, or how something that it names failed.
// connected is what curl has named before.
func read(line string, connected []egress.Endpoint) (Finding, bool) {
	if strings.HasPrefix(line, curlTried) {
		return Finding{}, false
	}
	if strings.IndexByte(line, '\\') >= 0 {
		line = unquote.Replace(line)
	}
	lower := strings.ToLower(line)
	way, told := wayOf(lower)
	step, known := stepOf(line, lower, told)
	if !known && !told {
		return Finding{}, false
	}
	f := Finding{Text: strings.TrimSpace(line), Step: step, Way: way, Endpoints: endpointsOf(line), First: timeOf(line)}
	f.Last = f.First
	if len(f.Text) > maxText {
		f.Text = strings.ToValidUTF8(f.Text[:maxText], "") + "…"
	}
	if !known {
		if len(f.Endpoints) == 0 && strings.HasPrefix(f.Text, curlFailed) {
			f.Endpoints = connected
		}
		return f, len(f.Endpoints) > 0
	}
	f.Endpoints = fit(f.Endpoints, step)
	if len(f.Endpoints) > 0 {
		return f, true
	}
	for _, to := range step.To {
		if to == apiServer {
			f.APIServer = true
			continue
		}
		f.Endpoints = append(f.Endpoints, egress.MustParseEndpoint(to))
	}
	return f, true
}

// timePort is NTP's.
var timePort = egress.Ports{First: 123, Last: 123}

// fit drops addresses where a name is told too, and for what stays inside everything. Time has a protocol of its own.
func fit(es []egress.Endpoint, s Step) []egress.Endpoint {
	if s.Inside || s.ID == "api-by-address" || s.ID == "tunnel" {
		return nil
	}
	if s.ID == "time" {
		for i, e := range es {
			es[i] = egress.Endpoint{Proto: egress.UDP, Host: e.Host, Ports: timePort}
		}
	}
	if slices.ContainsFunc(es, named) {
		return slices.DeleteFunc(es, func(e egress.Endpoint) bool { return !named(e) })
	}
	return es
}

// stamp is RFC 3339, as most of these logs and all of Azure's write it.
var stamp = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?`)

// timeOf returns the time that a line begins with or holds; without a zone it is UTC, as on nodes.
func timeOf(line string) time.Time {
	s := stamp.FindString(line)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// A Denial is what a flow log holds against a finding: denials of one destination for one reason.
type Denial struct {
	By     string        `json:"by,omitempty"` // whose log says so; empty for the gateway's
	Reason egress.Reason `json:"reason"`
	Name   egress.Name   `json:"name,omitzero"`
	To     string        `json:"to,omitempty"` // the last destination's address and port
	From   string        `json:"from,omitempty"`
	Count  int           `json:"count"`
	First  time.Time     `json:"first"`
	Last   time.Time     `json:"last"`
}

// A Window is a span of time; a zero end is open.
type Window struct{ From, To time.Time }

func (w Window) has(t time.Time) bool {
	return (w.From.IsZero() || !t.Before(w.From)) && (w.To.IsZero() || !t.After(w.To))
}

// A Search is a question to a flow log, and its answer once [ReadDenials] is through.
type Search struct {
	Window Window
	About  func(egress.Conn) bool // what is looked for

	Denials []Denial // those of one destination and reason together
	Flows   int      // in the window, whatever they are about: a log without any proves nothing

	at map[string]int // index into Denials
}

// ReadDenials reads the gateway's flow log or Azure Firewall's, JSON lines, once, for any number of searches. A line that is
// neither is an error that names it.
func ReadDenials(r io.Reader, searches []*Search) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		f, by, decided, err := readFlow(lines.Bytes())
		if err != nil {
			return fmt.Errorf("line %d: not a flow: %w", n, err)
		}
		for _, s := range searches {
			if decided {
				s.look(f, by)
			}
		}
	}
	return lines.Err()
}

// readFlow reads a line, and says whose it is and whether it is about a decision.
func readFlow(line []byte) (f egress.Flow, by string, decided bool, err error) {
	if isAzure(line) {
		f, decided, err = readAzure(line)
		return f, azureFirewall, decided, err
	}
	err = json.Unmarshal(line, &f)
	return f, "", !f.End, err // its end tells nothing that its beginning did not
}

func (s *Search) look(f egress.Flow, by string) {
	if !s.Window.has(f.Time) {
		return
	}
	s.Flows++
	if f.Verdict.Action != egress.Deny || !s.About(f.Conn) {
		return
	}
	d := Denial{By: by, Reason: f.Verdict.Reason, Name: f.Conn.Name, Count: 1, First: f.Time, Last: f.Time}
	if f.Conn.Dst.Addr().IsValid() {
		d.To = f.Conn.Dst.String()
	}
	if f.Conn.Src.Addr().IsValid() {
		d.From = f.Conn.Src.Addr().String()
	}
	if d.Name.IsZero() && len(f.Conn.Bound) > 0 {
		d.Name = f.Conn.Bound[0]
	}
	key := by + d.Reason.String() + " " + d.Name.String()
	if d.Name.IsZero() {
		key += d.To
	}
	i, seen := s.at[key]
	switch {
	case seen:
		had := &s.Denials[i]
		had.Count++
		had.First, had.Last = earlier(had.First, f.Time), later(had.Last, f.Time)
	case len(s.Denials) < maxFindings:
		if s.at == nil {
			s.at = map[string]int{}
		}
		s.at[key] = len(s.Denials)
		s.Denials = append(s.Denials, d)
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// About reports whether a connection goes to what the finding names: by the name that it showed or that DNS gave its
// address for, by address, or, where that is what was to be reached, to the API server.
func (f *Finding) About(c egress.Conn) bool {
	if f.APIServer && c.API {
		return true
	}
	for _, e := range f.Endpoints {
		switch h := e.Host.(type) {
		case egress.Pattern:
			if h.Match(c.Name) || slices.ContainsFunc(c.Bound, h.Match) {
				return true
			}
		case egress.Net:
			if c.Dst.Addr().IsValid() && h.Contains(c.Dst.Addr()) {
				return true
			}
		}
	}
	return false
}
