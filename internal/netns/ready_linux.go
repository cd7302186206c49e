package netns

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// readyWithin is more than the second that the kernel may take for news of a carrier.
const readyWithin = 5 * time.Second

// minMTU6 is the least that IPv6 works on: RFC 8200 section 5.
const minMTU6 = 1280

// ready waits until the end carries packets and answers its neighbours; what is
// sent before is lost, and sent again a second later.
func (e End) ready() error {
	for end := time.Now().Add(readyWithin); time.Now().Before(end); time.Sleep(time.Millisecond) {
		l, err := e.NS.link(e.Name)
		if err != nil {
			return err
		}
		if l.Attrs().OperState != netlink.OperUp {
			continue
		}
		ok, err := e.solicited(l)
		if ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("link %s: not ready", e.Name)
}

// solicited reports whether the device has a link-local address and listens for
// who asks for its IPv6 addresses, which it begins to do some time after it is up.
func (e End) solicited(l netlink.Link) (bool, error) {
	if l.Attrs().MTU < minMTU6 {
		return true, nil // the kernel has no IPv6 on it
	}
	addrs, err := e.NS.handle.AddrList(l, unix.AF_INET6)
	if err != nil {
		return false, fmt.Errorf("link %s: addresses: %w", e.Name, err)
	}
	var groups string
	err = e.NS.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/igmp6")
		groups = string(b)
		return err
	})
	if os.IsNotExist(err) {
		return true, nil // no IPv6
	} else if err != nil {
		return false, fmt.Errorf("link %s: %w", e.Name, err)
	}
	linkLocal := false
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP)
		linkLocal = linkLocal || addr.IsLinkLocalUnicast()
		if a.Flags&unix.IFA_F_TENTATIVE != 0 || !joined(groups, e.Name, addr) {
			return false, nil
		}
	}
	return linkLocal, nil
}

// joined looks for the solicited-node address of addr (RFC 4291 section 2.7.1)
// among the groups that a device has joined.
func joined(groups, device string, addr netip.Addr) bool {
	b := addr.As16()
	want := "ff0200000000000000000001ff" + hex.EncodeToString(b[13:])
	for line := range strings.Lines(groups) {
		f := strings.Fields(line)
		if len(f) > 2 && f[1] == device && f[2] == want {
			return true
		}
	}
	return false
}
