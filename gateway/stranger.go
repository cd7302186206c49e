package gateway

import (
	"errors"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// stranger takes a segment of a connection that is not followed: one that was decided while
// the segment waited in the queue, or one whose SYN this process has not seen, because it was
// open and undecided when the process started again. Where its bytes begin is not known, so
// the client has to start again.
func (f *Follower) stranger(id uint32, p *wire.Packet) {
	for _, k := range []key{{p.Src, p.Dst}, {p.Dst, p.Src}} {
		if mark, ok := f.recent.find(k, f.now); ok {
			f.Verdict(id, true, mark)
			return
		}
	}
	policy := f.Policy()
	view := *p // as the client sees it
	if policy.Cluster(p.Src.Addr()) == nil && policy.Cluster(p.Dst.Addr()) != nil {
		view.Src, view.Dst = p.Dst, p.Src
	}
	conn, scope := f.addresses(policy, egress.TCP, &view)
	k := key{view.Src, view.Dst}
	if f.Observe != nil && f.Observe(scope) {
		f.recent.keep(k, f.passed(), f.now)
		f.Verdict(id, true, f.passed())
		return
	}
	if p.Flags.Has(wire.RST) {
		f.Verdict(id, false, 0)
		return
	}
	f.tell(policy, scope, conn, egress.Denied(egress.Interrupted), false)
	f.recent.keep(k, f.Cut, f.now)
	f.Verdict(id, true, f.Cut)
	f.reset(p.Src, p.Dst, p.Seq, p.Ack)
	f.reset(p.Dst, p.Src, p.Ack, p.End())
}

// datagram takes a UDP datagram. Those that reach the queue are judged one by one where the
// payload matters (NTP), and once for all where it does not.
func (f *Follower) datagram(id uint32, p *wire.Packet) {
	policy := f.Policy()
	conn, scope := f.addresses(policy, egress.UDP, p)
	observe := f.Observe != nil && f.Observe(scope)
	v := policy.Decide(conn)
	ntp := p.Dst.Port() == ntpPort
	switch {
	case p.Odd != 0 || p.Dst.Addr().Is4In6():
		v = egress.Denied(egress.InvalidPacket)
	case v.Action == egress.Allow && ntp && !plainNTP(p.Payload):
		v = egress.Denied(egress.NTPPayload)
	}
	if v.Action == egress.Allow && ntp && !observe {
		f.Verdict(id, true, 0) // the next one is looked at again
		f.tell(policy, scope, conn, v, observe)
		return
	}
	f.settle(id, policy, scope, conn, v, observe)
}

const ntpPort = 123

// plainNTP reports whether b is a request of a client without extensions, which could carry
// data out (RFC 5905, section 7.3).
func plainNTP(b []byte) bool {
	const size, client = 48, 3
	return len(b) == size && b[0]&7 == client && b[0]>>3&7 >= 3 && b[0]>>3&7 <= 4
}

// unreadable refuses what cannot be read.
func (f *Follower) unreadable(id uint32, p *wire.Packet, err error) {
	policy := f.Policy()
	conn, scope := f.addresses(policy, egress.TCP, p)
	observe := f.Observe != nil && f.Observe(scope)
	v := egress.Denied(egress.InvalidPacket)
	if errors.Is(err, wire.ErrProtocol) {
		v, conn.Proto = egress.Denied(egress.ProtocolNotAllowed), 0
	}
	f.tell(policy, scope, conn, v, observe)
	f.drops(id, observe)
}
