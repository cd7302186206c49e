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

// owned reports whether a table in the gateway's box belongs to a process, and to nobody else.
func (s *Site) owned() (owned bool, err error) {
	const tableOwner = 2 // NFT_TABLE_F_OWNER
	err = s.inNftables(s.GatewayBox(), func(c *nftables.Conn) error {
		tables, err := c.ListTables()
		for _, t := range tables {
			owned = owned || t.Flags&tableOwner != 0
		}
		return err
	})
	return owned, err
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

// flushDiversion does as a program does that keeps translations of its own.
func (s *Site) flushDiversion(c *nftables.Conn) error {
	table := &nftables.Table{Name: "tidegate", Family: nftables.TableFamilyINet}
	c.FlushChain(&nftables.Chain{Name: "divert", Table: table})
	err := c.Flush()
	if errors.Is(err, unix.EPERM) {
		s.figure("rules removed", "none: the table is the gateway's own")
		return nil
	}
	return err
}

// inBackground runs f until the fault is undone.
func (s *Site) inBackground(ctx context.Context, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	s.later(func() error { cancel(); return <-done })
}

// pods gives node 1 further addresses, n of each family.
func (s *Site) pods(n int) (v4, v6 []netip.Addr, err error) {
	for i := range n {
		for _, text := range []string{fmt.Sprintf("10.224.1.%d/24", 100+i), fmt.Sprintf("fd00:224:0:1::%d/64", 100+i)} {
			p := netip.MustParsePrefix(text)
			if err := s.Node(1).Addr(p); err != nil && !errors.Is(err, unix.EEXIST) {
				return nil, nil, err
			}
			if p.Addr().Is4() {
				v4 = append(v4, p.Addr())
			} else {
				v6 = append(v6, p.Addr())
			}
		}
	}
	return v4, v6, nil
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
