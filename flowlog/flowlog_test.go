package flowlog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"tidegate.io/tidegate/egress"
)

// file is a file in memory, which can break.
type file struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	broken error
	room   int // bytes that are written before broken is returned
	closed int
}

func (f *file) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		n, _ := f.buf.Write(b[:min(f.room, len(b))])
		f.room -= n
		return n, f.broken
	}
	return f.buf.Write(b)
}

func (f *file) Close() error { f.closed++; return nil }

func (f *file) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
}

func (f *file) lines(t *testing.T) (lines []map[string]any) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := bufio.NewScanner(bytes.NewReader(f.buf.Bytes())); s.Scan(); {
		var m map[string]any
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			t.Fatalf("%s: %v", s.Text(), err)
		}
		lines = append(lines, m)
	}
	return lines
}

func flow(src string, a egress.Action, r egress.Reason) egress.Flow {
	return egress.Flow{
		Conn:    egress.Conn{Proto: egress.TCP, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort("20.1.2.3:443")},
		Verdict: egress.Verdict{Action: a, Reason: r},
	}
}

// start runs a log over f and returns it with a function that ends it.
func start(t *testing.T, f *file) (*Log, func()) {
	t.Helper()
	l := &Log{Open: func() (io.WriteCloser, error) { return f, nil }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	return l, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// settle waits, in a bubble, until the writer has rested and written.
func settle() {
	time.Sleep(gather)
	synctest.Wait()
}

func TestEveryFlowIsALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f file
		l, stop := start(t, &f)
		l.Record(flow("10.0.0.1:1", egress.Allow, egress.ByNameRule))
		l.Record(flow("10.0.0.1:2", egress.Deny, egress.NoRule))
		settle()
		if lines := f.lines(t); len(lines) != 2 || lines[1]["reason"] != "no-rule" || lines[1]["src"] != "10.0.0.1:2" {
			t.Errorf("lines %v", lines)
		}
		stop()
		if s := l.Stats(); s != (Stats{Written: 2}) {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestAKeptFlowDoesNotKeepItsPolicy: there may be another one each second, with a hundred thousand rules.
func TestAKeptFlowDoesNotKeepItsPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := start(t, &file{})
		defer stop()
		rules := make([]egress.Rule, 1000)
		rules[7].ID = "core/mcr"
		kept := weak.Make(&rules[7])
		f := flow("10.0.0.1:1", egress.Allow, egress.ByNameRule)
		f.Verdict.Rule = &rules[7]
		l.Record(f)
		settle()
		f, rules = egress.Flow{}, nil
		runtime.GC()
		if kept.Value() != nil {
			t.Error("its rules are kept")
		}
		if last := l.Last(1, nil); len(last) != 1 || last[0].Verdict.Rule.ID != "core/mcr" {
			t.Errorf("the last flow is %v", last)
		}
	})
}

func TestDenialsOfOneSourceAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f file
		l, stop := start(t, &f)
		for range deniedBurst + 500 {
			l.Record(flow("10.0.0.1:1", egress.Deny, egress.NoRule))
		}
		l.Record(flow("10.0.0.2:1", egress.Deny, egress.QUIC))
		l.Record(flow("10.0.0.1:1", egress.Allow, egress.ByNameRule))
		time.Sleep(summaryEvery)
		settle()
		lines := f.lines(t)
		last := lines[len(lines)-1]
		if last["event"] != "suppressed" || last["count"] != 500.0 || last["src"] != "10.0.0.1" || last["reason"] != "no-rule" {
			t.Errorf("the last line is %v", last)
		}
		if n := len(lines); n != deniedBurst+3 {
			t.Errorf("%d lines", n)
		}
		// After a while the source may be heard again.
		l.Record(flow("10.0.0.1:1", egress.Deny, egress.NoRule))
		stop()
		if s := l.Stats(); s != (Stats{Written: deniedBurst + 3, Suppressed: 500}) {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestWhatIsTooFastIsCounted(t *testing.T) {
	l := &Log{}
	for range maxWaiting + 7 {
		l.Record(flow("10.0.0.1:1", egress.Allow, egress.ByNameRule))
	}
	var f file
	l.Open = func() (io.WriteCloser, error) { return &f, nil }
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	lines := f.lines(t)
	if last := lines[len(lines)-1]; last["event"] != "lost" || last["count"] != 7.0 {
		t.Errorf("the last line is %v", last)
	}
	if s := l.Stats(); s != (Stats{Written: maxWaiting, Lost: 7}) || len(lines) != maxWaiting+1 {
		t.Errorf("stats %+v, %d lines", s, len(lines))
	}
}

func TestABrokenFileIsToldAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f file
		var told []error
		l := &Log{Open: func() (io.WriteCloser, error) { return &f, nil }, Failed: func(err error) { told = append(told, err) }}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		full := errors.New("no space left")
		f.set(full)
		for range 3 {
			l.Record(flow("10.0.0.1:1", egress.Allow, egress.ByNameRule))
			settle()
		}
		f.set(nil)
		l.Record(flow("10.0.0.1:1", egress.Allow, egress.ByNameRule))
		settle()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(told) != 1 || !errors.Is(told[0], full) {
			t.Errorf("told %v", told)
		}
		if s := l.Stats(); s != (Stats{Written: 1, Unwritten: 3}) {
			t.Errorf("stats %+v", s)
		}
		if lines := f.lines(t); len(lines) != 2 || lines[1]["event"] != "lost" || lines[1]["count"] != 3.0 {
			t.Errorf("lines %v", lines)
		}
	})
}

