//go:build linux

package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/lab"
	"tidegate.io/tidegate/wire"
)

// dnsRows are what resolvers can do.
func dnsRows() []Row {
	return []Row{
		{
			Number: 23, Name: "dns-down", Fault: "no upstream answers for 20 s; answers were good for a second only",
			Expect: "names that a rule spells out are answered from what is known; others fail within 2 s",
			Setup:  func(_ context.Context, s *Site) error { s.Tamper(shortLived); return nil },
			Inject: func(ctx context.Context, s *Site) error {
				if err := pause(ctx, 1500*time.Millisecond); err != nil {
					return err
				}
				s.Tamper(silent)
				return s.failsSoon(ctx)
			},
			Undo: tamper(nil), For: 15 * time.Second, Times: 1, Soak: true,
			Check: func(ctx context.Context, s *Site) error {
				st, err := s.status(ctx)
				s.figure("answers from what was known", "%d", st.DNS.Stale)
				return err
			},
		},
		{
			Number: 24, Name: "dns-lossy", Fault: "one of two upstreams is 800 ms late, the other loses three answers of ten",
			Expect: "p99 of look-ups below 300 ms",
			File:   func(f string) string { return strings.Replace(f, "168.63.129.16]", "168.63.129.16, 9.9.9.9]", 1) },
			Inject: lossyDNS, Undo: tamper(nil), Times: 1, Soak: true,
		},
		{
			Number: 25, Name: "dns-truncated", Fault: "every datagram of the upstream is truncated",
			Expect: "asked again over TCP: all look-ups succeed",
			Inject: func(ctx context.Context, s *Site) error {
				s.Tamper(func(_ netip.Addr, network string, m *dns.Msg) *dns.Msg {
					if network == "udp" {
						m.Truncated, m.Answer = true, nil
					}
					return m
				})
				return s.lookUps(ctx, 300, 16)
			},
			Undo: tamper(nil), Times: 1, Soak: true,
		},
		{
			Number: 26, Name: "dns-lies", Fault: "the upstream's answers hold names that were not asked for, and guarded addresses",
			Expect: "neither is learned, nor passed on",
			Inject: lyingDNS, Undo: tamper(nil), Times: 1, Quick: 1,
		},
		{
			Number: 26, Name: "dns-spoofed", Fault: "50,000 forged answers a second to the gateway, while the upstream is 100 ms late",
			Expect: "none is learned",
			Inject: spoofedDNS, Undo: tamper(nil), Times: 1, MayFail: true,
		},
		{
			Number: 27, Name: "other-resolver", Fault: "a client asks other resolvers, by UDP, TCP and TLS, and dials an address that was never answered",
			Expect: "its questions are answered by the gateway; a permitted name does not open another address",
			Inject: otherResolver, Times: 1, Quick: 1,
		},
		{
			Number: 28, Name: "dns-rotating", Fault: "a name has 1,000 addresses, ten in each answer; each of 5,000 answers (100,000 with --long) is dialled",
			Expect: "none is denied",
			Inject: rotatingDNS, Undo: tamper(nil), Times: 1,
		},
		{
			Number: 29, Name: "dns-race", Fault: "TTL 0, and 5,000 connections each as soon as its answer is there",
			Expect: "none is refused",
			Inject: raceDNS, Undo: tamper(nil), Times: 1,
		},
	}
}

func silent(netip.Addr, string, *dns.Msg) *dns.Msg { return nil }

func shortLived(_ netip.Addr, _ string, m *dns.Msg) *dns.Msg {
	for _, rr := range m.Answer {
		rr.Header().Ttl = 1
	}
	return m
}

func tamper(f lab.Tamperer) func(context.Context, *Site) error {
	return func(_ context.Context, s *Site) error { s.Tamper(f); return nil }
}

// ask asks the gateway itself, once.
func (s *Site) ask(ctx context.Context, node int, name string, qtype uint16) (*dns.Msg, error) {
	return s.Node(node).Ask(ctx, "udp", netip.AddrPortFrom(gatewayDNS, 53), name, qtype)
}

// failWithin is when a client has to be told that there is no answer: resolvers ask somebody else after some seconds.
const failWithin = 2500 * time.Millisecond

// failsSoon asks for what nobody has asked before, and wants to be told soon.
func (s *Site) failsSoon(ctx context.Context) error {
	began := time.Now()
	m, err := s.ask(ctx, 2, fmt.Sprintf("a%d.data.mcr.microsoft.com", words.Add(1)), dns.TypeA)
	took := time.Since(began)
	s.figure("an unknown name fails after", "%d ms", took.Milliseconds())
	switch {
	case err != nil:
		return fmt.Errorf("ask for an unknown name: %w", err)
	case m.Rcode != dns.RcodeServerFailure:
		return fmt.Errorf("an unknown name is answered with %s", dns.RcodeToString[m.Rcode])
	case took > failWithin:
		s.miss("an unknown name fails after %d ms, goal %d ms", took.Milliseconds(), failWithin.Milliseconds())
	}
	return nil
}

