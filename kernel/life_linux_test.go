package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
)

func TestVerdictsOutliveTheProcess(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(nil, rule(t, "web", nil, "https://a.example:443"), rule(t, "tunnel", nil, "tcp://20.40.0.0/24:9000"))
		b.echo(b.web, 443)
		b.echo(b.web, 9000)
		p := b.run(100, QueueOptions{}, allowAll(1))
		var running []net.Conn
		for _, a := range webAddrs {
			c, err := b.dial("tcp", at(a, 443))
			must(t, err)
			must(t, talk(c, "hello"))
			running = append(running, c)
		}
		p.stop()
		must(t, b.table.Close())
		for _, c := range running {
			must(t, talk(c, "still there"))
		}
		must(t, b.reach("tcp", at(webAddrs[0], 9000)))
		// What needs the process waits for it, and passes when it is back.
		var wg sync.WaitGroup
		for _, a := range webAddrs {
			wg.Go(func() {
				if err := b.reach("tcp", at(a, 443)); err != nil {
					t.Errorf("%s after the restart: %v", a, err)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		b.run(100, QueueOptions{}, allowAll(1))
		wg.Wait()
		for _, c := range running {
			must(t, talk(c, "and still"))
		}
	})
}

func TestBothDirectionsComeToOneQueue(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	b.load(func(s *Settings) { s.Queues = 2 }, rule(t, "web", nil, "https://a.example:443"))
	b.echo(b.web, 443)
	var mu sync.Mutex
	queues := map[netip.Addr]map[uint16]bool{}
	var processes []*process
	for num := uint16(100); num < 102; num++ {
		processes = append(processes, b.run(num, QueueOptions{}, func(q *Queue, batch []Packet) {
			for _, p := range batch {
				s := parseSegment(p.Payload)
				server := s.dst
				if s.src.Port() == 443 {
					server = s.src
				}
				mu.Lock()
				if queues[server.Addr()] == nil {
					queues[server.Addr()] = map[uint16]bool{}
				}
				queues[server.Addr()][num] = true
				mu.Unlock()
				q.Verdict(p.ID, true, 0)
			}
		}))
	}
	for i := range 32 {
		must(t, b.reach("tcp", at(fmt.Sprintf("20.40.1.%d", i), 443)))
		must(t, b.reach("tcp", at(fmt.Sprintf("2603:1020::1:%x", i), 443)))
	}
	for _, p := range processes {
		p.stop()
	}
	used := map[uint16]int{}
	for server, nums := range queues {
		if len(nums) != 1 {
			t.Errorf("%s came to %d queues", server, len(nums))
		}
		for n := range nums {
			used[n]++
		}
	}
	if len(queues) != 64 || len(used) != 2 {
		t.Errorf("%d servers in queues %v", len(queues), used)
	}
}

func TestDenialsAreReportedAndCounted(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(nil)
		var l *Log
		must(t, b.gateway.Do(func() (err error) { l, err = OpenLog(100); return err }))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		var mu sync.Mutex
		seen := map[egress.Reason]int{}
		go func() {
			done <- l.Run(ctx, func(d Denial) {
				mu.Lock()
				defer mu.Unlock()
				if d.Observed || len(d.Payload) < 28 {
					t.Errorf("%+v", d)
				}
				seen[d.Reason]++
			})
		}()
		for _, a := range webAddrs {
			_ = b.reach("udp", at(a, 443))
		}
		const tries = 500
		for i := range tries {
			for _, a := range webAddrs {
				if c, err := b.dial("tcp", at(a, 1000+i)); err == nil {
					t.Fatalf("%s passed", c.RemoteAddr())
				}
			}
		}
		waitFor(t, "reports of both reasons", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return seen[egress.NoRule] > 0 && seen[egress.QUIC] >= 1
		})
		cancel()
		must(t, errors.Join(<-done, l.Close()))
		counts, err := b.table.Counters()
		must(t, err)
		if counts["no-rule"] != 2*tries {
			t.Errorf("%d packets counted, want %d", counts["no-rule"], 2*tries)
		}
		if n := seen[egress.NoRule]; n >= 2*tries || n < logBurst {
			t.Errorf("%d reports of %d denials", n, 2*tries)
		}
	})
}

