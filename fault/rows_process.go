//go:build linux

package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tidegate.io/tidegate/lab"
)

// processRows are what can happen to the process.
func processRows() []Row {
	return []Row{
		{
			Number: 1, Name: "kill", Fault: "kill -9, as a process ends that is out of memory, and a start at once",
			Expect: "decided flows go on; undecided packets are sent again; new ones wait for the start",
			Inject: kill, Undo: restart, For: 300 * time.Millisecond, Times: 20, Quick: 2, Soak: true, Ends: true, MayFail: true, Blackout: time.Second,
		},
		{
			Number: 1, Name: "panic", Fault: "a crash with all goroutines' traces, as a panic ends",
			Expect: "as after kill -9",
			Inject: func(_ context.Context, s *Site) error { return s.endGateway(syscall.SIGQUIT) }, Undo: restart,
			For: 300 * time.Millisecond, Times: 5, MayFail: true, Blackout: time.Second,
		},
		{
			Number: 2, Name: "stop", Fault: "SIGSTOP for 2.5 s, as a machine without time for it",
			Expect: "new connections wait and succeed",
			Inject: signal(syscall.SIGSTOP), Undo: signalUndo(syscall.SIGCONT), For: 2500 * time.Millisecond, Rest: 10 * time.Second, Times: 3, Quick: 1, Soak: true, Blackout: 4 * time.Second,
		},
		{
			Number: 2, Name: "stop-flooded", Fault: "SIGSTOP for 2.5 s while eight pods send 30,000 SYNs a second, so that the queues run over",
			Expect: "what the queues have no room for is dropped and counted, and nothing passes",
			Inject: func(ctx context.Context, s *Site) error {
				pods, _, err := s.pods(8)
				if err != nil {
					return err
				}
				s.inBackground(ctx, func(ctx context.Context) error { return s.floodSYNs(ctx, pods, permittedName, 30_000) })
				return s.SignalGateway(syscall.SIGSTOP)
			},
			Undo: func(ctx context.Context, s *Site) error {
				return errors.Join(s.SignalGateway(syscall.SIGCONT), s.undoAll(), s.quiet(ctx))
			},
			For: 2500 * time.Millisecond, Times: 2, MayFail: true, Check: afterOverflow,
		},
		{
			Number: 3, Name: "upgrade", Fault: "a new binary takes over queues and sockets (gateway run --replace)",
			Expect: "no new connection fails, none is lost",
			Inject: upgrade, For: 100 * time.Millisecond, Times: 10, Quick: 3, Soak: true, Ends: true, Slowdown: 2, Blackout: upgradeWithin,
		},
		{
			Number: 3, Name: "upgrade-broken", Fault: "a new binary that cannot read the gateway's file wants to take over",
			Expect: "it ends with an error before it asks; the old one goes on",
			Inject: func(ctx context.Context, s *Site) error {
				if err := s.write(s.file + "from-the-future: true\n"); err != nil {
					return err
				}
				out, code, err := s.command(ctx, "run", "--replace")
				if err == nil && code == 0 || !strings.Contains(out, "from-the-future") {
					err = fmt.Errorf("gateway run --replace with a broken file: exit status %d: %s", code, out)
				}
				return errors.Join(err, s.write(s.file))
			},
			Times: 3,
		},
		{
			Number: 4, Name: "downgrade", Fault: "an older binary reads a file with a key of a newer one",
			Expect: "refused with the line; the rules in the kernel stay as they are",
			Inject: func(ctx context.Context, s *Site) error { return s.refuses(ctx, s.file+"quantum: true\n", "quantum") },
			Times:  3, Quick: 1,
		},
		{
			Number: 5, Name: "boot", Fault: "a start, with no upstream to ask",
			Expect: "closed until it runs, and what was known before is permitted at once",
			Inject: func(ctx context.Context, s *Site) error {
				s.StopGateway()
				s.Tamper(silent)
				began := time.Now()
				started := make(chan error, 1)
				go func() { started <- s.RestartGateway(ctx) }() // it is not ready before an upstream answers
				err := s.new.handshake(ctx, false)
				s.figure("start to first connection, no upstream", "%d ms", time.Since(began).Milliseconds())
				s.Tamper(nil)
				return errors.Join(err, <-started)
			},
			Times: 3, MayFail: true,
		},
		{
			Number: 6, Name: "crash-loop", Fault: "SIGTERM ten times, the process away for a second each time",
			Expect: "the table stays, nothing evil passes",
			Inject: func(_ context.Context, s *Site) error {
				s.StopGateway()
				if n, err := s.rules(); err != nil || n == 0 {
					return fmt.Errorf("after SIGTERM there are %d rules: %w", n, err)
				}
				return nil
			},
			Undo: restart, For: time.Second, Times: 10, MayFail: true,
		},
	}
}

