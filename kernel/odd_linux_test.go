package kernel

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
)

// sniffer sees the IP packets that come in on a device.
type sniffer struct {
	t  testing.TB
	fd int
}

func newSniffer(t testing.TB, ns *netns.NS, device string) *sniffer {
	t.Helper()
	s := &sniffer{t: t}
	must(t, ns.Do(func() error {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return err
		}
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
	}))
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

// sees reports whether a wanted packet comes within a while.
func (s *sniffer) sees(while time.Duration, wanted func(p []byte) bool) bool {
	buf := make([]byte, 1<<16)
	for end := time.Now().Add(while); time.Now().Before(end); {
		tv := unix.NsecToTimeval(int64(20 * time.Millisecond))
		must(s.t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		must(s.t, err)
		if n >= 40 && wanted(buf[:n]) {
			return true
		}
	}
	return false
}

// headers that two receivers could read differently, and ordinary ones.
func TestOddPacketsDoNotPass(t *testing.T) {
	c4, w4 := netip.MustParseAddr(clientAddrs[0]), netip.MustParseAddr(webAddrs[0])
	c6, w6 := netip.MustParseAddr(clientAddrs[1]), netip.MustParseAddr(webAddrs[1])
	port := uint16(20000)
	syn := func(src, dst netip.Addr, to uint16, options, data []byte) []byte {
		port++
		return tcpPacket(netip.AddrPortFrom(src, port), netip.AddrPortFrom(dst, to), 1, 0, flagSYN, options, data)
	}
	payload := func(p []byte, header int) []byte { return p[header:] }
	extension := func(next byte, body ...byte) []byte { // of IPv6, 8 bytes long
		p := syn(c6, w6, 9000, nil, nil)
		h := make([]byte, 8)
		h[0] = unix.IPPROTO_TCP
		copy(h[2:], body)
		return ipPacket(c6, w6, next, 0, nil, append(h, payload(p, 40)...))
	}
	whole := payload(syn(c4, w4, 9000, nil, nil), 20)
	md5 := append([]byte{optionMD5, 18}, make([]byte, 18)...)
	for _, row := range []struct {
		name    string
		packets [][]byte
		passes  bool
	}{
		{"a SYN of IPv4", [][]byte{syn(c4, w4, 9000, nil, nil)}, true},
		{"a SYN of IPv6", [][]byte{syn(c6, w6, 9000, nil, nil)}, true},
		{"a SYN to a port of HTTPS rules", [][]byte{syn(c4, w4, 443, nil, nil)}, true},
		{"TCP in fragments", [][]byte{
			ipPacket(c4, w4, unix.IPPROTO_TCP, 0x2000, nil, whole[:16]),
			ipPacket(c4, w4, unix.IPPROTO_TCP, 2, nil, whole[16:])}, false},
		{"TCP of IPv6 in a fragment", [][]byte{extension(unix.IPPROTO_FRAGMENT, 0, 1, 0, 0, 0, 7)}, false},
		{"IPv4 with options", [][]byte{ipPacket(c4, w4, unix.IPPROTO_TCP, 0, []byte{1, 1, 1, 0}, whole)}, false},
		{"a source route", [][]byte{ipPacket(c4, w4, unix.IPPROTO_TCP, 0, []byte{131, 7, 4, 20, 40, 0, 11, 0}, whole)}, false},
		{"hop-by-hop options", [][]byte{extension(unix.IPPROTO_HOPOPTS, 1, 4)}, false},
		{"destination options", [][]byte{extension(unix.IPPROTO_DSTOPTS, 1, 4)}, false},
		{"a routing header", [][]byte{extension(unix.IPPROTO_ROUTING, 4, 0)}, false},
		{"data in the SYN, to a port of HTTPS rules", [][]byte{syn(c4, w4, 443, nil, []byte("hello"))}, false},
		{"data in the SYN of IPv6, to a port of HTTPS rules", [][]byte{syn(c6, w6, 443, nil, []byte("hello"))}, false},
		{"TCP's MD5 option, to a port of HTTPS rules", [][]byte{syn(c4, w4, 443, md5, nil)}, false},
		{"a source that is routed elsewhere", [][]byte{syn(netip.MustParseAddr("10.224.99.1"), w4, 9000, nil, nil)}, false},
		{"a source that belongs to nobody", [][]byte{syn(netip.MustParseAddr("192.0.2.1"), w4, 9000, nil, nil)}, false},
		{"a segment without its SYN", [][]byte{tcpPacket(netip.AddrPortFrom(c4, 7), netip.AddrPortFrom(w4, 9000), 1, 1, flagACK, nil, []byte("x"))}, false},
		{"GRE", [][]byte{ipPacket(c4, w4, unix.IPPROTO_GRE, 0, nil, make([]byte, 24))}, false},
		{"SCTP", [][]byte{ipPacket(c6, w6, unix.IPPROTO_SCTP, 0, nil, make([]byte, 24))}, false},
		{"an echo request", [][]byte{ipPacket(c4, w4, unix.IPPROTO_ICMP, 0, nil, append([]byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}, make([]byte, 16)...))}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t, false)
			b.load(func(s *Settings) { s.Masquerade = false }, rule(t, "any", nil, "tcp://0.0.0.0/0:9000", "tcp://[::/0]:9000"), rule(t, "web", nil, "https://a.example:443"))
			b.run(100, QueueOptions{}, allowAll(1))
			var out *Resetter
			must(t, b.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
			defer out.Close()
			see := newSniffer(t, b.web, "gw")
			for _, p := range row.packets {
				must(t, out.Send(p))
			}
			while := 300 * time.Millisecond
			if row.passes {
				while = patience
			}
			got := see.sees(while, func(p []byte) bool { return fromClient(p) })
			if got != row.passes {
				t.Errorf("passes: %t, want %t", got, row.passes)
			}
		})
	}
}

// fromClient knows the packets of the tests' raw sockets by their hop limit, which
// the gateway has lowered.
func fromClient(p []byte) bool {
	if p[0]>>4 == 4 {
		return p[8] == rawTTL-1
	}
	return p[7] == rawTTL-1
}

func TestOptionsThatHideDataAreStripped(t *testing.T) {
	b := newBench(t, false)
	var f Features
	must(t, b.gateway.Do(func() (err error) { f, err = Probe(); return err }))
	if !f.StripOption {
		t.Skip("this kernel does not strip TCP options")
	}
	b.load(func(s *Settings) { s.Masquerade = false }, rule(t, "web", nil, "https://a.example:443"))
	b.run(100, QueueOptions{}, allowAll(1))
	var out *Resetter
	must(t, b.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
	defer out.Close()
	see := newSniffer(t, b.web, "gw")
	options := []byte{2, 4, 5, 0xb4, optionMPTCP, 4, 0, 1, optionFastOpen, 2, 1, 1}
	for i := range webAddrs {
		src := netip.AddrPortFrom(netip.MustParseAddr(clientAddrs[i]), 20000)
		must(t, out.Send(tcpPacket(src, netip.AddrPortFrom(netip.MustParseAddr(webAddrs[i]), 443), 1, 0, flagSYN, options, nil)))
		var got []byte
		see.sees(patience, func(p []byte) bool {
			if fromClient(p) {
				got = append([]byte(nil), p[len(p)-len(options):]...)
			}
			return got != nil
		})
		if want := string([]byte{2, 4, 5, 0xb4, 1, 1, 1, 1, 1, 1, 1, 1}); string(got) != want {
			t.Errorf("%s: options % x, want % x", webAddrs[i], got, want)
		}
	}
}
