package kernel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/internal/netns/netnstest"
)

// bench is a client, a gateway and an internet that answers on every address of
// 20.0.0.0/8 and 2603:1020::/32.
type bench struct {
	t                    testing.TB
	client, gateway, web *netns.NS
	table                *Table
}

// The addresses of the bench.
var (
	clientAddrs  = []string{"10.224.0.4", "fd00:224::4"}
	gatewayAddrs = []string{"10.224.0.1", "fd00:224::1"}
	webAddrs     = []string{"20.40.0.10", "2603:1020::10"}
)

const patience = 10 * time.Second // for what is expected to happen; nothing measures it

// eachWay runs f with offloads on and off; once the table is kept, and once there is a gate in its place.
func eachWay(t *testing.T, f func(t *testing.T, b *bench)) {
	netnstest.Need(t)
	for _, gso := range []bool{true, false} {
		t.Run(fmt.Sprintf("gso=%t", gso), func(t *testing.T) {
			b := newBench(t, gso)
			b.table.Kept = gso
			f(t, b)
		})
	}
}

func newBench(t testing.TB, gso bool) *bench {
	b := &bench{t: t, client: netnstest.New(t), gateway: netnstest.New(t), web: netnstest.New(t)}
	must(t, netns.Veth(
		netns.End{NS: b.client, Name: "gw", Addrs: prefixes("10.224.0.4/24", "fd00:224::4/64")},
		netns.End{NS: b.gateway, Name: "node", Addrs: prefixes("10.224.0.1/24", "fd00:224::1/64")}))
	must(t, netns.Veth(
		netns.End{NS: b.gateway, Name: "up", Addrs: prefixes("20.0.0.2/24", "2603:1020:ffff::2/64")},
		netns.End{NS: b.web, Name: "gw", Addrs: prefixes("20.0.0.1/24", "2603:1020:ffff::1/64")}))
	for _, d := range []struct {
		ns   *netns.NS
		name string
	}{{b.client, "gw"}, {b.gateway, "node"}, {b.gateway, "up"}, {b.web, "gw"}} {
		must(t, d.ns.GSO(d.name, gso))
	}
	for i, all := range prefixes("0.0.0.0/0", "::/0") {
		must(t, b.client.Route(all, netip.MustParseAddr(gatewayAddrs[i])))
		must(t, b.gateway.Route(all, netip.MustParseAddr([]string{"20.0.0.1", "2603:1020:ffff::1"}[i])))
		must(t, b.web.Route(nodes[i], netip.MustParseAddr([]string{"20.0.0.2", "2603:1020:ffff::2"}[i])))
	}
	for _, p := range prefixes("20.40.0.0/16", "2603:1020::/48") {
		must(t, b.web.Own(p))
	}
	b.table = openTable(t, b.gateway)
	return b
}

var (
	prod   = egress.Cluster{Name: "prod", From: nodes}
	inside = Cluster{Name: "prod", Internal: prefixes("10.0.0.0/8", "fd00::/8")}
)

// load applies rules for the cluster prod.
func (b *bench) load(change func(*Settings), rules ...egress.Rule) *Ruleset {
	b.t.Helper()
	p := compilePolicy(b.t, []egress.Cluster{prod}, rules...)
	s := settings(p, inside)
	s.Queues = 1
	if change != nil {
		change(&s)
	}
	rs := plan(b.t, p, s)
	apply(b.t, b.gateway, b.table, rs, nil)
	return rs
}

// dial connects from the client. An address does not leave the thread.
func (b *bench) dial(network, addr string) (net.Conn, error) {
	var c net.Conn
	err := b.client.Do(func() (err error) {
		d := net.Dialer{Timeout: patience}
		c, err = d.Dial(network, addr)
		return err
	})
	if err == nil {
		b.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func at(addr string, port int) string { return net.JoinHostPort(addr, fmt.Sprint(port)) }

// echo serves TCP and UDP on a port of the web, or of the gateway, and sends
// everything back. It returns the connections that it accepts.
func (b *bench) echo(ns *netns.NS, port int) <-chan net.Conn {
	b.t.Helper()
	accepted := make(chan net.Conn, 10000)
	var l net.Listener
	var u net.PacketConn
	must(b.t, ns.Do(func() (err error) {
		if l, err = net.Listen("tcp", at("", port)); err != nil {
			return err
		}
		return nil
	}))
	b.t.Cleanup(func() { l.Close() })
	for _, a := range append(webAddrs, gatewayAddrs...) {
		if ns.Do(func() (err error) { u, err = net.ListenPacket("udp", at(a, port)); return err }) != nil {
			continue
		}
		b.t.Cleanup(func() { u.Close() })
		go func(u net.PacketConn) {
			buf := make([]byte, 65536)
			for {
				n, from, err := u.ReadFrom(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = u.WriteTo(buf[:n], from)
				}
			}
		}(u)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return accepted
}

// talk sends a line and wants it back.
func talk(c net.Conn, line string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return err
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if got != line+"\n" {
		return fmt.Errorf("got %q, want %q", got, line)
	}
	return nil
}

// reach dials and talks.
func (b *bench) reach(network, addr string) error {
	c, err := b.dial(network, addr)
	if err != nil {
		return err
	}
	return talk(c, "hello")
}

// deadline is long for what has to come, and short for what must not.
func deadline(comes bool) time.Time {
	if comes {
		return time.Now().Add(patience)
	}
	return time.Now().Add(100 * time.Millisecond)
}

// process is a queue with its reader.
type process struct {
	*Queue
	stop func()
}

// run opens queue num in the gateway and handles its packets until stopped.
func (b *bench) run(num uint16, o QueueOptions, handle func(q *Queue, batch []Packet)) *process {
	b.t.Helper()
	var q *Queue
	must(b.t, b.gateway.Do(func() (err error) { q, err = OpenQueue(num, o); return err }))
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx, Handler{Packets: func(batch []Packet) { handle(q, batch) }}) }()
	p := &process{Queue: q}
	var once sync.Once
	p.stop = func() {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-done, q.Close()); err != nil {
				b.t.Error(err)
			}
		})
	}
	b.t.Cleanup(p.stop)
	return p
}

// segment is what the tests' judges need of a packet.
type segment struct {
	src, dst   netip.AddrPort
	syn, ack   bool
	fin, rst   bool
	seq, acked uint32
	data       []byte
}

func parseSegment(p []byte) (s segment) {
	var tcp []byte
	var src, dst netip.Addr
	if p[0]>>4 == 4 {
		src, dst = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		tcp = p[int(p[0]&15)*4:]
	} else {
		src, dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
		tcp = p[40:]
	}
	be := func(i int) uint32 {
		return uint32(tcp[i])<<24 | uint32(tcp[i+1])<<16 | uint32(tcp[i+2])<<8 | uint32(tcp[i+3])
	}
	s.src = netip.AddrPortFrom(src, uint16(tcp[0])<<8|uint16(tcp[1]))
	s.dst = netip.AddrPortFrom(dst, uint16(tcp[2])<<8|uint16(tcp[3]))
	s.seq, s.acked = be(4), be(8)
	s.fin, s.syn, s.rst, s.ack = tcp[13]&1 != 0, tcp[13]&2 != 0, tcp[13]&4 != 0, tcp[13]&16 != 0
	s.data = tcp[int(tcp[12]>>4)*4:]
	return s
}

// waitFor polls until ok, for what the kernel does in its own time.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// flows are the marked connections that live now.
func (t *Tracker) flows() (all []Flow, err error) {
	err = t.Each(func(f Flow) { all = append(all, f) })
	return all, err
}
