//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tidegate.io/tidegate/bench/load"
	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/lab"
)

// Where things are in every world: clients behind 64 addresses of their own, as pods of many nodes have, and 32 servers.
var (
	clientRange   = netip.MustParsePrefix("10.224.0.0/24")
	serverRange   = netip.MustParsePrefix("20.50.0.0/24")
	clientRange6  = netip.MustParsePrefix("fd00:224::/64")
	serverRange6  = netip.MustParsePrefix("2603:50::/64")
	nameServer    = netip.MustParseAddrPort("20.53.0.53:53")
	gatewayInside = netip.MustParseAddr("10.100.0.4")
)

const (
	echoPort    = 9999 // datagrams come back
	poolPort    = 9000 // a port of TCP rules
	clientCount = 64
	serverCount = 32
)

func clientAddrs6() []netip.Addr { return addrsFrom(netip.MustParseAddr("fd00:224::1"), clientCount) }
func serverAddrs6() []netip.Addr { return addrsFrom(netip.MustParseAddr("2603:50::1"), serverCount) }

func clientAddrs() []netip.Addr { return addrsFrom(netip.MustParseAddr("10.224.0.1"), clientCount) }
func serverAddrs() []netip.Addr { return addrsFrom(netip.MustParseAddr("20.50.0.1"), serverCount) }

func addrsFrom(first netip.Addr, n int) []netip.Addr {
	out := make([]netip.Addr, n)
	for i := range out {
		out[i], first = first, first.Next()
	}
	return out
}

// A world is a client, a gateway, a router and a server, each in a namespace, in a row. Every mode has one of its own, so
// that all are ready at any time and a round changes between them at once.
type world struct {
	bench                          *bench
	name, title, dir               string
	loaded                         time.Duration // Tidegate took until it was ready
	client, gateway, router, serve *netns.NS
	gatewayRuns                    bool        // Tidegate does, and answers
	failed                         error       // it could not be made
	mayLose                        bool        // records of flows, for nobody reads them
	flooded                        bool        // connections may fail, and are shown in the table
	keeper                         *lab.Keeper // what systemd is to Tidegate
	resolver                       netip.Addr  // whom clients ask for names
	procs                          []*process
	closers                        []func()
}

type process struct {
	name  string
	cmd   *exec.Cmd
	group *group
	done  chan struct{}
}

func (b *bench) newWorld(name string) (*world, error) {
	w := &world{bench: b, name: name, dir: filepath.Join(b.dir, name), resolver: gatewayInside}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return nil, err
	}
	b.worlds = append(b.worlds, w) // also one that is not finished is to be taken away
	for _, at := range []**netns.NS{&w.client, &w.gateway, &w.router, &w.serve} {
		n, err := netns.New()
		if err != nil {
			return nil, err
		}
		*at = n
		w.closers = append(w.closers, func() { _ = n.Close() })
		for _, s := range [][2]string{
			{"net/ipv4/conf/all/rp_filter", "0"}, {"net/ipv4/conf/default/rp_filter", "0"}, {"net/ipv4/ip_local_port_range", "1024 65535"},
			{"net/core/somaxconn", "16384"}, {"net/ipv4/tcp_max_syn_backlog", "16384"}, {"net/ipv4/tcp_tw_reuse", "1"},
		} {
			if err := n.Sysctl(s[0], s[1]); err != nil {
				return nil, err
			}
		}
	}
	return w, errors.Join(w.connect(), w.listen())
}

func (w *world) connect() error {
	end := func(n *netns.NS, name, v4, v6 string) netns.End {
		return netns.End{NS: n, Name: name, Addrs: []netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)}}
	}
	for _, cable := range [][2]netns.End{
		{end(w.client, "eth0", "10.100.0.1/24", "fd00:100::1/64"), end(w.gateway, "inside", "10.100.0.4/24", "fd00:100::4/64")},
		{end(w.gateway, "outside", "20.200.0.4/24", "2603:200::4/64"), end(w.router, "gateway", "20.200.0.1/24", "2603:200::1/64")},
		{end(w.router, "internet", "20.201.0.1/24", "2603:201::1/64"), end(w.serve, "eth0", "20.201.0.2/24", "2603:201::2/64")},
	} {
		if err := netns.Veth(cable[0], cable[1]); err != nil {
			return err
		}
	}
	route := func(n *netns.NS, to, via string) error {
		return n.Route(netip.MustParsePrefix(to), netip.MustParseAddr(via))
	}
	return errors.Join(
		w.client.Own(clientRange), w.serve.Own(serverRange), w.serve.Own(netip.PrefixFrom(nameServer.Addr(), 32)),
		route(w.client, "0.0.0.0/0", "10.100.0.4"),
		route(w.gateway, "10.224.0.0/16", "10.100.0.1"), route(w.gateway, "0.0.0.0/0", "20.200.0.1"),
		route(w.router, "0.0.0.0/0", "20.201.0.2"), route(w.router, "10.0.0.0/8", "20.200.0.4"),
		route(w.serve, "0.0.0.0/0", "20.201.0.1"),
		w.client.Own(clientRange6), w.serve.Own(serverRange6),
		route(w.client, "::/0", "fd00:100::4"),
		route(w.gateway, "fd00:224::/64", "fd00:100::1"), route(w.gateway, "::/0", "2603:200::1"),
		route(w.router, "::/0", "2603:201::2"), route(w.router, "fd00::/8", "2603:200::4"),
		route(w.serve, "::/0", "2603:201::1"),
		w.router.Sysctl("net/ipv6/conf/all/forwarding", "1"),
		w.router.Sysctl("net/ipv4/ip_forward", "1"))
}

