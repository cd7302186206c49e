package kernel

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

const (
	headerLen = unix.NLMSG_HDRLEN
	nfgenLen  = 4 // struct nfgenmsg
)

// messageHeader begins a netlink message with its struct nfgenmsg; [finish] ends it.
func messageHeader(b []byte, typ uint16, flags uint16, family uint8, resource uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, 0) // the length, once it is known
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, 0) // sequence
	b = binary.NativeEndian.AppendUint32(b, 0) // port
	b = append(b, family, unix.NFNETLINK_V0)
	return binary.BigEndian.AppendUint16(b, resource)
}

// finish writes the length of what began at start: a message. Messages and
// attributes are kept at multiples of four by what appends them.
func finish(b []byte, start int) {
	binary.NativeEndian.PutUint32(b[start:], uint32(len(b)-start))
}

// message appends a whole message.
func message(b []byte, typ uint16, flags uint16, family uint8, resource uint16, attrs []byte) []byte {
	start := len(b)
	b = append(messageHeader(b, typ, flags, family, resource), attrs...)
	finish(b, start)
	return b
}

func attrHeader(b []byte, typ uint16, size int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLA_HDRLEN+size))
	return binary.NativeEndian.AppendUint16(b, typ)
}

// attr appends an attribute, padded.
func attr(b []byte, typ uint16, value []byte) []byte {
	b = append(attrHeader(b, typ, len(value)), value...)
	for len(b)%unix.NLA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

func attr32(b []byte, typ uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(attrHeader(b, typ, 4), v)
}

func attr64(b []byte, typ uint16, v uint64) []byte {
	return binary.BigEndian.AppendUint64(attrHeader(b, typ, 8), v)
}

func attrString(b []byte, typ uint16, s string) []byte {
	return attr(b, typ, append([]byte(s), 0))
}

// nest begins an attribute that holds attributes; [unnest] ends it.
func nest(b []byte, typ uint16) []byte { return attrHeader(b, typ|unix.NLA_F_NESTED, 0) }

// unnest writes the length of the nest that began at start.
func unnest(b []byte, start int) {
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
}

// headers iterates over the header and the body of each netlink message in b,
// and ends at the first that is cut short.
func headers(b []byte) iter.Seq2[unix.NlMsghdr, []byte] {
	return func(yield func(unix.NlMsghdr, []byte) bool) {
		for len(b) >= headerLen {
			h := unix.NlMsghdr{
				Len:   binary.NativeEndian.Uint32(b),
				Type:  binary.NativeEndian.Uint16(b[4:]),
				Flags: binary.NativeEndian.Uint16(b[6:]),
				Seq:   binary.NativeEndian.Uint32(b[8:]),
			}
			n := int(h.Len)
			if n < headerLen || n > len(b) || !yield(h, b[headerLen:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// attributes iterates over the type and the value of each attribute in b, and
// ends at the first that is cut short.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.NLA_HDRLEN {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.NLA_HDRLEN || n > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(typ, b[unix.NLA_HDRLEN:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

func align(n int) int { return (n + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }
