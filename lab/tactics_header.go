//go:build linux

package lab

// headerTactics: the segments are honest, and what is around them makes a filter look at the wrong place, or not at all.
// No client of a web server sends such packets, so the twin is the same connection without them.
func headerTactics() []tactic {
	var all []tactic
	add := func(name, source string, fits func(shape) bool, around func(s *segment) *envelope) {
		w := wireSide{play: func(c *strand) error {
			return c.put(c.evil, 0, len(c.evil), func(s *segment) { s.wrap = around(s) })
		}}
		all = append(all, tactic{name: name, source: source, axes: byFamily | byHello, fits: fits, evil: w.lie(), twin: plainly.truth()})
	}
	size := func(s *segment) int { return 20 + len(s.data) }
	options := func(o ...byte) func(*segment) *envelope {
		return func(*segment) *envelope { return &envelope{options: o} }
	}
	headers := func(h ...header) func(*segment) *envelope {
		return func(*segment) *envelope { return &envelope{headers: h} }
	}
	pieces := func(cut func(n int) []piece) func(*segment) *envelope {
		return func(s *segment) *envelope { return &envelope{pieces: cut(size(s))} }
	}
	add("sends the hello in two fragments", "RFC 791 section 3.2; zapret: ipfrag2", nil, pieces(func(n int) []piece {
		half := n / 2 &^ 7
		return []piece{{to: half}, {from: half}}
	}))
	add("sends the hello in two fragments, the second one first", "GoodbyeDPI: reverse fragmentation", nil, pieces(func(n int) []piece {
		half := n / 2 &^ 7
		return []piece{{from: half}, {to: half}}
	}))
	add("cuts the TCP header into two fragments", "RFC 1858: tiny fragments", onlyV4, pieces(func(int) []piece { return []piece{{to: 8}, {from: 8}} }))
	add("sends a whole packet as an atomic fragment", "RFC 6946", onlyV6, pieces(func(int) []piece { return []piece{{}} }))
	add("sends the hello with no-operation IP options", "RFC 791 section 3.1", onlyV4, options(1, 1, 1, 0))
	add("sends the hello with a record-route option", "RFC 791 section 3.1", onlyV4, options(append([]byte{7, 39, 4}, make([]byte, 37)...)...))
	add("sends the hello with a router-alert option", "RFC 2113", onlyV4, options(0x94, 4, 0, 0))
	add("sends the hello with a timestamp option", "RFC 791 section 3.1", onlyV4, options(append([]byte{68, 36, 5, 0}, make([]byte, 32)...)...))
	add("sends the hello behind a hop-by-hop header", "RFC 8200 section 4.3", onlyV6, headers(header{headerHop, padding}))
	add("sends the hello behind a destination-options header", "RFC 8200 section 4.6", onlyV6, headers(header{headerDestination, padding}))
	add("sends the hello behind two headers", "RFC 8200 section 4.1", onlyV6, headers(header{headerHop, padding}, header{headerDestination, padding}))
	add("sends the hello behind seven headers", "RFC 8200 section 4.1; RFC 9288", onlyV6, headers(
		header{headerDestination, padding}, header{headerDestination, padding}, header{headerDestination, padding}, header{headerDestination, padding},
		header{headerDestination, padding}, header{headerDestination, padding}, header{headerDestination, padding}))
	return all
}
