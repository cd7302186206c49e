package gateway

import (
	"net/netip"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// SavedVersion tells apart the forms of Saved: a Follower takes only what has the form that it knows.
const SavedVersion = 1

// Saved is what one Follower leaves to the next that reads the same queue, so that no client has to start again. It has a
// form in JSON.
type Saved struct {
	Version int           `json:"version"`
	Conns   []SavedConn   `json:"connections,omitempty"`
	Recent  []SavedRecent `json:"recent,omitempty"`
}

// SavedConn is an undecided connection.
type SavedConn struct {
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
	State  uint8          `json:"state"`

	Observe bool `json:"observe,omitempty"`
	Web     bool `json:"web,omitempty"`
	Retried bool `json:"retried,omitempty"`
	Flowing bool `json:"flowing,omitempty"`
	Fin     bool `json:"fin,omitempty"`

	First uint32       `json:"first"`
	Sent  SavedStream  `json:"clientStream"`
	From  int          `json:"from"`
	Let   int          `json:"sent"`
	Acked int          `json:"acked"`
	Held  []SavedFrame `json:"held,omitempty"`

	Theirs uint32      `json:"theirs"`
	Heard  uint32      `json:"heard"`
	Answer uint32      `json:"answer"`
	Said   SavedStream `json:"serverStream"`
	Kind   uint8       `json:"said"`
}

// SavedStream is what one end has sent.
type SavedStream struct {
	Bytes []byte   `json:"bytes,omitempty"`
	Next  int      `json:"next"`
	Ahead [][2]int `json:"ahead,omitempty"`
}

// SavedFrame is a packet that waits in the queue.
type SavedFrame struct {
	ID   uint32 `json:"id"`
	From int    `json:"from"`
	To   int    `json:"to"`
	Fin  bool   `json:"fin,omitempty"`
}

// SavedRecent is a connection that is decided, and of which packets may wait in the queue.
type SavedRecent struct {
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
	Mark   uint32         `json:"mark"`
}

// maxSaved bounds the bytes that are left to the next: with a flood of half hellos their connections have to begin anew.
const maxSaved = 8 << 20

// Save returns what the Follower follows. Packets of what does not fit are dropped, to be sent again; nothing may be asked
// of the Follower afterwards.
func (f *Follower) Save(now time.Time) Saved {
	s := Saved{Version: SavedVersion}
	bytes := 0
	for k, c := range f.conns {
		if bytes += len(c.client.buf) + len(c.server.buf); bytes > maxSaved {
			for _, h := range c.held {
				f.Verdict(h.id, false, 0)
			}
			continue
		}
		s.Conns = append(s.Conns, c.save(k))
	}
	f.recent.each(now, func(k key, mark uint32) { s.Recent = append(s.Recent, SavedRecent{k.client, k.server, mark}) })
	return s
}

func (c *conn) save(k key) SavedConn {
	s := SavedConn{
		Client: k.client, Server: k.server, State: uint8(c.state),
		Observe: c.observe, Web: c.web, Retried: c.retried, Flowing: c.flowing, Fin: c.fin,
		First: c.first, Sent: c.client.save(), From: c.from, Let: c.sent, Acked: c.acked,
		Theirs: c.theirs, Heard: c.heard, Answer: c.answer, Said: c.server.save(), Kind: uint8(c.said),
	}
	for _, h := range c.held {
		s.Held = append(s.Held, SavedFrame{h.id, h.from, h.to, h.fin})
	}
	return s
}

func (s *stream) save() SavedStream {
	out := SavedStream{Bytes: s.buf, Next: s.next}
	for _, sp := range s.ahead {
		out.Ahead = append(out.Ahead, [2]int{sp.from, sp.to})
	}
	return out
}

// Restore goes on with what another Follower has saved, by the policy that is in force now. It is called before anything
// else. What it does not know it leaves alone: such connections have to begin anew.
func (f *Follower) Restore(now time.Time, s *Saved) {
	f.now = now
	if s.Version != SavedVersion {
		return
	}
	for _, r := range s.Recent {
		f.recent.keep(key{r.Client, r.Server}, r.Mark, now)
	}
	for i := range s.Conns {
		f.restore(&s.Conns[i])
	}
}

func (f *Follower) restore(s *SavedConn) {
	drop := func() {
		for _, h := range s.Held {
			f.Verdict(h.ID, false, 0)
		}
	}
	src := f.enter(s.Client.Addr())
	if src == nil || !s.sound() {
		drop()
		return
	}
	c := f.track(key{s.Client, s.Server}, src)
	c.policy = f.Policy()
	c.known, c.scope = f.addresses(c.policy, egress.TCP, &wire.Packet{Src: s.Client, Dst: s.Server})
	c.observe, c.web, c.retried, c.flowing, c.fin = s.Observe, s.Web, s.Retried, s.Flowing, s.Fin
	c.state, c.first, c.from, c.sent, c.acked = state(s.State), s.First, s.From, s.Let, s.Acked
	c.theirs, c.heard, c.answer, c.said = s.Theirs, s.Heard, s.Answer, wire.Answer(s.Kind)
	for _, h := range s.Held {
		c.held = append(c.held, held{h.ID, h.From, h.To, h.Fin})
		c.bytes += h.To - h.From
		f.sources.hold(src)
	}
	if !f.load(&c.client, src, &s.Sent) || !f.load(&c.server, src, &s.Said) {
		f.deny(c, egress.TooManyPending)
		return
	}
	f.resume(c)
}

// sound reports whether offsets are within what is there: the other process is trusted, and may be of another make.
func (s *SavedConn) sound() bool {
	for _, h := range s.Held {
		if h.From < 0 || h.To < h.From || h.To > len(s.Sent.Bytes) {
			return false
		}
	}
	return s.Sent.sound() && s.Said.sound() && s.From >= 0 && s.From <= len(s.Sent.Bytes) && state(s.State) <= confirming
}

func (s *SavedStream) sound() bool {
	for _, sp := range s.Ahead {
		if sp[0] < s.Next || sp[1] < sp[0] || sp[1] > len(s.Bytes) {
			return false
		}
	}
	return s.Next >= 0 && s.Next <= len(s.Bytes) && len(s.Ahead) <= maxAhead
}

func (f *Follower) load(to *stream, src *source, s *SavedStream) bool {
	if len(s.Bytes) > 0 && !f.room(to, src, len(s.Bytes)) {
		return false
	}
	to.buf, to.next = append(to.buf[:0], s.Bytes...), s.Next
	for _, sp := range s.Ahead {
		to.ahead = append(to.ahead, span{sp[0], sp[1]})
	}
	return true
}

// resume makes a restored connection wait for what it waited for, or judges it again: the policy may be another one.
func (f *Follower) resume(c *conn) {
	if c.state == opening {
		return // as track has left it
	}
	confirmed := c.state == confirming
	c.state = reading
	if c.retried { // the first hello says what the second must name
		h, err := wire.ReadClientHello(c.client.buf[:c.client.next])
		if err != nil {
			f.deny(c, egress.MalformedHello)
			return
		}
		c.hello = h
		if !c.name() {
			f.deny(c, egress.MalformedHello)
			return
		}
		c.allow = f.decide(c)
	}
	if len(c.client.buf) == c.from {
		f.wait(c, &f.syns)
		return
	}
	f.wait(c, &f.hellos)
	if f.read(c) == nil {
		return
	}
	if confirmed { // it was complete, and is not any more
		f.deny(c, egress.MalformedHello)
		return
	}
	f.releases.push(&c.release, f.now)
}
