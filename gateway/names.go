package gateway

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"tidegate.io/tidegate/egress"
)

const (
	// FirstName is where the numbers of names begin; below it are those of rules.
	FirstName = MaxNumber + 1

	// lastName is the highest number that a connection's mark has room for.
	lastName = 1<<24 - 1

	// maxDecided bounds what has a number, at some hundred bytes each.
	maxDecided = 1 << 17

	// maxInvented bounds those of them that no rule spells out, and maxInventedRule those of one rule: with a
	// wildcard, whoever owns the domain below it can make as many as they like.
	maxInvented, maxInventedRule = maxDecided / 2, 1 << 13

	// skipped is how many numbers are left out at a restart. Should the file be a copy that is older than connections which
	// live, then theirs are not given again before they are reserved.
	skipped = 1 << 12

	// idleLooks is how many looks at the live connections a number is kept that none of them carries: a
	// connection can be too young for one.
	idleLooks = 2
)

// Decided is what a connection's number stands for when it was allowed by its name: all that a later policy has to know
// beside its addresses.
type Decided struct {
	Rule    string // the id of the rule that permitted it
	Name    egress.Name
	Proto   egress.Proto // HTTP or HTTPS
	Reason  egress.Reason
	API     bool // as in egress.Conn
	Literal bool
}

// Names gives what connections were allowed by a number for their marks, so that nothing has to be kept of each of them, and
// a new policy cuts exactly those that it denies, after a restart too. Each number is written down before it is given, in a
// line of its own. It need not be synced: a kernel that loses it has lost the connections. The zero Names gives none. Its
// methods may be called by many goroutines at once.
type Names struct {
	mu       sync.RWMutex
	out      io.Writer // nil: nothing can be written down, so no number is given
	numbers  map[Decided]*nameNumber
	decided  map[uint32]*nameNumber
	next     uint32
	invented map[string]int // by rule
	all      int            // of invented
}

type nameNumber struct {
	number   uint32
	decided  Decided // the zero one is lost: its number is not given again, and nothing is known about it
	invented bool
	idle     atomic.Uint32 // looks at the live connections since it was given or seen
}

// Of returns the number for a connection and the verdict that allows it. It is 0 where the number of the rule has to do: where
// no name allows it, where there are too many, or when the number cannot be written down. Spelled says that a rule spells the
// name out.
func (n *Names) Of(c egress.Conn, v egress.Verdict, spelled bool) uint32 {
	byName := v.Reason == egress.ByNameRule && !c.Name.IsZero()
	if v.Action != egress.Allow || !c.Proto.Named() || v.Rule == nil || !byName && v.Reason != egress.ByAPIServerAddress {
		return 0
	}
	d := Decided{v.Rule.ID, c.Name, c.Proto, v.Reason, c.API, c.Literal}
	n.mu.RLock()
	e := n.numbers[d]
	n.mu.RUnlock()
	if e == nil {
		return n.give(d, !spelled && byName)
	}
	if e.idle.Load() != 0 {
		e.idle.Store(0)
	}
	return e.number
}

// give writes down a new number.
func (n *Names) give(d Decided, invented bool) uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.numbers[d]; e != nil {
		return e.number
	}
	if n.out == nil || len(n.decided) >= maxDecided || invented && (n.all >= maxInvented || n.invented[d.Rule] >= maxInventedRule) {
		return 0
	}
	e := &nameNumber{number: n.free(), decided: d, invented: invented}
	if _, err := n.out.Write(e.line()); err != nil {
		n.out = nil // its end is not known: Forget begins it anew
		return 0
	}
	n.add(e)
	return e.number
}

func (n *Names) add(e *nameNumber) {
	if n.decided == nil {
		n.numbers, n.decided, n.invented = map[Decided]*nameNumber{}, map[uint32]*nameNumber{}, map[string]int{}
	}
	n.decided[e.number] = e
	n.next = max(n.next, e.number)
	if e.decided == (Decided{}) {
		return
	}
	n.numbers[e.decided] = e
	if e.invented {
		n.invented[e.decided.Rule]++
		n.all++
	}
}

func (n *Names) remove(e *nameNumber) {
	delete(n.decided, e.number)
	if n.numbers[e.decided] == e {
		delete(n.numbers, e.decided)
	}
	if e.invented {
		if n.invented[e.decided.Rule]--; n.invented[e.decided.Rule] == 0 {
			delete(n.invented, e.decided.Rule)
		}
		n.all--
	}
}

