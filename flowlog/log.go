// Package flowlog keeps and tells what was decided: the last flows in memory,
// every flow as a line of JSON, and watchers who see them pass.
//
// It promises never to block whoever records a flow, and to count exactly what
// it leaves out: denials of a source beyond its rate are joined into one line
// that says how many they were, and so is what came faster than it could be
// written. It never decides, and never forgets silently.
package flowlog

import (
	"context"
	"encoding/json"
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

	// gather is how long the writer rests after it has written: what comes meanwhile is
	// written at once, and wakes nobody.
	gather = 10 * time.Millisecond

	// summaryEvery is how often lines say how much was left out.
	summaryEvery = 10 * time.Second
)

// Log takes flows in with Record and writes them in Run. Its fields are set before
// the first use and do not change; its methods may be used from many goroutines.
type Log struct {
	// Open returns where lines go: at the start of Run, and again after each Reopen, before the
	// one before is closed. Nil writes none.
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
	missingTold                          uint64 // of lost and unwritten: what a line has said; of the goroutine of Run
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
	clipBound(&f)
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
	defer func() { _ = out.to.Close() }() // whichever it is by then; drain has flushed it
	tick := time.NewTicker(summaryEvery)
	defer tick.Stop()
	for {
		select {
		case f := <-l.waiting:
			l.take(out, f)
		case <-l.reopen:
			out = l.reopened(out)
		case <-tick.C:
			l.summarise(out)
		case <-ctx.Done():
			l.drain(out)
			return nil
		}
		if len(l.waiting) == 0 {
			l.flush(out)
			rest(ctx)
		}
	}
}

// rest waits for gather, or until ctx is done.
func rest(ctx context.Context) {
	t := time.NewTimer(gather)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
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
	f.Verdict = f.Verdict.Kept()
	l.kept.add(f)
	l.watch.send(f)
	if out.add(f); len(out.buf) >= maxBuffered {
		l.flush(out)
	}
}

// flush writes what is buffered, and counts what of it the file did not take.
func (l *Log) flush(out *lines) {
	written, unwritten, err := out.flush()
	l.written.Add(written)
	l.unwritten.Add(unwritten)
	l.tell(out, err)
}

// tell tells an error of the file once, until it works again.
func (l *Log) tell(out *lines, err error) {
	if err != nil && !out.failed && l.Failed != nil {
		l.Failed(err)
	}
	out.failed = err != nil
}

// omission is the line about what was left out, so that lines and counts together
// are exact. It has the fields of a flow's line where they mean the same.
type omission struct {
	Time   time.Time      `json:"time"`
	Event  string         `json:"event"` // "suppressed"; or "lost": too fast, or the file failed
	Src    string         `json:"src,omitempty"`
	Reason *egress.Reason `json:"reason,omitempty"` // of the last that was suppressed
	Count  uint64         `json:"count"`
}

// summarise writes what was left out. What cannot be written is said the next time.
func (l *Log) summarise(out *lines) {
	at := l.Now()
	l.flush(out)
	for _, s := range l.limits.left(at) {
		if !l.note(out, omission{at, "suppressed", s.source(), &s.last, s.count}) {
			l.limits.again(s, at)
		}
	}
	missing := l.lost.Load() + l.unwritten.Load()
	if missing > l.missingTold && l.note(out, omission{Time: at, Event: "lost", Count: missing - l.missingTold}) {
		l.missingTold = missing
	}
}

// note writes one line at once, and reports whether the file has it.
func (l *Log) note(out *lines, o omission) bool {
	b, err := json.Marshal(o)
	if err == nil {
		_, err = out.write(append(b, '\n'))
	}
	l.tell(out, err)
	return err == nil
}

// open opens the file of lines; without one, it is a bin.
func (l *Log) open() (*lines, error) {
	if l.Open == nil {
		return &lines{to: discard{}}, nil
	}
	to, err := l.Open()
	if err != nil {
		return nil, err
	}
	return &lines{to: to}, nil
}

// reopened opens the file anew. While that fails the old one goes on, renamed as it may be.
func (l *Log) reopened(old *lines) *lines {
	l.flush(old)
	out, err := l.open()
	if err != nil {
		l.tell(old, err)
		return old
	}
	_ = old.to.Close() // nothing is left in it
	return out
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Close() error                { return nil }
