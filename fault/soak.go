//go:build linux

package fault

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/lab"
)

// Soaked is what came of a soak.
type Soaked struct {
	Seed        uint64         `json:"seed"`
	Seconds     float64        `json:"seconds"`
	OK          bool           `json:"ok"`
	Faults      map[string]int `json:"faults"`
	Lost        int            `json:"lost"`
	Established int            `json:"established"`
	Evil        int64          `json:"evil"`
	EvilPassed  int64          `json:"evilPassed"`
	New         int64          `json:"new"`
	NewFailed   int            `json:"newFailed"`
	Steady      float64        `json:"steadySeconds"` // the trends are of
	Looks       int            `json:"looks"`         // and of how many looks at the process
	Memory      Trend          `json:"memoryBytes"`   // of the machine, behind a collection of garbage, when what is free has been given back
	Heap        Trend          `json:"heapBytes"`     // what that has left of the heap, with the goroutines' stacks
	Goroutines  Trend          `json:"goroutines"`
	Descriptors Trend          `json:"descriptors"`
	Problems    []string       `json:"problems,omitempty"`
}

// A Trend is how something grew: the median of the first and of the last tenth of the samples, the most, and what the
// middle line through all of them rises by in an hour, with the bounds between which that is with 95 % confidence.
type Trend struct {
	Start   float64 `json:"start"`
	End     float64 `json:"end"`
	Most    float64 `json:"most"`
	PerHour float64 `json:"perHour"`
	Low     float64 `json:"perHourLow"`
	High    float64 `json:"perHourHigh"`
}

// size is how large the gateway's process is at one moment.
type size struct {
	at                                    time.Duration
	pid                                   int
	memory, heap, goroutines, descriptors float64
}

const (
	// restless is the part of a soak in which processes come and go, one in restless. In the rest one has to bear all, for a
	// process that is always young shows no growth.
	restless = 6

	// A look is taken behind busy, in which faults are begun, the time that the last of them take, and quiet, in which what
	// they have left in the process is forgotten: what is not decided in ten seconds is not remembered.
	busy  = 10 * time.Second
	quiet = 12 * time.Second

	// betweenLooks is longer than a question to DNS, or a connection, is under way.
	betweenLooks = 3 * time.Second

	// settling is how long a process grows in any case: it fills its caches, and what it keeps of the last flows.
	settling = 2 * time.Minute

	// soakNames is how many names its look-ups are of.
	soakNames = 1000

	// mostGrowth and mostMore are the goals: bytes of the heap, and goroutines or descriptors, in an hour.
	mostGrowth = 1 << 20
	mostMore   = 1

	// fewestLooks is how many say something of a trend.
	fewestLooks = 8
)

// atOnce is how many faults are under way at the same time.
const atOnce = 3

// Soak makes faults at random for as long as it is told.
func (s *Suite) Soak(ctx context.Context, d time.Duration, seed uint64) (*Soaked, error) {
	row := Row{Name: "soak"}
	site, err := open(ctx, s.Config, &row, filepath.Join(s.Dir, "soak"))
	if err != nil {
		return nil, err
	}
	site.fewNames = true
	if err := site.startStreams(ctx, &row); err != nil {
		return nil, errors.Join(err, site.Close())
	}
	out := &Soaked{Seed: seed, Faults: map[string]int{}}
	streams, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { site.evil.run(streams, site, false) })
	running.Go(func() { site.new.run(streams) })
	began := time.Now()
	random := rand.New(rand.NewPCG(seed, 0))
	faults := func(may func(*Row) bool) *bag {
		rows := slices.DeleteFunc(Rows(), func(r Row) bool { return !r.Soak || !may(&r) })
		return &bag{random: random, rows: rows, made: out.Faults}
	}
	err = s.makeFaults(ctx, site, d/restless, faults(func(*Row) bool { return true }), out)
	var sizes []size
	if err == nil {
		sizes, err = s.bear(ctx, site, d-d/restless, faults(func(r *Row) bool { return !r.Ends }), out)
	}
	err = errors.Join(err, pause(ctx, afterFor))
	out.Seconds = time.Since(began).Seconds()
	stop()
	running.Wait()
	var r Result
	out.Established, out.Lost = site.countLost(&r, false)
	out.Problems = append(out.Problems, r.Problems...)
	out.New, out.NewFailed = site.new.tried.Load(), len(site.new.failed)
	out.Evil, out.EvilPassed = site.evil.tried.Load(), site.evil.passed.Load()
	out.judge(site, sizes)
	return out, errors.Join(err, site.Close())
}

