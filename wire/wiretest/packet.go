package wiretest

import "encoding/binary"

// TCPOptions is packet, a TCP segment without options over IPv4 without options or over IPv6,
// with these options, padded to a multiple of four bytes, and lengths and checksums put right.
func TCPOptions(packet []byte, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 1) // no operation
	}
	at := transport(packet) + 20
	out := append(append(append([]byte{}, packet[:at]...), options...), packet[at:]...)
	out[at-8] += byte(len(options)/4) << 4
	if out[0]>>4 == 4 {
		binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	} else {
		binary.BigEndian.PutUint16(out[4:], uint16(len(out)-40))
	}
	return FixChecksums(out)
}

// TTL is packet with that many hops to live, so that it dies behind the gateway.
func TTL(packet []byte, hops uint8) []byte {
	out := append([]byte{}, packet...)
	if out[0]>>4 == 4 {
		out[8] = hops
	} else {
		out[7] = hops
	}
	return FixChecksums(out)
}

// BadChecksum is packet with a checksum that makes its receiver drop it.
func BadChecksum(packet []byte) []byte {
	out := append([]byte{}, packet...)
	out[checksum(packet)] ^= 0xff
	return out
}

// FixChecksums is packet, edited, with its checksums put right. UDP and TCP only.
func FixChecksums(packet []byte) []byte {
	out := append([]byte{}, packet...)
	if out[0]>>4 == 4 {
		binary.BigEndian.PutUint16(out[10:], 0)
		binary.BigEndian.PutUint16(out[10:], onesComplement(out[:transport(out)]))
	}
	at := checksum(out)
	binary.BigEndian.PutUint16(out[at:], 0)
	c := onesComplement(pseudo(out), out[transport(out):])
	if c == 0 && proto(out) == 17 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(out[at:], c)
	return out
}

func transport(packet []byte) int {
	if packet[0]>>4 == 4 {
		return int(packet[0]&15) * 4
	}
	return 40
}

func proto(packet []byte) byte {
	if packet[0]>>4 == 4 {
		return packet[9]
	}
	return packet[6]
}

// checksum is the offset of the one of TCP or UDP.
func checksum(packet []byte) int {
	if proto(packet) == 17 {
		return transport(packet) + 6
	}
	return transport(packet) + 16
}

func pseudo(packet []byte) []byte {
	n := len(packet) - transport(packet)
	tail := []byte{0, 0, byte(n >> 8), byte(n), 0, 0, 0, proto(packet)}
	if packet[0]>>4 == 4 {
		return append(append([]byte{}, packet[12:20]...), tail...)
	}
	return append(append([]byte{}, packet[8:40]...), tail...)
}

// onesComplement is the sum of RFC 1071, done as that page words it.
func onesComplement(parts ...[]byte) uint16 {
	var sum uint64
	for _, part := range parts {
		for i, b := range part {
			if i%2 == 0 {
				sum += uint64(b) << 8
			} else {
				sum += uint64(b)
			}
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
