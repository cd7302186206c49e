//go:build linux

package fault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// usualHold is how many established connections a row has.
	usualHold = 64

	// beforeFor is how long the streams run before the fault, to be compared with.
	beforeFor = 3 * time.Second

	// usualRest lets clients try again what a fault has kept from them, before the next.
	usualRest = time.Second

	// afterFor is how long they run when it is over.
	afterFor = 2 * time.Second
)

// A Result is what came of a row.
type Result struct {
	Row     int     `json:"row"`
	Name    string  `json:"name"`
	Fault   string  `json:"fault"`
	Expect  string  `json:"expect"`
	OK      bool    `json:"ok"`
	NotRun  string  `json:"notRun,omitempty"` // why
	Times   int     `json:"times"`
	Seconds float64 `json:"seconds"`

	Established  int   `json:"established"`
	MayLose      bool  `json:"mayLose,omitempty"` // two faults at once
	Lost         int   `json:"lost"`
	New          int64 `json:"new"`
	NewFailed    int   `json:"newFailed"`    // that began while the fault lasted
	OthersFailed int   `json:"othersFailed"` // before and after it: never
	Evil         int64 `json:"evil"`
	EvilPassed   int64 `json:"evilPassed"` // never

	BlackoutMS  float64           `json:"blackoutMs"` // the longest time in which no new HTTPS connection came about
	P99BeforeMS float64           `json:"p99BeforeMs"`
	P99DuringMS float64           `json:"p99DuringMs"`
	PingBefore  float64           `json:"establishedP99BeforeMs"`
	PingDuring  float64           `json:"establishedP99DuringMs"`
	Figures     map[string]string `json:"figures,omitempty"`
	Problems    []string          `json:"problems,omitempty"`
	Missed      []string          `json:"missed,omitempty"` // goals in time: the machine's load has a say in them
}

// A Suite runs rows.
type Suite struct {
	Config
	Quick bool // fewer repeats, and only the rows that say so
}

// Run runs each of the rows in a lab of its own, and tells each result. An error is of the machinery; what the gateway
// does wrong is in the results.
func (s *Suite) Run(ctx context.Context, rows []Row, each func(Result)) ([]Result, error) {
	if err := control(ctx, s.Config, s.Dir); err != nil {
		return nil, err
	}
	var results []Result
	for i := range rows {
		row := &rows[i]
		if s.Quick {
			if row.Quick == 0 {
				continue
			}
			row.Times, row.For = row.Quick, min(row.For, 3*time.Second)
		}
		r := s.row(ctx, row)
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
		results = append(results, r)
		each(r)
	}
	return results, nil
}

// row runs one.
func (s *Suite) row(ctx context.Context, row *Row) Result {
	r := Result{Row: row.Number, Name: row.Name, Fault: row.Fault, Expect: row.Expect, Times: max(row.Times, 1), MayLose: row.MayLose}
	began := time.Now()
	err := s.try(ctx, row, &r)
	r.Seconds = time.Since(began).Seconds()
	var absent NotHere
	switch {
	case errors.As(err, &absent):
		r.NotRun = absent.Reason
	case err != nil:
		r.Problems = append(r.Problems, err.Error())
	}
	if len(r.Problems) > 0 {
		r.NotRun = "" // what it showed is worse
	}
	r.OK = len(r.Problems) == 0 && r.NotRun == ""
	return r
}

func (s *Suite) try(ctx context.Context, row *Row, r *Result) (err error) {
	site, err := open(ctx, s.Config, row, filepath.Join(s.Dir, row.Name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	if row.Setup != nil {
		if err := row.Setup(ctx, site); err != nil {
			return err
		}
	}
	if err := site.startStreams(ctx, row); err != nil {
		return err
	}
	streams, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { site.evil.run(streams, site, row.V6) })
	running.Go(func() { site.new.run(streams) })
	start := time.Now()
	before, after := beforeFor, afterFor
	if s.Quick {
		before, after = time.Second, time.Second
	}
	err = pause(ctx, before)
	from := time.Now()
	if err == nil {
		err = row.make(ctx, site)
	}
	if err == nil && row.Check != nil {
		err = row.Check(ctx, site)
	}
	to := time.Now()
	err = errors.Join(err, pause(ctx, after))
	end := time.Now()
	stop()
	running.Wait()
	site.measure(row, r, start, from, to, end)
	return err
}

// make makes the fault, as often as the row says.
func (row *Row) make(ctx context.Context, s *Site) error {
	rest := row.Rest
	if rest == 0 {
		rest = usualRest
	}
	for i := range max(row.Times, 1) {
		if i > 0 {
			if err := pause(ctx, rest); err != nil {
				return err
			}
		}
		if err := row.Inject(ctx, s); err != nil {
			return errors.Join(err, s.undoAll())
		}
		if err := pause(ctx, row.For); err != nil {
			return err
		}
		if row.Undo != nil {
			if err := row.Undo(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// startStreams opens what is established, and finds what new connections need.
func (s *Site) startStreams(ctx context.Context, row *Row) (err error) {
	if s.new, err = newFresh(ctx, s, row.V6); err != nil {
		return err
	}
	targets, err := s.targets(ctx, row.V6)
	if err != nil {
		return err
	}
	n := row.Hold
	if n == 0 {
		n = usualHold
	}
	if n > mostInProcess {
		return s.holdElsewhere(ctx, targets, n)
	}
	s.est, err = hold(ctx, fromNode(s.Node(1)), s.CA.Pool(), targets, n, 200*time.Millisecond)
	return err
}

// measure ends what is established and fills the result in.
func (s *Site) measure(row *Row, r *Result, start, from, to, end time.Time) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	r.Established, r.Lost = s.countLost(r, row.MayLose)
	during, others := s.new.failures(from, to)
	r.New, r.NewFailed, r.OthersFailed = s.new.tried.Load(), len(during), len(others)
	r.Evil, r.EvilPassed = s.evil.tried.Load(), s.evil.passed.Load()
	r.BlackoutMS = ms(s.new.judged.gap(from, end))
	r.P99BeforeMS, r.P99DuringMS = ms(s.new.judged.p99(start, from)), ms(s.new.judged.p99(from, to))
	if s.est != nil {
		r.PingBefore, r.PingDuring = ms(s.est.pings.p99(start, from)), ms(s.est.pings.p99(from, to))
	}
	r.Figures, r.Missed, r.NotRun = maps.Clone(s.figures), s.missed, strings.Join(s.unmade, "; ")
	if len(during) > 0 {
		if r.Figures == nil {
			r.Figures = map[string]string{}
		}
		kinds := map[string]int{}
		for _, x := range during {
			kinds[x.kind]++
		}
		r.Figures["new connections that failed meanwhile"] = strings.Trim(fmt.Sprint(kinds), "map[]")
	}
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	if r.EvilPassed > 0 {
		problem("%d evil messages arrived: %s", r.EvilPassed, s.evil.arrived())
	}
	if len(during) > 0 && !row.MayFail {
		problem("%d new connections failed, first %s after %v: %v", len(during), during[0].kind, during[0].began.Sub(from).Round(time.Millisecond), during[0].err)
	}
	if len(others) > 0 {
		problem("%d new connections failed without the fault, first %s %v after it began: %v", len(others), others[0].kind, others[0].began.Sub(from).Round(time.Millisecond), others[0].err)
	}
	if row.Blackout > 0 && r.BlackoutMS > ms(row.Blackout) {
		r.Missed = append(r.Missed, fmt.Sprintf("blackout %.0f ms, goal %.0f ms", r.BlackoutMS, ms(row.Blackout)))
	}
	// Below some milliseconds the ratio is that of the machine's scheduler.
	const floor = 20
	if row.Slowdown > 0 && r.P99DuringMS > max(r.P99BeforeMS, floor)*row.Slowdown {
		r.Missed = append(r.Missed, fmt.Sprintf("p99 %.1f ms, goal %.0f times %.1f ms", r.P99DuringMS, row.Slowdown, r.P99BeforeMS))
	}
}

// countLost ends the established connections, and says how many there were and how many are lost.
func (s *Site) countLost(r *Result, mayLose bool) (n, lost int) {
	var errs []error
	if s.est != nil {
		n, errs = len(s.est.conns), s.est.finish()
		lost = len(errs)
	} else {
		n, lost, errs = s.finishElsewhere()
	}
	if mayLose {
		return n, lost
	}
	for _, err := range errs[:min(len(errs), 5)] {
		r.Problems = append(r.Problems, "lost: "+err.Error())
	}
	if more := lost - min(len(errs), 5); more > 0 {
		r.Problems = append(r.Problems, fmt.Sprintf("lost: and %d more", more))
	}
	return n, lost
}
