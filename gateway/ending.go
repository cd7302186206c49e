package gateway

import (
	"net/netip"
	"slices"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// refuse ends a connection because of packet id, which is not held.
func (f *Follower) refuse(c *conn, id uint32, r egress.Reason) {
	if c.observe {
		f.Verdict(id, true, f.passed())
	} else {
		f.Verdict(id, true, f.Cut)
	}
	f.deny(c, r)
}

// overtaken ends a connection by packet id, and reports that, when it was only observed and its
// cluster has been enforced since: what passed of it has not been judged.
func (f *Follower) overtaken(c *conn, id uint32) bool {
	if !c.observe || f.Observe(c.scope) {
		return false
	}
	c.observe = false
	f.refuse(c, id, egress.PolicyChanged)
	return true
}

// deny ends a connection for reason r.
func (f *Follower) deny(c *conn, r egress.Reason) { f.denied(c, egress.Denied(r)) }

// denied ends a connection: both ends are reset at once, so that none is left half open, and
// what either still sends is cut. The kernel answers the packet that is cut too, but only if
// that still waits: a change of the rules drops those that do.
func (f *Follower) denied(c *conn, v egress.Verdict) {
	f.log(c, v)
	f.end(c, true)
}

// abandon ends a connection that the client has reset by packet id. The server does not
// expect its sequence number where bytes are held, so it gets a reset of its own.
func (f *Follower) abandon(c *conn, id uint32) {
	f.logUnfinished(c)
	f.drops(id, c.observe)
	f.end(c, false)
}

// close ends a connection that the server has reset; the reset reaches the client.
func (f *Follower) close(c *conn) {
	f.logUnfinished(c)
	for _, h := range c.held {
		f.Verdict(h.id, false, 0)
	}
	if !c.observe {
		f.recent.keep(c.key, f.Cut, f.now)
	}
	f.free(c)
}

// logUnfinished reports a connection that one of its ends gave up.
func (f *Follower) logUnfinished(c *conn) {
	switch {
	case c.allow.Action == egress.Allow:
		f.log(c, c.allow)
	case c.state == opening:
		f.log(c, egress.Denied(egress.UpstreamUnreachable))
	default:
		f.log(c, egress.Denied(egress.ClientLeft))
	}
}

func (f *Follower) end(c *conn, tellClient bool) {
	if c.observe {
		f.recent.keep(c.key, f.passed(), f.now)
		f.free(c)
		return
	}
	for i, h := range c.held {
		// One of them carries the mark to the connection.
		if last := i == len(c.held)-1; last {
			f.Verdict(h.id, true, f.Cut)
		} else {
			f.Verdict(h.id, false, 0)
		}
	}
	if c.state != opening {
		if tellClient {
			f.reset(c.key.server, c.key.client, c.heard, c.first+uint32(len(c.client.buf)))
		}
		f.reset(c.key.client, c.key.server, c.sequence(), c.heard)
	}
	f.recent.keep(c.key, f.Cut, f.now)
	f.free(c)
}

func (f *Follower) reset(src, dst netip.AddrPort, seq, ack uint32) {
	f.out = wire.AppendReset(f.out[:0], src, dst, seq, ack)
	f.Reset(f.out)
}

// drops lets one packet vanish; the connection goes on without it. What is only observed
// passes.
func (f *Follower) drops(id uint32, observe bool) { f.Verdict(id, observe, 0) }

// settle answers for a connection that is decided at its first packet.
func (f *Follower) settle(id uint32, policy *egress.Policy, scope string, conn egress.Conn, v egress.Verdict, observe bool) {
	f.tell(policy, scope, conn, v, observe)
	switch {
	case observe:
		f.Verdict(id, true, f.Passed(conn, v))
	case v.Action == egress.Allow:
		f.Verdict(id, true, f.Allowed(conn, v))
	default:
		f.Verdict(id, true, f.Cut)
	}
}

// passed is the mark of what is only observed, and would be denied.
func (f *Follower) passed() uint32 { return f.Passed(egress.Conn{}, egress.Verdict{}) }

func (f *Follower) mark(c *conn, v egress.Verdict) uint32 {
	if c.observe {
		return f.Passed(c.known, v)
	}
	return f.Allowed(c.known, v)
}

// log reports a connection.
func (f *Follower) log(c *conn, v egress.Verdict) { f.tell(c.policy, c.scope, c.known, v, c.observe) }

// maxTold is how many bound names a report holds: an address of a content network may have
// thousands.
const maxTold = 32

func (f *Follower) tell(policy *egress.Policy, scope string, conn egress.Conn, v egress.Verdict, observe bool) {
	if len(conn.Bound) > maxTold {
		told := conn.Bound[:maxTold:maxTold]
		if slices.Contains(conn.Bound, conn.Name) && !slices.Contains(told, conn.Name) {
			told = append(told, conn.Name)
		}
		conn.Bound = told
	}
	f.Decided(egress.Flow{Time: f.now, Policy: policy.ID(), Cluster: scope, Conn: conn, Verdict: v, Observed: observe})
}
