package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is one end of a [Veth] pair.
type End struct {
	NS    *NS
	Name  string         // at most 15 bytes
	Addrs []netip.Prefix // usable at once: duplicate address detection is off
	MTU   int            // 0 is the kernel's 1500
}

// firstIndex is above every index that the kernel chooses by itself.
const firstIndex = 1000

// Veth makes a cable between two namespaces, with both ends up. It goes when
// either namespace does.
func Veth(a, b End) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = a.Name, a.MTU
	links, err := a.NS.handle.LinkList()
	if err != nil {
		return fmt.Errorf("veth %s to %s: %w", a.Name, b.Name, err)
	}
	// Where both ends have the same index the kernel does not see a pair, lets
	// the news of the carrier wait for up to a second, and IPv6 is mute until then.
	attrs.Index = firstIndex + len(links)
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b.Name, PeerNamespace: netlink.NsFd(b.NS.fd())}
	if err := a.NS.handle.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth %s to %s: %w", a.Name, b.Name, err)
	}
	for _, e := range []End{a, b} {
		if err := e.raise(); err != nil {
			return err
		}
	}
	return errors.Join(a.ready(), b.ready())
}

func (e End) raise() error {
	if e.MTU != 0 {
		if err := e.NS.MTU(e.Name, e.MTU); err != nil {
			return err
		}
	}
	for _, p := range e.Addrs {
		if err := e.NS.Addr(e.Name, p); err != nil {
			return err
		}
	}
	return e.NS.up(e.Name)
}

func (n *NS) link(name string) (netlink.Link, error) {
	l, err := n.handle.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return l, nil
}

func (n *NS) up(name string) error {
	l, err := n.link(name)
	if err != nil {
		return err
	}
	if err := n.handle.LinkSetUp(l); err != nil {
		return fmt.Errorf("link %s: up: %w", name, err)
	}
	return nil
}

// Addr gives a device an address, with the prefix it is in.
func (n *NS) Addr(device string, p netip.Prefix) error {
	l, err := n.link(device)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := n.handle.AddrAdd(l, a); err != nil {
		return fmt.Errorf("link %s: address %s: %w", device, p, err)
	}
	return nil
}

// Route sends what is for dst to the neighbour via; 0.0.0.0/0 and ::/0 are the
// default routes.
func (n *NS) Route(dst netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{Dst: ipNet(dst.Masked()), Gw: via.AsSlice()}
	if err := n.handle.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s via %s: %w", dst, via, err)
	}
	return nil
}

// Own makes every address of p the namespace's own, without listing them: one
// server can then stand for a whole internet. For IPv6 it also lets the whole
// namespace bind to addresses it does not have.
func (n *NS) Own(p netip.Prefix) error {
	lo, err := n.link("lo")
	if err != nil {
		return err
	}
	r := &netlink.Route{
		Dst: ipNet(p.Masked()), LinkIndex: lo.Attrs().Index,
		Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
	}
	if p.Addr().Is6() {
		r.Scope = netlink.SCOPE_UNIVERSE
		// IPv4 binds to what a local route covers; IPv6 wants an address.
		if err := n.Sysctl("net/ipv6/ip_nonlocal_bind", "1"); err != nil {
			return err
		}
	}
	if err := n.handle.RouteReplace(r); err != nil {
		return fmt.Errorf("own %s: %w", p, err)
	}
	return nil
}

// defaultGSOSegs is what a fresh veth device has.
const defaultGSOSegs = 65535

// offloads are the features that let a packet be larger than the wire's, or
// leave it without a checksum.
var offloads = []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO, unix.ETHTOOL_STXCSUM}

// GSO switches segmentation and checksum offloads of a device. A fresh veth has
// them on, and then carries a ClientHello of two segments as one packet; off,
// packets are what a wire would carry.
func (n *NS) GSO(device string, on bool) error {
	l, err := n.link(device)
	if err != nil {
		return err
	}
	segs, value := 1, uint32(0)
	if on {
		segs, value = defaultGSOSegs, 1
	}
	if err := n.handle.LinkSetGSOMaxSegs(l, segs); err != nil {
		return fmt.Errorf("link %s: gso_max_segs %d: %w", device, segs, err)
	}
	return n.Do(func() error { return setOffloads(device, value) })
}

func setOffloads(device string, value uint32) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("link %s: offloads: %w", device, err)
	}
	defer func() { _ = unix.Close(s) }()
	for _, cmd := range offloads {
		err := ethtoolSet(s, device, cmd, value)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("link %s: ethtool %#x: %w", device, cmd, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// MTU changes the largest packet that a device takes.
func (n *NS) MTU(device string, mtu int) error {
	l, err := n.link(device)
	if err != nil {
		return err
	}
	if err := n.handle.LinkSetMTU(l, mtu); err != nil {
		return fmt.Errorf("link %s: mtu %d: %w", device, mtu, err)
	}
	return nil
}

// Plug takes a device down or up again, and with it the carrier of the other end. Routes
// through a device that goes down are gone.
func (n *NS) Plug(device string, in bool) error {
	if in {
		return n.up(device)
	}
	l, err := n.link(device)
	if err != nil {
		return err
	}
	if err := n.handle.LinkSetDown(l); err != nil {
		return fmt.Errorf("link %s: down: %w", device, err)
	}
	return nil
}