func TestTheEndOfAFlowIsTold(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(nil, rule(t, "tunnel", nil, "tcp://0.0.0.0/0:9000", "tcp://[::/0]:9000"))
		b.echo(b.web, 9000)
		var tracker *Tracker
		must(t, b.gateway.Do(func() (err error) { tracker, err = OpenTracker(); return err }))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan Flow, 10)
		done := make(chan error, 1)
		go func() { done <- tracker.Run(ctx, func(f Flow) { ended <- f }) }()
		want := map[netip.AddrPort]bool{}
		for _, a := range webAddrs {
			c, err := b.dial("tcp", at(a, 9000))
			must(t, err)
			must(t, talk(c, "hello"))
			want[c.LocalAddr().(*net.TCPAddr).AddrPort()] = true
			c.Close()
		}
		// The kernel clears away what has ended in its own time, up to minutes.
		for _, family := range []string{"ipv4", "ipv6"} {
			cmd := exec.Command("conntrack", "-D", "-f", family, "-p", "tcp")
			must(t, b.gateway.Start(cmd))
			must(t, cmd.Wait())
		}
		for range webAddrs {
			select {
			case f := <-ended:
				if !want[f.Src] || f.Mark != NewMark(Allowed, 1) || f.Sent < 6 || f.Received < 6 || !f.End.After(f.Start) || f.Proto != egress.TCP {
					t.Errorf("%+v", f)
				}
				delete(want, f.Src)
			case <-time.After(patience):
				t.Fatal("the end was not told")
			}
		}
		cancel()
		must(t, errors.Join(<-done, tracker.Close()))
	})
}

// observed loads a policy for a cluster that is only observed.
func (b *bench) observed(rules ...egress.Rule) *Ruleset {
	return b.load(func(s *Settings) { s.Clusters = []Cluster{{Name: "prod", Observe: true}} }, rules...)
}

func TestObservingHoldsNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		for _, port := range []int{22, 53, 80, 443} {
			b.echo(b.web, port)
		}
		b.observed(rule(t, "web", nil, "https://a.example:443", "http://a.example:80"), rule(t, "ssh", nil, "tcp://20.40.0.0/24:22"))
		everything := func(when string) {
			for _, a := range webAddrs {
				for _, port := range []int{22, 53, 80, 443} {
					for _, network := range []string{"tcp", "udp"} {
						if err := b.reach(network, at(a, port)); err != nil {
							t.Errorf("%s: %s %s:%d: %v", when, network, a, port, err)
						}
					}
				}
			}
		}
		everything("without the process")
		var packets atomic.Int64
		b.run(110, QueueOptions{FailOpen: true}, func(q *Queue, batch []Packet) {
			for _, p := range batch {
				packets.Add(1)
				mark := Mark(0)
				if s := parseSegment(p.Payload); len(s.data) > 0 {
					mark = NewMark(Passed, 0)
				}
				q.Verdict(p.ID, true, mark)
			}
		})
		everything("with it")
		if packets.Load() == 0 {
			t.Error("nothing was watched")
		}
		counts, err := b.table.Counters()
		must(t, err)
		if counts["observed.quic"] < 4 || counts["observed.no-rule"] < 2 || counts["no-rule"] != 0 {
			t.Errorf("counted %v", counts)
		}
	})
}

func TestAFloodEndsNothing(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, false)
	b.load(nil, rule(t, "web", nil, "https://a.example:443"))
	b.echo(b.web, 443)
	var slow atomic.Bool
	slow.Store(true)
	p := b.run(100, QueueOptions{MaxLen: 64}, func(q *Queue, batch []Packet) {
		if slow.Load() {
			time.Sleep(50 * time.Millisecond)
		}
		allowAll(1)(q, batch)
	})
	var out *Resetter
	must(t, b.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
	defer out.Close()
	src, dst := netip.MustParseAddr(clientAddrs[0]), netip.MustParseAddrPort("20.40.0.77:443")
	for i := range 20000 {
		must(t, out.Send(tcpPacket(netip.AddrPortFrom(src, uint16(1024+i)), dst, 1, 0, flagSYN, nil, nil)))
	}
	var s QueueStats
	must(t, b.gateway.Do(func() (err error) { s, err = p.Stats(); return err }))
	t.Logf("%+v", s)
	if s.Full == 0 {
		t.Error("the queue was never full, so the test shows nothing")
	}
	slow.Store(false)
	must(t, b.reach("tcp", at(webAddrs[1], 443)))
	must(t, b.gateway.Do(func() (err error) { s, err = p.Stats(); return err }))
	if s.Packets == 0 || s.Waiting > 64 {
		t.Errorf("%+v", s)
	}
}

