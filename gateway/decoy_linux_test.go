package gateway

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/kernel"
	"tidegate.io/tidegate/wire"
)

// TestRealDecoys injects a segment with the allowed name, which the server does not take, into a real
// connection, and then lets the real client send the denied name at the same place. Each decoy is
// tried without the gateway first: one after which the server does not read the denied name there
// proves nothing.
func TestRealDecoys(t *testing.T) {
	netnstest.Need(t)
	allowed, denied := clientHello(good), clientHello(evil)
	const wrongSum, oldTime = "with a wrong checksum", "with an old timestamp"
	for _, tt := range []struct {
		name string
		at   int // offset of its first byte
		p    func(p *wire.Packet)
		b    []option
	}{
		{"that dies behind the gateway", 0, nil, []option{ttl(2)}},
		{"that dies behind the gateway, with FIN", 0, func(p *wire.Packet) { p.Flags |= wire.FIN }, []option{ttl(2)}},
		{wrongSum, 0, nil, nil},
		{oldTime, 0, nil, nil},
		{"with an MD5 signature", 0, nil, []option{tcpOption(append([]byte{19, 18}, make([]byte, 16)...)...)}},
		{"that acknowledges too old data", 0, func(p *wire.Packet) { p.Ack -= 100000 }, nil},
		{"that acknowledges future data", 0, func(p *wire.Packet) { p.Ack += 100000 }, nil},
		{"without the ACK flag", 0, func(p *wire.Packet) { p.Flags = wire.PSH }, nil},
		{"without any flag", 0, func(p *wire.Packet) { p.Flags = 0 }, nil},
		{"with SYN", 0, func(p *wire.Packet) { p.Flags |= wire.SYN }, nil},
		{"far ahead, with FIN", 100000, func(p *wire.Packet) { p.Flags |= wire.FIN }, nil},
		{"far behind", -10000, nil, nil},
		{"that begins ten bytes too early and dies", -10, nil, []option{ttl(2)}},
		{"that is a dying reset", 0, func(p *wire.Packet) { p.Flags, p.Payload = wire.RST, nil }, []option{ttl(2)}},
		{"that is a dying FIN", 0, func(p *wire.Packet) { p.Flags, p.Payload = wire.FIN|wire.ACK, nil }, []option{ttl(2)}},
		{"with IP options, that dies", 0, nil, []option{ttl(2), ipOption}},
		{"with an urgent byte, that dies", 0, func(p *wire.Packet) { p.Flags |= wire.URG }, []option{ttl(2)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			attack := func(t *testing.T, b *bench, server string) *recorded {
				c := b.dial(server)
				s := <-b.accepted
				p, clock := b.position(c)
				options := tt.b
				if tt.name == oldTime {
					options = []option{tcpOption(binary.BigEndian.AppendUint64([]byte{1, 1, 8, 10}, uint64(clock-1_000_000)<<32)...)}
				}
				p.Seq, p.Payload = p.Seq+uint32(tt.at), allowed
				if tt.p != nil {
					tt.p(&p)
				}
				b.inject(p, tt.name == wrongSum, options...)
				_, _ = c.Write(denied) // it may be reset already
				// Whatever comes back is the end, or the server's answer to a hello.
				_, _ = io.ReadFull(c, make([]byte, 1))
				return s
			}
			for _, server := range []string{"20.1.2.3:443", "[2603:1000::3]:443"} {
				for _, gso := range []bool{true, false} {
					t.Run(fmt.Sprintf("%s,gso=%t", server, gso), func(t *testing.T) {
						if s := attack(t, newBench(t, gso), server); s.readName() != evil {
							t.Fatalf("without the gateway the server has read %q", s.readName())
						}
						b := newBench(t, gso)
						b.follow()
						s := attack(t, b, server)
						if verdict := b.lastFlow(); verdict[:4] != "deny" {
							t.Errorf("it was decided: %s", verdict)
						}
						time.Sleep(10 * time.Millisecond)
						if n := s.readName(); n == evil {
							t.Error("the server has read the denied name")
						}
					})
				}
			}
		})
	}
}

func (r *recorded) readName() egress.Name {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.name
}

// position asks the kernel where a connection's next segment would be, and what its timestamp.
func (b *bench) position(c net.Conn) (p wire.Packet, clock uint32) {
	b.t.Helper()
	p = wire.Packet{
		Src: c.LocalAddr().(*net.TCPAddr).AddrPort(), Dst: c.RemoteAddr().(*net.TCPAddr).AddrPort(),
		Proto: wire.TCP, Flags: push, Window: 60,
	}
	const receive, send, off = 1, 2, -1
	raw, err := c.(*net.TCPConn).SyscallConn()
	must(b.t, err)
	must(b.t, raw.Control(func(fd uintptr) {
		set := func(name, value int) { must(b.t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, name, value)) }
		queue := func(which int) uint32 {
			set(unix.TCP_REPAIR_QUEUE, which)
			n, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			must(b.t, err)
			return uint32(n)
		}
		set(unix.TCP_REPAIR, 1)
		p.Seq, p.Ack = queue(send), queue(receive)
		set(unix.TCP_REPAIR, off)
		n, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
		must(b.t, err)
		clock = uint32(n)
	}))
	return p, clock
}

// inject sends a packet from the client, with what the options make of it; spoilt, with a wrong
// checksum.
func (b *bench) inject(p wire.Packet, spoilt bool, options ...option) {
	b.t.Helper()
	packet := wire.AppendPacket(nil, p)
	for _, o := range options {
		packet = o(packet)
	}
	sum(b.t, packet)
	if spoilt {
		packet[len(packet)-1] ^= 1
	}
	must(b.t, b.client.Do(func() error {
		raw, err := kernel.OpenResetter()
		if err != nil {
			return err
		}
		defer raw.Close()
		return raw.Send(packet)
	}))
}

// sum puts the checksums in again.
func sum(t testing.TB, packet []byte) {
	p, err := wire.ReadPacket(packet)
	must(t, err)
	add := func(s uint32, b []byte) uint32 {
		for i := range b {
			s += uint32(b[i]) << (8 * (1 - i&1))
		}
		return s
	}
	put := func(b []byte, s uint32) {
		for s>>16 != 0 {
			s = s&0xffff + s>>16
		}
		binary.BigEndian.PutUint16(b, ^uint16(s))
	}
	if packet[0]>>4 == 4 {
		packet[10], packet[11] = 0, 0
		put(packet[10:], add(0, packet[:p.Transport]))
	}
	tcp := packet[p.Transport:]
	tcp[16], tcp[17] = 0, 0
	pseudo := add(uint32(wire.TCP)+uint32(len(tcp)), p.Src.Addr().AsSlice())
	put(tcp[16:], add(add(pseudo, p.Dst.Addr().AsSlice()), tcp))
}

func ttl(n byte) option {
	return func(p []byte) []byte {
		if p[0]>>4 == 6 {
			p[7] = n
		} else {
			p[8] = n
		}
		return p
	}
}
