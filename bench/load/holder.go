//go:build linux

package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/wire"
)

// Holders are both ends of connections that stay: raw packets without a socket each, so that a million costs nothing but
// what is between the ends. Neither end has the addresses: the kernel routes them there and would not forward them.
type Holders struct {
	Client, Server *netns.NS
	Device         string                         // of both, that the packets come in by
	Hello          func(server netip.Addr) []byte // at most a packet
	Answer         []byte

	established atomic.Int64
	stop        context.CancelFunc
	ends        [2]*end
}

const (
	clientISN = 1000
	serverISN = 5000
	window    = 64000
)

// end is one side: it takes packets from the wire and sends raw ones.
type end struct {
	in, out int
	to      netip.Prefix // what it stands for; the other end's addresses may be translated
	react   func(*wire.Packet) (wire.Packet, bool)
	buf     []byte
}

// Start makes both ends ready for connections between addresses of the two ranges.
func (h *Holders) Start(servers, clients netip.Prefix) error {
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	h.ends = [2]*end{{to: clients, react: h.client}, {to: servers, react: h.server}}
	for i, ns := range []*netns.NS{h.Client, h.Server} {
		e := h.ends[i]
		if err := ns.Do(func() error { return e.open() }); err != nil {
			return fmt.Errorf("hold connections: %w", err)
		}
		go e.run(ctx)
	}
	return nil
}

// Established is how many connections have been answered.
func (h *Holders) Established() int64 { return h.established.Load() }

// Open begins connections, at the rate a second; it returns when all have been begun.
func (h *Holders) Open(pairs func(i int) (from, to netip.AddrPort), first, n int, rate float64) {
	begin := time.Now()
	for i := range n {
		if ahead := time.Duration(float64(i)/rate*float64(time.Second)) - time.Since(begin); ahead > 0 {
			time.Sleep(ahead)
		}
		from, to := pairs(first + i)
		h.ends[0].send(wire.Packet{Src: from, Dst: to, Proto: wire.TCP, Flags: wire.SYN, Seq: clientISN, Window: window})
	}
}

// Close forgets the connections; it sends nothing.
func (h *Holders) Close() {
	h.stop()
}

// client answers a SYN-ACK with the hello, and acknowledges data.
func (h *Holders) client(p *wire.Packet) (wire.Packet, bool) {
	r := wire.Packet{Src: p.Dst, Dst: p.Src, Proto: wire.TCP, Flags: wire.ACK, Window: window}
	switch {
	case p.Flags.Has(wire.SYN):
		r.Seq, r.Ack, r.Payload, r.Flags = clientISN+1, p.Seq+1, h.Hello(p.Src.Addr()), wire.ACK|wire.PSH
	case len(p.Payload) > 0:
		r.Seq, r.Ack = p.Ack, p.Seq+uint32(len(p.Payload))
		h.established.Add(1)
	default:
		return r, false
	}
	return r, true
}

// server answers a SYN, and the hello with its own.
func (h *Holders) server(p *wire.Packet) (wire.Packet, bool) {
	r := wire.Packet{Src: p.Dst, Dst: p.Src, Proto: wire.TCP, Flags: wire.ACK, Window: window}
	switch {
	case p.Flags.Has(wire.SYN):
		r.Seq, r.Ack, r.Flags = serverISN, p.Seq+1, wire.SYN|wire.ACK
	case len(p.Payload) > 0:
		r.Seq, r.Ack, r.Payload, r.Flags = serverISN+1, p.Seq+uint32(len(p.Payload)), h.Answer, wire.ACK|wire.PSH
	default:
		return r, false
	}
	return r, true
}

func (e *end) open() (err error) {
	const ipv4 = 0x0008 // ETH_P_IP in network order
	if e.in, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ipv4); err != nil {
		return err
	}
	patience := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if e.out, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
		return err
	}
	return errors.Join(
		unix.SetsockoptTimeval(e.in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience),
		unix.SetsockoptInt(e.in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptInt(e.in, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
}

func (e *end) run(ctx context.Context) {
	buf := make([]byte, 65536)
	out := make([]byte, 0, 4096)
	for ctx.Err() == nil {
		n, err := unix.Read(e.in, buf)
		if err != nil || n < 40 || buf[9] != unix.IPPROTO_TCP || !e.to.Contains(netip.AddrFrom4([4]byte(buf[16:20]))) {
			continue
		}
		p := segment(buf[:n])
		if reply, ok := e.react(&p); ok {
			out = e.sendWith(out[:0], reply)
		}
	}
	closeFD(e.in)
	closeFD(e.out)
}

// segment reads what is needed of a TCP packet over IPv4 that the kernel has made.
func segment(b []byte) wire.Packet {
	total := min(len(b), int(binary.BigEndian.Uint16(b[2:])))
	tcp := b[int(b[0]&15)*4 : total]
	return wire.Packet{
		Src:   netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), binary.BigEndian.Uint16(tcp)),
		Dst:   netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), binary.BigEndian.Uint16(tcp[2:])),
		Seq:   binary.BigEndian.Uint32(tcp[4:]),
		Ack:   binary.BigEndian.Uint32(tcp[8:]),
		Flags: wire.Flags(tcp[13]), Payload: tcp[int(tcp[12]>>4)*4:],
	}
}

func (e *end) send(p wire.Packet) { e.buf = e.sendWith(e.buf[:0], p) }

func (e *end) sendWith(buf []byte, p wire.Packet) []byte {
	buf = wire.AppendPacket(buf, p)
	// What is not sent is not answered, and so not established.
	_ = unix.Sendto(e.out, buf, 0, &unix.SockaddrInet4{Addr: p.Dst.Addr().As4()})
	return buf
}
