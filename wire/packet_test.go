package wire

import (
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestPackets(t *testing.T) {
	c4, s4 := netip.MustParseAddrPort("10.224.0.4:40000"), netip.MustParseAddrPort("20.1.2.3:443")
	c6, s6 := netip.MustParseAddrPort("[2001:db8::4]:40000"), netip.MustParseAddrPort("[2001:db8::443]:443")
	for _, row := range []struct {
		what  string
		p     Packet
		bytes string // with checksums from another implementation
	}{
		{"a SYN over IPv4", Packet{Src: c4, Dst: s4, Proto: TCP, Flags: SYN, Seq: 1000, Window: 64240, Transport: 20, Payload: []byte{}},
			"45000028 00004000 400619e9 0ae00004 14010203  9c4001bb 000003e8 00000000 5002faf0 f2260000"},
		{"data over IPv4", Packet{Src: c4, Dst: s4, Proto: TCP, Flags: PSH | ACK, Seq: 1, Ack: 0xffffffff, Window: 1, Transport: 20, Payload: []byte("abc")},
			"4500002b 00004000 400619e6 0ae00004 14010203  9c4001bb 00000001 ffffffff 50180001 2c820000 616263"},
		{"data over IPv6", Packet{Src: c6, Dst: s6, Proto: TCP, Flags: ACK, Seq: 1, Ack: 2, Window: 9, Transport: 40, Payload: []byte("abcd")},
			"60000000 00180640 20010db8000000000000000000000004 20010db8000000000000000000000443  9c4001bb 00000001 00000002 50100009 ed490000 61626364"},
		{"a datagram over IPv4", Packet{Src: c4, Dst: s4, Proto: UDP, Transport: 20, Payload: []byte{0x1b}},
			"4500001d 00004000 401119e9 0ae00004 14010203  9c4001bb 000925f9 1b"},
		{"a datagram over IPv6", Packet{Src: c6, Dst: s6, Proto: UDP, Transport: 40, Payload: []byte{}},
			"60000000 00081140 20010db8000000000000000000000004 20010db8000000000000000000000443  9c4001bb 0008022a"},
	} {
		t.Run(row.what, func(t *testing.T) {
			b := AppendPacket(nil, row.p)
			want, err := hex.DecodeString(strings.ReplaceAll(row.bytes, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(b); got != hex.EncodeToString(want) {
				t.Errorf("AppendPacket = %s", got)
			}
			got, err := ReadPacket(b)
			if err != nil || !reflect.DeepEqual(got, row.p) {
				t.Errorf("ReadPacket = %+v, %v; want %+v", got, err, row.p)
			}
		})
	}
}

// with is a SYN with payload "hi" as bytes, over IPv4 or IPv6, changed by edit.
func with(version int, edit func(b []byte) []byte) []byte {
	p := Packet{Proto: TCP, Flags: SYN, Payload: []byte("hi"),
		Src: netip.MustParseAddrPort("10.0.0.1:1"), Dst: netip.MustParseAddrPort("10.0.0.2:2")}
	if version == 6 {
		p.Src, p.Dst = netip.MustParseAddrPort("[fd00::1]:1"), netip.MustParseAddrPort("[fd00::2]:2")
	}
	return edit(AppendPacket(nil, p))
}

// set overwrites bytes from offset at.
func set(at int, v ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[at:], v); return b }
}

// insert puts v at offset at and corrects the lengths of the IP header and, when it goes
// into the options, of the header that it goes into.
func insert(at int, v ...byte) func([]byte) []byte {
	return func(b []byte) []byte {
		out := append(append(append([]byte{}, b[:at]...), v...), b[at:]...)
		if b[0]>>4 == 6 {
			out[5] += byte(len(v))
			return out
		}
		out[3] += byte(len(v))
		if at == 20 {
			out[0] += byte(len(v) / 4)
		} else {
			out[32] += byte(len(v)/4) << 4
		}
		return out
	}
}

func TestReadPacketOddities(t *testing.T) {
	for _, row := range []struct {
		what string
		b    []byte
		odd  Oddity
		err  error
	}{
		{"padding of the link is not read", with(4, func(b []byte) []byte { return append(b, "padding"...) }), 0, nil},
		{"padding behind IPv6", with(6, func(b []byte) []byte { return append(b, "padding"...) }), 0, nil},
		{"IPv4 options", with(4, insert(20, 1, 1, 1, 0)), IPOptions, nil},
		{"TCP options: MSS, SACK permitted, window scale", with(4, insert(40, 2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 0, 99, 99)), 0, nil},
		{"MD5", with(4, insert(40, append([]byte{1, 1, 19, 18}, make([]byte, 16)...)...)), MD5, nil},
		{"AO", with(4, insert(40, 29, 4, 0, 0)), AO, nil},
		{"MPTCP", with(4, insert(40, 30, 4, 0, 0x81)), Multipath, nil},
		{"Fast Open", with(4, insert(40, 34, 2, 1, 1)), FastOpen, nil},
		{"Fast Open as an experiment", with(4, insert(40, 254, 4, 0xf9, 0x89)), FastOpen, nil},
		{"another experiment", with(4, insert(40, 254, 4, 0x0e, 0xc0)), 0, nil},
		{"MD5 after the end of the list is padding", with(4, insert(40, 0, 19, 18, 0)), 0, nil},
		{"urgent data", with(4, func(b []byte) []byte { b[33] |= byte(URG); b[39] = 1; return b }), Urgent, nil},
		{"IPv6 hop-by-hop", with(6, func(b []byte) []byte { b[6] = 0; return insert(40, 6, 0, 1, 4, 0, 0, 0, 0)(b) }), IPOptions, nil},
		{"IPv6 destination options twice", with(6, func(b []byte) []byte {
			b[6] = 60
			return insert(40, 60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0)(b)
		}), IPOptions, nil},

		{"nothing", nil, 0, ErrTruncated},
		{"IP version 5", with(4, set(0, 0x55)), 0, ErrHeader},
		{"IPv4 cut in its header", with(4, set(0))[:19], 0, ErrTruncated},
		{"IPv4 cut in its payload", with(4, set(0))[:41], 0, ErrTruncated},
		{"IPv4 header of 16 bytes", with(4, set(0, 0x44)), 0, ErrHeader},
		{"IPv4 total length below the header", with(4, set(2, 0, 19)), 0, ErrHeader},
		{"IPv4 first fragment", with(4, set(6, 0x20)), 0, ErrFragment},
		{"IPv4 later fragment", with(4, set(6, 0, 1)), 0, ErrFragment},
		{"ICMP", with(4, set(9, 1)), 0, ErrProtocol},
		{"IPv6 in IPv4", with(4, set(9, 41)), 0, ErrProtocol},
		{"TCP header of 16 bytes", with(4, set(32, 0x40)), 0, ErrTransport},
		{"TCP header beyond the packet", with(4, set(32, 0x60)), 0, ErrTransport},
		{"TCP cut by the total length", with(4, set(2, 0, 39)), 0, ErrTransport},
		{"an option of length 0", with(4, insert(40, 8, 0, 1, 1)), 0, ErrTransport},
		{"an option of length 1", with(4, insert(40, 8, 1, 1, 1)), 0, ErrTransport},
		{"an option beyond the header", with(4, insert(40, 8, 5, 1, 1)), 0, ErrTransport},
		{"an option without length", with(4, insert(40, 1, 1, 1, 8)), 0, ErrTransport},
		{"UDP length beyond the packet", with(4, func(b []byte) []byte { b[9] = 17; b[25] = 200; return b }), 0, ErrTransport},
		{"bytes between UDP's length and IP's", with(4, func(b []byte) []byte { b[9] = 17; b[25] = 8; return b }), 0, ErrTransport},
		{"IPv6 cut in its header", with(6, set(0))[:39], 0, ErrTruncated},
		{"IPv6 cut in its payload", with(6, set(0))[:60], 0, ErrTruncated},
		{"IPv6 fragment", with(6, set(6, 44)), 0, ErrFragment},
		{"IPv6 atomic fragment after options", with(6, func(b []byte) []byte { b[6] = 0; return insert(40, 44, 0, 1, 4, 0, 0, 0, 0)(b) }), 0, ErrFragment},
		{"IPv6 authentication header", with(6, set(6, 51)), 0, ErrProtocol},
		{"IPv6 extension beyond the packet", with(6, func(b []byte) []byte { b[6] = 60; b[41] = 9; return b }), 0, ErrHeader},
		{"IPv6 extensions without end", with(6, func(b []byte) []byte {
			b[6] = 60
			for range 5 {
				b = insert(40, 60, 0, 1, 4, 0, 0, 0, 0)(b)
			}
			return b
		}), 0, ErrHeader},
	} {
		p, err := ReadPacket(row.b)
		if err != row.err || p.Odd != row.odd {
			t.Errorf("%s: odd %b, %v; want %b, %v", row.what, p.Odd, err, row.odd, row.err)
		}
		if err == nil && string(p.Payload) != "hi" {
			t.Errorf("%s: payload %q", row.what, p.Payload)
		}
	}
}

func TestPacketEnd(t *testing.T) {
	for _, row := range []struct {
		what string
		p    Packet
		want uint32
	}{
		{"SYN counts one", Packet{Seq: 5, Flags: SYN}, 6},
		{"data counts", Packet{Seq: 5, Flags: ACK, Payload: []byte("abc")}, 8},
		{"FIN counts one, and numbers wrap", Packet{Seq: 0xffffffff, Flags: FIN | ACK, Payload: []byte("a")}, 1},
	} {
		if got := row.p.End(); got != row.want {
			t.Errorf("%s: %d, want %d", row.what, got, row.want)
		}
	}
}

func TestAppendReset(t *testing.T) {
	src, dst := netip.MustParseAddrPort("20.1.2.3:443"), netip.MustParseAddrPort("10.224.0.4:40000")
	b := AppendReset([]byte("before"), src, dst, 7, 8)
	p, err := ReadPacket(b[len("before"):])
	want := Packet{Src: src, Dst: dst, Proto: TCP, Flags: RST | ACK, Seq: 7, Ack: 8, Transport: 20, Payload: []byte{}}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("%+v, %v", p, err)
	}
}
