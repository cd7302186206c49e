//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
)

// A Node is one of the cluster's machines. Whatever connects from it goes through the gateway. Its methods may be called
// from any number of goroutines.
type Node struct {
	Name  string
	Addrs [2]netip.Addr // IPv4 first

	ns   *netns.NS
	room *room // where commands run
}

// resolver is the cluster's DNS, which runs on the second node.
var resolver = netip.MustParseAddrPort("10.224.2.4:53")

// Do runs f on a thread inside the node; sockets opened by f itself stay there. See [netns.NS.Do].
func (n *Node) Do(f func() error) error { return n.ns.Do(f) }

// Sysctl sets a kernel setting of the node.
func (n *Node) Sysctl(key, value string) error { return n.ns.Sysctl(key, value) }

// Addr gives the node a further address, such as that of a pod.
func (n *Node) Addr(p netip.Prefix) error { return n.ns.Addr("eth0", p) }

// Dial connects from the node: network is "tcp" or "udp". The caller closes the connection.
func (n *Node) Dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	c, _, err := n.dial(ctx, network, to)
	return c, err
}

// dial is Dial, and says from where it connected, or tried to.
func (n *Node) dial(ctx context.Context, network string, to netip.AddrPort) (c net.Conn, from netip.AddrPort, err error) {
	err = n.Do(func() (err error) {
		d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
			var bindErr error
			err := raw.Control(func(fd uintptr) { from, bindErr = n.bind(int(fd), to.Addr().Is6()) })
			return errors.Join(err, bindErr)
		}}
		d.SetMultipathTCP(false)
		c, err = d.DialContext(ctx, network, to.String())
		return err
	})
	return c, from, err
}

// bind chooses the source before the connection is made, so that it is known when there is none in the end.
func (n *Node) bind(fd int, v6 bool) (netip.AddrPort, error) {
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: n.Addrs[0].As4()}
	addr := n.Addrs[0]
	if v6 {
		addr = n.Addrs[1]
		sa = &unix.SockaddrInet6{Addr: addr.As16()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return netip.AddrPort{}, fmt.Errorf("bind to %s: %w", addr, err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the socket's address: %w", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(addr, uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(addr, uint16(sa.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("bind to %s: not an IP socket", addr)
}

// errNoSuchName is an answer without addresses.
var errNoSuchName = errors.New("no address")

// Lookup asks the cluster's DNS for the addresses of one family, as a pod does.
func (n *Node) Lookup(ctx context.Context, name string, v6 bool) ([]netip.Addr, error) {
	m, err := n.Ask(ctx, "udp", resolver, name, addressType(v6))
	if err != nil {
		return nil, err
	}
	addrs := addresses(m)
	if len(addrs) == 0 {
		return nil, fmt.Errorf("look %s up: %w (%s)", name, errNoSuchName, dns.RcodeToString[m.Rcode])
	}
	return addrs, nil
}

func addressType(v6 bool) uint16 {
	if v6 {
		return dns.TypeAAAA
	}
	return dns.TypeA
}

// addresses returns those in the answer section, whoever's they are.
func addresses(m *dns.Msg) []netip.Addr {
	var addrs []netip.Addr
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(rr.A)
			addrs = append(addrs, a.Unmap())
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(rr.AAAA)
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// Ask sends one DNS question from the node to any resolver, over "udp" or "tcp".
func (n *Node) Ask(ctx context.Context, network string, server netip.AddrPort, name string, qtype uint16) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	c, err := n.Dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	client := dns.Client{Net: network, Timeout: 5 * time.Second}
	m, _, err := client.ExchangeWithConnContext(ctx, q, &dns.Conn{Conn: c})
	return m, err
}

// Start starts cmd on the node, with the lab's DNS and CA; it dies with the lab. The caller waits for it.
func (n *Node) Start(cmd *exec.Cmd) error { return n.room.start(cmd) }

// Apart makes a box with no cable to anything, which goes with the lab: for servers that only this process reaches, by
// [Node.Dial] to 127.0.0.1. Its files are those of the machine.
func (l *Lab) Apart(name string) (*Node, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	room, err := newRoom(ns, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", name, err), ns.Close())
	}
	n := &Node{Name: name, Addrs: [2]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, ns: ns, room: room}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.apart = append(l.apart, n)
	return n, nil
}

// Outside makes a machine on the lab's internet, which goes with the lab. Neither the cluster's network nor its gateway
// is on its way to anything.
func (l *Lab) Outside(name string) (*Node, error) {
	const conf = "resolv.outside.conf"
	if err := os.WriteFile(filepath.Join(l.conf.Dir, conf), []byte("nameserver "+AzureDNS.String()+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	room, err := newRoom(l.boxes.internet, l.instead(conf))
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outside = append(l.outside, room)
	return &Node{Name: name, Addrs: internetAddrs, ns: l.boxes.internet, room: room}, nil
}
