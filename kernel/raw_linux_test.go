package kernel

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
)

// rawTTL tells the packets of a rawClient from those of the kernel beneath it,
// whose resets are held back.
const rawTTL = 63

// rawClient is a TCP client made by hand, over IPv4.
type rawClient struct {
	t          testing.TB
	src, dst   netip.AddrPort
	seq, acked uint32 // of the next segment
	out        *Resetter
	in         int
	options    []byte // of every SYN
}

func (b *bench) rawClient(port uint16, addr string, to uint16) *rawClient {
	b.t.Helper()
	r := &rawClient{t: b.t, src: netip.AddrPortFrom(netip.MustParseAddr(clientAddrs[0]), port), dst: netip.AddrPortFrom(netip.MustParseAddr(addr), to)}
	nft(b.t, b.client, `table ip raw {
		chain output { type filter hook output priority 0; ip ttl != 63 tcp flags & rst == rst drop; }
	}`, "-f", "-")
	must(b.t, b.client.Do(func() (err error) {
		if r.out, err = OpenResetter(); err != nil {
			return err
		}
		r.in, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	}))
	b.t.Cleanup(func() {
		r.out.Close()
		unix.Close(r.in)
	})
	return r
}

func checksum(sum uint32, b []byte) uint32 {
	for i := 0; i < len(b); i += 2 {
		if i+1 == len(b) {
			sum += uint32(b[i]) << 8
		} else {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// tcpPacket makes an IP packet, of the family of the addresses.
func tcpPacket(src, dst netip.AddrPort, seq, acked uint32, flags byte, options, data []byte) []byte {
	tcp := make([]byte, 20, 60+len(data))
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], acked)
	tcp[12], tcp[13] = byte(20+len(options))<<2, flags
	binary.BigEndian.PutUint16(tcp[14:], 65000)
	tcp = append(append(tcp, options...), data...)
	sum := checksum(0, src.Addr().AsSlice())
	sum = checksum(sum, dst.Addr().AsSlice())
	sum = checksum(sum+unix.IPPROTO_TCP+uint32(len(tcp)), tcp)
	binary.BigEndian.PutUint16(tcp[16:], fold(sum))
	return ipPacket(src.Addr(), dst.Addr(), unix.IPPROTO_TCP, 0, nil, tcp)
}

// ipPacket makes a packet; options and the fragment field are for IPv4 only.
func ipPacket(src, dst netip.Addr, proto byte, fragment uint16, options, payload []byte) []byte {
	var ip []byte
	if src.Is4() {
		ip = make([]byte, 20)
		ip[0], ip[8], ip[9] = byte(0x45+len(options)/4), rawTTL, proto
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(options)+len(payload)))
		binary.BigEndian.PutUint16(ip[4:], 777)
		binary.BigEndian.PutUint16(ip[6:], fragment)
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		ip = append(ip, options...)
		binary.BigEndian.PutUint16(ip[10:], fold(checksum(0, ip)))
	} else {
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, proto, rawTTL
		binary.BigEndian.PutUint16(ip[4:], uint16(len(payload)))
		copy(ip[8:], src.AsSlice())
		copy(ip[24:], dst.AsSlice())
	}
	return append(ip, payload...)
}

// send sends a segment and goes on by its data.
func (r *rawClient) send(flags byte, data string) {
	r.t.Helper()
	var options []byte
	if flags&flagSYN != 0 {
		options = r.options
	}
	must(r.t, r.out.Send(tcpPacket(r.src, r.dst, r.seq, r.acked, flags, options, []byte(data))))
	r.seq += uint32(len(data))
}

// receive waits for a segment that is wanted.
func (r *rawClient) receive(wanted func(segment) bool) (segment, bool) {
	buf := make([]byte, 65536)
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		tv := unix.NsecToTimeval(int64(100 * time.Millisecond))
		must(r.t, unix.SetsockoptTimeval(r.in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
		n, _, err := unix.Recvfrom(r.in, buf, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		must(r.t, err)
		if s := parseSegment(buf[:n]); s.src == r.dst && s.dst == r.src && wanted(s) {
			return s, true
		}
	}
	return segment{}, false
}

// connect shakes hands, from a new initial sequence number.
func (r *rawClient) connect(isn uint32) {
	r.t.Helper()
	r.seq, r.acked = isn, 0
	r.send(flagSYN, "")
	s, ok := r.receive(func(s segment) bool { return s.syn && s.ack && s.acked == isn+1 })
	if !ok {
		r.t.Fatal("no SYN-ACK")
	}
	r.seq, r.acked = isn+1, s.seq+1
	r.send(flagACK, "")
}

// line returns the data of the next segment that has some, acknowledged; empty
// when the connection is reset or nothing comes.
func (r *rawClient) line() string {
	s, ok := r.receive(func(s segment) bool { return s.rst || len(s.data) > 0 && s.seq == r.acked })
	if !ok || s.rst {
		return ""
	}
	r.acked += uint32(len(s.data))
	r.send(flagACK, "")
	return string(s.data)
}

// echoOnce serves TCP and sends the first line back, then only reads.
func (b *bench) echoOnce(ns *netns.NS, port int) {
	b.t.Helper()
	var l net.Listener
	must(b.t, ns.Do(func() (err error) { l, err = net.Listen("tcp", at("", port)); return err }))
	b.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				line, err := in.ReadString('\n')
				if err == nil {
					_, err = io.WriteString(c, line)
				}
				if err == nil {
					_, _ = io.Copy(io.Discard, in)
				}
			}()
		}
	}()
}
