package kernel

import (
	"net"
	"net/netip"
	"testing"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

// TestAnswersLeaveFromWhereWasAsked: the client's socket is connected, and takes nothing that comes from elsewhere.
func TestAnswersLeaveFromWhereWasAsked(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(nil)
		b.echo(b.gateway, 5353)
		var tracker *Tracker
		must(t, b.gateway.Do(func() (err error) { tracker, err = OpenTracker(); return err }))
		defer tracker.Close()
		for _, a := range gatewayAddrs {
			if err := b.reach("udp", at(a, 53)); err != nil {
				t.Errorf("%s: %v", a, err)
			}
		}
		flows, err := tracker.flows()
		must(t, err)
		if len(flows) > 0 {
			t.Errorf("conntrack has %+v", flows)
		}
	})
}

// TestTheChecksumFollowsThePort sends what no device completes, as a network card delivers it.
func TestTheChecksumFollowsThePort(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	b.load(nil)
	var out *Resetter
	must(t, b.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
	defer out.Close()
	for i, client := range []string{"10.224.0.4", "fd00:224::4"} {
		var server net.PacketConn
		must(t, b.gateway.Do(func() (err error) { server, err = net.ListenPacket("udp", at(gatewayAddrs[i], 5353)); return err }))
		defer server.Close()
		p := &probe{src: netip.MustParseAddr(client), dst: netip.MustParseAddr(gatewayAddrs[i]), proto: protoUDP, port: 53, data: []byte("whole")}
		must(t, out.Send(p.packet(40000)))
		must(t, server.SetReadDeadline(deadline(true)))
		buf := make([]byte, 100)
		if n, _, err := server.ReadFrom(buf); err != nil || string(buf[:n]) != "whole" {
			t.Errorf("from %s: %q, %v", client, buf[:n], err)
		}
	}
}