// upgradeWithin is how long an upgrade may keep new connections waiting, the time between two of them included.
const upgradeWithin = 200 * time.Millisecond

func kill(_ context.Context, s *Site) error { s.KillGateway(); return nil }

// restart starts the gateway again, and says how long that takes.
func restart(ctx context.Context, s *Site) error {
	began := time.Now()
	if err := s.RestartGateway(ctx); err != nil {
		return err
	}
	_, to, err := s.lastStart()
	if err == nil {
		s.start = max(s.start, to.Sub(began))
		s.figure("from a start to enforcing, at most", "%d ms", s.start.Milliseconds())
	}
	return err
}

func upgrade(ctx context.Context, s *Site) error {
	if err := s.ReplaceGateway(ctx, "--replace"); err != nil {
		return err
	}
	from, to, err := s.lastStart()
	if err != nil {
		return err
	}
	if s.pause = max(s.pause, to.Sub(from)); from.IsZero() || to.Before(from) {
		return errors.New("the gateway's log does not say that it was handed over")
	}
	s.figure("from handing over to enforcing, at most", "%d ms", s.pause.Milliseconds())
	return nil
}

// lastStart is when a process last handed over, and when one last began to enforce.
func (s *Site) lastStart() (from, to time.Time, err error) {
	text, err := os.ReadFile(filepath.Join(s.dir, "gateway.log"))
	return lastSaid(text, "msg=\"handing over\""), lastSaid(text, "msg=enforcing"), err
}

// lastSaid is when a word was last in the gateway's log.
func lastSaid(log []byte, word string) (at time.Time) {
	for line := range bytes.Lines(log) {
		if stamp, rest, ok := bytes.Cut(bytes.TrimPrefix(line, []byte("time=")), []byte(" ")); ok && bytes.Contains(rest, []byte(word)) {
			at, _ = time.Parse(time.RFC3339Nano, string(stamp)) // the log's own
		}
	}
	return at
}

func signal(sig syscall.Signal) func(context.Context, *Site) error {
	return func(_ context.Context, s *Site) error { return s.SignalGateway(sig) }
}

func signalUndo(sig syscall.Signal) func(context.Context, *Site) error { return signal(sig) }

// endGateway ends the process by a signal that it does not handle.
func (s *Site) endGateway(sig syscall.Signal) error {
	if err := s.SignalGateway(sig); err != nil {
		return err
	}
	time.Sleep(50 * time.Millisecond) // so that it is the signal that it dies of
	s.KillGateway()                   // and is waited for
	return nil
}

// refuses brings a broken file up, which the gateway has to refuse with a word, without touching its rules.
func (s *Site) refuses(ctx context.Context, text, word string) error {
	before, err := s.ruleHandles()
	if err != nil {
		return err
	}
	if err := s.write(text); err != nil {
		return err
	}
	out, code, err := s.command(ctx, "reload")
	switch {
	case err != nil:
	case code != 1 && code != 2:
		err = fmt.Errorf("gateway reload of a broken file: exit status %d: %s", code, out)
	case !strings.Contains(out, word):
		err = fmt.Errorf("gateway reload does not say %q: %s", word, out)
	}
	after, err2 := s.ruleHandles()
	if err2 == nil && before != after {
		err2 = errors.New("the rules in the kernel have been touched by a file that was refused")
	}
	return errors.Join(err, err2, s.write(s.file))
}

// quiet waits until the gateway's queues are empty again.
func (s *Site) quiet(ctx context.Context) error {
	if !until(ctx, lull, func() bool { return lab.Ready(ctx, s.Lab) == nil }) {
		return errors.New("the gateway is not ready long after the flood")
	}
	return nil
}

// lull is how long a gateway may take to recover from a flood: SYNs are forgotten after ten seconds.
const lull = 20 * time.Second