// offloadsOff makes every packet what a wire carries.
func (w *world) offloadsOff() error {
	return errors.Join(
		w.client.GSO("eth0", false), w.gateway.GSO("inside", false), w.gateway.GSO("outside", false),
		w.router.GSO("gateway", false), w.router.GSO("internet", false), w.serve.GSO("eth0", false))
}

// listen opens what the world's server answers on.
func (w *world) listen() error {
	return w.serve.Do(func() error {
		for _, port := range []uint16{443, 80, poolPort} {
			for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
				if err := w.bench.server.Listen(netip.AddrPortFrom(any, port)); err != nil {
					return err
				}
			}
		}
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(nameServer))
		if err != nil {
			return err
		}
		w.closers = append(w.closers, func() { _ = c.Close() })
		go func() { _ = w.bench.names.Serve(c) }()
		ctx, stop := context.WithCancel(context.Background())
		w.closers = append(w.closers, stop)
		go func() {
			_ = w.serve.Do(func() error { return load.Echo(ctx, netip.AddrPortFrom(serverAddrs()[0], echoPort)) })
		}()
		return nil
	})
}

// run runs a program in the gateway's namespace to its end.
func (w *world) run(stdin string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := w.gateway.Start(cmd); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out.String())
	}
	return nil
}

// start starts a server in the gateway's namespace, in a control group of its own; it ends with the world.
func (w *world) start(name string, args ...string) (*process, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%w (scripts/setup-bench installs it)", err)
	}
	short := filepath.Base(path)
	log, err := os.Create(filepath.Join(w.dir, short+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{name: short, cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = w.dir, log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.group, err = w.bench.group.child(fmt.Sprintf("%s-%s-%d", w.name, short, len(w.procs))); err != nil {
		return nil, err
	}
	start := w.gateway.Start
	if w.keeper != nil {
		start = func(cmd *exec.Cmd) error { return w.keeper.Start(cmd, w.gateway.Start) }
	}
	if err := start(p.cmd); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	w.procs = append(w.procs, p)
	if err := p.group.add(p.cmd.Process.Pid); err != nil {
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

// readyTimeout is more than any server needs that starts at all.
const readyTimeout = 5 * time.Minute

// await tries until it succeeds, or the process has ended.
func (p *process) await(try func() error) error {
	for end := time.Now().Add(readyTimeout); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s has ended: %w: %s", p.name, err, p.logged())
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not ready: %w", p.name, err)
		}
	}
}

// logged is the end of what a process wrote.
func (p *process) logged() string {
	const end = 500
	text, _ := os.ReadFile(filepath.Join(p.cmd.Dir, p.name+".log"))
	return strings.TrimSpace(string(text[max(0, len(text)-end):]))
}

// stop ends a process and its children: what is in its process group, and what is in its control group after that.
func (p *process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	for range 40 {
		pids := p.group.pids()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(pids) == 0 {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
}

func (w *world) close() {
	for _, p := range w.procs {
		p.stop()
	}
	for _, f := range w.closers {
		f()
	}
	w.procs, w.closers = nil, nil
}

// world is the world of a mode, made when it is first needed.
func (b *bench) world(m mode) (*world, error) {
	for _, w := range b.worlds {
		if w.name == m.name { // also one that could not be made
			return w, w.failed
		}
	}
	w, err := b.newWorld(m.name)
	if err != nil {
		return nil, err
	}
	w.title = m.title
	if w.failed = m.setUp(w); w.failed != nil {
		w.close()
	}
	return w, w.failed
}

// drop takes a world away that no other test needs.
func (b *bench) drop(w *world) {
	w.close()
	b.worlds = slices.DeleteFunc(b.worlds, func(o *world) bool { return o == w })
	_ = os.RemoveAll(w.dir)
}
