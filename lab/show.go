//go:build linux

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"tidegate.io/tidegate/egress"
)

// A Show is a lab that explains itself: it boots a node, tries what must not leave, reports, and stays open for visitors.
type Show struct {
	Config
	Title   string // what cluster this is
	FlowLog string // the gateway's flow log; unused without a gateway
	Once    bool   // end after the report
	JSON    bool   // the report as JSON
	Colour  bool   // of the report
	Live    bool   // Progress is a terminal: one line that changes
	Out     io.Writer
	// Progress takes what is not the report.
	Progress io.Writer
}

// Run runs the show until it is over or ctx is done, and reports whether everything came as it must. It works in a
// process that [Enter] has started.
func (s *Show) Run(ctx context.Context) (bool, error) {
	began := time.Now()
	s.say("building the lab: two nodes, a gateway, an internet")
	policy, err := egress.Compile(s.Rules, s.Clusters)
	if err != nil {
		return false, err
	}
	l, err := Start(ctx, s.Config)
	if err != nil {
		return false, err
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(ctx)
	var door error
	served := make(chan struct{})
	go func() { defer close(served); door = Serve(ctx, l) }()
	defer func() {
		cancel()
		<-served
	}()

	report, err := s.tryAll(ctx, l, policy, began)
	if errors.Is(err, context.Canceled) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if err := s.print(report); err != nil || s.Once {
		return report.OK(), err
	}
	s.say("the lab stays open; try:  tidegate lab exec -- curl https://mcr.microsoft.com/v2/   Ctrl-C ends it")
	<-served // until ctx is done, or the door is broken
	return report.OK(), door
}

func (s *Show) tryAll(ctx context.Context, l *Lab, policy *egress.Policy, began time.Time) (*Report, error) {
	var flows *FlowLog
	if !l.Plain() {
		flows = FollowFlows(s.FlowLog)
	}
	report := &Report{Title: s.Title, Plain: l.Plain()}
	for _, part := range []struct {
		what  string
		cases []Case
	}{
		{"a node boots", Bootstrap(l.Zone, policy)},
		{"near misses and ways out", NearMisses(l.Zone, policy)},
		{"attacks on the judging itself", Attacks(l.Zone, policy)},
	} {
		if len(part.cases) == 0 {
			continue
		}
		s.say(fmt.Sprintf("%s: %d connections", part.what, len(part.cases)))
		done, bad := 0, 0
		results, err := l.Run(ctx, part.cases, flows, func(r Result) {
			done++
			if !r.As(l.Plain()) {
				bad++
			}
			if s.Live {
				fmt.Fprintf(s.Progress, "\r\x1b[K  %d of %d tried, %d not as expected", done, len(part.cases), bad)
			}
		})
		if s.Live {
			fmt.Fprint(s.Progress, "\r\x1b[K")
		}
		if err != nil {
			return nil, err
		}
		report.Results = append(report.Results, results...)
	}
	report.Took = time.Since(began)
	return report, nil
}

func (s *Show) print(r *Report) error {
	if s.JSON {
		e := json.NewEncoder(s.Out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	s.say("")
	return r.WriteTable(s.Out, s.Colour)
}

func (s *Show) say(text string) { fmt.Fprintln(s.Progress, text) }
