//go:build linux

package fault

import (
	"context"
	"fmt"
	"time"
)

// A Row is one fault. Inject makes it, For later Undo ends it, both Times times in a row.
type Row struct {
	Number int    // in the table of faults that docs/reliability.md explains
	Name   string // one word, to be run by
	Fault  string // what breaks
	Expect string // what has to come of it, in words

	Inject func(context.Context, *Site) error
	Undo   func(context.Context, *Site) error // nil: it ends by itself
	Check  func(context.Context, *Site) error // what else has to be true, after the last Undo
	Setup  func(context.Context, *Site) error // before the streams start

	For   time.Duration // how long the fault stays
	Rest  time.Duration // between two times; 0 is usualRest
	Times int           // 0 is once
	Quick int           // how often in a quick run; 0 leaves the row out of it
	Soak  bool          // a soak may make it, together with others
	Ends  bool          // the process ends, and another one follows

	File func(string) string // changes the text of the gateway's file
	Disk int64               // bytes of a file system of its own for the gateway's state and log; 0 is none
	V6   bool                // streams are IPv6 alone
	Hold int                 // established connections; 0 is usualHold

	Unkept bool // no service manager keeps the table's socket when the process dies

	MayFail  bool          // new connections may fail while the fault lasts: what has to be decided by the process waits or fails
	MayLose  bool          // established connections may be lost: two faults at once
	Blackout time.Duration // the goal for the longest time without a new connection; 0 is none
	Slowdown float64       // the goal for p99 during the fault, as a multiple of p99 before; 0 is none
}

// NotHere is the reason why a fault cannot be made on this machine.
type NotHere struct{ Reason string }

func (e NotHere) Error() string { return "cannot be made here: " + e.Reason }

// notHere makes one.
func notHere(format string, args ...any) error { return NotHere{fmt.Sprintf(format, args...)} }

// Rows is the table.
func Rows() []Row {
	var all []Row
	for _, part := range [][]Row{processRows(), policyRows(), loadRows(), limitRows(), dnsRows(), networkRows(), scaleRows()} {
		all = append(all, part...)
	}
	return all
}
