package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/kernel"
	"tidegate.io/tidegate/wire"
)

const (
	halfOpenHellos = 10_000

	// mostGrowth is what the gateway may grow by: the 64 MB that each of two queues keeps of first bytes, and as much
	// again for garbage and the race detector. 10,000 hellos of the size that one may have would be 640 MB.
	mostGrowth = 256 << 20

	// queueLength is the kernel's bound; packets beyond it would be dropped, other clients' among them.
	queueLength = 16384
)

// TestHalfOpenHellosAreBounded: the pods of one node begin 10,000 hellos and do not end them, twice. The other node goes
// on meanwhile, and afterwards the gateway has forgotten all of them.
func TestHalfOpenHellosAreBounded(t *testing.T) {
	s := startSite(t, setting{})
	pods, targets := s.pods(t, 8), s.targets()
	m := s.measure(t)
	others := s.keepVisiting(t, targets)
	for round := range 2 {
		open, end := s.beginHellos(t, pods, targets)
		t.Logf("round %d: %d hellos begun, %d followed, %d MB", round+1, open, m.followed(), m.resident()>>20)
		if open < halfOpenHellos*9/10 {
			t.Errorf("of %d hellos %d could begin: this is no load", halfOpenHellos, open)
		}
		if !until(30*time.Second, func() bool { return m.followed() < 10 }) {
			t.Errorf("%d connections are followed long after the time for a hello", m.followed())
		}
		for _, addr := range targets {
			to := netip.AddrPortFrom(addr, 443)
			if !until(10*time.Second, func() bool { return s.Connections(to) < 10 }) {
				t.Errorf("the server at %s was not told of the end of %d connections", to, s.Connections(to))
			}
		}
		end()
	}
	others.stop(t)
	m.check(t)
}

// TestFloodFromOneClientIsBounded: one client sends what it can, SYNs to a permitted server, SYNs and datagrams to where
// nothing is permitted, and real connections that are denied.
func TestFloodFromOneClientIsBounded(t *testing.T) {
	s := startSite(t, setting{})
	targets := s.targets()
	m := s.measure(t)
	others := s.keepVisiting(t, targets)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var g errgroup.Group
	var sent, refused atomic.Int64
	for _, to := range targets {
		g.Go(func() error { return s.sendSYNs(ctx, to, &sent) })
		for range 4 {
			g.Go(func() error { return s.dialDenied(ctx, to, &refused) })
		}
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d packets, %d refused connections, %d followed at the end", sent.Load(), refused.Load(), m.followed())
	if sent.Load() < 10_000 || refused.Load() < 100 {
		t.Errorf("%d packets and %d refused connections are no flood", sent.Load(), refused.Load())
	}
	if !until(30*time.Second, func() bool { return m.followed() < 10 }) {
		t.Errorf("%d connections are followed long after the flood", m.followed())
	}
	others.stop(t)
	m.check(t)
	for _, to := range targets { // the client itself is served again
		if err := s.visit(1, floodedName, to); err != nil {
			t.Errorf("after its flood the client gets no connection: %v", err)
		}
	}
}

// floodedName is permitted.
const floodedName = "mcr.microsoft.com"

// targets are where node 2 has found floodedName at, in both families.
func (s *site) targets() []netip.Addr {
	return []netip.Addr{s.found(2, floodedName, false), s.found(2, floodedName, true)}
}

// pods gives node 1 further addresses, half of them IPv6.
func (s *site) pods(t *testing.T, n int) []string {
	t.Helper()
	var pods []string
	for i := range n / 2 {
		for _, prefix := range []string{fmt.Sprintf("10.224.1.%d/24", 100+i), fmt.Sprintf("fd00:224:0:1::%d/64", 100+i)} {
			p := netip.MustParsePrefix(prefix)
			if err := s.Node(1).Addr(p); err != nil {
				t.Fatal(err)
			}
			pods = append(pods, p.Addr().String())
		}
	}
	return pods
}

// beginHellos starts a process on node 1 that begins hellos and holds them open until end is called.
func (s *site) beginHellos(t *testing.T, pods []string, targets []netip.Addr) (open int, end func()) {
	t.Helper()
	cmd := exec.Command("half-open", append([]string{targets[0].String(), targets[1].String()}, pods...)...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Node(1).Start(cmd); err != nil {
		t.Fatal(err)
	}
	end = func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("half-open: %v", err)
		}
	}
	if _, err := fmt.Fscanln(stdout, &open); err != nil {
		t.Errorf("half-open: %v", err)
	}
	return open, end
}

