package wire

import (
	"encoding/binary"
	"net/netip"
)

// Start is what the beginning of a packet tells, for a log: who sends to whom.
type Start struct {
	Packet

	// Protocol is the number of what IP carries, as IANA assigns it. For others than TCP and UDP
	// the Packet has addresses only.
	Protocol uint8
}

// ReadStart reads the beginning of a packet that need not be there whole, and need not be one that
// any receiver would take: it is for telling what was refused, never for deciding. Payload is what
// is there of it. It reports false when not even the addresses are there.
func ReadStart(b []byte) (Start, bool) {
	if p, err := ReadPacket(b); err == nil {
		return Start{p, p.Proto}, true
	}
	if len(b) < 20 || b[0]>>4 == 6 && len(b) < 40 {
		return Start{}, false
	}
	h, err := readCut(b)
	if !h.src.IsValid() {
		return Start{}, false
	}
	s := Start{Packet{}, h.proto}
	s.Src, s.Dst = netip.AddrPortFrom(h.src, 0), netip.AddrPortFrom(h.dst, 0)
	if err != nil || h.proto != TCP && h.proto != UDP || len(b) < h.transport+8 {
		return s, true
	}
	t := b[h.transport:]
	s.Proto = h.proto
	s.Src = netip.AddrPortFrom(h.src, binary.BigEndian.Uint16(t))
	s.Dst = netip.AddrPortFrom(h.dst, binary.BigEndian.Uint16(t[2:]))
	if h.proto == TCP && len(t) >= 20 {
		s.Seq, s.Ack, s.Flags = binary.BigEndian.Uint32(t[4:]), binary.BigEndian.Uint32(t[8:]), Flags(t[13])
	}
	return s, true
}

// readCut reads the IP header of a packet whose end may be missing.
func readCut(b []byte) (ipHeader, error) {
	whole := append([]byte(nil), b...)
	read, length := readIPv4, whole[2:4]
	size := len(whole)
	if b[0]>>4 == 6 {
		read, length, size = readIPv6, whole[4:6], len(whole)-40
	} else if b[0]>>4 != 4 {
		return ipHeader{}, ErrHeader
	}
	if int(binary.BigEndian.Uint16(length)) > size {
		binary.BigEndian.PutUint16(length, uint16(size))
	}
	return read(whole)
}