// lookUpGoal is the goal for p99 of look-ups while upstreams do badly.
const lookUpGoal = 300 * time.Millisecond

// lookUps asks for n names that were not asked for before (in a soak: not for long), some at a time, and says how long they
// took.
func (s *Site) lookUps(ctx context.Context, n, parallel int) error {
	var l latencies
	var g errgroup.Group
	g.SetLimit(parallel)
	began := time.Now()
	var failed atomic.Int64
	var first atomic.Pointer[string]
	for range n {
		number := words.Add(1)
		if s.fewNames {
			number %= soakNames
		}
		g.Go(func() error {
			at := time.Now()
			m, err := s.ask(ctx, 2, numberedName(number), dns.TypeA)
			if err == nil && (m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0) {
				err = errors.New(dns.RcodeToString[m.Rcode])
			}
			if err != nil {
				text := err.Error()
				first.CompareAndSwap(nil, &text)
				failed.Add(1)
				return nil
			}
			l.add(at)
			return nil
		})
	}
	_ = g.Wait() // no error is returned
	s.figure("look-ups", "%d, %d failed", n, failed.Load())
	p99 := l.p99(began, time.Now())
	s.figure("p99 of look-ups", "%.1f ms", float64(p99.Microseconds())/1000)
	if p99 > lookUpGoal {
		s.miss("p99 of look-ups %d ms, goal %d ms", p99.Milliseconds(), lookUpGoal.Milliseconds())
	}
	if failed.Load() > 0 {
		return fmt.Errorf("%d of %d look-ups failed: %s", failed.Load(), n, *first.Load())
	}
	return nil
}

// numberedName is a name below a wildcard of the cluster's rules.
func numberedName(number uint64) string { return fmt.Sprintf("b%d.data.mcr.microsoft.com", number) }

func lossyDNS(ctx context.Context, s *Site) error {
	s.Tamper(func(resolver netip.Addr, _ string, m *dns.Msg) *dns.Msg {
		if resolver == lab.AzureDNS {
			time.Sleep(800 * time.Millisecond)
		} else if rand.IntN(10) < 3 {
			return nil
		}
		return m
	})
	return s.lookUps(ctx, 500, 8)
}

// lyingDNS adds to every answer an address for another permitted name, and one inside.
func lyingDNS(ctx context.Context, s *Site) error {
	const victim = "login.microsoftonline.com"
	s.Tamper(func(_ netip.Addr, _ string, m *dns.Msg) *dns.Msg {
		if len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeA {
			return m
		}
		header := func(owner string) dns.RR_Header {
			return dns.RR_Header{Name: owner, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}
		}
		m.Answer = append(m.Answer,
			&dns.A{Hdr: header(victim + "."), A: unbound[0].AsSlice()},
			&dns.A{Hdr: header(m.Question[0].Name), A: net.IP{169, 254, 169, 254}})
		m.Extra = append(m.Extra, &dns.A{Hdr: header(victim + "."), A: unbound[0].AsSlice()})
		return m
	})
	for range 50 {
		m, err := s.ask(ctx, 2, fmt.Sprintf("c%d.data.mcr.microsoft.com", words.Add(1)), dns.TypeA)
		if err != nil {
			return err
		}
		for _, rr := range slices.Concat(m.Answer, m.Extra) {
			if a, ok := rr.(*dns.A); ok && (a.A.Equal(unbound[0].AsSlice()) || a.A.IsLinkLocalUnicast()) {
				return fmt.Errorf("a lie is passed on: %s", rr)
			}
		}
	}
	return s.notBound(ctx, victim)
}

// notBound shows a permitted name at an address that only a liar gave; the evil stream's own record says whether it arrives.
func (s *Site) notBound(ctx context.Context, name string) error {
	limited, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if s.shake(limited, 1, name, netip.AddrPortFrom(unbound[0], 443)) == nil {
		return fmt.Errorf("%s is reached at an address of which a liar told", name)
	}
	return nil
}

// spoofedDNS sends answers in the upstream's name, from beyond it, to all ports of the gateway.
func spoofedDNS(ctx context.Context, s *Site) error {
	const victim = "mcr.microsoft.com"
	s.Tamper(func(_ netip.Addr, _ string, m *dns.Msg) *dns.Msg { time.Sleep(100 * time.Millisecond); return m })
	lie := new(dns.Msg).SetQuestion(victim+".", dns.TypeA)
	lie.Response, lie.RecursionAvailable = true, true
	lie.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: victim + ".", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600}, A: unbound[0].AsSlice()}}
	packed, err := lie.Pack()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			_, _ = s.ask(ctx, 2, fmt.Sprintf("d%d.data.mcr.microsoft.com", words.Add(1)), dns.TypeA)
		}
	})
	err = s.flood(ctx, s.Edge(), "forged answers", 50_000, func(int) wire.Packet {
		packed[0], packed[1] = byte(rand.Uint32()), byte(rand.Uint32())
		return wire.Packet{
			Src: netip.AddrPortFrom(lab.AzureDNS, 53), Dst: netip.AddrPortFrom(lab.GatewayOutside[0], uint16(1024+rand.IntN(64512))),
			Proto: wire.UDP, Payload: packed,
		}
	})
	asking.Wait()
	if err != nil {
		return err
	}
	return s.notBound(context.WithoutCancel(ctx), victim)
}