// halfOpen is a program: it connects to the IPv4 and the IPv6 address that its first arguments are, from the addresses
// that the others are, begins as many hellos as halfOpenHellos, prints how many that are, and waits for the end of its
// input.
func halfOpen() {
	const beginning = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
	var open atomic.Int64
	var mu sync.Mutex
	var all []net.Conn // so that none is collected, and closed
	var g errgroup.Group
	g.SetLimit(64)
	for i := range halfOpenHellos {
		from := netip.MustParseAddr(os.Args[3+i%len(os.Args[3:])])
		to := os.Args[1]
		if from.Is6() {
			to = os.Args[2]
		}
		g.Go(func() error {
			d := net.Dialer{Timeout: 3 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
			c, err := d.Dial("tcp", net.JoinHostPort(to, "443"))
			if err != nil {
				return nil
			}
			if _, err := io.WriteString(c, beginning); err == nil {
				open.Add(1)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, c)
			return nil
		})
	}
	_ = g.Wait() // no error is returned
	fmt.Println(open.Load())
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, c := range all {
		_ = c.Close()
	}
}

// sendSYNs sends from ports that the node's kernel keeps out of, so that no SYN-ACK is answered, and datagrams to ports
// that no rule has.
func (s *site) sendSYNs(ctx context.Context, to netip.Addr, n *atomic.Int64) error {
	const mutedPorts, last = 60000, 65535
	var raw *kernel.Resetter
	err := s.Node(1).Do(func() (err error) { raw, err = kernel.OpenResetter(); return err })
	if err != nil {
		return err
	}
	defer raw.Close()
	from := s.Node(1).Addrs[0]
	if to.Is6() {
		from = s.Node(1).Addrs[1]
	}
	for i := 0; ctx.Err() == nil; i++ {
		src := netip.AddrPortFrom(from, uint16(mutedPorts+i%(last-mutedPorts)))
		for _, p := range []wire.Packet{
			{Src: src, Dst: netip.AddrPortFrom(to, 443), Proto: wire.TCP, Flags: wire.SYN, Seq: uint32(i), Window: 65535},
			{Src: src, Dst: netip.AddrPortFrom(to, uint16(1+i%60000)), Proto: wire.TCP, Flags: wire.SYN, Seq: uint32(i), Window: 65535},
			{Src: src, Dst: netip.AddrPortFrom(to, uint16(1+i%60000)), Proto: wire.UDP, Payload: []byte("flood")},
		} {
			if raw.Send(wire.AppendPacket(nil, p)) == nil { // else the node's own queue is full
				n.Add(1)
			}
		}
		if i%100 == 0 {
			time.Sleep(time.Millisecond) // the machine is one: its other half has to run as well
		}
	}
	return nil
}

// dialDenied makes connections that are refused at their SYN, and others that are at their hello.
func (s *site) dialDenied(ctx context.Context, to netip.Addr, n *atomic.Int64) error {
	for ctx.Err() == nil {
		limited, cancel := context.WithTimeout(ctx, time.Second)
		c, err := s.Node(1).Dial(limited, "tcp", netip.AddrPortFrom(to, 22))
		cancel()
		if err == nil {
			c.Close()
			return fmt.Errorf("port 22 of %s is reached", to)
		}
		n.Add(1)
		limited, cancel = context.WithTimeout(ctx, time.Second)
		h, err := s.shake(limited, 1, "unlisted.example.net", netip.AddrPortFrom(to, 443))
		cancel()
		if err == nil {
			h.Close()
			return fmt.Errorf("an unlisted name is reached at %s", to)
		}
		n.Add(1)
	}
	return nil
}

// visits are the connections of the other node.
type visits struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	n      atomic.Int64
}

