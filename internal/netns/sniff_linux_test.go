package netns_test

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// openSniffer reads every frame that comes in on a device.
func openSniffer(device string) (*os.File, error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(s, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(s), "sniffer"), nil
}