// judge fills in the trends, and says whether all is well.
func (o *Soaked) judge(site *Site, sizes []size) {
	if o.EvilPassed > 0 {
		o.Problems = append(o.Problems, fmt.Sprintf("%d evil messages arrived: %s", o.EvilPassed, site.evil.arrived()))
	}
	if len(sizes) > 0 && sizes[0].pid != sizes[len(sizes)-1].pid {
		o.Problems = append(o.Problems, "the process that had to bear all has ended, and another one followed")
	}
	sizes = steady(sizes)
	if o.Looks = len(sizes); o.Looks > 0 {
		o.Steady = (sizes[len(sizes)-1].at - sizes[0].at).Seconds()
	}
	if o.Looks < fewestLooks {
		o.Problems = append(o.Problems, "too short for a trend")
	}
	o.Memory = trend(sizes, func(x size) float64 { return x.memory })
	o.Heap = trend(sizes, func(x size) float64 { return x.heap })
	o.Goroutines = trend(sizes, func(x size) float64 { return x.goroutines })
	o.Descriptors = trend(sizes, func(x size) float64 { return x.descriptors })
	for _, x := range []struct {
		name string
		t    Trend
		goal float64
	}{{"bytes of the heap", o.Heap, mostGrowth}, {"goroutines", o.Goroutines, mostMore}, {"descriptors", o.Descriptors, mostMore}} {
		if x.t.Low > x.goal {
			o.Problems = append(o.Problems, fmt.Sprintf("the %s grow by %.0f an hour, at least %.0f: goal %.0f", x.name, x.t.PerHour, x.t.Low, x.goal))
		}
	}
	o.OK = len(o.Problems) == 0
}

// steady are the looks behind the time in which a process settles.
func steady(sizes []size) []size {
	return slices.DeleteFunc(slices.Clone(sizes), func(x size) bool { return x.at < settling })
}

// bear makes faults with pauses, and looks at the process in these.
func (s *Suite) bear(ctx context.Context, site *Site, d time.Duration, faults *bag, out *Soaked) (sizes []size, err error) {
	began := time.Now()
	for number := range uint64(soakNames) { // or it would be long until all of them had been
		_, _ = site.ask(ctx, 2, numberedName(number), dns.TypeA)
	}
	for time.Since(began) < d {
		if err := s.makeFaults(ctx, site, busy, faults, out); err != nil {
			return sizes, err
		}
		if err := pause(ctx, quiet); err != nil {
			return sizes, err
		}
		x, err := site.lookTwice(ctx)
		if err != nil {
			return sizes, err
		}
		x.at = time.Since(began)
		s.Say(fmt.Sprintf("  after %.0f s: heap %.0f kB, memory %.0f kB, %.0f goroutines, %.0f descriptors", x.at.Seconds(), x.heap/1000, x.memory/1000, x.goroutines, x.descriptors))
		sizes = append(sizes, x)
	}
	return sizes, nil
}

// lookTwice returns the least of two looks, for what is under way, a question or a connection, only adds.
func (s *Site) lookTwice(ctx context.Context) (size, error) {
	x, err := s.look(ctx)
	if err != nil {
		return x, err
	}
	if err := pause(ctx, betweenLooks); err != nil {
		return x, err
	}
	y, err := s.look(ctx)
	return size{
		pid: y.pid, memory: min(x.memory, y.memory), heap: min(x.heap, y.heap),
		goroutines: min(x.goroutines, y.goroutines), descriptors: min(x.descriptors, y.descriptors),
	}, err
}

// look looks at the gateway's size.
func (s *Site) look(ctx context.Context) (size, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	pid := s.GatewayPID()
	m, err := lab.AskMemory(ctx, filepath.Join(s.dir, "state"))
	if err != nil {
		return size{}, err
	}
	fds, err := descriptors(pid)
	return size{pid: pid, memory: float64(resident(pid)), heap: m.Heap + m.Stacks, goroutines: m.Goroutines, descriptors: float64(fds)}, err
}

// A bag has faults. Each is taken once before any is taken again.
type bag struct {
	random *rand.Rand
	rows   []Row
	left   []*Row
	made   map[string]int
}

// take takes one that may be made now, or nil.
func (b *bag) take(may func(*Row) bool) *Row {
	if len(b.left) == 0 {
		for _, i := range b.random.Perm(len(b.rows)) {
			b.left = append(b.left, &b.rows[i])
		}
	}
	i := slices.IndexFunc(b.left, may)
	if i < 0 {
		return nil
	}
	r := b.left[i]
	b.left = slices.Delete(b.left, i, i+1)
	b.made[r.Name]++
	return r
}

