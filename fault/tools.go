//go:build linux

package fault

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/kernel"
	"tidegate.io/tidegate/wire"
)

// inNftables runs f with nftables of a box.
func (s *Site) inNftables(box *netns.NS, f func(*nftables.Conn) error) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(box.File().Fd())), nftables.AsLasting())
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	return errors.Join(f(c), c.CloseLasting())
}

func flushAll(c *nftables.Conn) error {
	c.FlushRuleset()
	return c.Flush()
}

// eachRule calls f for the rules of all chains in the gateway's box.
func (s *Site) eachRule(f func(*nftables.Chain, *nftables.Rule)) error {
	return s.inNftables(s.GatewayBox(), func(c *nftables.Conn) error {
		chains, err := c.ListChains()
		if err != nil {
			return fmt.Errorf("list chains: %w", err)
		}
		for _, chain := range chains {
			rules, err := c.GetRules(chain.Table, chain)
			if err != nil {
				return fmt.Errorf("list rules of %s: %w", chain.Name, err)
			}
			for _, r := range rules {
				f(chain, r)
			}
		}
		return nil
	})
}

// rules counts the rules in the gateway's box.
func (s *Site) rules() (n int, err error) {
	err = s.eachRule(func(*nftables.Chain, *nftables.Rule) { n++ })
	return n, err
}

// ruleHandles is a digest of the rules' handles: rules that were put in anew have others, even if they say the same.
func (s *Site) ruleHandles() (uint64, error) {
	h := fnv.New64a()
	err := s.eachRule(func(c *nftables.Chain, r *nftables.Rule) { fmt.Fprintln(h, c.Name, r.Handle) })
	return h.Sum64(), err
}

// proxyTable and proxyPriority are where the gateway's policy route and rule are.
const proxyTable = 29796

// removeProxyRoute does as a program does that keeps routes of its own.
func removeProxyRoute() error {
	for _, f := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(f)
		if err != nil {
			return fmt.Errorf("list policy rules: %w", err)
		}
		for _, r := range rules {
			if r.Table != proxyTable {
				continue
			}
			r.Family = f
			if err := netlink.RuleDel(&r); err != nil {
				return fmt.Errorf("remove a policy rule: %w", err)
			}
		}
		routes, err := netlink.RouteListFiltered(f, &netlink.Route{Table: proxyTable}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if err := netlink.RouteDel(&r); err != nil {
				return fmt.Errorf("remove a route: %w", err)
			}
		}
	}
	return nil
}

// inBackground runs f until the fault is undone.
func (s *Site) inBackground(ctx context.Context, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	s.later(func() error { cancel(); return <-done })
}

// The node's kernel keeps out of ports from here on, so that an answer to what was made by hand is not answered.
const (
	mutedPorts = 60000
	mutedCount = 65536 - mutedPorts
)

// flood sends what build makes, from node 1 and with its addresses, so many a second until ctx is done, and returns how
// many.
func (s *Site) flood(ctx context.Context, perSecond int, build func(i int, from netip.Addr) wire.Packet, v6 bool) (sent int64, err error) {
	from := s.Node(1).Addrs[family(v6)]
	return s.floodIn(ctx, s.Node(1).Do, perSecond, func(i int) wire.Packet { return build(i, from) })
}

// floodFrom is flood from another box.
func (s *Site) floodFrom(ctx context.Context, box *netns.NS, perSecond int, build func(i int) wire.Packet) (int64, error) {
	return s.floodIn(ctx, box.Do, perSecond, build)
}

func (s *Site) floodIn(ctx context.Context, do func(func() error) error, perSecond int, build func(i int) wire.Packet) (sent int64, err error) {
	var raw *kernel.Resetter
	if err := do(func() (err error) { raw, err = kernel.OpenResetter(); return err }); err != nil {
		return 0, err
	}
	defer func() { _ = raw.Close() }()
	const burst = 5 * time.Millisecond
	tick := time.NewTicker(burst)
	defer tick.Stop()
	var buf []byte
	for i, began := 0, time.Now(); ; {
		select {
		case <-ctx.Done():
			if rate := float64(sent) / time.Since(began).Seconds(); rate < float64(perSecond)/2 {
				s.miss("the machine had time for a flood of %.0f a second instead of %d", rate, perSecond)
			}
			return sent, nil
		case <-tick.C:
		}
		for due := int(time.Since(began).Seconds() * float64(perSecond)); i < due && ctx.Err() == nil; i++ {
			buf = wire.AppendPacket(buf[:0], build(i))
			if raw.Send(buf) == nil { // else the box's own queue is full
				sent++
			}
		}
	}
}

