package kernel

import (
	"fmt"
	"strconv"
	"strings"
)

// Mark is a connection's verdict as conntrack keeps it. It outlives the process,
// so its layout is a format:
//
//	bit 31     28 27      24 23                     0
//	   | always 0 |  State  |      rule number       |
//
// In the mark of a packet bit 28 says that the rules have seen it.
//
// The rule number is what Settings.Number gave for the rule, and 0 where no rule
// is meant. Packets carry the same layout in their own mark, from the process's
// verdict to the chain that copies it.
type Mark uint32

// State is what a connection is allowed to do.
type State uint8

// The states. A bare SYN always brings a connection back to Undecided, so that
// no second connection on the same ports rides an old verdict.
const (
	Undecided State = iota // nothing known: what is not new here is refused
	Allowed                // forwarded without a look
	Cut                    // both ends are reset at their next packet
	Held                   // every packet goes to the process, none passes without it
	Watched                // every packet goes to the process, and passes when it is dead: observe mode
	Passed                 // forwarded in observe mode; rule number 0 is what enforcing would deny
	Proxied                // belongs to a socket of the HTTP proxy

	numStates
)

var stateNames = [numStates]string{"undecided", "allowed", "cut", "held", "watched", "passed", "proxied"}

// String returns the word.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

const (
	ruleBits       = 24
	stateMask Mark = 0x0f << ruleBits

	// seen is in the mark of packets, not of connections: the rules have seen the packet.
	seen Mark = 1 << 28

	// MaxRule is the highest rule number that a mark has room for.
	MaxRule = 1<<ruleBits - 1
)

// NewMark joins a state and a rule number, of which only the low 24 bits count.
func NewMark(s State, rule uint32) Mark {
	return Mark(s)<<ruleBits&stateMask | Mark(rule&MaxRule)
}

// State returns the state.
func (m Mark) State() State { return State(m & stateMask >> ruleBits) }

// Rule returns the rule number; 0 is none.
func (m Mark) Rule() uint32 { return uint32(m) & MaxRule }

// String returns the text form: "allowed/17", or "undecided" where there is no rule.
func (m Mark) String() string {
	if m.Rule() == 0 {
		return m.State().String()
	}
	return fmt.Sprintf("%s/%d", m.State(), m.Rule())
}

// ParseMark reads the text form.
func ParseMark(s string) (Mark, error) {
	word, number, hasRule := strings.Cut(s, "/")
	for state := range numStates {
		if stateNames[state] != word {
			continue
		}
		if !hasRule {
			return NewMark(state, 0), nil
		}
		n, err := strconv.ParseUint(number, 10, ruleBits)
		if err != nil || n == 0 || number[0] == '0' || number[0] == '+' {
			return 0, fmt.Errorf("mark %q: want a rule number from 1 to %d", s, MaxRule)
		}
		return NewMark(state, uint32(n)), nil
	}
	return 0, fmt.Errorf("mark %q: unknown state", s)
}
