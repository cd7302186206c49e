package wire

import (
	"encoding/binary"
	"net/netip"
)

// hopLimit is the TTL of packets made here, the default of most systems.
const hopLimit = 64

// AppendPacket appends p as bytes with correct checksums: the inverse of [ReadPacket] for
// a packet without oddities. It writes IPv4 when both addresses are IPv4, else IPv6. The
// payload must leave the packet under 64 KiB; Transport is ignored.
func AppendPacket(dst []byte, p Packet) []byte {
	start := len(dst)
	hlen := 20
	if p.Proto == UDP {
		hlen = 8
	}
	dst = appendIP(dst, p.Src.Addr(), p.Dst.Addr(), p.Proto, hlen+len(p.Payload))
	transport := len(dst)
	if p.Proto == UDP {
		dst = appendUDP(dst, p)
	} else {
		dst = appendTCP(dst, p)
	}
	dst = append(dst, p.Payload...)
	putChecksum(dst[start:], transport-start, p.Proto)
	return dst
}

// AppendReset appends a TCP reset from src to dst. It is taken at once when seq is exactly
// what dst expects next (RFC 5961, section 3.2), or, by an end that has only sent its SYN,
// when ack acknowledges that SYN (RFC 9293, section 3.10.7.3).
func AppendReset(b []byte, src, dst netip.AddrPort, seq, ack uint32) []byte {
	return AppendPacket(b, Packet{Src: src, Dst: dst, Proto: TCP, Flags: RST | ACK, Seq: seq, Ack: ack})
}

func appendIP(b []byte, src, dst netip.Addr, proto uint8, n int) []byte {
	if src.Is4() && dst.Is4() {
		start := len(b)
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(20+n))
		b = append(b, 0, 0, 0x40, 0, hopLimit, proto, 0, 0) // don't fragment
		s, d := src.As4(), dst.As4()
		b = append(append(b, s[:]...), d[:]...)
		binary.BigEndian.PutUint16(b[start+10:], fold(sum(0, b[start:])))
		return b
	}
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	b = append(b, proto, hopLimit)
	s, d := src.As16(), dst.As16()
	return append(append(b, s[:]...), d[:]...)
}

func appendTCP(b []byte, p Packet) []byte {
	b = binary.BigEndian.AppendUint16(b, p.Src.Port())
	b = binary.BigEndian.AppendUint16(b, p.Dst.Port())
	b = binary.BigEndian.AppendUint32(b, p.Seq)
	b = binary.BigEndian.AppendUint32(b, p.Ack)
	b = append(b, 5<<4, byte(p.Flags))
	b = binary.BigEndian.AppendUint16(b, p.Window)
	return append(b, 0, 0, 0, 0)
}

func appendUDP(b []byte, p Packet) []byte {
	b = binary.BigEndian.AppendUint16(b, p.Src.Port())
	b = binary.BigEndian.AppendUint16(b, p.Dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(p.Payload)))
	return append(b, 0, 0)
}

// putChecksum fills in the checksum of the TCP or UDP header at offset transport of packet,
// over the pseudo header of RFC 9293, section 3.1, or RFC 8200, section 8.1.
func putChecksum(packet []byte, transport int, proto uint8) {
	addresses := packet[12:20]
	if packet[0]>>4 == 6 {
		addresses = packet[8:40]
	}
	t := packet[transport:]
	c := fold(sum(uint32(proto)+uint32(len(t)), addresses) + sum(0, t))
	if proto == TCP {
		binary.BigEndian.PutUint16(t[16:], c)
		return
	}
	if c == 0 {
		c = 0xffff // zero would mean that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(t[6:], c)
}

// sum adds the 16-bit words of b to s (RFC 1071); 64 KiB of them fit in 32 bits.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}