// floodSYNs sends SYNs to a permitted name, over IPv4.
func (s *Site) floodSYNs(ctx context.Context, name string, port uint16, perSecond int) error {
	to := netip.AddrPortFrom(s.where(name, false), port)
	sent, err := s.flood(ctx, perSecond, func(i int, from netip.Addr) wire.Packet {
		return wire.Packet{
			Src: netip.AddrPortFrom(from, uint16(mutedPorts+i%mutedCount)), Dst: to,
			Proto: wire.TCP, Flags: wire.SYN, Seq: uint32(i) * 7919, Window: 65535,
		}
	}, false)
	s.figure("SYNs sent", "%d", sent)
	return err
}

// pods gives node 1 further addresses, half of them IPv6.
func (s *Site) pods(n int) ([]netip.Addr, error) {
	var pods []netip.Addr
	for i := range n {
		text := fmt.Sprintf("10.224.1.%d/24", 100+i/2)
		if i%2 == 1 {
			text = fmt.Sprintf("fd00:224:0:1::%d/64", 100+i/2)
		}
		p := netip.MustParsePrefix(text)
		if err := s.Node(1).Addr(p); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		pods = append(pods, p.Addr())
	}
	return pods, nil
}

// otherNode says how new connections of the node that does no harm go, while f does some.
func (s *Site) otherNode(ctx context.Context, f func() error) error {
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var tried, failed int
	done := make(chan error, 1)
	go func() {
		var first error
		for pause(stop, 20*time.Millisecond) == nil {
			for _, v6 := range []bool{false, true} {
				limited, cancel := context.WithTimeout(ctx, attemptTimeout)
				err := s.shake(limited, 2, permittedName, netip.AddrPortFrom(s.new.addrs[permittedName][family(v6)], 443))
				cancel()
				if tried++; err != nil {
					failed++
					first = err
				}
			}
		}
		done <- first
	}()
	err := f()
	cancel()
	first := <-done
	s.figure("connections of the other node", "%d, %d failed", tried, failed)
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d connections of the other node failed: %w", failed, tried, first))
	}
	return err
}

// sendRaw sends one packet from node 1.
func (s *Site) sendRaw(b []byte) error {
	return s.Node(1).Do(func() error {
		raw, err := kernel.OpenResetter()
		if err != nil {
			return err
		}
		defer func() { _ = raw.Close() }()
		return raw.Send(b)
	})
}

// lostEntry makes the gateway's kernel forget a connection of node 1, as a gateway does that takes another one's place.
// Its client has to be told when it speaks next.
func (s *Site) lostEntry(ctx context.Context, c net.Conn) error {
	from := c.LocalAddr().(*net.TCPAddr).AddrPort()
	filter := &netlink.ConntrackFilter{}
	if err := errors.Join(filter.AddProtocol(unix.IPPROTO_TCP), filter.AddPort(netlink.ConntrackOrigSrcPort, from.Port())); err != nil {
		return err
	}
	kind := netlink.InetFamily(unix.AF_INET)
	if from.Addr().Unmap().Is6() {
		kind = unix.AF_INET6
	}
	var n uint
	err := s.DoGateway(func() (err error) {
		n, err = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, kind, filter)
		return err
	})
	if err != nil {
		return notHere("no entry of conntrack can be removed: %v", err)
	}
	if n == 0 {
		return fmt.Errorf("conntrack has no entry of %s", from)
	}
	began := time.Now()
	_ = c.SetDeadline(began.Add(5 * time.Second))
	_, err = io.WriteString(c, "is anybody there?")
	for err == nil {
		_, err = c.Read(make([]byte, 100))
	}
	s.figure("the client of a lost entry is told after", "%d ms", time.Since(began).Milliseconds())
	if !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("the client of an entry that was lost is told: %w", err)
	}
	return nil
}
