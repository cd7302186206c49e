package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// everyKind are rules of every kind that the kernel or the process decides by itself, for the lab's file.
const everyKind = `
rules:
  - {id: web, to: ["https://shop.example.org:443"]}
  - {id: address, to: ["tcp://20.103.4.5:9000", "tcp://[2603:1000:7::5]:9000"]}
  - {id: name, to: ["tcp://git.example.org:9001"]}
  - {id: datagrams, to: ["udp://20.103.4.0/24:1194", "udp://[2603:1000:7::/64]:1194"]}
  - {id: named-datagrams, to: ["udp://vpn.example.org:51820"]}
`

// A link is an established connection that a test keeps, and the rule that permits it. Its server sends back whatever
// comes, or serves a web page.
type link struct {
	rule string
	v6   bool
	to   netip.AddrPort
	conn net.Conn
	web  *bufio.Reader // of a web server's answers; nil for an echo
}

// kinds are the rules of everyKind and the tunnel to the API server, with how to open a flow of each.
var kinds = []struct {
	rule    string
	network string
	name    string    // to be resolved, or
	addrs   [2]string // IPv4 and IPv6
	port    uint16
	tls     bool
}{
	{rule: "lab:core/apiserver", network: "tcp", port: 443, tls: true}, // whose name the cluster says
	{rule: "web", network: "tcp", name: "shop.example.org", port: 443, tls: true},
	{rule: "address", network: "tcp", addrs: [2]string{"20.103.4.5", "2603:1000:7::5"}, port: 9000},
	{rule: "name", network: "tcp", name: "git.example.org", port: 9001},
	{rule: "datagrams", network: "udp", addrs: [2]string{"20.103.4.7", "2603:1000:7::7"}, port: 1194},
	{rule: "named-datagrams", network: "udp", name: "vpn.example.org", port: 51820},
}

// open opens a flow of the i-th kind from node 1, to where its name was found at.
func (s *site) open(ctx context.Context, i int, v6 bool, addr netip.Addr) (*link, error) {
	k := kinds[i]
	f := &link{rule: k.rule, v6: v6, to: netip.AddrPortFrom(addr, k.port)}
	var err error
	switch {
	case !k.tls:
		f.conn, err = s.Node(1).Dial(ctx, k.network, f.to)
	case k.name == "":
		f.conn, err = s.shake(ctx, 1, s.apiServer(), f.to, "konnectivity")
	default:
		f.conn, err = s.shake(ctx, 1, k.name, f.to, "http/1.1")
		f.web = bufio.NewReader(f.conn)
	}
	if err != nil {
		return nil, fmt.Errorf("open a flow of %s to %s: %w", f.rule, f.to, err)
	}
	if err := f.alive(); err != nil {
		f.conn.Close()
		return nil, err
	}
	return f, nil
}

// find resolves the name of the i-th kind, if it has one.
func (s *site) find(i int, v6 bool) (netip.Addr, error) {
	k := kinds[i]
	switch {
	case k.name != "":
		return s.resolve(1, k.name, v6)
	case k.tls:
		return s.resolve(1, s.apiServer(), v6)
	case v6:
		return netip.ParseAddr(k.addrs[1])
	}
	return netip.ParseAddr(k.addrs[0])
}

// openMany opens n flows of every kind, half of them over IPv6.
func (s *site) openMany(n int) []*link {
	s.t.Helper()
	ctx := within(s.t, time.Minute)
	var mu sync.Mutex
	var flows []*link
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range kinds {
		for _, v6 := range families {
			var addr netip.Addr
			var err error
			if !until(10*time.Second, func() bool { addr, err = s.find(i, v6); return err == nil }) {
				s.t.Fatal(err)
			}
			for range n / 2 {
				g.Go(func() error {
					f, err := s.open(ctx, i, v6, addr)
					if err != nil {
						return err
					}
					mu.Lock()
					defer mu.Unlock()
					flows = append(flows, f)
					return nil
				})
			}
		}
	}
	err := g.Wait()
	s.t.Cleanup(func() {
		for _, f := range flows {
			f.conn.Close()
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return flows
}

// parallel is how much is under way at the same time where a test has much to do.
const parallel = 32

func (f *link) datagrams() bool { return f.conn.LocalAddr().Network() == "udp" }

// echoDatagram sends words until one comes back, as clients of UDP do.
func echoDatagram(c net.Conn) error {
	const tries, patience = 50, 200 * time.Millisecond
	err := errors.New("not tried")
	for range tries {
		word := fmt.Appendf(nil, "word %d", words.Add(1))
		if err = c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err = c.Write(word); err != nil {
			return err
		}
		got := make([]byte, 100)
		for n := 0; err == nil; {
			if n, err = c.Read(got); err == nil && bytes.Equal(got[:n], word) {
				return nil
			}
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return err
}

// alive sends something and waits for the answer.
func (f *link) alive() error {
	err := echoOrPage(f)
	if err != nil {
		return fmt.Errorf("flow of %s from %s to %s: %w", f.rule, f.conn.LocalAddr(), f.to, err)
	}
	return nil
}

func echoOrPage(f *link) error {
	switch {
	case f.datagrams():
		return echoDatagram(f.conn)
	case f.web == nil:
		return echo(f.conn)
	}
	if err := f.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(f.conn, "GET / HTTP/1.1\r\nHost: shop.example.org\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(f.web, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// allAlive returns what is wrong with the flows; nil if all are alive.
func allAlive(flows []*link) error {
	var mu sync.Mutex
	var errs []error
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, f := range flows {
		g.Go(func() error {
			if err := f.alive(); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
			return nil
		})
	}
	_ = g.Wait() // no error is returned
	const told = 5
	if len(errs) > told {
		errs = append(errs[:told], fmt.Errorf("and %d more", len(errs)-told))
	}
	return errors.Join(errs...)
}

// of returns the flows that a rule permits, or all others.
func of(flows []*link, rule string, others bool) []*link {
	return slices.DeleteFunc(slices.Clone(flows), func(f *link) bool { return (f.rule == rule) == others })
}

// wasReset reports whether the client was told, by a reset or, for datagrams, by ICMP.
func wasReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EPERM)
}
