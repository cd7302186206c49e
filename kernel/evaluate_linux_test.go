package kernel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

// packet writes the probe as an IP packet from a source port that tells it apart.
func (p *probe) packet(port uint16) []byte {
	src, dst := netip.AddrPortFrom(p.src, port), netip.AddrPortFrom(p.dst, p.port)
	var body []byte
	switch p.proto {
	case protoTCP:
		header := map[bool]int{true: 20, false: 40}[p.src.Is4()]
		body = tcpPacket(src, dst, 1000, 0, byte(p.flags), nil, p.data)[header:]
	case protoUDP:
		body = binary.BigEndian.AppendUint16(nil, port)
		body = binary.BigEndian.AppendUint16(body, p.port)
		body = binary.BigEndian.AppendUint16(body, uint16(8+len(p.data)))
		body = append(append(body, 0, 0), p.data...)
		sum := checksum(checksum(0, p.src.AsSlice()), p.dst.AsSlice()) + unix.IPPROTO_UDP + uint32(len(body))
		binary.BigEndian.PutUint16(body[6:], fold(checksum(sum, body)))
	default:
		body = make([]byte, 24)
		binary.BigEndian.PutUint16(body, port)
	}
	next := byte(p.proto)
	for _, h := range p.headers { // eight bytes of padding each
		body = append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, body...)
		next = h
	}
	var options []byte
	if p.v4Options {
		options = []byte{1, 1, 1, 0}
	}
	return ipPacket(p.src, p.dst, next, 0, options, body)
}

// portOf reads back what tells a packet apart.
func portOf(b []byte) uint16 {
	if b[0]>>4 == 4 {
		return binary.BigEndian.Uint16(b[int(b[0]&15)*4:])
	}
	header := 40
	for next := b[6]; next == headerHop || next == headerRouting || next == headerDestination; header += 8 {
		next = b[header]
	}
	return binary.BigEndian.Uint16(b[header:])
}

// TestTheKernelAgreesWithTheMachine loads drawn policies and sends drawn packets: the kernel must do with each what the
// evaluation of the rules in Go says, on which the fuzz targets of plans stand.
func TestTheKernelAgreesWithTheMachine(t *testing.T) {
	netnstest.Need(t)
	const policies, packets = 12, 96
	for seed := range uint64(policies) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			b := newBench(t, false)
			d := draw(t, 100+seed, false)
			s := settings(d.policy, inside)
			s.Queues, s.Masquerade = 1, false
			d.rs = plan(t, d.policy, s)
			apply(t, b.gateway, b.table, d.rs, d.opened)
			nft(t, b.web, `table inet quiet {
				chain output { type filter hook output priority 0; meta l4proto { tcp, udp, icmp } drop; icmpv6 type 1 drop; }
			}`, "-f", "-")
			b.compare(d, drawProbes(d, seed, packets))
		})
	}
}

func drawProbes(d *drawn, seed uint64, n int) []*probe {
	r := rand.New(rand.NewPCG(seed, 4))
	probes := make([]*probe, n)
	for i := range probes {
		_, probes[i] = d.conn(r)
		if r.IntN(3) == 0 {
			probes[i].makeOdd(r)
			probes[i].elsewhere, probes[i].fragment = false, false               // which the bench cannot send
			probes[i].invalid = probes[i].invalid && probes[i].proto == protoTCP // a segment that opens nothing
		}
	}
	return probes
}

// compare sends the probes and holds what becomes of them against the machine.
func (b *bench) compare(d *drawn, probes []*probe) {
	b.t.Helper()
	var mu sync.Mutex
	got := map[uint16]fate{}
	b.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range batch {
			got[portOf(p.Payload)] = queued
			q.Verdict(p.ID, false, 0)
		}
	})
	see := newSniffer(b.t, b.web, "gw")
	var out *Resetter
	must(b.t, b.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
	defer out.Close()
	var tracker *Tracker
	must(b.t, b.gateway.Do(func() (err error) { tracker, err = OpenTracker(); return err }))
	defer tracker.Close()
	const firstPort = 30000
	for i, p := range probes {
		must(b.t, out.Send(p.packet(uint16(firstPort+i))))
	}
	last := &probe{src: probes[0].src, dst: probes[0].dst, proto: protoUDP, port: 9999}
	must(b.t, out.Send(last.packet(firstPort-1)))
	see.sees(300*time.Millisecond, func(p []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		if port := portOf(p); port >= firstPort {
			got[port] = passes
		}
		return false
	})
	marks := map[uint16]Mark{}
	flows, err := tracker.flows()
	must(b.t, err)
	for _, f := range flows {
		marks[f.Src.Port()] = f.Mark
	}
	mu.Lock()
	defer mu.Unlock()
	for i, p := range probes {
		port := uint16(firstPort + i)
		before := *p
		want := newMachine(b.t, d.rs, d.opened).run(p)
		had := got[port]
		if had == "" {
			had = dropped
		}
		if want == toSelf {
			want = dropped // nobody sees it then
		}
		ports := p.proto == protoTCP || p.proto == protoUDP
		if had != want || want == passes && ports && marks[port] != Mark(p.mark) {
			b.t.Errorf("%+v: the kernel: %s, %s; the machine: %s, %s", before, had, marks[port], want, Mark(p.mark))
		}
	}
}
