//go:build linux

package fault

import (
	"bufio"
	"context"
	"errors"
	"fmt"
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
	Memory      Trend          `json:"memoryBytes"`
	Goroutines  Trend          `json:"goroutines"`
	Descriptors Trend          `json:"descriptors"`
	Problems    []string       `json:"problems,omitempty"`
}

// A Trend is how something grew: the median of the first and of the last tenth of the samples, the most, and what the
// middle line through all of them rises by in an hour.
type Trend struct {
	Start   float64 `json:"start"`
	End     float64 `json:"end"`
	Most    float64 `json:"most"`
	PerHour float64 `json:"perHour"`
}

// size is how large the gateway's process is at one moment. age is that of the process.
type size struct {
	at, age                         time.Duration
	memory, goroutines, descriptors float64
}

// settling is how long a new process grows in any case: it fills its caches.
const settling = 20 * time.Second

// atOnce is how many faults are under way at the same time.
const atOnce = 3

// Soak makes faults at random for as long as it is told.
func (s *Suite) Soak(ctx context.Context, d time.Duration, seed uint64) (*Soaked, error) {
	row := Row{Name: "soak"}
	site, err := open(ctx, s.Config, &row, filepath.Join(s.Dir, "soak"))
	if err != nil {
		return nil, err
	}
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
	err = s.makeFaults(ctx, site, d, rand.New(rand.NewPCG(seed, 0)), out)
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
	old := slices.DeleteFunc(sizes, func(x size) bool { return x.age < settling })
	o.Memory = trend(old, func(x size) float64 { return x.memory })
	o.Goroutines = trend(old, func(x size) float64 { return x.goroutines })
	o.Descriptors = trend(old, func(x size) float64 { return x.descriptors })
	if len(old) < 10 {
		o.Problems = append(o.Problems, "too short for a trend")
	}
	o.OK = len(o.Problems) == 0
}

// makeFaults makes one after the other, some at the same time, but no two of a group: there are more groups than atOnce.
func (s *Suite) makeFaults(ctx context.Context, site *Site, d time.Duration, random *rand.Rand, out *Soaked) error {
	rows := slices.DeleteFunc(Rows(), func(r Row) bool { return !r.Soak })
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
	case row.Number <= 10 && row.Name != "route":
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
	pid, since := 0, began
	for pause(ctx, every) == nil {
		now := s.GatewayPID()
		if now == 0 {
			continue
		}
		if now != pid {
			pid, since = now, time.Now()
		}
		goroutines, err := s.goroutines(ctx)
		if err != nil {
			continue // it is dead, or stopped
		}
		fds, err := descriptors(pid)
		if err != nil {
			continue
		}
		sizes = append(sizes, size{time.Since(began), time.Since(since), float64(resident(pid)), goroutines, float64(fds)})
	}
	return sizes
}

// goroutines asks the gateway's metrics.
func (s *Site) goroutines(ctx context.Context) (n float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = s.DoGateway(func() error { c, err = (&net.Dialer{}).DialContext(ctx, network, addr); return err })
		return c, err
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9253/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, errors.New("the metrics do not say")
}

// trend works out how one measure went. The slope is the median of those between pairs of samples (Theil and Sen), which a
// single large one does not move.
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
	var slopes []float64
	step := max(len(all)/300, 1)
	for i := 0; i < len(all); i += step {
		t.Most = max(t.Most, of(all[i]))
		for j := i + step; j < len(all); j += step {
			if dt := (all[j].at - all[i].at).Hours(); dt > 0 {
				slopes = append(slopes, (of(all[j])-of(all[i]))/dt)
			}
		}
	}
	if len(slopes) > 0 {
		slices.Sort(slopes)
		t.PerHour = slopes[len(slopes)/2]
	}
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
	b.WriteString("| | start | end | most | slope per hour |\n|---|---|---|---|---|\n")
	fmt.Fprintf(&b, "| memory (MB) | %.1f | %.1f | %.1f | %+.1f |\n", o.Memory.Start/mb, o.Memory.End/mb, o.Memory.Most/mb, o.Memory.PerHour/mb)
	for _, x := range []struct {
		name string
		Trend
	}{{"goroutines", o.Goroutines}, {"descriptors", o.Descriptors}} {
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.0f | %+.1f |\n", x.name, x.Start, x.End, x.Most, x.PerHour)
	}
	for _, p := range o.Problems {
		fmt.Fprintf(&b, "\n* %s", p)
	}
	if len(o.Problems) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}
