//go:build linux

package lab

import (
	"bytes"
	"context"
	"time"
)

// segmentTactics: the hello is what it is, but comes in segments, with flags or options that some readers give up on.
// All but the last of them are legal, so the same with a permitted name must pass.
func segmentTactics() []tactic {
	var all []tactic
	legal := func(name, source string, w wireSide) {
		all = append(all, tactic{name: name, source: source, axes: byFamily | byHello, evil: w.lie(), twin: w.truth()})
	}
	playing := func(f func(c *strand) error) wireSide { return wireSide{play: f} }
	withOptions := func(o ...byte) wireSide {
		return wireSide{how: func(shape, []byte) rawHow { return rawHow{options: o} }, play: plainly.play}
	}
	legal("sends the hello in 8 segments", "zapret: multisplit", playing(func(c *strand) error { return c.parts(c.evil, 8, forwards, nil) }))
	legal("sends the hello in 8 segments, the last one first", "zapret: multidisorder", playing(func(c *strand) error { return c.parts(c.evil, 8, backwards(8), nil) }))
	legal("sends the hello in 8 segments, every other one first", "SymTCP, NDSS 2020", playing(func(c *strand) error {
		return c.parts(c.evil, 8, func(i int) int { return (i*2)%8 + i/4 }, nil)
	}))
	legal("sends the hello in 8 segments, each of them twice", "RFC 9293 section 3.8.1", playing(func(c *strand) error {
		return c.parts(c.evil, 16, func(i int) int { return i &^ 1 }, func(s *segment) { s.data = c.evil[s.at:min(s.at+len(c.evil)/8+1, len(c.evil))] })
	}))
	legal("cuts the hello inside the name", "zapret: split at the SNI", playing(func(c *strand) error {
		middle := c.at + len(c.shape.name)/2
		if err := c.put(c.evil, 0, middle, nil); err != nil {
			return err
		}
		return c.put(c.evil, middle, len(c.evil), nil)
	}))
	legal("sends the first byte alone", "zapret: split at 1", playing(func(c *strand) error {
		if err := c.put(c.evil, 0, 1, nil); err != nil {
			return err
		}
		return c.put(c.evil, 1, len(c.evil), nil)
	}))
	legal("pauses inside the name", "GoodbyeDPI: native fragmentation", playing(func(c *strand) error {
		if err := c.put(c.evil, 0, c.at+3, nil); err != nil {
			return err
		}
		time.Sleep(afterwards)
		return c.put(c.evil, c.at+3, len(c.evil), nil)
	}))
	legal("sends a keep-alive probe before the hello", "RFC 9293 section 3.8.4", playing(func(c *strand) error {
		if err := c.send(segment{at: -1}); err != nil {
			return err
		}
		return plainly.play(c)
	}))
	legal("marks its segments for congestion", "RFC 3168", playing(func(c *strand) error {
		return c.put(c.evil, 0, len(c.evil), func(s *segment) { s.flags |= flagCWR })
	}))
	legal("sends the hello without PSH", "RFC 9293 section 3.9.1", playing(func(c *strand) error {
		return c.put(c.evil, 0, len(c.evil), func(s *segment) { s.flags = 0 })
	}))
	legal("uses timestamps", "RFC 7323", wireSide{how: func(shape, []byte) rawHow { return rawHow{stamps: true} }, play: plainly.play})
	legal("asks for a Fast Open cookie", "RFC 7413 section 4.1.2", withOptions(optTFO, 2, optNop, optNop))
	legal("offers another path", "RFC 8684 section 3.1", withOptions(append([]byte{optMPTCP, 12, 0x01, 0x01}, "pathpath"...)...))
	legal("sends an option of an experiment", "RFC 6994", withOptions(253, 8, 0x12, 0x34, 0, 0, 0, 0))
	all = append(all,
		tactic{name: "sends the hello in segments of one byte", source: "zapret: tpws; RFC 9293", axes: byFamily | byHello,
			evil: byteWise(false), twin: byteWise(true)},
		early("sends the hello inside the SYN", "RFC 7413: without a cookie", nil),
		early("sends the hello inside the SYN, with a cookie", "RFC 7413 section 4.2", []byte{optTFO, 10, 1, 2, 3, 4, 5, 6, 7, 8, optNop, optNop}),
		early("sends the hello inside the SYN, with a cookie of the experiment", "RFC 7413 section 7; RFC 6994", []byte{254, 12, 0xf9, 0x89, 1, 2, 3, 4, 5, 6, 7, 8}),
		decoySYN(),
		urgent("makes one byte of the hello urgent", "RFC 6093", func(at int) uint16 { return uint16(at + 1) }),
		urgent("makes one byte urgent, with a pointer of 0", "CVE-2024-55629", nil),
	)
	return all
}

