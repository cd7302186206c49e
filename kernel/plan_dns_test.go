package kernel

import (
	"net/netip"
	"testing"

	"tidegate.io/tidegate/egress"
)

// TestQuestionsToTheGatewayAreNoConnections: of those alone that clients send to it by UDP conntrack sees nothing.
func TestQuestionsToTheGatewayAreNoConnections(t *testing.T) {
	p := compilePolicy(t, []egress.Cluster{{Name: "prod", From: nodes}}, rule(t, "any", nil, "udp://0.0.0.0/0:1-65535", "udp://[::/0]:1-65535"))
	rs := plan(t, p, settings(p, Cluster{Name: "prod"}))
	client, client6 := netip.MustParseAddr("10.224.0.4"), netip.MustParseAddr("fd00:224::4")
	us, us6 := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("fd00:9::1")
	question := probe{src: client, dst: us, proto: protoUDP, port: 53, toGateway: true}
	for _, row := range []struct {
		what      string
		change    func(*probe)
		untracked bool
		port      uint16 // where it arrives
		want      fate
	}{
		{"a question", func(*probe) {}, true, 5353, toSelf},
		{"over IPv6", func(p *probe) { p.src, p.dst = client6, us6 }, true, 5353, toSelf},
		{"over TCP", func(p *probe) { p.proto, p.flags = protoTCP, flagSYN }, false, 5300, toSelf},
		{"of a stranger", func(p *probe) { p.src = netip.MustParseAddr("20.40.0.10") }, false, 53, toSelf},
		{"to another server", func(p *probe) { p.dst, p.toGateway = netip.MustParseAddr("20.40.0.10"), false }, false, 5300, toSelf},
		{"in fragments", func(p *probe) { p.fragment = true }, false, 5300, toSelf},
		{"over IPv6 in fragments", func(p *probe) { p.src, p.dst, p.fragment = client6, us6, true }, false, 5300, toSelf},
		{"without a checksum", func(p *probe) { p.noChecksum = true }, false, 5300, toSelf},
		{"with options of IPv4", func(p *probe) { p.v4Options = true }, false, 53, dropped},
		{"to the port behind it", func(p *probe) { p.port = 5353 }, false, 5353, dropped},
		{"of a stranger to that port", func(p *probe) { p.src, p.port = netip.MustParseAddr("20.40.0.10"), 5353 }, false, 5353, dropped},
	} {
		p := question
		row.change(&p)
		if got := newMachine(t, rs, nil).run(&p); got != row.want || p.untracked != row.untracked || p.port != row.port {
			t.Errorf("%s: %s, untracked %t, port %d; want %s, %t, %d", row.what, got, p.untracked, p.port, row.want, row.untracked, row.port)
		}
	}
}
