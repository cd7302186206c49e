//go:build linux

package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"tidegate.io/tidegate/bench/load"
)

// web is T5: HTTP/1.1, where each request's Host is judged.
func (b *bench) web() error {
	hello := serverHello()
	reply := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n" + strings.Repeat("x", 100))
	b.server.Reply.Store(&reply)
	defer b.server.Reply.Store(&hello)
	var ts []load.Target
	for _, name := range b.policy.hot(hotNames) {
		ts = append(ts, load.Target{To: netip.AddrPortFrom(addressOf(name, false), 80), Hello: fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n\r\n", name)})
	}
	worlds := b.use("plain", "snat", "tidegate", "haproxy")
	lengths := map[string]int64{}
	for _, w := range worlds { // a proxy writes the answer in its own way
		n, err := w.answerLength(ts[0])
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		lengths[w.name] = n
	}
	for _, transactions := range []int{1, 10} {
		rounds, err := b.rounds(b.some(3), worlds, b.slice, func(w *world) running {
			l := b.closed(w, ts)
			l.Requests, l.Answer = transactions, lengths[w.name]
			return l.Start()
		})
		if err != nil {
			return err
		}
		t := b.results.table("T5", fmt.Sprintf("HTTP/1.1, transactions a connection: %d", transactions),
			Column{"CPU a transaction", "µs"}, Column{"added to plain", "µs"}, Column{"transactions a second", ""})
		per := func(mode string) func(round) float64 {
			return func(r round) float64 { return r[mode].cost() / float64(transactions) }
		}
		for _, w := range worlds {
			cost := each(rounds, per(w.name))
			rate := each(rounds, func(r round) float64 { return r[w.name].rate() * float64(transactions) })
			var added *Figure
			if w.name != "plain" && has(rounds, "plain") {
				f := each(rounds, func(r round) float64 { return per(w.name)(r) - per("plain")(r) })
				added = &f
			}
			t.row(w.title, &cost, added, &rate)
		}
	}
	return nil
}

// answerLength is how many bytes answer a request through the world's gateway.
func (w *world) answerLength(t load.Target) (n int64, err error) {
	err = w.client.Do(func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: clientAddrs()[0].AsSlice()}, Timeout: 5 * time.Second}
		c, err := d.Dial("tcp", t.To.String())
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write(t.Hello); err != nil {
			return err
		}
		buf := make([]byte, 4096)
		for {
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			m, err := c.Read(buf)
			if n == 0 && m > 0 && !strings.HasPrefix(string(buf[:m]), "HTTP/1.1 200 ") {
				return fmt.Errorf("the answer is %q", buf[:min(m, 100)])
			}
			if n += int64(m); err != nil {
				if n == 0 {
					return err
				}
				return nil
			}
		}
	})
	return n, err
}
