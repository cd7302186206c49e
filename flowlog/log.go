// Package flowlog keeps and tells what was decided: the last flows in memory,
// every flow as a line of JSON, and watchers who see them pass.
//
// It promises never to block whoever records a flow, and to count exactly what
// it leaves out: denials of a source beyond its rate are joined into one line
// that says how many they were, and so is what came faster than it could be
// written. It never decides, and never forgets silently.
package flowlog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"tidegate.io/tidegate/egress"
)

const (
	// maxWaiting is how many flows may wait to be written: some seconds of a busy gateway.
	maxWaiting = 16384

	// maxKept is how many flows are kept in memory for questions about the recent past.
	maxKept = 4096

	// summaryEvery is how often lines say how much was left out.
	summaryEvery = 10 * time.Second
)

// Log takes flows in with Record and writes them in Run. Its fields are set before
// the first use and do not change; its methods may be used from many goroutines.
type Log struct {
	// Open returns where lines go: at the start of Run, and again after each Reopen, when the
	// one before has been closed. Nil writes none.
	Open func() (io.WriteCloser, error)

	// Failed is told that lines could not be written, once for each change from good to bad.
	// Nil is for nobody.
	Failed func(error)

	// Now is the clock; nil is time.Now.
	Now func() time.Time

	once    sync.Once
	waiting chan egress.Flow
	reopen  chan struct{}
	limits  limits
	kept    ring
	watch   watchers

	written, lost, suppressed, unwritten atomic.Uint64
	lostTold                             uint64 // of lost: what a line has said; of the goroutine of Run
}

// Stats counts since the start.
type Stats struct {
	Written    uint64 // lines of flows
	Lost       uint64 // flows that came faster than they could be taken
	Suppressed uint64 // denials beyond the rate of their source
	Unwritten  uint64 // flows that could not be written, for an error of the file
}

func (l *Log) setup() {
	l.once.Do(func() {
		l.waiting = make(chan egress.Flow, maxWaiting)
		l.reopen = make(chan struct{}, 1)
		if l.Now == nil {
			l.Now = time.Now
		}
	})
}

// Record takes a flow in. It never blocks.
func (l *Log) Record(f egress.Flow) {
	l.setup()
	if f.Verdict.Action == egress.Deny && !f.End && !l.limits.admit(f, l.Now()) {
		l.suppressed.Add(1)
		return
	}
	select {
	case l.waiting <- f:
	default:
		l.lost.Add(1)
	}
}

// Reopen makes the log close its file and open it anew, after it was rotated.
func (l *Log) Reopen() {
	l.setup()
	select {
	case l.reopen <- struct{}{}:
	default: // one is on its way
	}
}

// Stats returns the counts.
func (l *Log) Stats() Stats {
	return Stats{l.written.Load(), l.lost.Load(), l.suppressed.Load(), l.unwritten.Load()}
}

// Run writes until ctx is done, then writes what still waits, and returns nil. It
// returns an error only when the file cannot be opened at the start.
func (l *Log) Run(ctx context.Context) error {
	l.setup()
	out, err := l.open()
	if err != nil {
		return err
	}
	defer func() { _ = out.close() }() // whichever it is by then; drain has flushed it
	tick := time.NewTicker(summaryEvery)
	defer tick.Stop()
	for {
		select {
		case f := <-l.waiting:
			l.take(out, f)
		case <-l.reopen:
			out = l.again(out)
		case <-tick.C:
			l.summarise(out)
		case <-ctx.Done():
			l.drain(out)
			return nil
		}
		if len(l.waiting) == 0 {
			l.flush(out)
		}
	}
}

// drain writes what waits, and what was left out.
func (l *Log) drain(out *lines) {
	for {
		select {
		case f := <-l.waiting:
			l.take(out, f)
		default:
			l.summarise(out)
			return
		}
	}
}

func (l *Log) take(out *lines, f egress.Flow) {
	l.kept.add(f)
	l.watch.send(f)
	out.flows++
	if err := out.json(f); err != nil {
		l.fail(out, err)
	}
}

// flush writes what is buffered.
func (l *Log) flush(out *lines) {
	if err := out.Flush(); err != nil {
		l.fail(out, err)
		return
	}
	l.written.Add(out.flows)
	out.flows, out.failed = 0, false
}

// fail counts what was buffered as unwritten, and tells the error once. The next
// line tries again, which a bufio.Writer alone would not.
func (l *Log) fail(out *lines, err error) {
	if !out.failed && l.Failed != nil {
		l.Failed(err)
	}
	l.unwritten.Add(out.flows)
	out.flows, out.failed = 0, true
	out.Reset(out.to)
}

// omission is the line about what was left out. It has the fields of a flow's
// line where they mean the same.
type omission struct {
	Time   time.Time      `json:"time"`
	Event  string         `json:"event"` // "suppressed" or "lost"
	Src    string         `json:"src,omitempty"`
	Reason *egress.Reason `json:"reason,omitempty"` // of the last that was suppressed
	Count  uint64         `json:"count"`
}

func (l *Log) summarise(out *lines) {
	at := l.Now()
	for _, s := range l.limits.left() {
		l.note(out, omission{at, "suppressed", s.src, &s.last, s.count})
	}
	if lost := l.lost.Load(); lost > l.lostTold {
		l.note(out, omission{Time: at, Event: "lost", Count: lost - l.lostTold})
		l.lostTold = lost
	}
	l.flush(out)
}

func (l *Log) note(out *lines, o omission) {
	if err := out.json(o); err != nil {
		l.fail(out, err)
	}
}

// lines is an open file of lines.
type lines struct {
	*bufio.Writer
	to     io.WriteCloser
	flows  uint64 // in the buffer
	failed bool   // and told
}

func (l *Log) open() (*lines, error) {
	if l.Open == nil {
		return &lines{Writer: bufio.NewWriter(io.Discard), to: discard{}}, nil
	}
	to, err := l.Open()
	if err != nil {
		return nil, err
	}
	return &lines{Writer: bufio.NewWriterSize(to, 64<<10), to: to}, nil
}

// again opens the file anew; while that fails, flows are counted as unwritten.
func (l *Log) again(old *lines) *lines {
	l.flush(old)
	_ = old.close() // nothing is left in it
	out, err := l.open()
	if err != nil {
		out = &lines{Writer: bufio.NewWriter(broken{err}), to: broken{err}}
		l.fail(out, err)
	}
	return out
}

func (o *lines) json(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = o.Write(append(b, '\n'))
	return err
}

func (o *lines) close() error { return errors.Join(o.Flush(), o.to.Close()) }

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Close() error                { return nil }

// broken is a file that could not be opened.
type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }
func (broken) Close() error                { return nil }