// TestAFullDiskIsCounted fills the disk in the middle of a line: what the file has and what its last
// lines say adds up to what happened.
func TestAFullDiskIsCounted(t *testing.T) {
	for _, room := range []int{0, 1, 100, 5000, 150_000} {
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := file{broken: errors.New("no space left"), room: room}
				l, stop := start(t, &f)
				const allowed, denied = 3000, deniedBurst + 500
				for range allowed {
					l.Record(flow("10.0.0.1:1", egress.Allow, egress.ByNameRule))
				}
				for range denied {
					l.Record(flow("10.0.0.2:1", egress.Deny, egress.NoRule))
				}
				time.Sleep(summaryEvery + time.Second) // nor can this be said
				settle()
				f.set(nil)
				stop()
				var have, suppressed, lost float64
				for _, line := range bytes.Split(f.buf.Bytes(), []byte("\n")) {
					var m map[string]any
					if json.Unmarshal(line, &m) != nil {
						continue // torn
					}
					switch m["event"] {
					case "suppressed":
						suppressed += m["count"].(float64)
					case "lost":
						lost += m["count"].(float64)
					default:
						have++
					}
				}
				s := l.Stats()
				if have+suppressed+lost != allowed+denied || suppressed != 500 || have != float64(s.Written) || lost != float64(s.Unwritten) {
					t.Errorf("%v lines, %v suppressed, %v lost; %+v", have, suppressed, lost, s)
				}
			})
		})
	}
}

func TestAFileThatCannotBeOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f file
		l, stop := start(t, &f)
		settle()
		var told []error
		l.Failed = func(err error) { told = append(told, err) }
		l.Open = func() (io.WriteCloser, error) { return nil, errors.New("no such directory") }
		l.Reopen()
		settle()
		l.Record(flow("10.0.0.1:1", egress.Allow, egress.ByNameRule))
		stop()
		if len(f.lines(t)) != 1 || len(told) != 1 || l.Stats() != (Stats{Written: 1}) {
			t.Errorf("%d lines, told %v, %+v", len(f.lines(t)), told, l.Stats())
		}
	})
}

func TestWatchersMissOnlyWhatTheyWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := start(t, &file{})
		ctx, cancel := context.WithCancel(context.Background())
		w := l.Watch(ctx, func(f *egress.Flow) bool { return f.Verdict.Action == egress.Deny })
		for range maxBehind + 10 {
			l.Record(flow("10.0.0.1:1", egress.Allow, egress.ByNameRule))
		}
		l.Record(flow("10.0.0.1:1", egress.Deny, egress.NoRule))
		settle()
		if len(w.Flows) != 1 || w.Missed() != 0 {
			t.Errorf("%d flows, %d missed", len(w.Flows), w.Missed())
		}
		cancel()
		stop()
	})
}

