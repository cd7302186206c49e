package gateway

import (
	"bytes"
	"net/netip"
	"testing"

	"tidegate.io/tidegate/wire"
)

// requesting is a client that says something on the port of HTTP rules.
func requesting(text string) func(*rig) {
	return func(r *rig) {
		r.dst = netip.AddrPortFrom(shared.Addr(), 80)
		r.handshake().say(0, []byte(text))
	}
}

func TestObserve(t *testing.T) {
	watched := netip.MustParseAddrPort("10.225.0.4:50000")
	for _, tt := range []struct {
		name string
		act  func(r *rig)
		want string
	}{
		{"an allowed hello", func(r *rig) {
			h := clientHello(good)
			r.handshake().say(0, h)
			r.answer(len(h), 0, serverHello())
		}, "allow name-rule core/mcr"},
		{"a denied hello", func(r *rig) { r.handshake().say(0, clientHello(evil)) }, "deny name-not-allowed"},
		{"no hello", func(r *rig) { r.handshake().say(0, []byte("SSH-2.0")) }, "deny not-tls"},
		{"a denied port", func(r *rig) { r.dst = netip.MustParseAddrPort("20.1.2.3:25"); r.syn() }, "deny no-rule"},
		{"an odd packet", func(r *rig) { r.handshake().say(0, []byte{22}, ipOption) }, "deny invalid-packet"},
		{"a slow hello", func(r *rig) { r.handshake().say(0, []byte{22}); r.after(helloWithin) }, "deny hello-timeout"},
		{"the middle of a connection", func(r *rig) { r.say(0, []byte{22}) }, ""},
		{"an allowed request", requesting("GET / HTTP/1.1\r\nHost: mcr.microsoft.com\r\n\r\n"), "allow name-rule house/web"},
		{"a denied request", requesting("GET / HTTP/1.1\r\nHost: evil.example.org\r\n\r\n"), "deny name-not-allowed"},
		{"a request to an address", requesting("GET / HTTP/1.1\r\nHost: 20.1.2.3\r\n\r\n"), "deny address-as-name"},
		{"a request of no host", requesting("GET / HTTP/1.1\r\n\r\n"), "deny no-server-name"},
		{"a request of two hosts", requesting("GET / HTTP/1.1\r\nHost: mcr.microsoft.com\r\nHost: evil.example.org\r\n\r\n"), "deny malformed-request"},
		{"a request of a host with a space", requesting("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), "deny malformed-request"},
		{"a CONNECT", requesting("CONNECT mcr.microsoft.com:80 HTTP/1.1\r\nHost: mcr.microsoft.com:80\r\n\r\n"), "deny method-not-allowed"},
		{"an upgrade", requesting("GET / HTTP/1.1\r\nHost: mcr.microsoft.com\r\nUpgrade: h2c\r\n\r\n"), "deny upgrade-not-allowed"},
		{"HTTP/2", requesting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "deny upgrade-not-allowed"},
		{"no request", requesting("SSH-2.0-OpenSSH_9.2\r\n"), "deny not-http"},
		{"a request that does not end", func(r *rig) { requesting("GET / HTTP/1.1\r\nHost: ")(r); r.after(helloWithin) }, "deny hello-timeout"},
		{"a request in two pieces", func(r *rig) {
			requesting("GET / HTTP/1.1\r\nHost: mcr.micr")(r)
			r.say(30, []byte("osoft.com\r\n\r\n"))
		}, "allow name-rule house/web"},
	} {
		r := newRig(t)
		r.src = watched
		tt.act(r)
		if r.words() != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, r.words(), tt.want)
		}
		for id := range r.packets {
			if f := r.fate(id); f != "passed" && f != "passed for good" {
				t.Errorf("%s: packet %d is %s", tt.name, id, f)
			}
		}
		if len(r.resets) > 0 || len(r.flows) > 0 && !r.flows[0].Observed {
			t.Errorf("%s: resets %v, flows %+v", tt.name, r.resets, r.flows)
		}
		r.empty()
	}
}

func TestDatagrams(t *testing.T) {
	ntp := make([]byte, 48)
	ntp[0] = 4<<3 | 3
	for _, tt := range []struct {
		name, dst string
		payload   []byte
		fate      string
		want      string
	}{
		{"a plain NTP request passes, and the next is looked at again", "20.8.0.1:123", ntp, "passed", "allow address-rule house/ntp"},
		{"one with an extension does not", "20.8.0.1:123", make([]byte, 68), "cut", "deny ntp-payload"},
		{"nor one of a server", "20.8.0.1:123", append([]byte{4<<3 | 4}, ntp[1:]...), "cut", "deny ntp-payload"},
		{"another rule's datagram opens its connection", "20.8.0.2:1194", []byte("x"), "allowed", "allow address-rule house/vpn"},
		{"QUIC is refused", "20.1.2.3:443", []byte("x"), "cut", "deny quic"},
		{"and all else", "20.1.2.3:53", []byte("x"), "cut", "deny no-rule"},
	} {
		r := newRig(t)
		id := r.feed(wire.Packet{Src: node, Dst: netip.MustParseAddrPort(tt.dst), Proto: wire.UDP, Payload: tt.payload})
		if r.fate(id) != tt.fate || r.words() != tt.want {
			t.Errorf("%s: %s, %q", tt.name, r.fate(id), r.words())
		}
	}
}

func TestUnreadable(t *testing.T) {
	tcp := wire.AppendPacket(nil, wire.Packet{Src: node, Dst: shared, Proto: wire.TCP, Flags: wire.SYN})
	change := func(at int, b byte) []byte {
		c := bytes.Clone(tcp)
		c[at] = b
		return c
	}
	for _, tt := range []struct {
		name   string
		packet []byte
		want   string
	}{
		{"a fragment", change(6, 0x20), "deny invalid-packet"},
		{"GRE", change(9, 47), "deny protocol-not-allowed"},
		{"half a header", tcp[:10], "deny invalid-packet"},
		{"nothing", nil, "deny invalid-packet"},
	} {
		r := newRig(t)
		r.packets[1] = wire.Packet{}
		r.f.Packet(r.now, 1, tt.packet)
		if r.fate(1) != "dropped" || r.words() != tt.want {
			t.Errorf("%s: %s, %q", tt.name, r.fate(1), r.words())
		}
	}
}
