package wire

import (
	"net/netip"
	"testing"
)

func TestReadStart(t *testing.T) {
	src, dst := netip.MustParseAddrPort("10.224.0.4:50000"), netip.MustParseAddrPort("20.1.2.3:443")
	src6, dst6 := netip.MustParseAddrPort("[fd00::4]:50000"), netip.MustParseAddrPort("[2603::3]:443")
	data := make([]byte, 400)
	tcp := AppendPacket(nil, Packet{Src: src, Dst: dst, Proto: TCP, Flags: ACK, Seq: 7, Ack: 9, Payload: data})
	tcp6 := AppendPacket(nil, Packet{Src: src6, Dst: dst6, Proto: TCP, Flags: ACK, Seq: 7, Ack: 9, Payload: data})
	udp := AppendPacket(nil, Packet{Src: src, Dst: dst, Proto: UDP, Payload: data})
	ping := append([]byte(nil), udp...)
	ping[9] = 1
	fragment := append([]byte(nil), udp...)
	fragment[6] = 0x20
	for _, tt := range []struct {
		why      string
		b        []byte
		src, dst netip.AddrPort
		proto    uint8
		seq      uint32
	}{
		{"a whole packet", tcp, src, dst, TCP, 7},
		{"a packet without its end", tcp[:128], src, dst, TCP, 7},
		{"the same in IPv6", tcp6[:128], src6, dst6, TCP, 7},
		{"ports and nothing more", tcp[:28], src, dst, TCP, 0},
		{"addresses and nothing more", tcp[:20], netip.AddrPortFrom(src.Addr(), 0), netip.AddrPortFrom(dst.Addr(), 0), TCP, 0},
		{"a datagram without its end", udp[:64], src, dst, UDP, 0},
		{"another protocol", ping[:64], netip.AddrPortFrom(src.Addr(), 0), netip.AddrPortFrom(dst.Addr(), 0), 1, 0},
		{"a fragment, whose ports may be elsewhere", fragment, netip.AddrPortFrom(src.Addr(), 0), netip.AddrPortFrom(dst.Addr(), 0), UDP, 0},
	} {
		s, ok := ReadStart(tt.b)
		if !ok || s.Src != tt.src || s.Dst != tt.dst || s.Protocol != tt.proto || s.Seq != tt.seq {
			t.Errorf("%s: %+v, %v", tt.why, s, ok)
		}
	}
	for _, b := range [][]byte{nil, tcp[:19], tcp6[:39], {0x50, 19: 0}} {
		if s, ok := ReadStart(b); ok {
			t.Errorf("%x tells %+v", b, s)
		}
	}
}

// FuzzStart: the quick reader of a packet finds what the whole one finds.
func FuzzStart(f *testing.F) {
	f.Add(syn(4))
	f.Add(syn(6)[:50])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := ReadStart(b)
		p, err := ReadPacket(b)
		if err == nil && (!ok || s.Src != p.Src || s.Dst != p.Dst || s.Seq != p.Seq) {
			t.Fatalf("start %+v of packet %+v", s, p)
		}
	})
}
