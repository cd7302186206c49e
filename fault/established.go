//go:build linux

package fault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/lab"
)

// A target is where established connections go, one of each kind that the kernel or the process decides by itself.
type target struct {
	Network string         `json:"network"`
	Name    string         `json:"name,omitempty"` // shake hands as a client of this name's tunnel
	To      netip.AddrPort `json:"to"`
	From    netip.Addr     `json:"from,omitzero"`
}

// targets finds where established connections go: the API server's tunnel, addresses and names of TCP and UDP rules.
func (s *Site) targets(ctx context.Context, v6Only bool) ([]target, error) {
	var all []target
	for _, v6 := range []bool{false, true} {
		if v6Only && !v6 {
			continue
		}
		api := s.Clusters()[0].APIServer.String()
		apiAddr, err := s.find(ctx, api, v6)
		if err != nil {
			return nil, err
		}
		git, err := s.find(ctx, "git.example.org", v6)
		if err != nil {
			return nil, err
		}
		byAddress, datagrams := netip.MustParseAddr("20.103.4.5"), netip.MustParseAddr("20.103.4.7")
		if v6 {
			byAddress, datagrams = netip.MustParseAddr("2603:1000:7::5"), netip.MustParseAddr("2603:1000:7::7")
		}
		all = append(all,
			target{Network: "tcp", Name: api, To: netip.AddrPortFrom(apiAddr, 443)},
			target{Network: "tcp", To: netip.AddrPortFrom(byAddress, 9000)},
			target{Network: "tcp", To: netip.AddrPortFrom(git, 9001)},
			target{Network: "udp", To: netip.AddrPortFrom(datagrams, 1194)},
		)
	}
	return all, nil
}

// A dialer connects from wherever the connections are held.
type dialer func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)

// established are connections that are held, and used from time to time.
type established struct {
	every time.Duration
	conns []net.Conn
	to    []target
	using sync.WaitGroup
	stop  context.CancelFunc
	pings latencies

	mu   sync.Mutex
	errs []error // one for each that is lost
}

// A word on an established connection has to come back within this time, however often its packets are sent again: TCP
// waits longer and longer between them.
const echoWithin = 60 * time.Second

// hold opens n connections, the targets in turn, and uses each of them every so often until finish.
func hold(ctx context.Context, dial dialer, roots *x509.CertPool, targets []target, n int, every time.Duration) (*established, error) {
	e := &established{every: every, conns: make([]net.Conn, n), to: make([]target, n)}
	const parallel = 16
	g, opening := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() (err error) {
			e.to[i] = targets[i%len(targets)]
			e.conns[i], err = establish(opening, dial, roots, e.to[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		e.close()
		return nil, fmt.Errorf("open established connections: %w", err)
	}
	using, stop := context.WithCancel(ctx)
	e.stop = stop
	for i := range n {
		e.using.Go(func() { e.use(using, i) })
	}
	return e, nil
}

func establish(ctx context.Context, dial dialer, roots *x509.CertPool, to target) (net.Conn, error) {
	c, err := dial(ctx, to.Network, to.To)
	if err != nil {
		return nil, err
	}
	if to.Name != "" {
		t := tls.Client(c, &tls.Config{RootCAs: roots, ServerName: to.Name, NextProtos: []string{"konnectivity"}, CurvePreferences: []tls.CurveID{tls.X25519}})
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c = t
	}
	if err := sayWord(c, to.Network); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// use says a word on the i-th connection every so often.
func (e *established) use(ctx context.Context, i int) {
	first := e.every * time.Duration(i) / time.Duration(len(e.conns)) // so that not all speak at once
	for wait := first; pause(ctx, wait) == nil; wait = e.every {
		if !e.say(i) {
			return
		}
	}
}

// say says one word, and reports whether it came back.
func (e *established) say(i int) bool {
	began := time.Now()
	err := sayWord(e.conns[i], e.to[i].Network)
	if err == nil {
		e.pings.add(began)
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.errs = append(e.errs, fmt.Errorf("%s %s: %w", e.to[i].Network, e.to[i].To, err))
	_ = e.conns[i].Close()
	e.conns[i] = nil
	return false
}

// sayWord sends a word that was never sent before and waits for it to come back; a datagram again and again.
func sayWord(c net.Conn, network string) error {
	word := fmt.Appendf(nil, "word %d ", words.Add(1))
	got := make([]byte, 100)
	end := time.Now().Add(echoWithin)
	if network == "tcp" {
		if err := c.SetDeadline(end); err != nil {
			return err
		}
		if _, err := c.Write(word); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, got[:len(word)]); err != nil {
			return err
		}
		if !bytes.Equal(got[:len(word)], word) {
			return fmt.Errorf("%q came back as %q", word, got[:len(word)])
		}
		return nil
	}
	const resend = 500 * time.Millisecond
	for time.Now().Before(end) {
		_ = c.SetDeadline(time.Now().Add(resend))
		if _, err := c.Write(word); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		for {
			n, err := c.Read(got)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				return err
			}
			if bytes.Equal(got[:n], word) {
				return nil
			}
		}
	}
	return os.ErrDeadlineExceeded
}

// finish lets every connection say a last word, closes them, and returns the errors of those that were lost.
func (e *established) finish() []error {
	e.stop()
	e.using.Wait()
	var last sync.WaitGroup
	limit := make(chan struct{}, 64)
	for i, c := range e.conns {
		if c == nil {
			continue
		}
		last.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			e.say(i)
		})
	}
	last.Wait()
	e.close()
	return e.errs
}

func (e *established) close() {
	for _, c := range e.conns {
		if c != nil {
			_ = c.Close()
		}
	}
}

// fromNode dials from a node of the lab.
func fromNode(n *lab.Node) dialer { return n.Dial }
