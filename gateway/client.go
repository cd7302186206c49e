package gateway

import (
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// open takes the SYN of a connection that is not known.
func (f *Follower) open(id uint32, p *wire.Packet) {
	policy := f.Policy()
	conn, scope := f.addresses(policy, egress.TCP, p)
	observe := f.Observe != nil && f.Observe(scope)
	v := egress.Denied(egress.InvalidPacket)
	switch {
	case odd(p):
	case len(p.Payload) > 0:
		// Data that the server may act on before the handshake. Without a reset a client
		// of TCP Fast Open sends its SYN again, without data.
		f.drops(id, observe)
		f.tell(policy, scope, conn, v, observe)
		return
	default:
		v = policy.Decide(conn)
	}
	f.recent.forget(key{p.Src, p.Dst}) // it is about an older connection
	if v.Action != egress.Wait {
		f.settle(id, policy, scope, conn, v, observe)
		return
	}
	s := f.enter(p.Src.Addr())
	if s == nil {
		f.settle(id, policy, scope, conn, egress.Denied(egress.TooManyPending), observe)
		return
	}
	c := f.track(key{p.Src, p.Dst}, s)
	c.scope, c.known, c.policy, c.observe = scope, conn, policy, observe
	c.web = observe && v.Reason == egress.NeedsRequest
	c.first = p.End()
	f.Verdict(id, true, 0)
}

// addresses is what is known of a connection at its first packet.
func (f *Follower) addresses(policy *egress.Policy, proto egress.Proto, p *wire.Packet) (conn egress.Conn, scope string) {
	if cl := policy.Cluster(p.Src.Addr()); cl != nil {
		scope = cl.Name
	}
	return egress.Conn{
		Proto: proto, Src: p.Src, Dst: p.Dst,
		Bound:  f.Bindings.Names(f.now, scope, p.Dst.Addr()),
		API:    f.API != nil && f.API(scope, p.Dst.Addr()),
		Strict: f.Bindings.Strict(f.now, scope),
	}, scope
}

// odd reports whether a client's segment has a form that honest clients do not send and that
// a server may read in another way, or not at all: decoys. A cookie request of TCP Fast Open
// is harmless. URG makes a server skip a byte even where its pointer is 0 (CVE-2024-55629).
// An IPv4 address inside an IPv6 one would be judged as the wrong one of the two.
func odd(p *wire.Packet) bool {
	if p.Has(^wire.FastOpen) || p.Flags.Has(wire.URG) || p.Dst.Addr().Is4In6() || p.Src.Addr().Is4In6() {
		return true
	}
	const ecn = wire.ECE | wire.CWR
	switch flags := p.Flags &^ ecn; {
	case flags.Has(wire.SYN):
		return flags != wire.SYN
	case flags.Has(wire.RST):
		return flags&^wire.ACK != wire.RST || len(p.Payload) > 0
	default:
		return !flags.Has(wire.ACK)
	}
}

// fromClient takes a segment of the client's.
func (f *Follower) fromClient(c *conn, id uint32, p *wire.Packet) {
	off := int(int32(p.Seq - c.first))
	switch {
	case odd(p):
		f.refuse(c, id, egress.InvalidPacket)
	case p.Flags.Has(wire.SYN):
		// Only the SYN that was seen first, sent again: another would let the server count
		// from elsewhere.
		if p.Seq+1 == c.first && len(p.Payload) == 0 && c.sent == 0 {
			f.Verdict(id, true, 0)
			return
		}
		f.drops(id, c.observe)
	case p.Flags.Has(wire.RST):
		f.clientResets(c, id, off)
	case c.state == opening, !c.window(p, off):
		f.drops(id, c.observe)
	case len(p.Payload) == 0 && !p.Flags.Has(wire.FIN):
		if c.state == confirming {
			f.wait(c, &f.idle)
		}
		f.Verdict(id, true, 0)
	default:
		f.data(c, held{id, off, off + len(p.Payload), p.Flags.Has(wire.FIN)}, p.Payload)
	}
}

// window reports whether a segment can be one that the client's own TCP sent: not left of
// its first byte, not far right of what is read, and with an acknowledgement of something that
// the server did send. Servers ignore others (decoys with old or future numbers), so they must
// not get any nor be read.
func (c *conn) window(p *wire.Packet, off int) bool {
	left := 0
	if len(p.Payload) == 0 && !p.Flags.Has(wire.FIN) {
		left = -1 // keep-alive (RFC 9293, section 3.8.4)
	}
	ack, heard := int32(p.Ack-c.theirs), int32(c.heard-c.theirs)
	return off >= left && off+len(p.Payload) <= c.from+wire.MaxHello && ack >= 0 && ack <= heard
}

// clientResets takes a RST. A server takes one that is exactly what it expects next; one
// elsewhere is a decoy, or late. The client has gone on counting over what is held here.
func (f *Follower) clientResets(c *conn, id uint32, off int) {
	switch {
	case c.state == opening:
		// The answer to a server that remembers an older connection, or second thoughts.
		f.log(c, egress.Denied(egress.UpstreamUnreachable))
		f.free(c)
		f.Verdict(id, true, 0)
	case off != c.sent && off != c.client.next && off != len(c.client.buf) && off != len(c.client.buf)+1:
		f.drops(id, c.observe)
	default:
		f.abandon(c, id)
	}
}

// data takes a segment with payload, or a FIN.
func (f *Follower) data(c *conn, h held, payload []byte) {
	if c.client.conflicts(h.from, payload) {
		f.refuse(c, h.id, egress.ConflictingData)
		return
	}
	known := c.client.has(h.from, h.to)
	switch {
	case h.fin && (h.from > c.client.next || h.to < len(c.client.buf)), // not the end of what was sent: a decoy
		!known && f.full(c) && (c.state != reading || h.from > c.client.next), // what fills the hole frees the others
		c.client.scattered(h.from, h.to):
		f.drops(h.id, c.observe) // an honest client sends it again
		return
	}
	if !f.room(&c.client, c.source, h.to) {
		f.refuse(c, h.id, egress.TooManyPending)
		return
	}
	before := c.client.next
	if c.state == reading && len(c.client.buf) == c.from {
		f.wait(c, &f.hellos) // its first byte
	}
	c.client.put(h.from, payload)
	if c.state == confirming {
		f.afterHello(c, h, known)
		return
	}
	f.duringHello(c, h, known, c.client.next > before)
}

// duringHello takes a segment while the hello is not judged.
func (f *Follower) duringHello(c *conn, h held, known, more bool) {
	switch {
	case known && h.fin && c.state == reading:
		f.refuse(c, h.id, egress.ClientLeft) // it will never be complete
		return
	case known && !h.fin && h.to <= c.sent:
		f.Verdict(h.id, true, 0) // lost behind us
		return
	case known && !h.fin && !c.observe:
		f.Verdict(h.id, false, 0) // what it repeats is held
		return
	}
	f.hold(c, h)
	if c.state != reading || !more || f.read(c) == nil {
		return
	}
	switch {
	case h.fin:
		f.deny(c, egress.ClientLeft)
	case c.flowing, len(c.held) >= releaseSegments, c.bytes >= releaseBytes, f.full(c):
		f.flow(c)
	case c.release.next == nil:
		f.releases.push(&c.release, f.now)
	}
}

// flow lets the contiguous beginning of an incomplete hello through, now and from now on: the
// hello's last byte is never among it, and without that byte a server does nothing. A server
// of the client's own choice could read what it has of it, though: up to 64 KiB of anything. So
// nothing flows to an address that no permitted name is known to have. What honest clients send
// there fits their first window, and needs no help where a segment is lost: of two, a tail-loss
// probe brings the second (RFC 8985, section 7).
func (f *Follower) flow(c *conn) {
	if c.state != reading || !f.expected(c) {
		return
	}
	c.flowing = true
	f.letGo(c, c.client.next)
}

// expected reports whether a name that the policy permits has the destination's address.
func (f *Follower) expected(c *conn) bool {
	at := c.known
	at.Bound, at.Strict = f.Bindings.Names(f.now, c.scope, at.Dst.Addr()), true
	return c.observe || c.retried || f.Policy().Decide(at).Action != egress.Deny
}

// afterHello takes a segment once the hello has been let through. What follows a hello, early
// data among it, is held until the server has answered: a second hello in it would be read by
// the server before it is judged.
func (f *Follower) afterHello(c *conn, h held, known bool) {
	f.wait(c, &f.idle)
	switch {
	case !harmless(c.client.buf[c.end:max(c.end, c.client.next)]):
		f.refuse(c, h.id, egress.MalformedHello)
	case h.from < c.end && h.to <= c.client.next,
		h.from == h.to && h.from == c.sent: // a FIN behind all else
		f.pass(c, h)
	case known && h.from < h.to && !c.observe:
		f.Verdict(h.id, false, 0) // what it repeats is held
	case f.full(c) && !c.observe:
		f.Verdict(h.id, false, 0)
	default:
		f.hold(c, h)
	}
}

// harmless reports whether what follows a hello can be no second one: whole or partial records
// of a ChangeCipherSpec, an alert, or early data (RFC 8446, section 5.1).
func harmless(b []byte) bool {
	for len(b) > 0 {
		if k := b[0]; k != 20 && k != 21 && k != 23 {
			return false
		}
		if len(b) < 5 {
			return true
		}
		b = b[min(len(b), 5+int(b[3])<<8+int(b[4])):]
	}
	return true
}
