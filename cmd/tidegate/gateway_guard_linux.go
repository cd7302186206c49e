package main

import (
	"context"
	"time"

	"tidegate.io/tidegate/kernel"
)

// guardEvery is how often the rules are looked at when nobody told of a change.
const guardEvery = time.Second

// guard puts the rules back when somebody else has flushed them, as a service does
// that loads its own: until then nothing is refused.
func (b *box) guard(ctx context.Context) error {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.removed:
		case <-tick.C:
		}
		b.warnFull()
		if err := b.mend(); err != nil {
			b.log.Error("the rules in the kernel", "err", err)
		}
	}
}

// fullness are the shares of conntrack's room, in percent, at which the log says so.
var fullness = []uint64{75, 90}

// warnFull says when conntrack becomes full: without room there are no new connections.
func (b *box) warnFull() {
	now, most, err := kernel.Entries()
	if err != nil || most == 0 {
		return
	}
	level := 0
	for _, percent := range fullness {
		if now*100 >= most*percent {
			level++
		}
	}
	if level > b.full {
		b.log.Warn("conntrack fills up: without room there are no new connections (sysctl net.netfilter.nf_conntrack_max)", "entries", now, "most", most)
	}
	b.full = level
}

// watch wakes the guard.
func (b *box) watch(ctx context.Context) error {
	return b.removals.Run(ctx, func() {
		select {
		case b.removed <- struct{}{}:
		default: // it will look
		}
	})
}

func (b *box) mend() error {
	b.changes.one.Lock()
	defer b.changes.one.Unlock()
	if intact, err := b.table.Intact(); intact || err != nil {
		return err
	}
	b.changes.mended.Add(1)
	b.log.Error("somebody removed rules from the kernel; they are put back")
	b.changes.Lock()
	err := b.program(b.now.Load().rules, time.Now())
	b.changes.Unlock()
	if err != nil {
		return err
	}
	return b.revoke()
}
