package wire

import (
	"encoding/binary"
	"net/netip"
)

// Protocol numbers of Packet.Proto, as IANA assigns them.
const (
	TCP uint8 = 6
	UDP uint8 = 17
)

// Flags are the control bits of a TCP header (RFC 9293, section 3.1).
type Flags uint8

// The control bits.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Has reports whether all of want are set.
func (f Flags) Has(want Flags) bool { return f&want == want }

// Oddity is a bit for each thing in a packet's headers that is legal, that an honest
// client of a web server does not need on an undecided connection, and that decoys are
// made of: the receiver drops the packet, or takes its bytes elsewhere, and a filter
// that believes it has read them is fooled.
type Oddity uint8

// The oddities.
const (
	IPOptions Oddity = 1 << iota // IPv4 options or IPv6 extension headers (source routing, decoys)
	MD5                          // TCP option 19: a host without the key drops the segment (RFC 2385)
	AO                           // TCP option 29, likewise (RFC 5925)
	FastOpen                     // TCP option 34, or its experimental form: data in the SYN (RFC 7413)
	Multipath                    // TCP option 30: the rest may take another path (RFC 8684)
	Urgent                       // URG with a pointer: one byte leaves the stream
)

// TCP option kinds, from IANA's registry.
const (
	optEnd       = 0
	optNop       = 1
	optMD5       = 19
	optAO        = 29
	optMultipath = 30
	optFastOpen  = 34

	// The shared kinds for experiments, told apart by two bytes of magic (RFC 6994).
	optExperiment1, optExperiment2 = 253, 254
	fastOpenMagic                  = 0xf989
)

// maxExtHeaders bounds the IPv6 extension headers in front of TCP or UDP. Three kinds may
// come, one of them twice (RFC 8200, section 4.1); the rest is an attempt to hide the ports.
const maxExtHeaders = 4

// Packet is a view of one IPv4 or IPv6 packet that carries all of one TCP segment or UDP
// datagram. Payload points into the bytes that were read.
type Packet struct {
	Src, Dst netip.AddrPort
	Proto    uint8 // TCP or UDP
	Odd      Oddity

	// Of TCP only.
	Flags    Flags
	Seq, Ack uint32
	Window   uint16 // as sent, not scaled

	Transport int // offset of the TCP or UDP header
	Payload   []byte
}

// Has reports whether any of the oddities is there.
func (p *Packet) Has(any Oddity) bool { return p.Odd&any != 0 }

// End is the sequence number after the segment: SYN and FIN count one each (RFC 9293,
// section 3.4).
func (p *Packet) End() uint32 {
	n := uint32(len(p.Payload))
	if p.Flags.Has(SYN) {
		n++
	}
	if p.Flags.Has(FIN) {
		n++
	}
	return p.Seq + n
}

// ReadPacket reads b, which begins with an IP header. Bytes beyond the length that the IP
// header states are padding of the link and are not looked at. Checksums are not verified:
// a packet from a queue may be a whole offload unit of 64 KiB with none yet, and conntrack
// has dropped the wrong ones before.
//
// With an error, Src and Dst hold the addresses if they could be read, for a log line;
// everything else is zero.
func ReadPacket(b []byte) (Packet, error) {
	if len(b) == 0 {
		return Packet{}, ErrTruncated
	}
	var h ipHeader
	var err error
	switch b[0] >> 4 {
	case 4:
		h, err = readIPv4(b)
	case 6:
		h, err = readIPv6(b)
	default:
		return Packet{}, ErrHeader
	}
	p := Packet{Src: netip.AddrPortFrom(h.src, 0), Dst: netip.AddrPortFrom(h.dst, 0)}
	if err != nil {
		return p, err
	}
	switch h.proto {
	case TCP:
		return readTCP(b[:h.end], h)
	case UDP:
		return readUDP(b[:h.end], h)
	}
	return p, ErrProtocol
}

// ipHeader is what the two IP versions have in common.
type ipHeader struct {
	src, dst  netip.Addr
	proto     uint8
	odd       Oddity
	transport int // offset of the next protocol's header
	end       int // offset after the packet
}

