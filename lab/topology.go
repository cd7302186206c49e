//go:build linux

package lab

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"tidegate.io/tidegate/internal/netns"
)

// Where things are. What the nodes have and what they share with the gateway is private, as in a virtual network; the
// gateway's outside and the way behind it are in ranges that no name resolves to.
var (
	// NodeRanges are the addresses of all nodes: what a cluster's `from` holds.
	NodeRanges = []netip.Prefix{netip.MustParsePrefix("10.224.0.0/16"), netip.MustParsePrefix("fd00:224::/32")}
	// InsideRanges are the virtual network without the nodes: private endpoints and the gateway's own subnet.
	InsideRanges = []netip.Prefix{privateV4, netip.MustParsePrefix("10.100.0.0/16"), netip.MustParsePrefix("fd00:100::/32")}
	// GatewayInside and GatewayOutside are the gateway's addresses, IPv4 first.
	GatewayInside  = [2]netip.Addr{netip.MustParseAddr("10.100.0.4"), netip.MustParseAddr("fd00:100::4")}
	GatewayOutside = [2]netip.Addr{netip.MustParseAddr("20.200.0.4"), netip.MustParseAddr("2603:2000:0:1::4")}
)

// internetAddrs are those of the internet's box, IPv4 first.
var internetAddrs = [2]netip.Addr{netip.MustParseAddr("20.201.0.2"), netip.MustParseAddr("2603:2000:0:2::2")}

// Devices of the gateway, for its configuration.
const (
	InsideDevice  = "inside"
	OutsideDevice = "outside"

	edgeInside = "gateway" // the edge's, towards the gateway
)

// elsewhere are further ranges that have servers in the lab's internet: well-known resolvers, the addresses that rules of
// the examples name, and the ranges that no name may lead to, for a leak has to be seen by somebody.
var elsewhere = []string{
	"1.0.0.0/8", "4.0.0.0/8", "8.0.0.0/8", "9.0.0.0/8", "13.0.0.0/8", "40.0.0.0/8", "51.0.0.0/8", "52.0.0.0/8", "104.0.0.0/8",
	"168.63.129.16/32", "169.254.0.0/16", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"2001:4860::/32", "2606:4700::/32", "2620:fe::/48", "2002::/16", "64:ff9b::/96", "2001:db8::/32", "2001:0::/32",
}

// boxes are the namespaces of one lab.
type boxes struct {
	node                          [2]*netns.NS
	vnet, gateway, edge, internet *netns.NS
}

func (b *boxes) all() []*netns.NS {
	return []*netns.NS{b.node[0], b.node[1], b.vnet, b.gateway, b.edge, b.internet}
}

func (b *boxes) close() {
	for _, n := range b.all() {
		if n != nil {
			_ = n.Close()
		}
	}
}

// settings of every namespace: no address is late because it is checked for duplicates, and no packet of an attack is
// dropped by the lab's own routers.
var settings = [][2]string{
	{"net/ipv6/conf/default/accept_dad", "0"},
	{"net/ipv6/conf/all/accept_dad", "0"},
	{"net/ipv6/conf/default/accept_ra", "0"},
	{"net/ipv4/conf/all/rp_filter", "0"},
	{"net/ipv4/conf/default/rp_filter", "0"},
	{"net/ipv4/conf/all/accept_source_route", "1"},
	{"net/ipv4/conf/default/accept_source_route", "1"},
	{"net/ipv4/conf/all/send_redirects", "0"},
	{"net/ipv4/conf/default/send_redirects", "0"},
	{"net/ipv4/icmp_ratelimit", "0"},
	{"net/ipv6/icmp/ratelimit", "0"},
	{"net/ipv4/ip_local_port_range", "10000 59999"},
	{"net/core/somaxconn", "16384"},
	{"net/ipv4/tcp_max_syn_backlog", "16384"},
}

// build makes the namespaces and the cables between them. On an error nothing is left.
func build(own []netip.Prefix, gso bool) (*boxes, error) {
	b := &boxes{}
	err := b.make(own, gso)
	if err != nil {
		b.close()
		return nil, fmt.Errorf("build the lab's network: %w", err)
	}
	return b, nil
}

func (b *boxes) make(own []netip.Prefix, gso bool) error {
	for _, at := range []**netns.NS{&b.node[0], &b.node[1], &b.vnet, &b.gateway, &b.edge, &b.internet} {
		n, err := netns.New()
		if err != nil {
			return err
		}
		*at = n
		for _, s := range settings {
			if err := n.Sysctl(s[0], s[1]); err != nil {
				return err
			}
		}
	}
	for _, n := range []*netns.NS{b.vnet, b.edge} {
		if err := forward(n); err != nil {
			return err
		}
	}
	if err := b.connect(gso); err != nil {
		return err
	}
	if err := b.route(); err != nil {
		return err
	}
	for _, p := range own {
		if err := b.internet.Own(p); err != nil {
			return err
		}
	}
	for _, n := range b.node {
		if err := muteResets(n); err != nil {
			return err
		}
	}
	// The servers speak TCP Fast Open and ask for no cookie: whoever sends data in a SYN gets through to them.
	const server, withoutCookie, allListeners = 2, 0x200, 0x400
	if err := b.internet.Sysctl("net/ipv4/tcp_fastopen", fmt.Sprint(server|withoutCookie|allListeners)); err != nil {
		return err
	}
	return b.vnet.Own(privateV4)
}

