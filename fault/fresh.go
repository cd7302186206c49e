//go:build linux

package fault

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Names of rules that new connections go to.
const (
	permittedName = "mcr.microsoft.com"   // HTTPS
	webName       = "security.ubuntu.com" // HTTP, by way of the proxy
	gitName       = "git.example.org"     // TCP
)

const (
	// attemptTimeout is how long a client waits for a new connection: a SYN that was lost is sent again after 1, 3 and
	// 7 seconds.
	attemptTimeout = 15 * time.Second

	// freshPace is the time between two new connections.
	freshPace = 25 * time.Millisecond
)

// fresh are new connections, an open loop: each begins when it is time, whether or not those before it are done.
type fresh struct {
	site   *Site
	v6Only bool
	addrs  map[string][2]netip.Addr

	tried  atomic.Int64
	judged latencies // of connections that the process has to decide

	mu     sync.Mutex
	failed []failure
}

// A failure is a new connection that did not come about.
type failure struct {
	began time.Time
	ended time.Time
	kind  string
	err   error
}

// newFresh finds the addresses of the names.
func newFresh(ctx context.Context, s *Site, v6Only bool) (*fresh, error) {
	f := &fresh{site: s, v6Only: v6Only, addrs: map[string][2]netip.Addr{}}
	for _, name := range []string{permittedName, webName, gitName} {
		var pair [2]netip.Addr
		for _, v6 := range []bool{false, true} {
			addr, err := s.find(ctx, name, v6)
			if err != nil {
				return nil, err
			}
			pair[family(v6)] = addr
		}
		f.addrs[name] = pair
	}
	return f, nil
}

// A freshKind is a kind of new connection.
type freshKind struct {
	name string
	try  func(f *fresh, ctx context.Context, v6 bool) error
}

// freshKinds are taken in turn: half of them are decided by their ClientHello.
func freshKinds() []freshKind {
	judged := freshKind{"https", (*fresh).handshake}
	return []freshKind{judged, {"tcp", (*fresh).dialName}, judged, {"http", (*fresh).get}, judged, {"udp", (*fresh).datagram}, judged, {"dns", (*fresh).ask}}
}

// run opens connections until ctx is done, and waits for the last of them.
func (f *fresh) run(ctx context.Context) {
	var under sync.WaitGroup
	defer under.Wait()
	tick := time.NewTicker(freshPace)
	defer tick.Stop()
	kinds := freshKinds()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		kind, v6 := kinds[i%len(kinds)], f.v6Only || i/len(kinds)%2 == 1
		under.Go(func() {
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
			defer cancel()
			began := time.Now()
			f.tried.Add(1)
			err := kind.try(f, limited, v6)
			switch {
			case err != nil:
				f.mu.Lock()
				f.failed = append(f.failed, failure{began, time.Now(), kind.name, err})
				f.mu.Unlock()
			case kind.name == "https":
				f.judged.add(began)
			}
		})
	}
}

// failures returns those that were under way between two times, and those that were not.
func (f *fresh) failures(from, to time.Time) (during, others []failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.failed {
		if x.ended.Before(from) || x.began.After(to) {
			others = append(others, x)
		} else {
			during = append(during, x)
		}
	}
	return during, others
}

func (f *fresh) handshake(ctx context.Context, v6 bool) error {
	return f.site.shake(ctx, 1, permittedName, netip.AddrPortFrom(f.addrs[permittedName][family(v6)], 443))
}

// shake connects from a node to an address, shakes hands as name and leaves.
func (s *Site) shake(ctx context.Context, node int, name string, to netip.AddrPort) error {
	raw, err := s.Node(node).Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{RootCAs: s.CA.Pool(), ServerName: name, NextProtos: []string{"http/1.1"}, CurvePreferences: []tls.CurveID{tls.X25519}})
	return c.HandshakeContext(ctx)
}

func (f *fresh) dialName(ctx context.Context, v6 bool) error {
	c, err := f.site.Node(1).Dial(ctx, "tcp", netip.AddrPortFrom(f.addrs[gitName][family(v6)], 9001))
	if err != nil {
		return err
	}
	defer c.Close()
	return sayWord(c, "tcp")
}

func (f *fresh) datagram(ctx context.Context, v6 bool) error {
	to := [2]string{"20.103.4.9:1194", "[2603:1000:7::9]:1194"}[family(v6)]
	c, err := f.site.Node(2).Dial(ctx, "udp", netip.MustParseAddrPort(to))
	if err != nil {
		return err
	}
	defer c.Close()
	return sayWord(c, "udp")
}

// get fetches a page through the HTTP proxy, on a connection of its own.
func (f *fresh) get(ctx context.Context, v6 bool) error {
	to := netip.AddrPortFrom(f.addrs[webName][family(v6)], 80)
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return f.site.Node(2).Dial(ctx, "tcp", to)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+webName+"/", nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %d", resp.StatusCode)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// ask looks a name up as resolvers do, which ask once more after two seconds.
func (f *fresh) ask(ctx context.Context, v6 bool) error {
	qtype := dns.TypeA
	if v6 {
		qtype = dns.TypeAAAA
	}
	var errs []error
	for range 2 {
		limited, cancel := context.WithTimeout(ctx, 2500*time.Millisecond)
		m, err := f.site.Node(1).Ask(limited, "udp", netip.AddrPortFrom(gatewayDNS, 53), permittedName, qtype)
		cancel()
		if err == nil && m.Rcode == dns.RcodeSuccess && len(m.Answer) > 0 {
			return nil
		} else if err == nil {
			err = errors.New(dns.RcodeToString[m.Rcode])
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
