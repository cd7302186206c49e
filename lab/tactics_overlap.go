//go:build linux

package lab

import "time"

// overlapTactics: some bytes are sent twice, with different values. Which of them a server keeps depends on the order
// and the extent of the segments; the lab's is Linux, and each of these ends with the evil name in its hands.
func overlapTactics() []tactic {
	var all []tactic
	add := func(name, source string, play func(c *strand) error) {
		w := wireSide{play: play}
		all = append(all, tactic{name: name, source: source, axes: byFamily | byHello, evil: w.lie(), twin: w.truth()})
	}
	// All of these leave the first part for last, so that what is sent before waits out of order. The pieces are around
	// the name and fit into one segment, however long the hello is.
	around := func(c *strand) (from, to int) { return c.at - 8, min(c.at+len(c.shape.name)+8, len(c.evil)) }
	rest := func(c *strand, from, to int) error {
		if err := c.put(c.evil, to, len(c.evil), nil); err != nil {
			return err
		}
		return c.put(c.evil, 0, from, nil)
	}
	add("covers a piece with a later, larger one", "Ptacek and Newsham 1998; RFC 9293 section 3.10.7.4", func(c *strand) error {
		from, to := around(c)
		return steps(
			func() error { return c.put(c.good, from, to, nil) },
			func() error { return c.put(c.evil, from-4, min(to+4, len(c.evil)), nil) },
			func() error { return rest(c, from-4, min(to+4, len(c.evil))) })
	})
	add("sends a smaller piece inside one that waits", "Ptacek and Newsham 1998", func(c *strand) error {
		from, to := around(c)
		return steps(
			func() error { return c.put(c.evil, from-4, to, nil) },
			func() error { return c.put(c.good, from, to-4, nil) }, // the server keeps what it has
			func() error { return rest(c, from-4, to) })
	})
	add("sends a piece again with another name", "Ptacek and Newsham 1998; zapret: fakedsplit", func(c *strand) error {
		from, to := around(c)
		return steps(
			func() error { return c.put(c.evil, from, to, nil) },
			func() error { return c.put(c.good, from, to, nil) }, // the server keeps the first
			func() error { return rest(c, from, to) })
	})
	add("lets a later piece begin before an earlier one", "zapret: seqovl, multidisorder", func(c *strand) error {
		from, to := around(c)
		return steps(
			func() error { return c.put(c.good, from, to, nil) },
			func() error { return c.put(c.evil, from-4, to, nil) },
			func() error { return rest(c, from-4, to) })
	})
	add("hides the name in the overlap of two pieces", "Ptacek and Newsham 1998", func(c *strand) error {
		from, to := around(c)
		middle := c.at + len(c.shape.name)/2
		return steps(
			func() error { return c.put(c.evil, from, middle+6, nil) },
			func() error { return c.put(c.good, middle, middle+6, nil) },
			func() error { return c.put(c.evil, middle, to, nil) },
			func() error { return rest(c, from, to) })
	})
	inFront := wireSide{play: func(c *strand) error {
		// One segment: the permitted hello where nothing belongs any more, the evil one's beginning behind it.
		n := min(len(c.good), maxByHand/2)
		head := append(append([]byte{}, c.good[:n]...), c.evil[:n]...)
		return steps(
			func() error { return c.send(segment{at: -n, data: head, flags: flagPSH}) },
			func() error { return c.put(c.evil, n, len(c.evil), nil) })
	}}
	all = append(all, tactic{name: "puts the permitted hello in front of its window", source: "zapret: seqovl", axes: byFamily | byHello, evil: inFront.lie(), twin: plainly.truth()})
	add("sends all again with another name when it is through", "RFC 9293 section 3.8.1", func(c *strand) error {
		return steps(
			func() error { return c.put(c.evil, 0, len(c.evil), nil) },
			func() error { return c.put(c.good, 0, len(c.good), nil) })
	})
	add("lets the first version die on the way, and sends another after the verdict", "zapret: fake; RFC 9293 section 3.8.1", func(c *strand) error {
		return steps(
			func() error { return c.put(c.good, 0, len(c.good), dies) },
			func() error { time.Sleep(afterwards); return nil },
			func() error { return c.put(c.evil, 0, c.at+4, nil) },
			func() error { return c.put(c.evil, c.at+4, len(c.evil), nil) })
	})
	add("lets half of the name die on the way, and sends another half", "zapret: fakedsplit", func(c *strand) error {
		half := c.at + len(c.shape.name)/2
		return steps(
			func() error { return c.put(c.evil, 0, c.at, nil) },
			func() error { return c.put(c.good, c.at, half, dies) },
			func() error { return c.put(c.evil, half, len(c.evil), nil) },
			func() error { return c.put(c.evil, c.at, half, nil) })
	})
	add("goes around the sequence space between two versions", "RFC 9293 section 3.4", func(c *strand) error {
		return steps(
			func() error {
				return c.put(c.good, 0, len(c.good), func(s *segment) { s.at += 1 << 30; s.ttl = hopsToDie })
			},
			func() error { return c.put(c.evil, 0, len(c.evil), nil) })
	})
	return all
}

// steps does one after the other until one goes wrong.
func steps(all ...func() error) error {
	for _, step := range all {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
