package main

import (
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/kernel"
	"tidegate.io/tidegate/wire"
)

// report counts a flow and hands it to the log; it never blocks.
func (b *box) report(f egress.Flow) {
	if !f.End {
		b.counts.add(f.Verdict)
	}
	b.flows.Record(f)
}

// decided takes what a follower decided. What it allowed is remembered while it
// runs, and its address stays bound to its name for as long.
func (b *box) decided(f egress.Flow) {
	b.report(f)
	if f.Verdict.Action != egress.Allow {
		return
	}
	before, had := b.running.add(f)
	if had {
		b.unpin(before)
	}
	if f.Verdict.Reason == egress.ByNameRule {
		b.bindings.Pin(f.Cluster, f.Conn.Name, f.Conn.Dst.Addr())
	}
}

func (b *box) unpin(f egress.Flow) {
	if f.Verdict.Reason == egress.ByNameRule {
		b.bindings.Unpin(f.Cluster, f.Conn.Name, f.Conn.Dst.Addr())
	}
}

// ended takes the end of a connection from conntrack. Those of the HTTP proxy
// are reported by the proxy itself, and those that were cut have been.
func (b *box) ended(k kernel.Flow) {
	key := tuple{k.Proto, k.Src, k.Dst}
	f, known := b.running.remove(key)
	if known {
		b.unpin(f)
	} else if s := k.Mark.State(); s == kernel.Allowed || s == kernel.Passed {
		f = b.byMark(k)
	} else {
		return
	}
	f.Time, f.End = k.End, true
	if f.Time.IsZero() {
		f.Time = time.Now()
	}
	if !k.Start.IsZero() {
		f.Duration = f.Time.Sub(k.Start)
	}
	f.Sent, f.Received = k.Sent, k.Received
	b.report(f)
}

// byMark is what a connection's mark alone tells: those that the kernel settled
// at the first packet, and those of before a restart.
func (b *box) byMark(k kernel.Flow) egress.Flow {
	now := b.now.Load()
	f := egress.Flow{Policy: now.policy.ID(), Conn: egress.Conn{Proto: k.Proto, Src: k.Src, Dst: k.Dst}}
	f.Verdict = egress.Verdict{Action: egress.Allow, Reason: egress.ByAddressRule}
	if c := now.policy.Cluster(k.Src.Addr()); c != nil {
		f.Cluster = c.Name
	}
	if id := b.numbers.Rule(k.Mark.Rule()); id != "" {
		f.Verdict.Rule = &egress.Rule{ID: id}
		return f
	}
	f.Observed = k.Mark.State() == kernel.Passed
	f.Verdict = egress.Denied(egress.NoRule)
	return f
}

// refused takes a packet that the kernel's rules refused.
func (b *box) refused(d kernel.Denial) {
	p, ok := wire.ReadStart(d.Payload)
	if !ok {
		return // it is counted in the kernel, and nothing more is known of it
	}
	now := b.now.Load()
	f := egress.Flow{
		Time: time.Now(), Policy: now.policy.ID(), Observed: d.Observed, Verdict: egress.Denied(d.Reason),
		Conn: egress.Conn{Src: p.Src, Dst: p.Dst},
	}
	switch p.Protocol {
	case wire.TCP:
		f.Conn.Proto = egress.TCP
	case wire.UDP:
		f.Conn.Proto = egress.UDP
	}
	if c := now.policy.Cluster(p.Src.Addr()); c != nil {
		f.Cluster = c.Name
	}
	b.flows.Record(f) // the kernel has counted it
}
