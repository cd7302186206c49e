// Command fuzz runs the module's fuzz targets, each for as long as it is told, and goes on behind one that has found something.
// results.json has the run; docs/fuzz.json has what all runs have tried together, and docs/fuzz.md shows both.
//
//	go run ./fuzz -time 30s
//	go run ./fuzz -time 10m -only FuzzDecide,./wire
//
// It exits with 1 when a target failed; the input is then in that package's testdata/fuzz, where it stays as a test.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"tidegate.io/tidegate/internal/results"
)

func main() {
	var c campaign
	only := ""
	flag.StringVar(&c.time, "time", "30s", "for how long each target runs, or how often (`10000x`)")
	flag.StringVar(&only, "only", "", "these `TARGETS` or packages alone, as in FuzzDecide,./wire")
	flag.StringVar(&c.results, "o", "results.json", "write this run into this `FILE`, as its \"fuzz\"")
	flag.StringVar(&c.totals, "totals", "", "add this run to what all have tried, in this `FILE`")
	flag.StringVar(&c.report, "report", "", "write the report to this `FILE`; wants -totals")
	flag.Parse()
	if only != "" {
		c.only = strings.Split(only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := c.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		if errors.Is(err, errFound) {
			os.Exit(1)
		}
		os.Exit(3)
	}
}

var errFound = errors.New("a target failed")

// A campaign is one run over targets.
type campaign struct {
	time, results, totals, report string
	only                          []string
}

func (c *campaign) run(ctx context.Context) error {
	if c.report != "" && c.totals == "" {
		return errors.New("-report wants -totals")
	}
	totals, err := readTotals(c.totals)
	if err != nil {
		return err
	}
	all, err := allTargets(ctx)
	if err != nil {
		return err
	}
	chosen, err := choose(all, c.only)
	if err != nil {
		return err
	}
	run := Run{Date: time.Now().UTC().Truncate(time.Second), Time: c.time}
	var found []string
	for _, t := range chosen {
		o, err := t.run(ctx, c.time)
		if err != nil {
			return err
		}
		fmt.Println(o)
		run.Outcomes = append(run.Outcomes, o)
		totals.add(o, run.Date)
		if o.Found != "" {
			found = append(found, t.Package+" "+t.Name)
		}
		// After each, so that a long run that is stopped has lost one target.
		if err := c.save(run, totals, all); err != nil {
			return err
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: %s", errFound, strings.Join(found, ", "))
	}
	return nil
}

func (c *campaign) save(run Run, totals *Totals, targets []Target) error {
	if err := results.Save(c.results, "fuzz", run); err != nil {
		return err
	}
	if c.totals == "" {
		return nil
	}
	if err := totals.write(c.totals); err != nil {
		return err
	}
	if c.report == "" {
		return nil
	}
	return report(c.report, run, totals, targets)
}
