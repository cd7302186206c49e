//go:build linux

package fault

import (
	"context"
	"time"
)

// scaleRows are the goals that are numbers.
func scaleRows() []Row {
	const many = 10_000
	return []Row{
		{
			Number: 1, Name: "kill-10000", Fault: "20 times kill -9 and a start, with 10,000 established connections",
			Expect: "none is lost",
			Inject: kill, Undo: restart, For: 300 * time.Millisecond, Times: 20, Hold: many, MayFail: true, Blackout: time.Second,
		},
		{
			Number: 3, Name: "upgrade-10000", Fault: "100 upgrades, with 10,000 established connections",
			Expect: "none is lost, no new one fails",
			Inject: upgrade, For: 100 * time.Millisecond, Times: 100, Hold: many, Slowdown: 2, Blackout: upgradeWithin,
		},
		{
			Number: 10, Name: "swap-10000", Fault: "1,000 policies, one after the other, with 10,000 established connections",
			Expect: "none is lost, no new one fails",
			Inject: swaps(1000), Times: 1, Hold: many,
		},
	}
}

// swaps brings n policies into force.
func swaps(n int) func(context.Context, *Site) error {
	return func(ctx context.Context, s *Site) error {
		began := time.Now()
		for i := range n {
			if err := s.write(s.file + extraRule(i)); err != nil {
				return err
			}
			if err := s.swap(ctx); err != nil {
				return err
			}
		}
		s.figure("a policy in force after", "%.1f ms on average", float64(time.Since(began).Milliseconds())/float64(n))
		if err := s.write(s.file); err != nil {
			return err
		}
		return s.swap(ctx)
	}
}
