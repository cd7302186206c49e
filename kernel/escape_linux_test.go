package kernel

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/internal/netns/netnstest"
)

// unreachable makes the client's error message about a packet of the server's, with
// data behind the part that conntrack reads.
func unreachable(client, server netip.AddrPort, data string) []byte {
	told := tcpPacket(server, client, 1, 1, flagACK, nil, []byte(data))
	proto, typ := byte(unix.IPPROTO_ICMP), byte(3)
	sum := uint32(0)
	if client.Addr().Is6() {
		proto, typ = unix.IPPROTO_ICMPV6, 1
		sum = checksum(checksum(0, client.Addr().AsSlice()), server.Addr().AsSlice()) + uint32(proto) + uint32(8+len(told))
	}
	icmp := append([]byte{typ, 1, 0, 0, 0, 0, 0, 0}, told...)
	binary.BigEndian.PutUint16(icmp[2:], fold(checksum(sum, icmp)))
	return ipPacket(client.Addr(), server.Addr(), proto, 0, nil, icmp)
}

// TestErrorsAboutUndecidedConnectionsDoNotPass: the SYN of a connection to a port of
// HTTPS rules passes before anything is known of it. An error message about that
// connection would carry whatever its sender likes to a server of its choice.
func TestErrorsAboutUndecidedConnectionsDoNotPass(t *testing.T) {
	netnstest.Need(t)
	for _, row := range []struct {
		name   string
		mark   Mark // of the connection
		passes bool
	}{
		{"about a held connection", 0, false},
		{"about a cut connection", NewMark(Cut, 0), false},
		{"about an allowed connection", NewMark(Allowed, 1), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			for i := range webAddrs {
				b := newBench(t, false)
				b.load(func(s *Settings) { s.Masquerade = false }, rule(t, "web", nil, "https://a.example:443"))
				b.echo(b.web, 443)
				b.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
					for _, p := range batch {
						mark := Mark(0)
						if s := parseSegment(p.Payload); len(s.data) > 0 {
							mark = row.mark
						}
						q.Verdict(p.ID, true, mark)
					}
				})
				c, err := b.dial("tcp", at(webAddrs[i], 443))
				must(t, err)
				if row.mark != 0 {
					_ = talk(c, "decide")
				}
				var out *Resetter
				must(t, b.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
				defer out.Close()
				see := newSniffer(t, b.web, "gw")
				server := netip.MustParseAddrPort(at(webAddrs[i], 443))
				client := netip.MustParseAddrPort(c.LocalAddr().String())
				must(t, out.Send(unreachable(client, server, "a secret")))
				while := 300 * time.Millisecond
				if row.passes {
					while = patience
				}
				if got := see.sees(while, fromClient); got != row.passes {
					t.Errorf("%s: passes: %t, want %t", webAddrs[i], got, row.passes)
				}
			}
		})
	}
}

// TestSpoofedSourcesDoNotPass: a client's address counts only on the device that leads to the client. The kernel's own check of
// sources (rp_filter) is off here, as the rules leave it: it looks every packet's source up, and with a default route refuses none.
func TestSpoofedSourcesDoNotPass(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, false)
	must(t, b.gateway.Do(func() error {
		return applySysctls([]Sysctl{{Key: "net/ipv4/conf/*/rp_filter", Value: "0"}})
	}))
	for i, p := range prefixes("20.41.0.0/16", "2603:1020:1::/48") {
		must(t, b.web.Route(p, netip.MustParseAddr([]string{"20.0.0.2", "2603:1020:ffff::2"}[i])))
	}
	b.load(nil, rule(t, "any", nil, "tcp://0.0.0.0/0:9000", "tcp://[::/0]:9000", "udp://0.0.0.0/0:9000", "udp://[::/0]:9000"))
	for _, row := range []struct {
		name     string
		from     *netns.NS // who sends it
		sources  []string
		toServer bool
	}{
		{"control: a client", b.client, clientAddrs, true},
		{"a client's address from outside", b.web, []string{"10.224.0.5", "fd00:224::5"}, false},
		{"the gateway's address", b.client, gatewayAddrs, false},
		{"an address of nobody's", b.client, []string{"198.51.100.7", "2001:db8::7"}, false},
		{"a server's address", b.client, webAddrs, false},
	} {
		var out *Resetter
		must(t, row.from.Do(func() (err error) { out, err = OpenResetter(); return err }))
		defer out.Close()
		for i, source := range row.sources {
			for _, proto := range []uint32{protoTCP, protoUDP} {
				see := newSniffer(t, b.web, "gw")
				server := netip.MustParseAddr([]string{"20.40.0.10", "2603:1020::10"}[i])
				if row.from == b.web { // it would come back to where it came from
					server = netip.MustParseAddr([]string{"20.41.0.10", "2603:1020:1::10"}[i])
				}
				p := &probe{src: netip.MustParseAddr(source), dst: server, proto: proto, port: 9000, data: make([]byte, 20)}
				if proto == protoTCP {
					p.flags, p.data = flagSYN, nil
				}
				must(t, out.Send(p.packet(uint16(20000+proto))))
				while := 200 * time.Millisecond
				if row.toServer {
					while = patience
				}
				if got := see.sees(while, fromClient); got != row.toServer {
					t.Errorf("%s, %s to %s, protocol %d: passes %t", row.name, source, server, proto, got)
				}
			}
		}
	}
}