// readIPv4 reads the header of RFC 791, section 3.1.
func readIPv4(b []byte) (ipHeader, error) {
	if len(b) < 20 {
		return ipHeader{}, ErrTruncated
	}
	hlen, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if hlen < 20 || total < hlen {
		return ipHeader{}, ErrHeader
	}
	if total > len(b) {
		return ipHeader{}, ErrTruncated
	}
	h := ipHeader{
		src: netip.AddrFrom4([4]byte(b[12:])), dst: netip.AddrFrom4([4]byte(b[16:])),
		proto: b[9], transport: hlen, end: total,
	}
	if hlen > 20 {
		h.odd = IPOptions
	}
	const moreFragments, offset = 0x2000, 0x1fff
	if binary.BigEndian.Uint16(b[6:])&(moreFragments|offset) != 0 {
		return h, ErrFragment // a tiny first fragment hides the ports (RFC 1858)
	}
	return h, nil
}

// readIPv6 reads the header of RFC 8200, section 3, and walks the extension headers.
func readIPv6(b []byte) (ipHeader, error) {
	if len(b) < 40 {
		return ipHeader{}, ErrTruncated
	}
	end := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if end > len(b) {
		return ipHeader{}, ErrTruncated
	}
	h := ipHeader{
		src: netip.AddrFrom16([16]byte(b[8:])), dst: netip.AddrFrom16([16]byte(b[24:])),
		proto: b[6], transport: 40, end: end,
	}
	const hopByHop, routing, fragment, destination = 0, 43, 44, 60
	for range maxExtHeaders {
		switch h.proto {
		case fragment:
			return h, ErrFragment
		case hopByHop, routing, destination:
			h.odd |= IPOptions
		default:
			return h, nil
		}
		ext := b[h.transport:end]
		if len(ext) < 8 || len(ext) < 8+int(ext[1])*8 {
			return h, ErrHeader
		}
		h.proto, h.transport = ext[0], h.transport+8+int(ext[1])*8
	}
	if h.proto == TCP || h.proto == UDP {
		return h, nil
	}
	return h, ErrHeader
}

// readTCP reads the header of RFC 9293, section 3.1. b ends where the packet ends.
func readTCP(b []byte, h ipHeader) (Packet, error) {
	p := Packet{Src: netip.AddrPortFrom(h.src, 0), Dst: netip.AddrPortFrom(h.dst, 0)}
	t := b[h.transport:]
	if len(t) < 20 {
		return p, ErrTransport
	}
	hlen := int(t[12]>>4) * 4
	if hlen < 20 || hlen > len(t) {
		return p, ErrTransport
	}
	odd, ok := readTCPOptions(t[20:hlen])
	if !ok {
		return p, ErrTransport
	}
	flags := Flags(t[13])
	if flags.Has(URG) && binary.BigEndian.Uint16(t[18:]) != 0 {
		odd |= Urgent
	}
	return Packet{
		Src:   netip.AddrPortFrom(h.src, binary.BigEndian.Uint16(t)),
		Dst:   netip.AddrPortFrom(h.dst, binary.BigEndian.Uint16(t[2:])),
		Proto: TCP, Odd: h.odd | odd, Flags: flags,
		Seq: binary.BigEndian.Uint32(t[4:]), Ack: binary.BigEndian.Uint32(t[8:]),
		Window:    binary.BigEndian.Uint16(t[14:]),
		Transport: h.transport, Payload: t[hlen:],
	}, nil
}

// readTCPOptions walks the option list; what follows an end-of-list is padding.
func readTCPOptions(o []byte) (odd Oddity, ok bool) {
	for len(o) > 0 && o[0] != optEnd {
		if o[0] == optNop {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return 0, false
		}
		switch o[0] {
		case optMD5:
			odd |= MD5
		case optAO:
			odd |= AO
		case optMultipath:
			odd |= Multipath
		case optFastOpen:
			odd |= FastOpen
		case optExperiment1, optExperiment2:
			if o[1] >= 4 && binary.BigEndian.Uint16(o[2:]) == fastOpenMagic {
				odd |= FastOpen
			}
		}
		o = o[o[1]:]
	}
	return odd, true
}

// readUDP reads the header of RFC 768. b ends where the packet ends. A datagram that is
// shorter than its packet would carry bytes that the receiver's program never sees.
func readUDP(b []byte, h ipHeader) (Packet, error) {
	p := Packet{Src: netip.AddrPortFrom(h.src, 0), Dst: netip.AddrPortFrom(h.dst, 0)}
	u := b[h.transport:]
	if len(u) < 8 || int(binary.BigEndian.Uint16(u[4:])) != len(u) {
		return p, ErrTransport
	}
	return Packet{
		Src:   netip.AddrPortFrom(h.src, binary.BigEndian.Uint16(u)),
		Dst:   netip.AddrPortFrom(h.dst, binary.BigEndian.Uint16(u[2:])),
		Proto: UDP, Odd: h.odd, Transport: h.transport, Payload: u[8:],
	}, nil
}
