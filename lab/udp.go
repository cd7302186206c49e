//go:build linux

package lab

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// udpPorts answer on every address: NTP, QUIC, and the ways out of tunnels (IKE, OpenVPN, Teredo, DoQ, WireGuard…).
var udpPorts = []uint16{80, 123, 443, 500, 784, 853, 1194, 3478, 3544, 4500, 5353, 8853, 33434, 51820}

// serveUDP answers datagrams from the very address that they were sent to, until pc is closed; the server closes it. On
// port 123 it is a time server, elsewhere an echo.
func (s *server) serveUDP(pc net.PacketConn) error {
	port := addrPort(pc.LocalAddr()).Port()
	read, err := packetInfo(pc)
	if err != nil {
		return err
	}
	if !s.track(pc) {
		return nil
	}
	s.wg.Go(func() {
		defer s.untrack(pc)
		for buf := make([]byte, 65535); ; {
			n, from, to, answer, err := read(buf)
			if err != nil {
				return
			}
			msg := bytes.Clone(buf[:n])
			s.rec.add(Seen{Proto: "udp", Local: netip.AddrPortFrom(to, port), Remote: addrPort(from), Whole: true, Data: msg})
			if port == 123 {
				msg = ntpReply(msg, time.Now())
			}
			answer(msg)
		}
	})
	return nil
}

// packetInfo returns a function that reads a datagram and says to which address it came, and how to answer from there.
func packetInfo(pc net.PacketConn) (func([]byte) (int, net.Addr, netip.Addr, func([]byte), error), error) {
	if addrPort(pc.LocalAddr()).Addr().Is4() {
		p := ipv4.NewPacketConn(pc)
		return func(b []byte) (int, net.Addr, netip.Addr, func([]byte), error) {
			n, cm, from, err := p.ReadFrom(b)
			if err != nil {
				return 0, nil, netip.Addr{}, nil, err
			}
			to, _ := netip.AddrFromSlice(cm.Dst)
			return n, from, to.Unmap(), func(m []byte) { _, _ = p.WriteTo(m, &ipv4.ControlMessage{Src: cm.Dst}, from) }, nil
		}, p.SetControlMessage(ipv4.FlagDst, true)
	}
	p := ipv6.NewPacketConn(pc)
	return func(b []byte) (int, net.Addr, netip.Addr, func([]byte), error) {
		n, cm, from, err := p.ReadFrom(b)
		if err != nil {
			return 0, nil, netip.Addr{}, nil, err
		}
		to, _ := netip.AddrFromSlice(cm.Dst)
		return n, from, to, func(m []byte) { _, _ = p.WriteTo(m, &ipv6.ControlMessage{Src: cm.Dst}, from) }, nil
	}, p.SetControlMessage(ipv6.FlagDst, true)
}

// ntpReply is a server's answer (RFC 5905 section 7.3) to whatever came: mode 4, stratum 2, the client's transmit time
// as the origin. A message too short to be a request is answered with nothing but the header.
func ntpReply(req []byte, now time.Time) []byte {
	const version4, server, size = 4 << 3, 4, 48
	m := make([]byte, size)
	m[0], m[1], m[2], m[3] = version4|server, 2, 6, 0xec
	copy(m[12:], "LAB\x00")
	stamp := ntpTime(now)
	binary.BigEndian.PutUint64(m[16:], stamp)
	if len(req) >= size {
		copy(m[24:32], req[40:48])
	}
	binary.BigEndian.PutUint64(m[32:], stamp)
	binary.BigEndian.PutUint64(m[40:], stamp)
	return m
}

// ntpTime is seconds since 1900 and their fraction.
func ntpTime(t time.Time) uint64 {
	const since1900 = 2208988800
	return uint64(t.Unix()+since1900)<<32 | uint64(t.Nanosecond())<<32/1e9
}

// rawProtocols carry packets without ports, each a known way to tunnel. The number is that of the IP header.
var rawProtocols = []struct {
	number int
	name   string
}{
	{4, "IP in IP"}, {33, "DCCP"}, {41, "IPv6 in IPv4"}, {47, "GRE"}, {50, "ESP"}, {51, "AH"}, {94, "IPIP"}, {97, "EtherIP"},
	{115, "L2TP"}, {132, "SCTP"}, {136, "UDP-Lite"},
}

// Pings are recorded too: their payload is as good a tunnel as any.
const icmp, icmp6 = 1, 58

// serveRaw records packets of a protocol without ports, until pc is closed; the server closes it.
func (s *server) serveRaw(pc net.PacketConn) {
	if !s.track(pc) {
		return
	}
	s.wg.Go(func() {
		defer s.untrack(pc)
		for buf := make([]byte, 65535); ; {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			seen := Seen{Proto: "ip", Whole: true, Data: bytes.Clone(buf[:n])}
			if ip, ok := from.(*net.IPAddr); ok {
				a, _ := netip.AddrFromSlice(ip.IP)
				seen.Remote = netip.AddrPortFrom(a.Unmap(), 0)
			}
			s.rec.add(seen)
		}
	})
}
