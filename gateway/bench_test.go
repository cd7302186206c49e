package gateway

import (
	"net/netip"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
	"tidegate.io/tidegate/wire/wiretest"
)

// BenchmarkConnection is one connection from its SYN to the mark that allows it, with the hello of a
// post-quantum client: in one packet, as an offload unit, and in two, as on the wire.
func BenchmarkConnection(b *testing.B) {
	hello := wiretest.PostQuantum(good.String()).PadTo(1700).Bytes()
	for _, bb := range []struct {
		name string
		cuts []int
	}{
		{"hello-in-1", []int{len(hello)}},
		{"hello-in-2", []int{1448, len(hello)}},
		{"hello-in-17", []int{100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200, 1300, 1400, 1500, 1600, len(hello)}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			f, packets := canned(b, hello, bb.cuts)
			now := start
			b.ReportAllocs()
			for b.Loop() {
				for i, p := range packets {
					f.Packet(now, uint32(i), p)
				}
				now = now.Add(time.Millisecond)
			}
			if n := f.Stats().Connections; n != 0 {
				b.Fatalf("%d connections are left", n)
			}
		})
	}
}

// BenchmarkConnectionAmongMany is the same while ten thousand others are pending.
func BenchmarkConnectionAmongMany(b *testing.B) {
	hello := wiretest.PostQuantum(good.String()).PadTo(1700).Bytes()
	f, packets := canned(b, hello, []int{len(hello)})
	for i := range 10_000 {
		src := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 224, 1, byte(1 + i>>10)}), uint16(1000+i&1023))
		f.Packet(start, 0, wire.AppendPacket(nil, wire.Packet{Src: src, Dst: shared, Proto: wire.TCP, Flags: wire.SYN}))
	}
	b.ReportAllocs()
	for b.Loop() {
		for i, p := range packets {
			f.Packet(start, uint32(i), p)
		}
		f.Tick(start)
	}
}

// canned is a Follower and the packets of one connection.
func canned(b testing.TB, hello []byte, cuts []int) (*Follower, [][]byte) {
	names := &Bindings{}
	names.Learn(start, []egress.Binding{{Scope: "prod", Name: good, Addr: shared.Addr(), Expires: start.Add(maxTTL)}})
	policy := policyOf(b, houseRules...)
	f := New(Config{
		Policy: func() *egress.Policy { return policy }, Bindings: names,
		Verdict: func(uint32, bool, uint32) {}, Reset: func([]byte) { b.Fatal("reset") },
		Decided: func(fl egress.Flow) {
			if fl.Verdict.Action != egress.Allow {
				b.Fatal(fl.Verdict)
			}
		},
		Allowed: func(egress.Conn, egress.Verdict) uint32 { return allowedMark }, Passed: func(egress.Conn, egress.Verdict) uint32 { return 0 }, Cut: cutMark,
	})
	const c, s = 1000, 2000
	client := func(flags wire.Flags, off int, data []byte) []byte {
		return wire.AppendPacket(nil, wire.Packet{Src: node, Dst: shared, Proto: wire.TCP, Flags: flags, Seq: c + 1 + uint32(off), Ack: s + 1, Payload: data})
	}
	server := func(flags wire.Flags, seq, ack int, data []byte) []byte {
		return wire.AppendPacket(nil, wire.Packet{Src: shared, Dst: node, Proto: wire.TCP, Flags: flags, Seq: uint32(seq), Ack: uint32(ack), Payload: data})
	}
	packets := [][]byte{client(wire.SYN, -1, nil), server(wire.SYN|wire.ACK, s, c+1, nil), client(wire.ACK, 0, nil)}
	at := 0
	for _, cut := range cuts {
		packets = append(packets, client(push, at, hello[at:cut]))
		at = cut
	}
	flight := append(serverHello(), make([]byte, 1300)...)
	return f, append(packets, server(push, s+1, c+1+len(hello), flight))
}