func forward(n *netns.NS) error {
	if err := n.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	return n.Sysctl("net/ipv6/conf/all/forwarding", "1")
}

// cable is one veth pair: name, box and addresses of both ends.
type cable struct {
	a, b           *netns.NS
	aName, bName   string
	aAddrs, bAddrs []string
}

func (b *boxes) connect(gso bool) error {
	cables := []cable{
		{b.node[0], b.vnet, "eth0", "node1", []string{"10.224.1.4/24", "fd00:224:0:1::4/64"}, []string{"10.224.1.1/24", "fd00:224:0:1::1/64"}},
		{b.node[1], b.vnet, "eth0", "node2", []string{"10.224.2.4/24", "fd00:224:0:2::4/64"}, []string{"10.224.2.1/24", "fd00:224:0:2::1/64"}},
		{b.vnet, b.gateway, "gateway", InsideDevice, []string{"10.100.0.1/24", "fd00:100::1/64"}, []string{"10.100.0.4/24", "fd00:100::4/64"}},
		{b.gateway, b.edge, OutsideDevice, edgeInside, []string{"20.200.0.4/24", "2603:2000:0:1::4/64"}, []string{"20.200.0.1/24", "2603:2000:0:1::1/64"}},
		{b.edge, b.internet, "internet", "edge", []string{"20.201.0.1/24", "2603:2000:0:2::1/64"}, []string{"20.201.0.2/24", "2603:2000:0:2::2/64"}},
	}
	for _, c := range cables {
		err := netns.Veth(
			netns.End{NS: c.a, Name: c.aName, Addrs: prefixes(c.aAddrs)},
			netns.End{NS: c.b, Name: c.bName, Addrs: prefixes(c.bAddrs)},
		)
		if err != nil {
			return err
		}
		if gso {
			continue
		}
		if err := c.a.GSO(c.aName, false); err != nil {
			return err
		}
		if err := c.b.GSO(c.bName, false); err != nil {
			return err
		}
	}
	return nil
}

func (b *boxes) route() error {
	routes := []struct {
		in  *netns.NS
		dst string
		via string
	}{
		{b.node[0], "0.0.0.0/0", "10.224.1.1"}, {b.node[0], "::/0", "fd00:224:0:1::1"},
		{b.node[1], "0.0.0.0/0", "10.224.2.1"}, {b.node[1], "::/0", "fd00:224:0:2::1"},
		{b.vnet, "0.0.0.0/0", "10.100.0.4"}, {b.vnet, "::/0", "fd00:100::4"},
		{b.gateway, "10.224.0.0/15", "10.100.0.1"}, {b.gateway, "fd00:224::/32", "fd00:100::1"},
		{b.gateway, "0.0.0.0/0", "20.200.0.1"}, {b.gateway, "::/0", "2603:2000:0:1::1"},
		{b.edge, "0.0.0.0/0", "20.201.0.2"}, {b.edge, "::/0", "2603:2000:0:2::2"},
		// The way back of connections whose addresses the gateway does not translate.
		{b.edge, "10.0.0.0/8", "20.200.0.4"}, {b.edge, "fd00::/8", "2603:2000:0:1::4"},
		{b.internet, "10.0.0.0/8", "20.201.0.1"}, {b.internet, "fd00::/8", "2603:2000:0:2::1"},
		{b.internet, "20.200.0.0/24", "20.201.0.1"}, {b.internet, "2603:2000:0:1::/64", "2603:2000:0:2::1"},
	}
	for _, r := range routes {
		if err := r.in.Route(netip.MustParsePrefix(r.dst), netip.MustParseAddr(r.via)); err != nil {
			return err
		}
	}
	return nil
}

// forwardPlainly makes the gateway's box a router with source translation and no filter at all: the control.
func (b *boxes) forwardPlainly() error {
	if err := forward(b.gateway); err != nil {
		return err
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(b.gateway.File().Fd())))
	if err != nil {
		return fmt.Errorf("open nftables in the gateway's box: %w", err)
	}
	table := c.AddTable(&nftables.Table{Name: "lab", Family: nftables.TableFamilyINet})
	chain := c.AddChain(&nftables.Chain{
		Name: "out", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	device := make([]byte, 16)
	copy(device, OutsideDevice)
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: device},
		&expr.Masq{},
	}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("masquerade in the gateway's box: %w", err)
	}
	return nil
}

func prefixes(ss []string) []netip.Prefix {
	ps := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		ps[i] = netip.MustParsePrefix(s)
	}
	return ps
}
