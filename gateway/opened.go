package gateway

import (
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// Opened takes a packet of a connection whose SYN the kernel has let pass by itself, because
// one like it has passed with the mark Expected. syn is the low 24 bits of the sequence
// number of that SYN. The first packet that counts is the answer to it: with that the
// connection gets the mark Held, and the next packets come to [Follower.Packet].
//
// 24 bits are enough to tell the right answer: what a client sends 16 MiB from its first byte is
// far outside of the 64 KiB that are read, and what is let through there no server takes.
func (f *Follower) Opened(now time.Time, id, syn uint32, ip []byte) {
	f.now = now
	p, err := wire.ReadPacket(ip)
	switch {
	case err != nil || p.Proto != wire.TCP:
		f.unreadable(id, &p, err)
	case f.conns[key{p.Dst, p.Src}] != nil, f.conns[key{p.Src, p.Dst}] != nil:
		f.segment(id, &p) // queued behind the answer, or on the ports of what is still followed
	case p.Flags.Has(wire.SYN|wire.ACK) && answers(&p, syn):
		f.join(id, &p)
	default:
		// Nobody says anything before the answer. An answer to an older SYN, to which the
		// client has to say so, and a reset are harmless.
		passes := p.Flags.Has(wire.SYN|wire.ACK) || p.Flags.Has(wire.RST)
		f.Verdict(id, passes && p.Odd == 0 && len(p.Payload) == 0, 0)
	}
}

// answers reports whether a segment with SYN and ACK answers the SYN whose sequence number
// ends in syn.
func answers(p *wire.Packet, syn uint32) bool {
	const low = 1<<24 - 1
	return (p.Ack-1-syn)&low == 0 && len(p.Payload) == 0 && !p.Flags.Has(wire.RST) && !p.Flags.Has(wire.FIN)
}

// join begins to follow a connection by the answer to its SYN.
func (f *Follower) join(id uint32, p *wire.Packet) {
	syn := wire.Packet{Src: p.Dst, Dst: p.Src, Seq: p.Ack - 1, Flags: wire.SYN}
	policy := f.Policy()
	conn, scope := f.addresses(policy, egress.TCP, &syn)
	observe := f.Observe != nil && f.Observe(scope)
	c, mark := f.admit(&syn, policy, scope, conn, policy.Decide(conn), observe)
	switch {
	case c != nil:
		f.opened(c, p)
		mark = f.Held
	case mark == f.Cut:
		f.reset(p.Src, p.Dst, p.Seq, p.Ack) // the kernel resets the server, which has sent it
	}
	f.Verdict(id, true, mark)
}