// TestPolicyIsCarriedOutAsDecided holds the kernel's rules against Decide.
func TestPolicyIsCarriedOutAsDecided(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	rules := []egress.Rule{
		rule(t, "a", nil, "tcp://20.40.0.0/16:1000-1003", "udp://20.40.0.0/30:1000-1003"),
		rule(t, "b", nil, "tcp://20.40.0.10:1002", "tcp://[2603:1020::/127]:1001"),
		rule(t, "c", prefixes("10.224.0.0/28"), "tcp://20.40.0.12:1004", "udp://20.40.0.10:1001"),
		rule(t, "d", prefixes("10.224.0.128/28"), "tcp://0.0.0.0/0:1005"),
	}
	b.load(nil, rules...)
	p := compilePolicy(t, []egress.Cluster{prod}, rules...)
	for port := 1000; port <= 1006; port++ {
		b.echo(b.web, port)
	}
	var tracker *Tracker
	must(t, b.gateway.Do(func() (err error) { tracker, err = OpenTracker(); return err }))
	defer tracker.Close()
	for _, a := range []string{"20.40.0.10", "20.40.0.12", "20.41.0.1", "2603:1020::10", "2603:1020::1"} {
		for port := 1000; port <= 1006; port++ {
			to := netip.MustParseAddrPort(at(a, port))
			client := clientAddrs[0]
			if to.Addr().Is6() {
				client = clientAddrs[1]
			}
			conn := egress.Conn{Proto: egress.TCP, Src: netip.MustParseAddrPort(at(client, 1)), Dst: to}
			v := p.Decide(conn)
			c, err := b.dial("tcp", to.String())
			if (err == nil) != (v.Action == egress.Allow) && !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("%s: %v, decided %+v", to, err, v)
			}
			if err != nil {
				continue
			}
			flows, err := tracker.flows()
			must(t, err)
			for _, f := range flows {
				// Where several rules permit it any of them may be named.
				if one := rules[f.Mark.Rule()-1]; f.Src == c.LocalAddr().(*net.TCPAddr).AddrPort() &&
					compilePolicy(t, []egress.Cluster{prod}, one).Decide(conn).Action != egress.Allow {
					t.Errorf("%s: marked for rule %s, which does not permit it", to, one.ID)
				}
			}
			c.Close()
		}
	}
}

func TestOneClientsFloodLeavesRoomForOthers(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, false)
	b.load(nil, rule(t, "web", nil, "https://a.example:443"))
	b.echo(b.web, 443)
	must(t, b.client.Addr("gw", netip.MustParsePrefix("10.224.0.5/24")))
	b.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
		time.Sleep(time.Duration(len(batch)) * 10 * time.Microsecond) // what a look costs
		allowAll(1)(q, batch)
	})
	var out *Resetter
	must(t, b.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
	defer out.Close()
	src, dst := netip.MustParseAddr(clientAddrs[0]), netip.MustParseAddrPort("20.40.0.77:443")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_ = out.Send(tcpPacket(netip.AddrPortFrom(src, uint16(1024+i%60000)), dst, 1, 0, flagSYN, nil, nil))
		}
	})
	for range 50 {
		var c net.Conn
		must(t, b.client.Do(func() (err error) {
			d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 224, 0, 5)}}
			c, err = d.Dial("tcp", at(webAddrs[0], 443))
			return err
		}))
		must(t, talk(c, "hello"))
		c.Close()
	}
	cancel()
	wg.Wait()
	counts, err := b.table.Counters()
	must(t, err)
	t.Logf("%d packets of the flood dropped", counts["too-many-pending"])
}

func TestConnectionsFromBeforeAreRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		must(t, b.gateway.Sysctl("net/ipv4/ip_forward", "1"))
		must(t, b.gateway.Sysctl("net/ipv6/conf/all/forwarding", "1"))
		b.echo(b.web, 443)
		var running []net.Conn
		for _, a := range webAddrs {
			c, err := b.dial("tcp", at(a, 443))
			must(t, err)
			must(t, talk(c, "hello"))
			running = append(running, c)
		}
		b.load(nil, rule(t, "web", nil, "https://a.example:443"))
		for _, c := range running {
			must(t, c.SetDeadline(deadline(false)))
			_, err := c.Write([]byte("again\n"))
			must(t, err)
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s goes on without a verdict", c.RemoteAddr())
			}
		}
	})
}

func TestWakeNeedNotWaitForATick(t *testing.T) {
	netnstest.Need(t)
	ns := netnstest.New(t)
	var q *Queue
	must(t, ns.Do(func() (err error) { q, err = OpenQueue(100, QueueOptions{}); return err }))
	defer q.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ticks, done := make(chan bool), make(chan error, 1)
	go func() {
		done <- q.Run(ctx, Handler{Every: time.Hour, Tick: func(time.Time) { ticks <- true }})
	}()
	<-ticks // the first
	for range 100 {
		time.Sleep(time.Millisecond) // so that the reader waits
		q.Wake()
		<-ticks
	}
	cancel()
	must(t, <-done)
}