// keepVisiting makes connections from node 2, one after the other in each family, each of which has to succeed.
func (s *site) keepVisiting(t *testing.T, targets []netip.Addr) *visits {
	ctx, cancel := context.WithCancel(t.Context())
	v := &visits{cancel: cancel}
	for _, to := range targets {
		v.done.Go(func() {
			for ctx.Err() == nil {
				if err := s.visit(2, floodedName, to); err != nil {
					t.Errorf("the other node's connection to %s: %v", to, err)
				}
				if _, err := s.resolve(2, floodedName, to.Is6()); err != nil {
					t.Errorf("the other node's look-up: %v", err)
				}
				v.n.Add(1)
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	return v
}

func (v *visits) stop(t *testing.T) {
	t.Helper()
	v.cancel()
	v.done.Wait()
	t.Logf("%d connections and look-ups of the other node", v.n.Load())
	if v.n.Load() < 50 {
		t.Errorf("only %d connections of the other node", v.n.Load())
	}
}

// A meter watches what the gateway's process and its queues hold.
type meter struct {
	*site
	before  int // bytes of the process
	most    atomic.Int64
	waiting atomic.Int64 // the most packets in one queue
	stop    func()
}

func (s *site) measure(t *testing.T) *meter {
	ctx, cancel := context.WithCancel(t.Context())
	m := &meter{site: s, before: s.resident(t)}
	var g sync.WaitGroup
	g.Go(func() {
		for ctx.Err() == nil {
			m.most.Store(max(m.most.Load(), int64(m.resident())))
			for _, q := range m.queues() {
				m.waiting.Store(max(m.waiting.Load(), int64(q.waiting)))
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	m.stop = func() { cancel(); g.Wait() }
	t.Cleanup(m.stop)
	return m
}

func (m *meter) resident() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", m.GatewayPID()))
	if err != nil {
		return 0
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0
	}
	return resident * os.Getpagesize()
}

// queue is a line of nfnetlink_queue: what waits for the process, and what was dropped because the queue or the process's
// socket was full.
type queue struct{ waiting, dropped int }

func (m *meter) queues() []queue {
	var text []byte
	err := m.DoGateway(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/netfilter/nfnetlink_queue")
		return err
	})
	if err != nil {
		m.t.Error(err)
	}
	var all []queue
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 7 {
			continue
		}
		waiting, _ := strconv.Atoi(f[2])
		full, _ := strconv.Atoi(f[5])
		unread, _ := strconv.Atoi(f[6])
		all = append(all, queue{waiting, full + unread})
	}
	return all
}

// followed is how many undecided connections the gateway says it follows.
func (m *meter) followed() int {
	out, code := m.command("status", "-o", "json")
	var s gatewayStatus
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != exitYes {
		m.t.Errorf("gateway status exits %d: %v: %s", code, err, out)
	}
	n := 0
	for _, q := range s.Queues {
		n += q.Connections
	}
	return n
}

func (m *meter) check(t *testing.T) {
	t.Helper()
	m.stop()
	grown := int(m.most.Load()) - m.before
	dropped := 0
	for _, q := range m.queues() {
		dropped += q.dropped
		if q.waiting > 0 {
			t.Errorf("%d packets still wait", q.waiting)
		}
	}
	t.Logf("%d MB before, %d MB at most; %d packets at most in a queue, %d dropped", m.before>>20, m.most.Load()>>20, m.waiting.Load(), dropped)
	if grown > mostGrowth {
		t.Errorf("the gateway grew by %d MB", grown>>20)
	}
	if m.waiting.Load() >= queueLength || dropped > 0 {
		t.Errorf("a queue held %d packets and %d were dropped: others' packets were in danger", m.waiting.Load(), dropped)
	}
}
