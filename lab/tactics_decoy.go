//go:build linux

package lab

import "time"

// A decoy is a segment, or a few, with the permitted hello, that the server ignores and a reader on the way may not.
type decoy struct {
	name   string // reads on after "sends a decoy"
	source string
	stamps bool // needs TCP timestamps
	fits   func(shape) bool
	needs  string // of the server's machine
	reset  bool   // it ends the connection, if somebody takes it
	send   func(c *strand, from int) error
}

// marked is a decoy that differs from an honest segment in one thing.
func marked(change func(*segment)) func(*strand, int) error {
	return func(c *strand, from int) error { return c.put(c.good, from, len(c.good), change) }
}

// hopsToDie is a packet's life that ends behind the gateway and before the server: the virtual network, the gateway,
// the edge.
const hopsToDie = 3

func dies(s *segment) { s.ttl = hopsToDie }

// discards is an option of an unknown kind, which tells who does not know it to drop the packet (RFC 8200 section 4.2).
var discards = []byte{0x5e, 4, 0, 0, 0, 0}

// padding is an option that means nothing.
var padding = []byte{1, 4, 0, 0, 0, 0}

const headerHop, headerDestination = 0, 60

func onlyV6(s shape) bool { return s.v6 }
func onlyV4(s shape) bool { return !s.v6 }

// decoyKinds are all that are known to be ignored by Linux.
func decoyKinds() []decoy {
	return []decoy{
		{name: "that dies on the way", source: "zapret: fake, ttl", send: marked(dies)},
		{name: "with a wrong checksum", source: "zapret: badsum", send: marked(func(s *segment) { s.badSum = true })},
		{name: "with an old timestamp", source: "RFC 7323 section 5.3; zapret: ts", stamps: true, send: marked(func(s *segment) { s.oldStamp = true })},
		{name: "with an MD5 signature", source: "RFC 2385; zapret: md5sig", send: marked(func(s *segment) { s.md5 = true })},
		{name: "with an MD5 signature and a FIN", source: "CVE-2019-18792", send: marked(func(s *segment) { s.md5 = true; s.flags |= flagFIN })},
		{name: "with a TCP-AO signature", source: "RFC 5925", needs: "a kernel that knows TCP-AO", send: marked(func(s *segment) {
			s.options = append([]byte{optAO, 16, 1, 1}, make([]byte, 12)...)
		})},
		{name: "with an acknowledgement that is too old", source: "RFC 5961 section 5.2", send: marked(func(s *segment) { s.ack = -70000 })},
		{name: "with an acknowledgement of what was never sent", source: "RFC 9293 section 3.10.7.4", send: marked(func(s *segment) { s.ack = 100000 })},
		{name: "without an acknowledgement", source: "zapret: datanoack", send: marked(func(s *segment) { s.noACK = true })},
		{name: "without any flag", source: "SymTCP, NDSS 2020", send: marked(func(s *segment) { s.noACK, s.flags = true, 0 })},
		{name: "that is a SYN", source: "SymTCP, NDSS 2020", send: marked(func(s *segment) { s.noACK, s.flags = true, flagSYN|flagPSH })},
		{name: "that is a SYN and a FIN", source: "Geneva, CCS 2019", send: marked(func(s *segment) { s.noACK, s.flags = true, flagSYN|flagFIN })},
		{name: "before the window", source: "zapret: badseq", send: marked(func(s *segment) { s.at -= 10000 })},
		{name: "far ahead, with a FIN", source: "SymTCP, NDSS 2020", send: marked(func(s *segment) { s.at += 300000; s.flags |= flagFIN })},
		{name: "half the sequence space away", source: "zapret: badseq 0x80000000", send: marked(func(s *segment) { s.at += 1<<31 - 1 })},
		{name: "whose header says that it is shorter than any", source: "RFC 9293 section 3.1", send: marked(func(s *segment) { s.badSize = true })},
		{name: "with IP options, that dies on the way", source: "RFC 791 section 3.1", fits: onlyV4, send: marked(func(s *segment) {
			s.ttl, s.wrap = hopsToDie, &envelope{options: []byte{1, 1, 1, 1}}
		})},
		{name: "with a header that only the server must drop", source: "RFC 8200 section 4.2; zapret: destopt", fits: onlyV6, send: marked(func(s *segment) {
			s.wrap = &envelope{headers: []header{{headerDestination, discards}}}
		})},
		{name: "behind a hop-by-hop header, that dies on the way", source: "RFC 8200 section 4.3; zapret: hopbyhop", fits: onlyV6, send: marked(func(s *segment) {
			s.ttl, s.wrap = hopsToDie, &envelope{headers: []header{{headerHop, padding}}}
		})},
		{name: "as a first fragment without the rest", source: "RFC 1858; zapret: ipfrag1", send: marked(func(s *segment) {
			s.wrap = &envelope{pieces: []piece{{to: (12 + len(s.data)) &^ 7}}}
		})},
		{name: "and a reset, which die on the way", source: "zapret: rst", reset: true, send: func(c *strand, from int) error {
			return c.decoyAnd(from, segment{at: len(c.good), flags: flagRST, ttl: hopsToDie})
		}},
		{name: "and a FIN, which die on the way", source: "Geneva, CCS 2019", send: func(c *strand, from int) error {
			return c.decoyAnd(from, segment{at: len(c.good), flags: flagFIN, ttl: hopsToDie})
		}},
		{name: "and a reset with a wrong checksum", source: "zapret: rst, badsum", reset: true, send: func(c *strand, from int) error {
			return c.decoyAnd(from, segment{at: len(c.good), flags: flagRST, badSum: true})
		}},
		{name: "behind a second SYN, which die on the way", source: "Geneva, CCS 2019; zapret: synack-split", send: func(c *strand, from int) error {
			const elsewhere = 5000
			if err := c.send(segment{at: elsewhere - 1, flags: flagSYN, noACK: true, ttl: hopsToDie}); err != nil {
				return err
			}
			return c.put(c.good, from, len(c.good), func(s *segment) { s.at += elsewhere; s.ttl = hopsToDie })
		}},
	}
}

