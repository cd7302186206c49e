package kernel

import (
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBothEndsOfADeniedConnectionAreReset denies a hello that the server has not
// seen: the client is reset by the verdict, the server by a packet of our own.
func TestBothEndsOfADeniedConnectionAreReset(t *testing.T) {
	for _, masquerade := range []bool{true, false} {
		eachWay(t, func(t *testing.T, b *bench) {
			b.load(func(s *Settings) { s.Masquerade = masquerade }, rule(t, "web", nil, "https://a.example:443"))
			accepted := b.echo(b.web, 443)
			var resets *Resetter
			must(t, b.gateway.Do(func() (err error) { resets, err = OpenResetter(); return err }))
			defer resets.Close()
			failed := make(chan error, 10)
			b.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
				for _, p := range batch {
					s := parseSegment(p.Payload)
					if len(s.data) == 0 {
						q.Verdict(p.ID, true, 0)
						continue
					}
					q.Verdict(p.ID, true, NewMark(Cut, 0))
					failed <- resets.Send(tcpPacket(s.src, s.dst, s.seq, s.acked, flagRST|flagACK, nil, nil))
				}
			})
			for _, a := range webAddrs {
				c, err := b.dial("tcp", at(a, 443))
				must(t, err)
				server := <-accepted
				_, err = io.WriteString(c, "hello\n")
				must(t, err)
				must(t, c.SetDeadline(time.Now().Add(patience)))
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("%s: client: %v, want a reset", a, err)
				}
				must(t, <-failed)
				// The echo server's own read ends with the reset, and closes.
				waitFor(t, "the server's socket is reset", func() bool {
					_, err := server.Write([]byte("x"))
					return err != nil
				})
			}
		})
	}
}

// TestResetsReachTheClientToo sends a reset in the server's name.
func TestResetsReachTheClientToo(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(nil, rule(t, "web", nil, "https://a.example:443"))
		b.echo(b.web, 443)
		var resets *Resetter
		must(t, b.gateway.Do(func() (err error) { resets, err = OpenResetter(); return err }))
		defer resets.Close()
		b.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
			for _, p := range batch {
				s := parseSegment(p.Payload)
				if len(s.data) == 0 {
					q.Verdict(p.ID, true, 0)
					continue
				}
				q.Verdict(p.ID, false, 0)
				if err := resets.Send(tcpPacket(s.dst, s.src, s.acked, s.seq, flagRST|flagACK, nil, nil)); err != nil {
					t.Error(err)
				}
			}
		})
		for _, a := range webAddrs {
			c, err := b.dial("tcp", at(a, 443))
			must(t, err)
			if err := talk(c, "hello"); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("%s: %v, want a reset", a, err)
			}
		}
	})
}