// makeFaults makes faults for d, some at the same time, but no two of a group, and returns when the last is over.
func (s *Suite) makeFaults(ctx context.Context, site *Site, d time.Duration, faults *bag, out *Soaked) error {
	var mu sync.Mutex // what the bag, the problems and the choice share
	running := map[string]bool{}
	next := func() (r *Row, wait time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if r = faults.take(func(r *Row) bool { return !running[r.group()] }); r != nil {
			running[r.group()] = true
		}
		return r, time.Duration(faults.random.IntN(int(4 * time.Second)))
	}
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	g, limited := errgroup.WithContext(limited)
	for range atOnce {
		g.Go(func() error {
			for limited.Err() == nil {
				r, wait := next()
				if r == nil {
					_ = pause(limited, wait)
					continue
				}
				began := time.Now()
				one := *r
				one.Times = 1
				err := one.make(context.WithoutCancel(limited), site)
				mu.Lock()
				delete(running, r.group())
				if err != nil && r.group() != "dns" { // whose look-ups fail while the process is away
					out.Problems = append(out.Problems, fmt.Sprintf("%s: %v", r.Name, err))
				}
				many := len(out.Problems) > 20
				mu.Unlock()
				s.Say(fmt.Sprintf("  %-15s %.1f s", r.Name, time.Since(began).Seconds()))
				if many {
					return errors.New("too many problems")
				}
				_ = pause(limited, wait)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// group names the faults that cannot be made at the same time: there is one process, one file and one DNS.
func (row *Row) group() string {
	switch {
	case row.Number <= 10 && row.Name != "divert":
		return "process"
	case strings.HasPrefix(row.Name, "dns"):
		return "dns"
	}
	return row.Name
}

// trend works out how one measure went. The slope is the median of those between pairs of samples, which a single large one
// does not move, and its bounds are those of Sen (1968).
func trend(all []size, of func(size) float64) Trend {
	if len(all) == 0 {
		return Trend{}
	}
	middle := func(some []size) float64 {
		values := make([]float64, len(some))
		for i, x := range some {
			values[i] = of(x)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	tenth := max(len(all)/10, 1)
	t := Trend{Start: middle(all[:tenth]), End: middle(all[len(all)-tenth:])}
	for _, x := range all {
		t.Most = max(t.Most, of(x))
	}
	const points = 300
	step := max(len(all)/points, 1)
	n := 0
	var slopes []float64
	for i := 0; i < len(all); i += step {
		n++
		for j := i + step; j < len(all); j += step {
			if dt := (all[j].at - all[i].at).Hours(); dt > 0 {
				slopes = append(slopes, (of(all[j])-of(all[i]))/dt)
			}
		}
	}
	if len(slopes) == 0 {
		return t
	}
	slices.Sort(slopes)
	const sigmas = 1.96 // 95 %
	spread := int(sigmas * math.Sqrt(float64(n*(n-1)*(2*n+5))/18))
	t.PerHour = slopes[len(slopes)/2]
	t.Low, t.High = slopes[max((len(slopes)-spread)/2, 0)], slopes[min((len(slopes)+spread)/2, len(slopes)-1)]
	return t
}

func (o *Soaked) text() string { return o.markdown() }

// markdown is the soak as a list.
func (o *Soaked) markdown() string {
	const mb = 1 << 20
	var b strings.Builder
	total := 0
	for _, n := range o.Faults {
		total += n
	}
	fmt.Fprintf(&b, "Soak of %.0f s with seed %d: %d faults, up to %d at a time; lost %d of %d established, evil passed %d of %d, new %d of which %d failed while something was broken.\n\n",
		o.Seconds, o.Seed, total, atOnce, o.Lost, o.Established, o.EvilPassed, o.Evil, o.New, o.NewFailed)
	fmt.Fprintf(&b, "Of one process, %d looks in %.0f s behind its first %.0f:\n\n", o.Looks, o.Steady, settling.Seconds())
	b.WriteString("| | start | end | most | slope per hour | with 95 % confidence |\n|---|---|---|---|---|---|\n")
	for _, x := range []struct {
		name string
		Trend
		unit float64
	}{{"heap and stacks in use (MB)", o.Heap, mb}, {"memory of the machine (MB)", o.Memory, mb}, {"goroutines", o.Goroutines, 1}, {"descriptors", o.Descriptors, 1}} {
		fmt.Fprintf(&b, "| %s | %.2f | %.2f | %.2f | %+.2f | %+.2f to %+.2f |\n", x.name, x.Start/x.unit, x.End/x.unit, x.Most/x.unit, x.PerHour/x.unit, x.Low/x.unit, x.High/x.unit)
	}
	switch {
	case o.Heap.High <= mostGrowth:
		fmt.Fprintf(&b, "\nWhat is in use grows by less than %d MB an hour.\n", mostGrowth/mb)
	case o.Heap.Low <= mostGrowth:
		fmt.Fprintf(&b, "\nThat is too wide to show that what is in use grows by less than %d MB an hour: a longer soak would.\n", mostGrowth/mb)
	}
	for _, p := range o.Problems {
		fmt.Fprintf(&b, "\n* %s", p)
	}
	if len(o.Problems) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}
