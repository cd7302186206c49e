package gateway

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// read reads the hello that counts, or the request, from what is contiguous, and goes on with it.
// It returns wire.ErrMore while it is incomplete.
func (f *Follower) read(c *conn) error {
	if c.web {
		return f.readRequest(c)
	}
	stream := c.client.buf[c.from:c.client.next]
	var h wire.ClientHello
	var err error
	if c.retried {
		h, err = wire.ReadSecondHello(stream)
	} else {
		h, err = wire.ReadClientHello(stream)
	}
	switch {
	case errors.Is(err, wire.ErrMore):
		return wire.ErrMore
	case err != nil:
		f.deny(c, reasonFor(err))
	case c.retried && !c.hello.SameServer(h):
		f.deny(c, egress.ServerNameChanged)
	default:
		c.hello, c.end = h, c.from+h.Len
		c.release.leave()
		f.judge(c)
	}
	return nil
}

// reasonFor is the reason that a fault in a hello is denied for.
func reasonFor(fault error) egress.Reason {
	switch {
	case errors.Is(fault, wire.ErrNotTLS):
		return egress.NotTLS
	case errors.Is(fault, wire.ErrRecords), errors.Is(fault, wire.ErrHelloSize):
		return egress.HelloTooLarge
	}
	return egress.MalformedHello
}

// judge asks the policy about a connection whose hello is complete. A second hello names the
// same server, so it needs no second verdict.
func (f *Follower) judge(c *conn) {
	if c.retried && c.allow.Action == egress.Allow {
		f.permit(c, c.allow)
		return
	}
	if !c.name() {
		f.deny(c, egress.MalformedHello)
		return
	}
	v := f.decide(c)
	switch {
	case v.Action == egress.Allow:
		f.permit(c, v)
	case v.Reason == egress.AddressNotBound && !c.known.Strict && f.Lookup != nil:
		f.ask(c, v)
	default:
		f.denied(c, v)
	}
}

// name puts the name of the hello into what is known, and reports false when it is no name.
func (c *conn) name() bool {
	c.known.Proto = egress.HTTPS
	if c.hello.ServerName == "" {
		return true
	}
	n, err := egress.ParseName(c.hello.ServerName)
	if err == nil {
		c.known.Name = n
		return true
	}
	_, notAddress := netip.ParseAddr(c.hello.ServerName)
	c.known.Literal = errors.Is(err, egress.ErrAddress) || notAddress == nil
	return c.known.Literal
}

// decide asks the policy that is in force now, with what is known now.
func (f *Follower) decide(c *conn) egress.Verdict {
	c.policy = f.Policy()
	c.known.Bound = f.Bindings.NamesWith(f.now, c.scope, c.known.Dst.Addr(), c.known.Name)
	c.known.API = f.API != nil && f.API(c.scope, c.known.Dst.Addr())
	return c.policy.Decide(c.known)
}

// permit lets a judged hello through, and nothing behind it but what shares its packets.
func (f *Follower) permit(c *conn, v egress.Verdict) {
	if !harmless(c.client.buf[c.end:c.client.next]) {
		f.deny(c, egress.MalformedHello) // a second hello that nobody asked for
		return
	}
	c.allow, c.state = v, confirming
	f.wait(c, &f.idle)
	f.letGo(c, c.end)
}

// confirm lets a connection go: the server has acknowledged the hello and answered it.
func (f *Follower) confirm(c *conn, id uint32) {
	if p := f.Policy(); p != c.policy {
		c.policy = p
		if c.allow = p.Decide(c.known); c.allow.Action != egress.Allow {
			f.refuse(c, id, egress.PolicyChanged)
			return
		}
	}
	mark := f.mark(c, c.allow)
	f.Verdict(id, true, mark)
	for _, h := range c.held {
		f.Verdict(h.id, true, mark)
	}
	f.recent.keep(c.key, mark, f.now)
	f.log(c, c.allow)
	f.free(c)
}

// maxLookups bounds the names that are asked for at the same time.
const maxLookups = 1024

// ask looks the name up, for a cluster whose DNS we do not see; v is what is decided without.
func (f *Follower) ask(c *conn, v egress.Verdict) {
	waiting, asked := f.lookups[c.known.Name]
	if !asked && len(f.lookups) >= maxLookups {
		f.denied(c, v)
		return
	}
	c.state = asking
	f.lookups[c.known.Name] = append(waiting, c.key)
	if !asked {
		f.Lookup(c.known.Name)
	}
}

// forgetLookup takes a connection off those that wait for its name. When none waits any more, the
// next one asks again: an answer that late may never come.
func (f *Follower) forgetLookup(c *conn) {
	waiting := f.lookups[c.known.Name]
	if i := slices.Index(waiting, c.key); i >= 0 {
		waiting = slices.Delete(waiting, i, i+1)
	}
	if f.lookups[c.known.Name] = waiting; len(waiting) == 0 {
		delete(f.lookups, c.known.Name)
	}
}

// Resolved takes the answer to a Lookup. What it says should be in the Bindings, too, so that
// the next connection need not ask.
func (f *Follower) Resolved(now time.Time, name egress.Name, addrs []netip.Addr, err error) {
	f.now = now
	waiting := f.lookups[name]
	delete(f.lookups, name)
	for _, k := range waiting {
		c := f.conns[k]
		if c == nil || c.state != asking {
			continue
		}
		c.state = reading
		if err != nil || !slices.Contains(addrs, c.known.Dst.Addr()) {
			f.deny(c, egress.AnswerLacksAddress)
			continue
		}
		f.Bindings.Missed(f.now, c.scope)
		v := f.decide(c)
		if v.Reason == egress.AddressNotBound {
			c.known.Bound = append(slices.Clip(c.known.Bound), name)
			v = c.policy.Decide(c.known)
		}
		if v.Action == egress.Allow {
			f.permit(c, v)
		} else {
			f.denied(c, v)
		}
	}
}