// free returns the next number that nothing has. There are more than may be given.
func (n *Names) free() uint32 {
	for {
		if n.next++; n.next > lastName || n.next < FirstName {
			n.next = FirstName
		}
		if n.decided[n.next] == nil {
			return n.next
		}
	}
}

// Decided returns what a number stands for.
func (n *Names) Decided(number uint32) (d Decided, ok bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	e := n.decided[number]
	if e == nil || e.decided == (Decided{}) {
		return Decided{}, false
	}
	return e.decided, true
}

// Conn is what was known of a connection between two ends.
func (d *Decided) Conn(ends egress.Conn) egress.Conn {
	ends.Proto, ends.Name, ends.API, ends.Literal = d.Proto, d.Name, d.API, d.Literal
	if d.Reason == egress.ByNameRule {
		ends.Bound = []egress.Name{d.Name}
	}
	return ends
}

// Len is how many numbers there are.
func (n *Names) Len() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.decided)
}

// Reserve keeps numbers that live connections carry, and of which nothing is known, from being given to others. A policy that
// is loaded ends those connections.
func (n *Names) Reserve(live map[uint32]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for number := range live {
		if number >= FirstName && n.decided[number] == nil {
			n.add(&nameNumber{number: number})
		}
	}
}

// Renew begins the file: it gets all lines, and returns what further ones are written to.
type Renew func(lines []byte) (io.Writer, error)

// Open begins the file. From now on numbers are given.
func (n *Names) Open(renew Renew) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.renew(renew)
}

// Forget takes a look at the numbers of live connections, and forgets those that are not in use any more. The file is begun
// anew when that, or a line that could not be written, makes it necessary.
func (n *Names) Forget(live map[uint32]bool, renew Renew) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	stale := n.out == nil
	for number, e := range n.decided {
		if live[number] {
			e.idle.Store(0)
		} else if e.idle.Add(1) > idleLooks {
			n.remove(e)
			stale = true
		}
	}
	if !stale {
		return nil
	}
	return n.renew(renew)
}

func (n *Names) renew(renew Renew) error {
	var lines []byte
	for _, number := range slices.Sorted(maps.Keys(n.decided)) {
		if e := n.decided[number]; e.decided != (Decided{}) {
			lines = append(lines, e.line()...)
		}
	}
	var err error
	n.out, err = renew(lines)
	return err
}

// nameLine is the form in which a number outlives the process: a line of JSON.
type nameLine struct {
	Number   uint32 `json:"number"`
	Rule     string `json:"rule"`
	Name     string `json:"name,omitempty"`
	Proto    string `json:"proto"`
	Reason   string `json:"reason"`
	API      bool   `json:"api,omitempty"`
	Literal  bool   `json:"literal,omitempty"`
	Invented bool   `json:"invented,omitempty"`
}

func (e *nameNumber) line() []byte {
	d := &e.decided
	b, err := json.Marshal(nameLine{e.number, d.Rule, d.Name.String(), d.Proto.String(), d.Reason.String(), d.API, d.Literal, e.invented})
	if err != nil {
		panic(err) // it is strings and numbers
	}
	return append(b, '\n')
}

// ReadNames reads lines. One that has no end was being written when the power failed, and is left out. What contradicts itself
// is refused, for a wrong number would let a connection live under another's name.
func ReadNames(r io.Reader) (*Names, error) {
	n := &Names{}
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF):
			n.next = max(n.next, FirstName) + skipped
			return n, nil
		case err != nil:
			return nil, err
		}
		e, err := readNameLine(line)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q: %w", bytes.TrimSpace(line), err)
		case n.decided[e.number] != nil || n.numbers[e.decided] != nil:
			return nil, fmt.Errorf("%q: is there twice", bytes.TrimSpace(line))
		case len(n.decided) >= maxDecided:
			return nil, fmt.Errorf("more than %d names", maxDecided)
		}
		n.add(e)
	}
}

func readNameLine(line []byte) (*nameNumber, error) {
	var l nameLine
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, err
	}
	e := &nameNumber{number: l.Number, invented: l.Invented, decided: Decided{Rule: l.Rule, API: l.API, Literal: l.Literal}}
	d, errs := &e.decided, [3]error{}
	if l.Name != "" {
		d.Name, errs[0] = egress.ParseName(l.Name)
	}
	d.Proto, errs[1] = egress.ParseProto(l.Proto)
	d.Reason, errs[2] = egress.ParseReason(l.Reason)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	if l.Number < FirstName || l.Number > lastName || l.Rule == "" || !d.Proto.Named() || d.Name.IsZero() && d.Reason != egress.ByAPIServerAddress {
		return nil, errors.New("is not complete")
	}
	return e, nil
}