func otherResolver(ctx context.Context, s *Site) error {
	others := []netip.AddrPort{netip.MustParseAddrPort("8.8.8.8:53"), netip.MustParseAddrPort("1.1.1.1:53"), netip.MustParseAddrPort("[2606:4700::1111]:53")}
	for _, network := range []string{"udp", "tcp"} {
		for _, to := range others {
			if _, err := s.Node(1).Ask(ctx, network, to, permittedName, dns.TypeA); err != nil {
				return fmt.Errorf("ask %s over %s: %w", to, network, err)
			}
			if m, err := s.Node(1).Ask(ctx, network, to, evilWord+".evil.example", dns.TypeA); err == nil && len(m.Answer) > 0 {
				return fmt.Errorf("%s answers over %s for a name of no rule", to, network)
			}
		}
	}
	atOthers := s.Record.Find(func(x *lab.Seen) bool {
		return x.Proto == "dns" && slices.Contains(others, netip.AddrPortFrom(x.Local.Addr(), 53))
	})
	if len(atOthers) > 0 {
		return fmt.Errorf("%d questions reached other resolvers", len(atOthers))
	}
	limited, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if s.shake(limited, 1, "dns.google", netip.MustParseAddrPort("8.8.8.8:853")) == nil {
		return errors.New("a resolver is reached over TLS")
	}
	return s.notBound(ctx, permittedName)
}

func rotatingDNS(ctx context.Context, s *Site) error {
	var next atomic.Uint32
	s.Tamper(func(_ netip.Addr, _ string, m *dns.Msg) *dns.Msg {
		if len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeA || !strings.EqualFold(m.Question[0].Name, "packages.microsoft.com.") {
			return m
		}
		m.Answer = nil
		for range 10 {
			n := next.Add(1) % 1000
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 0},
				A:   net.IP{20, 77, byte(n >> 8), byte(n)},
			})
		}
		return m
	})
	n := 5000
	if s.conf.Long {
		n = 100_000
	}
	return s.resolveAndDial(ctx, n, 8, func(ctx context.Context) error {
		m, err := s.ask(ctx, 1, "packages.microsoft.com", dns.TypeA)
		if err != nil {
			return err
		}
		for _, rr := range m.Answer {
			if a, ok := rr.(*dns.A); ok {
				to, _ := netip.AddrFromSlice(a.A.To4())
				return s.shake(ctx, 1, "packages.microsoft.com", netip.AddrPortFrom(to, 443))
			}
		}
		return errors.New("no address")
	})
}

func raceDNS(ctx context.Context, s *Site) error {
	var next atomic.Uint32
	s.Tamper(func(_ netip.Addr, _ string, m *dns.Msg) *dns.Msg {
		if len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeA || !strings.EqualFold(m.Question[0].Name, gitName+".") {
			return m
		}
		n := next.Add(1)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IP{20, 78, byte(n >> 8), byte(n)}}}
		return m
	})
	return s.resolveAndDial(ctx, 5000, 16, func(ctx context.Context) error {
		m, err := s.ask(ctx, 2, gitName, dns.TypeA)
		if err != nil {
			return err
		}
		for _, rr := range m.Answer {
			if a, ok := rr.(*dns.A); ok {
				to, _ := netip.AddrFromSlice(a.A.To4())
				c, err := s.Node(1).Dial(ctx, "tcp", netip.AddrPortFrom(to, 9001))
				if err == nil {
					err = c.Close()
				}
				return err
			}
		}
		return errors.New("no address")
	})
}

// resolveAndDial tries n times, some at a time, and fails with the first error.
func (s *Site) resolveAndDial(ctx context.Context, n, parallel int, try func(context.Context) error) error {
	var g errgroup.Group
	g.SetLimit(parallel)
	var failed atomic.Int64
	var first atomic.Pointer[string]
	for range n {
		g.Go(func() error {
			limited, cancel := context.WithTimeout(ctx, attemptTimeout)
			defer cancel()
			if err := try(limited); err != nil {
				text := err.Error()
				first.CompareAndSwap(nil, &text)
				failed.Add(1)
			}
			return nil
		})
	}
	_ = g.Wait() // no error is returned
	s.figure("looked up and dialled", "%d, %d failed", n, failed.Load())
	if failed.Load() > 0 {
		return fmt.Errorf("%d of %d connections to what was just answered failed: %s", failed.Load(), n, *first.Load())
	}
	return nil
}
