package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Dialled returns where the client of c wanted to connect, if the rules have led it to a
// socket of the gateway; of others it is the gateway's end of c. An error means that
// conntrack does not know.
func Dialled(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	ask := dialled4
	if own := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); own.Is6() && !own.Is4In6() {
		ask = dialled6
	}
	var to netip.AddrPort
	var failed error
	if err := errors.Join(raw.Control(func(fd uintptr) { to, failed = ask(int(fd)) }), failed); err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	return to, nil
}

func dialled4(fd int) (netip.AddrPort, error) {
	b, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST) // has room for a struct sockaddr_in
	if err != nil {
		return netip.AddrPort{}, err
	}
	a := b.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[4:8])), binary.BigEndian.Uint16(a[2:4])), nil
}

func dialled6(fd int) (netip.AddrPort, error) {
	const originalDst = 80                                               // IP6T_SO_ORIGINAL_DST
	b, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, originalDst) // begins with a struct sockaddr_in6
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, b.Addr.Port))
	return netip.AddrPortFrom(netip.AddrFrom16(b.Addr.Addr), port), nil
}