// An error message of the network about a held connection has to reach the client:
// without it a path with a smaller packet size swallows the hello (RFC 1191).
func TestErrorsReachTheClientOfAHeldConnection(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, false)
	b.load(func(s *Settings) { s.Masquerade = false }, rule(t, "web", nil, "https://a.example:443"))
	b.echo(b.web, 443)
	b.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
		for _, p := range batch {
			q.Verdict(p.ID, true, 0)
		}
	})
	for i := range webAddrs {
		c, err := b.dial("tcp", at(webAddrs[i], 443))
		must(t, err)
		var out *Resetter
		must(t, b.web.Do(func() (err error) { out, err = OpenResetter(); return err }))
		defer out.Close()
		see := newSniffer(t, b.client, "gw")
		must(t, out.Send(unreachable(netip.MustParseAddrPort(at(webAddrs[i], 443)), netip.MustParseAddrPort(c.LocalAddr().String()), "")))
		if !see.sees(patience, fromClient) {
			t.Errorf("%s: it did not come", webAddrs[i])
		}
	}
}

// enforce turns the observed cluster of the bench into an enforced one.
func (b *bench) enforce(rules ...egress.Rule) *Ruleset { return b.load(nil, rules...) }

// TestEnforcingEndsWhatIsNotListed: what conntrack follows and is neither TCP nor UDP
// cannot be cut one by one when a cluster that was observed is enforced.
func TestEnforcingEndsWhatIsNotListed(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, false)
	echo := func(n byte) []byte {
		icmp := append([]byte{8, 0, 0, 0, 0, 77, 0, n}, make([]byte, 16)...)
		binary.BigEndian.PutUint16(icmp[2:], fold(checksum(0, icmp)))
		return ipPacket(netip.MustParseAddr(clientAddrs[0]), netip.MustParseAddr(webAddrs[0]), unix.IPPROTO_ICMP, 0, nil, icmp)
	}
	gre := ipPacket(netip.MustParseAddr(clientAddrs[0]), netip.MustParseAddr(webAddrs[0]), unix.IPPROTO_GRE, 0, nil, make([]byte, 24))
	var out *Resetter
	must(t, b.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
	defer out.Close()
	see := newSniffer(t, b.web, "gw")
	b.observed()
	for i, p := range [][]byte{echo(1), gre} {
		must(t, out.Send(p))
		if !see.sees(patience, func(p []byte) bool { return p[8] == rawTTL-1 }) {
			t.Errorf("packet %d does not pass while it is only observed", i)
		}
	}
	b.enforce()
	for i, p := range [][]byte{echo(2), gre} {
		must(t, out.Send(p))
		if see.sees(300*time.Millisecond, func(p []byte) bool { return p[8] == rawTTL-1 }) {
			t.Errorf("packet %d passes once it is enforced", i)
		}
	}
}

// TestEnforcingEndsWhatIsWatched: a connection that was undecided when its cluster was
// enforced is not forwarded even while nobody reads the queue, which has bypass.
func TestEnforcingEndsWhatIsWatched(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	web := rule(t, "web", nil, "https://a.example:443")
	b.observed(web)
	b.echo(b.web, 443)
	for _, a := range webAddrs {
		c, err := b.dial("tcp", at(a, 443))
		must(t, err)
		must(t, talk(c, "hello"))
		b.enforce(web)
		if talk(c, "again") == nil {
			t.Errorf("%s goes on", a)
		}
		b.observed(web)
	}
}

