//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"tidegate.io/tidegate/bench/load"
	"tidegate.io/tidegate/internal/results"
)

// hotNames is how many names of the policy are asked for.
const hotNames = 64

// bench is one run of the program.
type bench struct {
	options
	dir      string
	group    *group
	softirqs []string
	server   load.Server
	names    load.NameServer
	policy   policy
	worlds   []*world
	began    time.Time
	test     string // that runs

	results    Results
	violations []Violation
	discarded  int
}

type options struct {
	only    string
	modes   string
	rounds  int
	slice   time.Duration
	foreign float64
	binary  string
	out     string
	report  string
	quick   bool
	full    bool
}

func main() {
	var b bench
	percent := 10.0
	flag.StringVar(&b.only, "only", "", "run these `TESTS` alone, as in T1,T7")
	flag.StringVar(&b.modes, "modes", "", "with these `MODES` alone, as in plain,snat,tidegate,haproxy")
	flag.IntVar(&b.options.rounds, "rounds", 15, "`N` rounds of each measurement")
	flag.DurationVar(&b.slice, "slice", 400*time.Millisecond, "how `LONG` a mode is measured, twice a round")
	flag.Float64Var(&percent, "foreign", percent, "repeat a round in which others used more than this `PERCENT` of the machine, if that helps; from 100 on none is")
	flag.StringVar(&b.binary, "tidegate", "bin/tidegate", "the program to measure, a `FILE`")
	flag.StringVar(&b.out, "o", "results.json", "write the results to this `FILE`, as its \"figures\"")
	flag.StringVar(&b.report, "report", "", "write the report to this `FILE`, and its plots beside it")
	flag.BoolVar(&b.quick, "quick", false, "short: shows that everything works, and that what must be zero is")
	flag.BoolVar(&b.full, "full", false, "the whole matrix, which takes an hour")
	flag.Parse()
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if b.quick && !given["rounds"] {
		b.options.rounds = 1
	}
	if b.quick && !given["slice"] {
		b.slice = 100 * time.Millisecond
	}
	if b.quick && !given["foreign"] {
		percent = 100 // no time is asserted
	}
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unexpected %q; for example: go run ./bench -only T1 -rounds 5 -foreign 100\n", flag.Arg(0))
		os.Exit(2)
	}
	b.foreign = percent / 100
	if err := b.run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// say tells how it goes.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.0fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

func (b *bench) run() error {
	b.began = time.Now()
	if err := b.prepare(); err != nil {
		return err
	}
	defer b.close()
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stopped
		b.close()
		os.Exit(130)
	}()
	failed := b.tests()
	b.results.finish(b)
	if err := results.Save(b.out, "figures", &b.results); err != nil {
		return err
	}
	if b.report != "" {
		failed = errors.Join(failed, b.results.report(b.report))
	}
	return errors.Join(failed, b.verdict())
}

// verdict is an error where something was not zero that must be, with what this project answers for.
func (b *bench) verdict() error {
	for _, v := range b.violations {
		if ours(v.Mode) {
			return fmt.Errorf("what must be zero was not: %s, %s: %s", v.Test, v.Mode, v.What)
		}
	}
	return nil
}

// ours reports whether the project answers for a mode: it is Tidegate, or the kernel alone.
func ours(mode string) bool {
	kind, _, _ := strings.Cut(mode, "-")
	return kind == "plain" || kind == "snat" || kind == "tidegate"
}

func (b *bench) prepare() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("namespaces, queues and control groups need root")
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} { // where Debian has servers
		if !strings.Contains(os.Getenv("PATH"), dir) {
			_ = os.Setenv("PATH", os.Getenv("PATH")+":"+dir)
		}
	}
	// Threads that wait in the kernel must not keep others from running.
	runtime.GOMAXPROCS(4 * runtime.NumCPU())
	if b.binary, err = filepath.Abs(b.binary); err != nil {
		return err
	}
	if _, err := os.Stat(b.binary); err != nil {
		return fmt.Errorf("%w (make build makes it)", err)
	}
	if b.dir, err = os.MkdirTemp("", "tidegate-bench-"); err != nil {
		return err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	if b.group, err = newGroup(fmt.Sprintf("tidegate-bench-%d", os.Getpid())); err != nil {
		return err
	}
	own, err := b.group.child("load")
	if err != nil {
		return err
	}
	if err := own.add(os.Getpid()); err != nil {
		return fmt.Errorf("enter a control group: %w", err)
	}
	b.softirqs = softirqThreads()
	b.policy = newPolicy(5000)
	b.names.Address, b.names.TTL = addressOf, ttlOf
	b.results.start(b)
	reply := serverHello()
	b.server.Reply.Store(&reply)
	return b.server.Start(runtime.NumCPU())
}

// close takes everything away again.
func (b *bench) close() {
	for _, w := range b.worlds {
		w.close()
	}
	b.worlds = nil
	b.server.Close()
	_ = (&group{filepath.Dir(b.group.dir), b.group.v1}).add(os.Getpid())
	for range 20 {
		if b.group.remove(); exec.Command("test", "-e", b.group.dir).Run() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = os.RemoveAll(b.dir)
}

// use makes the worlds of modes, once; those that cannot be made are told and left out, for a peer may not be there.
func (b *bench) use(names ...string) []*world { return b.useModes(modes(), names...) }

func (b *bench) useModes(modes []mode, names ...string) []*world {
	var out []*world
	for _, m := range modes {
		if !slices.Contains(names, m.name) || (b.modes != "" && !slices.Contains(strings.Split(b.modes, ","), m.name)) {
			continue
		}
		w, err := b.world(m)
		if err != nil {
			b.say("%s: left out: %v", m.name, err)
			b.results.Missing = append(b.results.Missing, fmt.Sprintf("%s: %v", m.name, err))
			continue
		}
		out = append(out, w)
	}
	return out
}
