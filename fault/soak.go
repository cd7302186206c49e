//go:build linux

package fault

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
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
	Memory      Trend          `json:"memoryBytes"`
	Heap        Trend          `json:"heapBytes"` // what a collection of garbage left, with stacks and globals
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
	// restless is the part of a soak in which processes come and go, one in restless. In the rest the last of them stays,
	// for a process that is always young shows no growth.
	restless = 4

	// settling is how long a process grows in any case: it fills its caches, and conntrack tells it of a connection's end
	// two minutes after that.
	settling = 150 * time.Second

	// soakNames is how many names its look-ups are of.
	soakNames = 1000

	// mostGrowth and mostMore are the goals: bytes of the heap, and goroutines or descriptors, in an hour.
	mostGrowth = 1 << 20
	mostMore   = 1
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
	var sizes []size
	running.Go(func() { sizes = site.weigh(streams) })

	began := time.Now()
	rows := slices.DeleteFunc(Rows(), func(r Row) bool { return !r.Soak })
	random := rand.New(rand.NewPCG(seed, 0))
	err = s.makeFaults(ctx, site, d/restless, rows, random, out)
	if err == nil {
		rows = slices.DeleteFunc(rows, func(r Row) bool { return r.Ends })
		err = s.makeFaults(ctx, site, d-d/restless, rows, random, out)
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
	sizes = steady(sizes)
	const fewest = 10
	if len(sizes) < fewest {
		o.Problems = append(o.Problems, "too short for a trend")
	} else {
		o.Steady = (sizes[len(sizes)-1].at - sizes[0].at).Seconds()
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

// steady are the samples of the last process, without its beginning.
func steady(sizes []size) []size {
	if len(sizes) == 0 {
		return nil
	}
	last := sizes[len(sizes)-1].pid
	sizes = sizes[slices.IndexFunc(sizes, func(x size) bool { return x.pid == last }):]
	from := sizes[0].at + settling
	return slices.DeleteFunc(slices.Clone(sizes), func(x size) bool { return x.at < from })
}

// makeFaults makes one of the rows after the other, some at the same time, but no two of a group: there are more groups
// than atOnce.
func (s *Suite) makeFaults(ctx context.Context, site *Site, d time.Duration, rows []Row, random *rand.Rand, out *Soaked) error {
	var mu sync.Mutex // what the randomness, the counts and the choice share
	busy := map[string]bool{}
	next := func() *Row {
		mu.Lock()
		defer mu.Unlock()
		for {
			r := &rows[random.IntN(len(rows))]
			if !busy[r.group()] {
				busy[r.group()] = true
				out.Faults[r.Name]++
				return r
			}
		}
	}
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	g, limited := errgroup.WithContext(limited)
	for range atOnce {
		g.Go(func() error {
			for limited.Err() == nil {
				r := next()
				began := time.Now()
				one := *r
				one.Times = 1
				err := one.make(context.WithoutCancel(limited), site)
				mu.Lock()
				delete(busy, r.group())
				wait := time.Duration(random.IntN(int(4 * time.Second)))
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

// weigh looks at the gateway's size until ctx is done.
func (s *Site) weigh(ctx context.Context) (sizes []size) {
	const every = 2 * time.Second
	began := time.Now()
	for pause(ctx, every) == nil {
		pid := s.GatewayPID()
		if pid == 0 {
			continue
		}
		x := size{at: time.Since(began), pid: pid, memory: float64(resident(pid))}
		fds, err := descriptors(pid)
		if err != nil {
			continue
		}
		x.descriptors = float64(fds)
		if err := s.askSize(ctx, &x); err != nil {
			continue // it is dead, or stopped
		}
		sizes = append(sizes, x)
	}
	return sizes
}

// askSize asks the gateway's metrics what only the process itself knows.
func (s *Site) askSize(ctx context.Context, x *size) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = s.DoGateway(func() error { c, err = (&net.Dialer{}).DialContext(ctx, network, addr); return err })
		return c, err
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9253/metrics", nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	values := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if name, text, ok := strings.Cut(lines.Text(), " "); ok {
			values[name], _ = strconv.ParseFloat(text, 64)
		}
	}
	next, percent := values["go_memstats_next_gc_bytes"], values["go_gc_gogc_percent"]
	if values["go_goroutines"] == 0 || next == 0 {
		return errors.New("the metrics do not say")
	}
	x.goroutines, x.heap = values["go_goroutines"], next/(1+percent/100)
	return nil
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
	fmt.Fprintf(&b, "Of one process, for %.0f s after its first %.0f:\n\n", o.Steady, settling.Seconds())
	b.WriteString("| | start | end | most | slope per hour | with 95 % confidence |\n|---|---|---|---|---|---|\n")
	for _, x := range []struct {
		name string
		Trend
		unit float64
	}{{"memory (MB)", o.Memory, mb}, {"heap after a collection (MB)", o.Heap, mb}, {"goroutines", o.Goroutines, 1}, {"descriptors", o.Descriptors, 1}} {
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %.1f | %+.1f | %+.1f to %+.1f |\n", x.name, x.Start/x.unit, x.End/x.unit, x.Most/x.unit, x.PerHour/x.unit, x.Low/x.unit, x.High/x.unit)
	}
	for _, p := range o.Problems {
		fmt.Fprintf(&b, "\n* %s", p)
	}
	if len(o.Problems) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}