// TestACutDatagramFlowCanBePermittedAgain: a client that always uses the same port
// keeps the entry of a flow that was cut, and a SYN, which would reset the mark, never
// comes.
func TestACutDatagramFlowCanBePermittedAgain(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	tunnel := rule(t, "tunnel", nil, "udp://20.40.0.0/24:1194")
	b.load(nil, tunnel)
	b.echo(b.web, 1194)
	c, err := b.dial("udp", at(webAddrs[0], 1194))
	must(t, err)
	must(t, talk(c, "one"))
	var tracker *Tracker
	must(t, b.gateway.Do(func() (err error) { tracker, err = OpenTracker(); return err }))
	defer tracker.Close()
	flows, err := tracker.flows()
	must(t, err)
	b.load(nil)
	must(t, tracker.Cut(flows...))
	if talk(c, "two") == nil {
		t.Error("a cut flow goes on")
	}
	b.load(nil, tunnel)
	for range 3 { // the refusals of before are told first
		if err = talk(c, "three"); err == nil {
			break
		}
	}
	must(t, err)
}

// TestALateVerdictDoesNotReviveACutConnection: the verdict was given before the
// connection was cut, and reaches the kernel after.
func TestALateVerdictDoesNotReviveACutConnection(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	b.load(nil, rule(t, "web", nil, "https://a.example:443"))
	b.echo(b.web, 443)
	waiting, late := make(chan bool), make(chan bool)
	b.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
		for _, p := range batch {
			if s := parseSegment(p.Payload); len(s.data) == 0 {
				q.Verdict(p.ID, true, 0)
				continue
			}
			waiting <- true
			<-late
			q.Verdict(p.ID, true, NewMark(Allowed, 1))
		}
	})
	c, err := b.dial("tcp", at(webAddrs[0], 443))
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- talk(c, "hello") }()
	<-waiting
	var tracker *Tracker
	must(t, b.gateway.Do(func() (err error) { tracker, err = OpenTracker(); return err }))
	defer tracker.Close()
	flows, err := tracker.flows()
	must(t, err)
	must(t, tracker.Cut(flows...))
	close(late)
	if err := <-done; err == nil {
		t.Error("the connection goes on")
	}
	flows, err = tracker.flows()
	must(t, err)
	if len(flows) != 1 || flows[0].Mark.State() != Cut {
		t.Errorf("flows %+v", flows)
	}
}

// TestAnObservedClusterMayAskUs: observing blocks nothing, least of all the DNS
// server that the network was told to use.
func TestAnObservedClusterMayAskUs(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	b.observed()
	b.echo(b.gateway, 5300)
	b.echo(b.gateway, 5353)
	b.echo(b.web, 53)
	for i, a := range webAddrs {
		for _, network := range []string{"tcp", "udp"} {
			if err := b.reach(network, at(gatewayAddrs[i], 53)); err != nil {
				t.Errorf("%s: the gateway: %v", network, err)
			}
			if err := b.reach(network, at(a, 53)); err != nil {
				t.Errorf("%s: another server: %v", network, err)
			}
		}
	}
}

// TestRenumberingIsNoVerdict: the ports may belong to another connection by then.
func TestRenumberingIsNoVerdict(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	b.load(nil, rule(t, "web", nil, "https://a.example:443"), rule(t, "tunnel", nil, "tcp://20.40.0.0/24:9000"))
	b.echo(b.web, 443)
	b.echo(b.web, 9000)
	b.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
		for _, p := range batch {
			q.Verdict(p.ID, true, 0)
		}
	})
	var tracker *Tracker
	must(t, b.gateway.Do(func() (err error) { tracker, err = OpenTracker(); return err }))
	defer tracker.Close()
	for port, state := range map[int]State{443: Held, 9000: Allowed} {
		c, err := b.dial("tcp", at(webAddrs[0], port))
		must(t, err)
		f := Flow{Proto: egress.TCP, Src: netip.MustParseAddrPort(c.LocalAddr().String()), Dst: netip.MustParseAddrPort(at(webAddrs[0], port))}
		flows, err := tracker.flows()
		must(t, err)
		for _, now := range flows {
			if now.Dst == f.Dst {
				f.ID, f.Mark = now.ID, NewMark(Allowed, 2) // as it was listed
			}
		}
		must(t, tracker.Renumber(f, 77))
		flows, err = tracker.flows()
		must(t, err)
		for _, now := range flows {
			if now.Dst == f.Dst && now.Mark != NewMark(state, 77) {
				t.Errorf("port %d: %s, want %s", port, now.Mark, NewMark(state, 77))
			}
		}
	}
	must(t, tracker.Renumber(Flow{Proto: egress.TCP, Src: netip.MustParseAddrPort("10.224.0.4:1"), Dst: netip.MustParseAddrPort("20.40.0.10:2")}, 77))
}
