package dnsproxy

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// wantDestination has the kernel tell with each query where it was sent to. One
// of the families fails; that one does not occur on the socket.
func wantDestination(conn *net.UDPConn) {
	_ = ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	_ = ipv6.NewPacketConn(conn).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
}

// replyFrom turns the control message of a query into the one that sends its
// answer from where the query was sent to, in place (ip(7), IP_PKTINFO; RFC
// 3542, section 6.1). Nil leaves the choice to the kernel.
func replyFrom(oob []byte) []byte {
	for rest := oob; len(rest) > 0; {
		h, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return nil
		}
		msg := rest[:len(rest)-len(next)]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			binary.NativeEndian.PutUint32(data, 0) // any interface: routes may be asymmetric
			copy(data[4:8], data[8:12])            // ipi_spec_dst = ipi_addr
			return msg
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if !net.IP(data[:16]).IsLinkLocalUnicast() { // those need their interface
				binary.NativeEndian.PutUint32(data[16:], 0)
			}
			return msg
		}
		rest = next
	}
	return nil
}
