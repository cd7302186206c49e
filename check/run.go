package check

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/egress"
)

// A Probe tries one target and returns nil if it was reached, or else a [Fault].
type Probe func(context.Context, *Host, Target) error

// probes has one for each kind.
var probes = map[Kind]Probe{
	HTTPS:        probeHTTPS,
	HTTP:         probeHTTP,
	APIServer:    probeAPIServer,
	Konnectivity: probeKonnectivity,
	DNS:          probeDNS,
	NTP:          probeNTP,
	TCP:          probeTCP,
	UDP:          probeUDP,
	Lookup:       probeLookup,
	Registry:     probeRegistry,
	Artefact:     probeArtefact,
}

// parallel is how many targets are tried at once: a cluster's rules are done in the time of the slowest, and it is
// fewer than what a firewall takes for a scan.
const parallel = 32

// Outcome is what a result means. The zero Outcome is a failure.
type Outcome uint8

// The outcomes.
const (
	Failed   Outcome = iota
	Passed           // a wanted target was reached, or a forbidden one was seen to be blocked
	Unproven         // it could not be found out
)

// String returns the word.
func (o Outcome) String() string { return [...]string{"failed", "passed", "unproven"}[o] }

// MarshalText is String.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the word.
func (o *Outcome) UnmarshalText(b []byte) error {
	for _, known := range []Outcome{Failed, Passed, Unproven} {
		if known.String() == string(b) {
			*o = known
			return nil
		}
	}
	return fmt.Errorf("outcome %q: want failed, passed or unproven", b)
}

// Result is how one target went.
type Result struct {
	Target  Target
	Outcome Outcome
	Cause   Cause
	Detail  string // what was seen; empty where there is nothing to say
	Took    time.Duration
}

// Run tries all targets, several at a time, and returns the results in their order. done, unless nil, hears of each as it
// comes, one at a time. When ctx ends, what was not tried to the end is unproven.
func (h *Host) Run(ctx context.Context, targets []Target, done func(Result)) []Result {
	results := make([]Result, len(targets))
	finished := make(chan int)
	var g errgroup.Group
	g.SetLimit(parallel)
	go func() {
		for i, t := range targets {
			g.Go(func() error {
				results[i] = h.try(ctx, t)
				finished <- i
				return nil
			})
		}
	}()
	for range targets {
		i := <-finished
		if done != nil {
			done(results[i])
		}
	}
	_ = g.Wait() // no error is ever returned
	return results
}

func (h *Host) try(ctx context.Context, t Target) Result {
	begin := h.now()
	err := error(fault(Interrupted, "not tried"))
	if probe, ok := probes[t.Kind]; ok && ctx.Err() == nil {
		err = probe(ctx, h, t)
	}
	if err != nil && ctx.Err() != nil {
		err = fault(Interrupted, "ended while it was tried")
	}
	r := Result{Target: t, Cause: Reached, Outcome: Passed, Took: h.now().Sub(begin)}
	if err != nil {
		f := faultOf(err)
		r.Cause, r.Detail = f.Cause, f.Detail
		r.Outcome = Failed
		if causes[f.Cause].unproven {
			r.Outcome = Unproven
		}
	}
	if t.Forbidden {
		r.forbidden()
	}
	return r
}

// forbidden turns the result round.
func (r *Result) forbidden() {
	switch {
	case r.Cause == Reached:
		r.Cause, r.Outcome = Open, Failed
	case causes[r.Cause].blocks:
		r.Outcome = Passed
	default:
		r.Outcome = Unproven
	}
}

// A Report is the conclusion.
type Report struct {
	Results []Result
	Skipped []Skipped
	Outcome Outcome
}

// NewReport draws the conclusion: one failure fails it, and without one anything unproven leaves it unproven. Where
// nothing that is wanted was reached, that something is not reached proves nothing.
func NewReport(results []Result, skipped []Skipped) Report {
	r := Report{Results: slices.Clone(results), Skipped: skipped, Outcome: Passed}
	wanted := func(x Result) bool { return !x.Target.Forbidden }
	reached := slices.ContainsFunc(r.Results, func(x Result) bool { return wanted(x) && x.Cause == Reached })
	for i := range r.Results {
		x := &r.Results[i]
		if x.Target.Forbidden && x.Outcome == Passed && !reached {
			x.Outcome, x.Cause = Unproven, NothingReached
		}
	}
	switch {
	case len(r.Results) == 0:
		r.Outcome = Unproven
	case slices.ContainsFunc(r.Results, func(x Result) bool { return x.Outcome == Failed }):
		r.Outcome = Failed
	case slices.ContainsFunc(r.Results, func(x Result) bool { return x.Outcome == Unproven }):
		r.Outcome = Unproven
	}
	return r
}

// Count returns how many results have an outcome.
func (r *Report) Count(o Outcome) int {
	n := 0
	for _, x := range r.Results {
		if x.Outcome == o {
			n++
		}
	}
	return n
}

// Private returns the targets for a name that must be reached inside the network.
func Private(name egress.Name, port uint16, why string, apiServer bool) []Target {
	t := Target{Kind: HTTPS, Name: name, Port: port, Why: why, Private: true}
	if !apiServer {
		return []Target{t}
	}
	tunnel := t
	t.Kind, tunnel.Kind = APIServer, Konnectivity
	return []Target{t, tunnel}
}
