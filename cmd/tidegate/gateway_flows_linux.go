package main

import (
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/kernel"
	"tidegate.io/tidegate/wire"
)

// report counts a flow and hands it to the log; it never blocks.
func (b *box) report(f egress.Flow) {
	if f.Policy == "" { // the HTTP proxy refuses some requests before it asks
		now := b.now.Load()
		f.Policy = now.policy.ID()
		if c := now.policy.Cluster(f.Conn.Src.Addr()); c != nil {
			f.Cluster = c.Name
		}
	}
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
	before, had, kept := b.running.add(f)
	if had {
		b.unpin(before)
	}
	if kept && f.Verdict.Reason == egress.ByNameRule {
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
	if k.Mark.State() == kernel.Cut {
		f.Verdict = egress.Denied(egress.PolicyChanged)
	}
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
	if d.Reason == egress.PolicyChanged {
		b.tellOther(p) // the connection was reported when it was cut
		return
	}
	if d.Reason == egress.InvalidPacket && !d.Observed {
		b.tellForgotten(p)
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

// tellOther resets the other end of a connection that was cut. The kernel has
// reset the sender of p, whose numbers are what the other end expects.
func (b *box) tellOther(p wire.Start) {
	if p.Proto == wire.TCP && !p.Flags.Has(wire.SYN) {
		b.reset(wire.AppendReset(nil, p.Src, p.Dst, p.Seq, p.Ack))
	}
}

// tellForgotten resets the client of a connection that conntrack does not have: of another
// gateway whose place this one has taken, or one that was silent for longer than it is kept.
// It would send the same segment for a quarter of an hour. To a segment that is merely wrong
// nothing is said: its connection goes on.
func (b *box) tellForgotten(p wire.Start) {
	if p.Proto != wire.TCP || p.Flags.Has(wire.SYN) || p.Flags.Has(wire.RST) || !p.Flags.Has(wire.ACK) {
		return
	}
	if known, err := b.tracker.Knows(kernel.Flow{Proto: egress.TCP, Src: p.Src, Dst: p.Dst}); err == nil && !known {
		b.reset(wire.AppendReset(nil, p.Dst, p.Src, p.Ack, p.End()))
	}
}

// provoke makes the client of a cut connection send a packet, so that an idle one
// ends as well: a segment outside of its window is answered with an acknowledgement
// (RFC 9293, section 3.10.7.4). Of two that are half of the sequence numbers apart
// one at least is outside.
func (b *box) provoke(k kernel.Flow) {
	if k.Proto != egress.TCP {
		return
	}
	for _, seq := range []uint32{0, 1 << 31} {
		b.reset(wire.AppendPacket(nil, wire.Packet{Src: k.Dst, Dst: k.Src, Proto: wire.TCP, Flags: wire.ACK, Seq: seq}))
	}
}
