package gateway

import (
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// fromServer takes a segment of the server's. Servers are never held.
func (f *Follower) fromServer(c *conn, id uint32, p *wire.Packet) {
	switch {
	case p.Flags.Has(wire.SYN):
		f.answersSYN(c, id, p)
		return
	case p.Flags.Has(wire.RST):
		f.serverResets(c, id, p)
		return
	case !p.Flags.Has(wire.ACK):
		f.drops(id, c.observe)
		return
	case c.state == opening:
		// The server remembers an older connection and says so (RFC 9293, section 3.5.1).
		if len(p.Payload) == 0 && !p.Flags.Has(wire.FIN) {
			f.Verdict(id, true, 0)
			return
		}
		f.drops(id, c.observe)
		return
	}
	acked := int(int32(p.Ack - c.first))
	sent := c.sent
	if c.fin {
		sent++
	}
	if acked > sent && !c.observe {
		f.refuse(c, id, egress.UnconfirmedData)
		return
	}
	c.acked = max(c.acked, acked)
	if int32(p.End()-c.heard) > 0 {
		c.heard = p.End()
	}
	if c.state == confirming {
		f.wait(c, &f.idle)
	}
	f.listen(c, id, p)
}

// answersSYN takes a segment with SYN. One without ACK is a simultaneous open, which no server
// does and in which nobody says where the client's bytes begin.
func (f *Follower) answersSYN(c *conn, id uint32, p *wire.Packet) {
	exact := p.Flags.Has(wire.ACK) && p.Ack == c.first && len(p.Payload) == 0 && !p.Flags.Has(wire.RST) && !p.Flags.Has(wire.FIN)
	switch {
	case c.state == opening && exact:
		c.state = reading
		c.theirs, c.heard, c.answer = p.Seq+1, p.Seq+1, p.Seq+1
		f.wait(c, &f.syns)
		f.Verdict(id, true, 0)
	case c.state == opening && p.Flags.Has(wire.ACK) && len(p.Payload) == 0:
		f.Verdict(id, true, 0) // for an older SYN: the client answers with a reset
	case exact && p.Seq+1 == c.theirs:
		f.Verdict(id, true, 0) // sent again
	default:
		f.drops(id, c.observe)
	}
}

// serverResets takes a RST, which always passes; the connection ends when the client will
// take it, too.
func (f *Follower) serverResets(c *conn, id uint32, p *wire.Packet) {
	exact := p.Seq == c.heard
	if c.state == opening {
		exact = p.Flags.Has(wire.ACK) && p.Ack == c.first
	}
	if exact {
		f.close(c)
	}
	f.Verdict(id, true, 0)
}

// listen reads what the server says, as far as it matters, and answers for its packet.
func (f *Follower) listen(c *conn, id uint32, p *wire.Packet) {
	if c.said == wire.AnswerMore && len(p.Payload) > 0 {
		said, n, ok := f.answered(c, p)
		switch {
		case !ok:
			f.refuse(c, id, egress.ConflictingData)
			return
		case said == wire.AnswerMore:
		case said == wire.AnswerOther, c.state != confirming, said == wire.RetryHello && c.retried:
			f.refuse(c, id, egress.ServerNotTLS) // it speaks first, or out of turn
			return
		case said == wire.RetryHello:
			f.retry(c, id, n)
			return
		default:
			c.said = said
		}
	}
	if c.state == confirming && c.said != wire.AnswerMore && c.acked >= c.end {
		f.confirm(c, id)
		return
	}
	f.Verdict(id, true, 0)
}

// answered adds a segment to what the server has said and reads it. Most answers are told by
// their first segment, and then nothing is kept.
func (f *Follower) answered(c *conn, p *wire.Packet) (said wire.Answer, n int, ok bool) {
	off := int(int32(p.Seq - c.answer))
	data := p.Payload
	if off < 0 {
		if off+len(data) <= 0 {
			return wire.AnswerMore, 0, true // sent again
		}
		data, off = data[-off:], 0
	}
	if off == 0 && len(c.server.buf) == 0 {
		if said, n = wire.ReadAnswer(data); said != wire.AnswerMore && said != wire.RetryHello {
			return said, n, true
		}
	}
	if off >= wire.MaxAnswer {
		return wire.AnswerMore, 0, true // behind what is lost, and not needed
	}
	data = data[:min(len(data), wire.MaxAnswer-off)]
	if c.server.conflicts(off, data) {
		return 0, 0, false
	}
	if c.server.scattered(off, off+len(data)) || !f.room(&c.server, c.source, off+len(data)) {
		return wire.AnswerMore, 0, true // it is confirmed later, or never
	}
	c.server.put(off, data)
	said, n = wire.ReadAnswer(c.server.buf[:c.server.next])
	return said, n, true
}

// retry begins to read the second hello: packet id holds the end of a HelloRetryRequest of n
// bytes. Behind it, a server says nothing but a ChangeCipherSpec before it has the hello.
func (f *Follower) retry(c *conn, id uint32, n int) {
	rest := c.server.buf[n:c.server.next]
	if said, _ := wire.ReadAnswer(rest); said != wire.AnswerMore {
		f.refuse(c, id, egress.ServerNotTLS)
		return
	}
	c.answer += uint32(n)
	copy(c.server.buf, rest)
	c.server.buf, c.server.next, c.server.ahead = c.server.buf[:len(rest)], len(rest), c.server.ahead[:0]
	c.retried, c.flowing, c.state = true, false, reading
	c.from, c.end = c.end, 0
	f.wait(c, &f.syns)
	f.Verdict(id, true, 0)
	if len(c.client.buf) > c.from {
		f.wait(c, &f.hellos)
		_ = f.read(c) // it was there before it was asked for: no more than a ChangeCipherSpec may be
	}
}