// decoyAnd sends a decoy that dies on the way, and something behind it.
func (c *strand) decoyAnd(from int, also segment) error {
	if err := c.put(c.good, from, len(c.good), dies); err != nil {
		return err
	}
	err := c.send(also)
	time.Sleep(onItsWay)
	return err
}

// decoyPlace is when a decoy comes.
type decoyPlace struct {
	words string
	play  func(c *strand, d decoy) error
}

// decoyPlaces are before the hello that is meant, inside it, and long enough before it for a verdict.
var decoyPlaces = []decoyPlace{
	{"before the hello", func(c *strand, d decoy) error { return c.lure(d, 0, 0) }},
	{"in the middle of the hello", func(c *strand, d decoy) error { return c.lure(d, c.at/2, 0) }},
	{"and, once that is decided, the hello", func(c *strand, d decoy) error { return c.lure(d, 0, afterwards) }},
}

func decoys() []tactic { return decoysIn(decoyPlaces) }

func decoysIn(places []decoyPlace) []tactic {
	var all []tactic
	for _, d := range decoyKinds() {
		side := func(play func(c *strand) error) wireSide {
			return wireSide{how: func(shape, []byte) rawHow { return rawHow{stamps: d.stamps} }, play: play}
		}
		for _, when := range places {
			all = append(all, tactic{
				name: "sends a decoy " + d.name + " " + when.words, source: d.source, axes: byFamily | byHello, fits: d.fits, needs: d.needs, quiet: d.reset,
				evil: side(func(c *strand) error { return when.play(c, d) }).lie(),
				twin: side(func(c *strand) error { return c.put(c.good, 0, len(c.good), nil) }).truth(),
			})
		}
	}
	return all
}

// lure sends a hello whose end is preceded by a decoy of it.
func (c *strand) lure(d decoy, from int, pause time.Duration) error {
	if err := c.put(c.evil, 0, from, nil); err != nil {
		return err
	}
	if err := d.send(c, from); err != nil {
		return err
	}
	time.Sleep(pause)
	return c.put(c.evil, from, len(c.evil), nil)
}
