//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// An envelope says what stands around a segment in its IP packets, where no socket would put it. Its zero value is a plain
// header.
type envelope struct {
	options []byte   // IPv4: a multiple of four bytes
	headers []header // IPv6 extension headers, in order
	pieces  []piece  // fragments, in the order in which they are sent; nil is a whole packet
}

// A header is an IPv6 extension header (RFC 8200 section 4): its body is what follows the two bytes at its beginning,
// 6 bytes and then multiples of 8.
type header struct {
	kind uint8
	body []byte
}

// A piece is a fragment: the bytes from one offset, a multiple of eight, to before another; to 0 is all that is left.
type piece struct {
	from, to int
	instead  []byte // sent in the place of these bytes, if not nil
}

const fragmentHeader = 44

// ipPackets makes the packets that carry a transport's bytes from src to dst.
func (e *envelope) ipPackets(src, dst netip.Addr, protocol, ttl uint8, id uint32, body []byte) [][]byte {
	pieces := e.pieces
	if pieces == nil {
		pieces = []piece{{}}
	}
	packets := make([][]byte, len(pieces))
	for i, p := range pieces {
		to := p.to
		if to == 0 || to > len(body) {
			to = len(body)
		}
		data, more := body[min(p.from, to):to], to < len(body)
		if p.instead != nil {
			data = p.instead
		}
		if src.Is4() {
			packets[i] = e.ipv4(src, dst, protocol, ttl, uint16(id), p.from, more, data)
		} else {
			packets[i] = e.ipv6(src, dst, protocol, ttl, id, p.from, more, data)
		}
	}
	return packets
}

func (e *envelope) ipv4(src, dst netip.Addr, protocol, ttl uint8, id uint16, offset int, more bool, data []byte) []byte {
	const header, moreBit = 20, 0x2000
	b := make([]byte, header, header+len(e.options)+len(data))
	b[0] = 0x40 | byte(header+len(e.options))/4
	binary.BigEndian.PutUint16(b[2:], uint16(header+len(e.options)+len(data)))
	binary.BigEndian.PutUint16(b[4:], id)
	field := uint16(offset / 8)
	if more {
		field |= moreBit
	}
	binary.BigEndian.PutUint16(b[6:], field)
	b[8], b[9] = ttl, protocol
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	b = append(b, e.options...)
	binary.BigEndian.PutUint16(b[10:], onesComplement(b))
	return append(b, data...)
}

func (e *envelope) ipv6(src, dst netip.Addr, protocol, ttl uint8, id uint32, offset int, more bool, data []byte) []byte {
	headers := e.headers
	if e.pieces != nil {
		field := uint16(offset)
		if more {
			field |= 1
		}
		body := binary.BigEndian.AppendUint16(nil, field)
		headers = append(headers[:len(headers):len(headers)], header{fragmentHeader, binary.BigEndian.AppendUint32(body, id)})
	}
	var ext []byte
	for i, h := range headers {
		next := protocol
		if i+1 < len(headers) {
			next = headers[i+1].kind
		}
		ext = append(ext, next, byte((len(h.body)+2)/8-1))
		if h.kind == fragmentHeader {
			ext[len(ext)-1] = 0 // reserved
		}
		ext = append(ext, h.body...)
	}
	const size = 40
	b := make([]byte, size, size+len(ext)+len(data))
	b[0], b[6], b[7] = 0x60, protocol, ttl
	if len(headers) > 0 {
		b[6] = headers[0].kind
	}
	binary.BigEndian.PutUint16(b[4:], uint16(len(ext)+len(data)))
	copy(b[8:], src.AsSlice())
	copy(b[24:], dst.AsSlice())
	return append(append(b, ext...), data...)
}

// sendIP sends whole IP packets from the node, with the mark of what is made by hand.
func (n *Node) sendIP(packets ...[]byte) error {
	return n.Do(func() error {
		for _, p := range packets {
			if err := sendRawIP(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// sendRawIP sends one packet from the thread's network namespace.
func sendRawIP(p []byte) (err error) {
	family, level, option := unix.AF_INET, unix.IPPROTO_IP, unix.IP_HDRINCL
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(p[16:20])}
	if p[0]>>4 == 6 {
		family, level, option = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL
		to = &unix.SockaddrInet6{Addr: [16]byte(p[24:40])}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open a raw socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := errors.Join(unix.SetsockoptInt(fd, level, option, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, rawMark)); err != nil {
		return fmt.Errorf("prepare a raw socket: %w", err)
	}
	if err := unix.Sendto(fd, p, 0, to); err != nil {
		return fmt.Errorf("send a packet by hand: %w", err)
	}
	return nil
}
