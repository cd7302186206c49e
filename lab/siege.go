//go:build linux

package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tidegate.io/tidegate/egress"
)

// A Siege carries out tactics, each three times: without a gateway, where it must reach its server or proves nothing;
// through the gateway, where it must not; and as its honest twin through the gateway, which must. What a server saw is
// what counts, not what the client believes.
type Siege struct {
	// Site furnishes an empty directory for a lab, and says what is in it. Its Gateway must be there.
	Site func(dir string) (Config, error)
	// Dir is an empty directory.
	Dir   string
	Kinds []Kind
	Quick bool // one shape of each tactic, in place of all
	// Progress takes what is not the report; Live says that it is a terminal.
	Progress io.Writer
	Live     bool

	again int // tries that were repeated
}

// A Trial is what came of one evasion.
type Trial struct {
	Evasion
	GSO           bool
	Control       Result // without a gateway
	Through, Twin Result // with it
}

// Void reports whether the attack fails by itself, and so shows nothing.
func (t *Trial) Void() bool { return t.Evil != nil && !t.Control.Reached }

// Stopped reports whether no server saw the attack.
func (t *Trial) Stopped() bool { return t.Evil == nil || !t.Through.Reached }

// OK reports whether the attack was stopped and its twin was not.
func (t *Trial) OK() bool { return t.Stopped() && t.Twin.As(false) }

// siegeParallel is how many are tried at a time: most of them wait for an answer that does not come.
const siegeParallel = 40

// Run builds labs, one after the other, and tries everything in them. It works in a process that [Enter] has started, or
// as root.
func (s *Siege) Run(ctx context.Context) (*SiegeReport, error) {
	began := time.Now()
	report := &SiegeReport{Quick: s.Quick}
	for _, gso := range []bool{true, false} {
		trials := make([]Trial, 0)
		for _, e := range Evasions(s.Kinds, gso, s.Quick) {
			trials = append(trials, Trial{Evasion: e, GSO: gso})
		}
		for _, gateway := range []bool{false, true} {
			missing, err := s.run(ctx, trials, gso, gateway)
			if err != nil {
				return nil, err
			}
			report.Missing = missing
		}
		report.Trials = append(report.Trials, trials...)
	}
	report.Again, report.Took = s.again, time.Since(began)
	return report, nil
}

// run tries everything in one lab. It returns which servers are not installed.
func (s *Siege) run(ctx context.Context, trials []Trial, gso, gateway bool) (missing []string, err error) {
	words := map[bool]string{true: "as veth carries them", false: "as a wire carries them"}[gso]
	where := map[bool]string{true: "through the gateway", false: "without a gateway"}[gateway]
	dir := filepath.Join(s.Dir, fmt.Sprintf("gso-%t-gateway-%t", gso, gateway))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a lab's directory: %w", err)
	}
	conf, err := s.Site(dir)
	if err != nil {
		return nil, err
	}
	conf.Dir, conf.NoGSO, conf.Peers, conf.Parallel = dir, !gso, true, siegeParallel
	var flows *FlowLog
	if gateway {
		flows = FollowFlows(filepath.Join(dir, FlowLogFile))
	} else {
		conf.Gateway, conf.Ready = nil, nil
	}
	l, err := Start(ctx, conf)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	cases, into := s.cases(trials, gateway)
	fmt.Fprintf(s.Progress, "%d connections %s, packets %s\n", len(cases), where, words)
	done := 0
	results, err := l.Run(ctx, cases, flows, func(Result) {
		if done++; s.Live {
			fmt.Fprintf(s.Progress, "\r\x1b[K  %d of %d tried", done, len(cases))
		}
	})
	if s.Live {
		fmt.Fprint(s.Progress, "\r\x1b[K")
	}
	if err != nil {
		return nil, err
	}
	for i, r := range results {
		*into[i] = r
		if !r.worthAnother(l.Plain()) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		*into[i] = l.try(ctx, r.Case, l.Node(1+i%2), flows)
		s.again++
	}
	return l.Missing(), nil
}

// worthAnother reports whether a try that should have arrived did not, and nobody said no: on a busy machine a packet of a
// client made by hand, which sends nothing again, gets lost, and clients lose their patience. It is tried again, alone. What
// arrived and must not is never tried again.
func (r *Result) worthAnother(plain bool) bool {
	arrives := plain || len(r.Deny) == 0
	return arrives && !r.As(plain) && (!r.Denied || r.Reason == egress.ClientLeft)
}

// cases are what is tried in one lab, and where the results belong.
func (s *Siege) cases(trials []Trial, gateway bool) (cases []Case, into []*Result) {
	add := func(c Case, r *Result) { cases, into = append(cases, c), append(into, r) }
	for i := range trials {
		t := &trials[i]
		switch {
		case gateway:
			if t.Evil != nil {
				add(*t.Evil, &t.Through)
			}
			add(t.Evasion.Twin, &t.Twin)
		case t.Evil != nil:
			add(*t.Evil, &t.Control)
		}
	}
	return cases, into
}

// ParseKinds finds families of tactics by their words; none is all.
func ParseKinds(words []string) ([]Kind, error) {
	all := Kinds()
	if len(words) == 0 {
		return all, nil
	}
	var picked []Kind
	for _, w := range words {
		i := slices.IndexFunc(all, func(k Kind) bool { return k.Word == w })
		if i < 0 {
			known := make([]string, len(all))
			for i, k := range all {
				known[i] = k.Word
			}
			return nil, fmt.Errorf("%q is no family of attacks; there are %v", w, known)
		}
		picked = append(picked, all[i])
	}
	return picked, nil
}
