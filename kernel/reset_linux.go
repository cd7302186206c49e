package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Resetter sends packets in the name of either end of a forwarded connection.
// Its methods may be called from many goroutines at once.
type Resetter struct{ v4, v6 int }

// OpenResetter opens raw sockets in the network namespace of the calling thread.
func OpenResetter() (*Resetter, error) {
	r := &Resetter{-1, -1}
	var err4, err6 error
	r.v4, err4 = rawSocket(unix.AF_INET, unix.IPPROTO_IP, unix.IP_HDRINCL)
	r.v6, err6 = rawSocket(unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL)
	if errors.Is(err6, unix.EAFNOSUPPORT) {
		err6 = nil // a machine without IPv6 has no connections to reset
	}
	if err := errors.Join(err4, err6); err != nil {
		return nil, errors.Join(fmt.Errorf("open raw socket: %w", err), r.Close())
	}
	return r, nil
}

func rawSocket(family, level, headerIncluded int) (int, error) {
	s, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(s, level, headerIncluded, 1); err != nil {
		return -1, errors.Join(err, unix.Close(s))
	}
	return s, nil
}

// Close closes the sockets.
func (r *Resetter) Close() error {
	var errs []error
	for _, s := range []int{r.v4, r.v6} {
		if s >= 0 {
			errs = append(errs, unix.Close(s))
		}
	}
	return errors.Join(errs...)
}

// Send sends a whole IP packet as if it were forwarded. A reset with the client's
// source takes the address that the connection was masqueraded to, provided that
// its sequence number is the one conntrack expects. An error means that it was
// not sent: a reset is then lost, and the mark still cuts at the next packet.
func (r *Resetter) Send(packet []byte) error {
	if len(packet) >= 20 && packet[0]>>4 == 4 {
		dst := &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}
		return sent(unix.Sendto(r.v4, packet, 0, dst), dst.Addr[:])
	}
	if len(packet) >= 40 && packet[0]>>4 == 6 && r.v6 >= 0 {
		dst := &unix.SockaddrInet6{Addr: [16]byte(packet[24:40])}
		return sent(unix.Sendto(r.v6, packet, 0, dst), dst.Addr[:])
	}
	return errors.New("send a reset: not an IP packet")
}

func sent(err error, dst []byte) error {
	if err == nil {
		return nil
	}
	to, _ := netip.AddrFromSlice(dst)
	return fmt.Errorf("send a reset to %s: %w", to, err)
}
