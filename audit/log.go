package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tidegate.io/tidegate/egress"
)

// Class is what a line of a log means to the cluster.
type Class string

// The classes, in the order of a report.
const (
	Broken   Class = "denied-required"  // a need is denied: something does not work now
	Lacking  Class = "denied-optional"  // a need that is not required is denied
	Unknown  Class = "denied-unknown"   // nobody knows what it is for
	Harmless Class = "denied-benign"    // known, and may be denied
	Unruled  Class = "allowed-unneeded" // let through, and in no rule
	Needed   Class = "allowed-needed"
)

var classOrder = []Class{Broken, Lacking, Unknown, Harmless, Unruled, Needed}

// Bounds of what a log can make grow. A scan of a million names would
// otherwise fill the memory of whoever reads its log.
const (
	maxGroups  = 1 << 16
	maxSources = 16
	maxLine    = 1 << 20
)

// Group is all lines about one destination with the same outcome.
type Group struct {
	Class   Class     `json:"class"`
	To      string    `json:"to"` // an endpoint, or dns://NAME for a question that was not answered
	Need    string    `json:"need,omitempty"`
	Why     string    `json:"why,omitempty"`
	Rule    string    `json:"rule,omitempty"`   // the firewall's rule of the first line
	Reason  string    `json:"reason,omitempty"` // the firewall's own words
	Count   uint64    `json:"count"`
	First   time.Time `json:"first,omitzero"`
	Last    time.Time `json:"last,omitzero"`
	Sources []string  `json:"sources"` // the first 16
	More    bool      `json:"moreSources,omitempty"`
	Allowed bool      `json:"allowed"`
	Changes bool      `json:"changes,omitempty"` // the proposed policy decides otherwise

	proto egress.Proto
	host  string
	port  uint16
}

// LogOptions say what a log is held against. Its functions are called once for
// each group, not for each line.
type LogOptions struct {
	Needs
	// Seen returns what is known of traffic that opens no rule; nil: nothing.
	Seen func(name egress.Name, addr netip.Addr) (why string, benign, known bool)
	// Against decides the same connections by another policy; nil: none.
	Against  func(egress.Conn) (allowed bool)
	BySource bool // Against tells clients apart, so that groups have to
}

// Log is the sum of what was read. Its size does not depend on the log's.
type Log struct {
	Lines, Events uint64
	Skipped       uint64 // lines that are not of a kind that is understood
	Crowded       uint64 // lines beyond the 65,536 destinations that are told apart
	Groups        []Group
	Unused        []string // ids of rules that no line is about

	options LogOptions
	index   map[string]int
	used    map[string]bool
	key     []byte
}

// NewLog returns an empty sum.
func NewLog(o LogOptions) *Log {
	return &Log{options: o, index: map[string]int{}, used: map[string]bool{}}
}

// Read adds a log: JSON lines, or a JSON array of the same objects. Lines that
// are not understood are counted, and no error.
func (l *Log) Read(r io.Reader) error {
	b := bufio.NewReaderSize(r, maxLine)
	head, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.HasPrefix(head, []byte("\xef\xbb\xbf")) {
		if _, err := b.Discard(3); err != nil {
			return err
		}
		head = head[3:]
	}
	if bytes.HasPrefix(bytes.TrimLeft(head, " \r\n"), []byte("[")) {
		return l.readArray(b)
	}
	for {
		line, err := b.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			l.Lines++
			l.Skipped++
			if err := skipLine(b); err != nil {
				return ended(err)
			}
			continue
		case len(line) > 0:
			l.line(line)
		}
		if err != nil {
			return ended(err)
		}
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func skipLine(b *bufio.Reader) error {
	for {
		if _, err := b.ReadSlice('\n'); !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// readArray reads what `az monitor log-analytics query` prints.
func (l *Log) readArray(r io.Reader) error {
	d := json.NewDecoder(r)
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("JSON array: %w", err)
	}
	for d.More() {
		var one json.RawMessage
		if err := d.Decode(&one); err != nil {
			return fmt.Errorf("JSON array: %w", err)
		}
		l.line(one)
	}
	return nil
}

func (l *Log) line(line []byte) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return
	}
	l.Lines++
	var e event
	ok := e.read(line)
	if ok && e.records != nil {
		s := scanner{b: e.records}
		ok = s.array(func(one []byte) {
			var e event
			if e.read(one) && e.records == nil {
				l.add(&e)
			}
		}, 0) == nil
	} else if ok {
		l.add(&e)
	}
	if !ok {
		l.Skipped++
	}
}

// add counts an event in its group.
func (l *Log) add(e *event) {
	if e.proto == 0 || e.lookup && (e.allowed || !e.refused()) {
		return
	}
	l.Events++
	host := e.name
	if len(host) == 0 || !e.proto.Named() && !e.lookup && len(e.dst) > 0 {
		host = e.dst
	}
	l.key = append(l.key[:0], byte(e.proto), flag(e.allowed), flag(e.lookup), byte(e.port>>8), byte(e.port))
	if l.options.BySource {
		l.key = append(append(l.key, e.src...), ' ')
	}
	l.key = append(l.key, host...)
	i, known := l.index[string(l.key)]
	if !known {
		if len(l.Groups) == maxGroups {
			l.Crowded++
			return
		}
		i = len(l.Groups)
		l.index[string(l.key)] = i
		l.Groups = append(l.Groups, l.group(e, string(host)))
	}
	g := &l.Groups[i]
	g.Count++
	g.seen(e)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// refused: an answer that something withheld. That a name does not exist
// matters only for names that are needed, which have to.
func (e *event) refused() bool { return len(e.code) > 0 }

func (g *Group) seen(e *event) {
	if t := e.at(); !t.IsZero() {
		if g.First.IsZero() || t.Before(g.First) {
			g.First = t
		}
		if t.After(g.Last) {
			g.Last = t
		}
	}
	if len(e.src) == 0 {
		return
	}
	for _, s := range g.Sources {
		if s == string(e.src) {
			return
		}
	}
	if len(g.Sources) == maxSources {
		g.More = true
		return
	}
	g.Sources = append(g.Sources, string(e.src))
}

// Close sorts the groups, the most serious and then the most frequent first,
// and finds the rules that no line was about. Nothing may be read afterwards.
func (l *Log) Close() {
	slices.SortStableFunc(l.Groups, func(a, b Group) int {
		if d := slices.Index(classOrder, a.Class) - slices.Index(classOrder, b.Class); d != 0 {
			return d
		}
		if a.Count != b.Count {
			if a.Count > b.Count {
				return -1
			}
			return 1
		}
		return strings.Compare(a.To, b.To)
	})
	for i := range l.options.Rules {
		if id := l.options.Rules[i].ID; !l.used[id] {
			l.Unused = append(l.Unused, id)
		}
	}
	l.index = nil
}

// Has reports whether a group of the class is there.
func (l *Log) Has(c Class) bool {
	return slices.ContainsFunc(l.Groups, func(g Group) bool { return g.Class == c })
}

// Endpoint is the group's destination as a rule would have it, if one can.
func (g *Group) Endpoint() (egress.Endpoint, error) {
	if strings.HasPrefix(g.To, "dns://") {
		return egress.Endpoint{}, fmt.Errorf("%s: a name that DNS does not have needs no rule", g.To)
	}
	return egress.ParseEndpoint(g.To)
}
