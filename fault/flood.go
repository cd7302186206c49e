//go:build linux

package fault

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"

	"tidegate.io/tidegate/wire"
)

// The node's kernel keeps out of ports from here on, so that an answer to what was made by hand is not answered.
const (
	mutedPorts = 60000
	mutedCount = 65536 - mutedPorts
)

// A place is a box of the lab.
type place interface {
	Do(func() error) error
}

// flood sends what build makes, IPv4 alone, from a place, so many a second until ctx is done. What it came to is the figure
// of that name. A flood that the machine has no time for is none: then the row's fault has not been made.
func (s *Site) flood(ctx context.Context, from place, name string, perSecond int, build func(i int) wire.Packet) error {
	sender, err := openSender(from)
	if err != nil {
		return err
	}
	defer func() { _ = sender.conn.Close() }()
	const burst = 2 * time.Millisecond
	tick := time.NewTicker(burst)
	defer tick.Stop()
	began := time.Now()
	for i := 0; ; {
		select {
		case <-ctx.Done():
			rate := float64(sender.sent) / time.Since(began).Seconds()
			s.figure(name, "%d, %.0f a second", sender.sent, rate)
			if rate < float64(perSecond)/2 {
				s.notMade("the machine had time for %.0f %s a second instead of %d", rate, name, perSecond)
			}
			return nil
		case <-tick.C:
		}
		for due := int(time.Since(began).Seconds() * float64(perSecond)); i < due && ctx.Err() == nil; {
			n := min(due-i, len(sender.batch))
			for k := range n {
				sender.put(k, build(i+k))
			}
			sender.send(n)
			i += n
		}
	}
}

// A sender sends raw packets, many by one system call.
type sender struct {
	conn  *ipv4.PacketConn
	batch []ipv4.Message
	sent  int64
}

func openSender(from place) (*sender, error) {
	const raw = "ip4:255" // IPPROTO_RAW: what is sent begins with its IP header
	var c net.PacketConn
	err := from.Do(func() (err error) { c, err = net.ListenPacket(raw, "0.0.0.0"); return err })
	if err != nil {
		return nil, fmt.Errorf("open a raw socket: %w", err)
	}
	s := &sender{conn: ipv4.NewPacketConn(c), batch: make([]ipv4.Message, 64)}
	for i := range s.batch {
		s.batch[i] = ipv4.Message{Buffers: [][]byte{nil}, Addr: &net.IPAddr{IP: make(net.IP, 4)}}
	}
	return s, nil
}

// put makes p the i-th of the batch.
func (s *sender) put(i int, p wire.Packet) {
	m := &s.batch[i]
	m.Buffers[0] = wire.AppendPacket(m.Buffers[0][:0], p)
	copy(m.Addr.(*net.IPAddr).IP, p.Dst.Addr().AsSlice())
}

// send sends the first n of the batch, but for those for which the box's own queue has no room.
func (s *sender) send(n int) {
	for rest := s.batch[:n]; len(rest) > 0; {
		sent, err := s.conn.WriteBatch(rest, 0)
		s.sent += int64(max(sent, 0))
		if err != nil {
			sent = max(sent, 0) + 1
		}
		rest = rest[sent:]
	}
}

// floodSYNs sends SYNs from clients to a permitted name.
func (s *Site) floodSYNs(ctx context.Context, clients []netip.Addr, name string, perSecond int) error {
	return s.flood(ctx, s.Node(1), "SYNs", perSecond, syns(clients, netip.AddrPortFrom(s.where(name, false), 443)))
}

// syns makes SYNs to a server, from each client in turn and all of the ports that the node's kernel keeps out of.
func syns(clients []netip.Addr, to netip.AddrPort) func(i int) wire.Packet {
	return func(i int) wire.Packet {
		from := netip.AddrPortFrom(clients[i%len(clients)], uint16(mutedPorts+i/len(clients)%mutedCount))
		return wire.Packet{Src: from, Dst: to, Proto: wire.TCP, Flags: wire.SYN, Seq: uint32(i) * 7919, Window: 65535}
	}
}
