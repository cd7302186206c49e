//go:build linux

package lab

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"tidegate.io/tidegate/egress"
)

// datagrams: QUIC, and every UDP port that a tunnel is known to use.
func (m *misses) datagrams() {
	base := m.base()
	for i, port := range udpPorts {
		for _, v6 := range []bool{false, true} {
			name, why := base[i%len(base)], noRule
			if port == 443 || port == 80 {
				why = []egress.Reason{egress.QUIC}
			}
			for _, name := range []string{name, "vm." + evilSuffix} {
				if m.open(egress.UDP, netip.AddrPortFrom(m.zone.addr(name, v6), port)) {
					continue
				}
				m.deny("datagrams", fmt.Sprintf("sends UDP to %s on port %d over %s", name, port, family(v6)), why, func(ctx context.Context, t *Try) error {
					return t.transport(ctx, egress.UDP, netip.AddrPortFrom(t.Lab.Zone.addr(name, v6), port))
				})
			}
		}
	}
	m.timeTunnels()
}

// timeTunnels: where asking for the time is permitted, something else is sent to the time server.
func (m *misses) timeTunnels() {
	for _, name := range names(m.policy, egress.UDP, 123) {
		m.timeTunnel("the time server "+name, func(ctx context.Context, t *Try) netip.AddrPort { return t.target(ctx, name, false, 123) })
	}
	anywhere := netip.MustParseAddrPort("20.55.66.77:123")
	if m.open(egress.UDP, anywhere) {
		m.timeTunnel("anybody's port 123", func(context.Context, *Try) netip.AddrPort { return anywhere })
	}
}

func (m *misses) timeTunnel(where string, to func(context.Context, *Try) netip.AddrPort) {
	for _, c := range []struct {
		what  string
		bytes func(t *Try) []byte
	}{
		{"500 bytes", func(t *Try) []byte { return append(ntpRequest(t.Token), strings.Repeat("x", 452)...) }},
		{"12 bytes", func(t *Try) []byte { return []byte(t.Token[:12]) }},
		{"a server's answer", func(t *Try) []byte { b := ntpRequest(t.Token); b[0] = 4<<3 | 4; return b }},
		{"a control message", func(t *Try) []byte { b := ntpRequest(t.Token); b[0] = 2<<3 | 6; return b }},
		{"a private-mode message", func(t *Try) []byte { b := ntpRequest(t.Token); b[0] = 2<<3 | 7; return b }},
	} {
		m.deny("datagrams", "sends "+c.what+" to "+where, []egress.Reason{egress.NTPPayload}, func(ctx context.Context, t *Try) error {
			b := c.bytes(t)
			t.prove(b)
			_, err := t.Exchange(ctx, "udp", to(ctx, t), b)
			return err
		})
	}
}

// packets: everything that IP can carry and that is neither TCP nor UDP.
func (m *misses) packets() {
	why := []egress.Reason{egress.ProtocolNotAllowed, egress.InvalidPacket} // conntrack knows some of them, and calls ours invalid
	add := func(what string, number int, v6 bool, payload func(t *Try) []byte) {
		m.deny("raw packets", fmt.Sprintf("sends %s over %s", what, family(v6)), why, func(_ context.Context, t *Try) error {
			b := payload(t)
			t.prove([]byte(t.Token))
			// An address of its own for each try, for these packets have no ports to tell them apart.
			return t.packet(number, hashAddr(map[bool]netip.Prefix{false: publicV4, true: publicV6}[v6], t.Token, 0), b)
		})
	}
	for _, p := range rawProtocols {
		for _, v6 := range []bool{false, true} {
			add(p.name, p.number, v6, func(t *Try) []byte { return rawPayload(p.number, t.Token) })
		}
	}
	for _, size := range []int{56, 1000, 1400} {
		add(fmt.Sprintf("a ping of %d bytes", size), icmp, false, func(t *Try) []byte { return ping(8, size, t.Token) })
		add(fmt.Sprintf("a ping of %d bytes", size), icmp6, true, func(t *Try) []byte { return ping(128, size, t.Token) })
	}
}

// rawPayload has the shape of the protocol where the kernel on the other side looks at it, and ends with the token.
func rawPayload(protocol int, token string) []byte {
	b := make([]byte, 20)
	switch protocol {
	case 4, 94:
		b[0] = 0x45
	case 41:
		b[0] = 0x60
	}
	return append(b, token...)
}

// ping is an ICMP echo request; for IPv6 the kernel fills the checksum in.
func ping(kind byte, size int, token string) []byte {
	b := make([]byte, 8+size)
	b[0] = kind
	copy(b[len(b)-len(token):], token)
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}

// packet sends one packet of a protocol without ports.
func (t *Try) packet(protocol int, to netip.Addr, payload []byte) error {
	network := fmt.Sprintf("ip4:%d", protocol)
	if to.Is6() {
		network = fmt.Sprintf("ip6:%d", protocol)
	}
	t.mu.Lock()
	t.packets = append(t.packets, to)
	t.mu.Unlock()
	return t.Node.Do(func() error {
		c, err := net.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		_, err = c.Write(payload)
		return err
	})
}

// sendDoT sends what begins DNS over TLS; the proof is that the resolver has seen the name that it shows.
func (t *Try) sendDoT(ctx context.Context, to netip.AddrPort) error {
	name := t.Token + ".dot.example"
	b := sni(name).record()
	t.prove([]byte(name))
	_, err := t.Exchange(ctx, "tcp", to, b)
	return err
}