// byteWise is a real connection whose every byte is a write, and so usually a segment, of its own.
func byteWise(honest bool) play {
	return func(ctx context.Context, t *Try, s shape) error {
		good, evil, _ := t.hellos(s)
		if honest {
			evil = good
		}
		return t.write(ctx, t.target(ctx, s.name, s.v6, 443), evil, 1)
	}
}

// early: a server that speaks Fast Open takes the data of a SYN, and no verdict has been given then.
func early(name, source string, option []byte) tactic {
	evil := func(ctx context.Context, t *Try, s shape) error {
		_, evil, _ := t.hellos(s)
		t.prove(evil)
		raw, err := t.dialRaw(ctx, t.target(ctx, s.name, s.v6, 443), rawHow{early: evil, options: option})
		if err != nil {
			return err
		}
		defer raw.Close()
		return raw.helloAnswered(ctx)
	}
	asks := wireSide{how: func(shape, []byte) rawHow { return rawHow{options: []byte{optTFO, 2, optNop, optNop}} }, play: plainly.play}
	// More than one packet of early data does not exist.
	return tactic{name: name, source: source, axes: byFamily | byHello, evil: evil, twin: asks.truth(), fits: func(s shape) bool { return s.kind != postQuantum }}
}

// decoySYN: data in a SYN that a server without Fast Open ignores. The lab's servers take it only with the permitted
// name's first byte in its place, so the decoy is sent with an acknowledgement number that makes them drop it.
func decoySYN() tactic {
	side := wireSide{
		how: func(shape, []byte) rawHow { return rawHow{} },
		play: func(c *strand) error {
			if err := c.send(segment{at: -1, data: c.good[:min(len(c.good), maxByHand)], flags: flagSYN, noACK: true, ttl: hopsToDie}); err != nil {
				return err
			}
			return plainly.play(c)
		},
	}
	return tactic{name: "sends a SYN with a decoy that dies on the way", source: "zapret: syndata", axes: byFamily | byHello, evil: side.lie(), twin: plainly.truth()}
}

// urgent: a byte that the server takes out of the stream, and a reader on the way may leave in; without it the name is
// another. pointer nil is an urgent pointer of 0.
func urgent(name, source string, pointer func(at int) uint16) tactic {
	side := wireSide{play: func(c *strand) error {
		// What is judged has a byte more than what is served: the record's length fits what is served.
		at := c.at + len(c.shape.name) - len(evilSuffix) - 1
		with := append(append(bytes.Clone(c.evil[:at]), 'a'), c.evil[at:]...)
		return c.put(with, 0, len(with), func(s *segment) {
			if s.at <= at && at < s.at+len(s.data) {
				s.flags |= flagURG
				if pointer != nil {
					s.urgent = pointer(at - s.at)
				}
			}
		})
	}}
	if pointer == nil { // Linux takes the segment's first byte out
		side.play = func(c *strand) error {
			at := c.at + len(c.shape.name) - len(evilSuffix) - 1
			with := append(append(bytes.Clone(c.evil[:at]), 'a'), c.evil[at:]...)
			return steps(
				func() error { return c.put(with, 0, at, nil) },
				func() error {
					return c.put(with, at, len(with), func(s *segment) {
						if s.at == at {
							s.flags |= flagURG
						}
					})
				})
		}
	}
	return tactic{name: name, source: source, axes: byFamily | byHello, evil: side.lie(), twin: plainly.truth()}
}
