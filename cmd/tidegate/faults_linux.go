package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/fault"
	"tidegate.io/tidegate/lab"
)

// faultFlags are what can be asked of a run of faults.
type faultFlags struct {
	list, quick, long bool
	times             int
	soak              time.Duration
	seed              uint64
	results, markdown string
}

func labFaultsCommand() *cobra.Command {
	var f faultFlags
	cmd := &cobra.Command{
		Use:   "faults [NAME…]",
		Short: "Break things around a running gateway, and count who notices",
		Long: `Makes the faults of a table, one after the other, each in a lab of its own: the process is
killed, stopped and replaced, files are broken, rules are flushed, queues, tables, memory,
descriptors and disks are full, resolvers lie, links flap. Meanwhile established connections
are in use, new ones are made, and evil ones are tried, which must not arrive whatever is
broken. It reports how many of each were lost, failed, and passed.

With --soak it makes faults at random, up to three at a time, for as long as it is told, and
shows whether the gateway's memory, goroutines and descriptors grow; before that it makes
those that are named, of which "all" is all.

It exits 1 if anything was lost, failed or passed that must not, and 3 if a fault cannot be
made on this machine.`,
		Example: "  tidegate lab faults kill upgrade flush\n  tidegate lab faults --soak 10m --seed 7",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, names []string) error {
			rows, err := pickFaults(names)
			if err != nil {
				return err
			}
			if f.list {
				for _, r := range rows {
					fmt.Fprintf(cmd.OutOrStdout(), "%2d  %-15s %s\n", r.Number, r.Name, r.Fault)
				}
				return nil
			}
			if !lab.Inside() {
				return exitWith(lab.Enter(cmd.Context()))
			}
			return runFaults(cmd, &f, rows, len(names) > 0)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.list, "list", false, "list the faults, and make none")
	flags.BoolVar(&f.quick, "quick", false, "only the quick ones, and few times")
	flags.BoolVar(&f.long, "long", false, "where a time or a number is scaled down, take all of it (35 minutes of silence)")
	flags.IntVar(&f.times, "times", 0, "make each fault so many times, instead of as many as the table says")
	flags.DurationVar(&f.soak, "soak", 0, "make faults at random for so long")
	flags.Uint64Var(&f.seed, "seed", 0, "of the randomness of --soak; default: another one each time, printed")
	flags.StringVar(&f.results, "results", "", "write the report into this `FILE` as JSON, beside what other suites, and other faults, have left there")
	flags.StringVar(&f.markdown, "markdown", "", "write the report's tables into this `FILE`, below its line that says so")
	cmd.AddCommand(holdCommand(), holdHalfCommand())
	return cmd
}

// pickFaults returns the rows of some names or numbers, or all.
func pickFaults(names []string) ([]fault.Row, error) {
	all := fault.Rows()
	if len(names) == 0 || slices.Equal(names, []string{"all"}) {
		return all, nil
	}
	var rows []fault.Row
	for _, name := range names {
		found := len(rows)
		for _, r := range all {
			if r.Name == name || fmt.Sprint(r.Number) == name {
				rows = append(rows, r)
			}
		}
		if len(rows) == found {
			return nil, fmt.Errorf("there is no fault %q; --list says which there are", name)
		}
	}
	return rows, nil
}

func runFaults(cmd *cobra.Command, f *faultFlags, rows []fault.Row, named bool) error {
	dir, err := lab.Furnish()
	if err != nil {
		return undecided(err)
	}
	for i := range rows {
		if f.times > 0 {
			rows[i].Times, rows[i].Quick = f.times, f.times
		}
	}
	say := func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) }
	suite := &fault.Suite{Quick: f.quick, Config: fault.Config{
		Dir: dir, Command: lab.Self, Long: f.long, Say: say,
		Read: func(dir string) ([]egress.Rule, []egress.Cluster, error) {
			g, err := readGateway(dir + "/" + lab.GatewayFile)
			if err != nil {
				return nil, nil, err
			}
			var clusters []egress.Cluster
			for _, c := range g.Clusters {
				clusters = append(clusters, c.Cluster)
			}
			return g.Rules, clusters, nil
		},
	}}
	var results []fault.Result
	var soaked *fault.Soaked
	if named || f.soak == 0 {
		results, err = suite.Run(cmd.Context(), rows, func(r fault.Result) {
			say(r.Line())
			for _, p := range r.Problems {
				say("        " + p)
			}
		})
	}
	if err == nil && f.soak > 0 {
		if f.seed == 0 {
			f.seed = rand.Uint64N(1 << 32)
		}
		say(fmt.Sprintf("soak for %v; again with --seed %d", f.soak, f.seed))
		soaked, err = suite.Soak(cmd.Context(), f.soak, f.seed)
	}
	if err != nil {
		return undecided(err)
	}
	return saveFaults(cmd, f, fault.NewReport(readBuild().Version, suite.Quick, results, soaked))
}

func saveFaults(cmd *cobra.Command, f *faultFlags, report *fault.Report) error {
	var errs []error
	if f.results != "" {
		errs = append(errs, report.Keep(f.results), report.Save(f.results))
	}
	if f.markdown != "" {
		errs = append(errs, replaceBelow(f.markdown, report))
	}
	errs = append(errs, report.WriteText(cmd.OutOrStdout()))
	if err := errors.Join(errs...); err != nil {
		return undecided(err)
	}
	switch {
	case !report.OK:
		return answerNo()
	case report.NotRun > 0:
		return undecided(fmt.Errorf("%d faults could not be made on this machine", report.NotRun))
	}
	return nil
}

// measuredLine is what stands above the tables that a run of faults writes.
const measuredLine = "<!-- Below: written by tidegate lab faults --markdown -->\n"

// replaceBelow writes the tables in the place of the last ones; what stands above them stays.
func replaceBelow(path string, report *fault.Report) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	above, _, _ := strings.Cut(string(text), measuredLine)
	var b strings.Builder
	b.WriteString(above + measuredLine + "\n")
	if err := report.WriteMarkdown(&b); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// holdCommand is a process that holds connections, for rows with more of them than one process may have descriptors.
func holdCommand() *cobra.Command {
	return &cobra.Command{
		Use: "hold", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fault.Hold(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

func holdHalfCommand() *cobra.Command {
	var count int
	var to4, to6 string
	cmd := &cobra.Command{
		Use: "hold-half ADDRESS…", Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var from []netip.Addr
			for _, text := range slices.Concat([]string{to4, to6}, args) {
				a, err := netip.ParseAddr(text)
				if err != nil {
					return err
				}
				from = append(from, a)
			}
			return fault.HoldHalf(count, from[0], from[1], from[2:], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&count, "count", 1, "how many")
	cmd.Flags().StringVar(&to4, "to4", "", "the server's IPv4 address")
	cmd.Flags().StringVar(&to6, "to6", "", "the server's IPv6 address")
	return cmd
}