func TestManyNamesAreClipped(t *testing.T) {
	f := flow("10.0.0.1:1", egress.Allow, egress.ByNameRule)
	for i := range 100 {
		f.Conn.Bound = append(f.Conn.Bound, egress.MustParseName(fmt.Sprintf("n%d.test", i)))
	}
	f.Conn.Name = f.Conn.Bound[99]
	clipped := f
	clipBound(&clipped)
	if b := clipped.Conn.Bound; len(b) != maxBound || b[0] != f.Conn.Name || f.Conn.Bound[0].String() != "n0.test" {
		t.Errorf("bound %v", b)
	}
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := []*file{{}, {}}
		opened := 0
		l := &Log{Open: func() (io.WriteCloser, error) { opened++; return files[opened-1], nil }}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		for i := range files {
			l.Record(flow(fmt.Sprintf("10.0.0.1:%d", i+1), egress.Allow, egress.ByNameRule))
			settle()
			if i == 0 {
				l.Reopen()
				settle()
			}
		}
		cancel()
		<-done
		for i, f := range files {
			if lines := f.lines(t); len(lines) != 1 || lines[0]["src"] != fmt.Sprintf("10.0.0.1:%d", i+1) || f.closed != 1 {
				t.Errorf("file %d: %v, closed %d times", i, lines, f.closed)
			}
		}
	})
}

func TestLastAndWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, stop := start(t, &file{})
		ctx, cancel := context.WithCancel(context.Background())
		w := l.Watch(ctx, nil)
		for i := range maxKept + 10 {
			l.Record(flow(fmt.Sprintf("10.0.0.1:%d", i+1), egress.Allow, egress.ByNameRule))
			if i%100 == 0 {
				settle()
			}
		}
		settle()
		last := l.Last(2, nil)
		if len(last) != 2 || last[0].Conn.Src.Port() != maxKept+10 || last[1].Conn.Src.Port() != maxKept+9 {
			t.Errorf("last %v", last)
		}
		if all := l.Last(maxKept*2, func(f *egress.Flow) bool { return f.Conn.Src.Port() <= 20 }); len(all) != 10 {
			t.Errorf("%d of the first twenty are kept", len(all))
		}
		if f := <-w.Flows; f.Conn.Src.Port() != 1 || w.Missed() != maxKept+10-maxBehind {
			t.Errorf("watched %v, missed %d", f.Conn, w.Missed())
		}
		cancel()
		settle()
		if len(l.watch.all) != 0 {
			t.Error("the watcher is still there")
		}
		many, end := context.WithCancel(context.Background())
		for range maxWatchers {
			if l.Watch(many, nil) == nil {
				t.Fatal("too few watchers")
			}
		}
		if l.Watch(many, nil) != nil {
			t.Error("too many watchers")
		}
		end()
		stop()
	})
}

func TestSourcesAreBounded(t *testing.T) {
	var l limits
	at := time.Unix(0, 0)
	a := netip.MustParseAddr("10.0.0.0")
	for range maxSources + 3*deniedBurst {
		a = a.Next()
		f := flow("10.0.0.1:1", egress.Deny, egress.NoRule)
		f.Conn.Src = netip.AddrPortFrom(a, 1)
		l.admit(f, at)
	}
	if len(l.by) != maxSources {
		t.Errorf("%d sources", len(l.by))
	}
	left := l.left(at)
	if len(left) != 1 || left[0].source() != "" || left[0].count != 2*deniedBurst {
		t.Errorf("left out: %v", left)
	}
	if l.left(at.Add(time.Minute)); len(l.by) != 0 {
		t.Errorf("%d sources after a quiet time", len(l.by))
	}
}

// Names come from strangers; whatever they hold, a flow is one line.
func FuzzLine(f *testing.F) {
	f.Add("a.example.com", "x\n{}")
	f.Fuzz(func(t *testing.T, name, id string) {
		n, _ := egress.ParseName(name)
		fl := flow("10.0.0.1:1", egress.Allow, egress.ByNameRule)
		fl.Conn.Name = n
		fl.Verdict.Rule = &egress.Rule{ID: id}
		var out file
		l := &lines{to: &out}
		l.add(fl)
		if written, _, err := l.flush(); err != nil || written != 1 {
			t.Fatalf("%d written, %v", written, err)
		}
		if strings.Count(out.buf.String(), "\n") != 1 {
			t.Fatalf("%q", out.buf.String())
		}
	})
}
