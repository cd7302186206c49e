package gateway

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"tidegate.io/tidegate/wire"
	"tidegate.io/tidegate/wire/wiretest"
)

// TestADecidedConnectionTakesNoMemory decides connections in the memory of as many before them, none of which ends: what is
// remembered of the last ones has a bound, and is full by then.
func TestADecidedConnectionTakesNoMemory(t *testing.T) {
	const many = 2 * maxRecent
	hello := wiretest.PostQuantum(good.String()).PadTo(1700).Bytes()
	f, packets := canned(t, hello, []int{len(hello)})
	now, client := start, uint32(0)
	decide := func() {
		for range many {
			client++
			now = now.Add(100 * time.Microsecond)
			for i, p := range packets {
				f.Packet(now, uint32(i), from(p, client))
			}
			f.Tick(now)
		}
		if n := f.Stats(); n != (Stats{}) {
			t.Fatalf("left: %+v", n)
		}
	}
	decide()
	before := live()
	decide()
	const most = 1 // byte: a number or a pointer of each would be more, and a table is not always of one size
	if each := (float64(live()) - float64(before)) / many; each > most {
		t.Errorf("%.1f bytes a connection that is decided", each)
	}
	runtime.KeepAlive(f)
}

// from is a packet of the canned connection as one of another client's.
func from(packet []byte, client uint32) []byte {
	p, err := wire.ReadPacket(packet)
	if err != nil {
		panic(err)
	}
	other := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 224, byte(client >> 8), byte(client)}), uint16(1024+client>>16))
	if p.Src == node {
		p.Src = other
	} else {
		p.Dst = other
	}
	return wire.AppendPacket(nil, p)
}

// live is what a collection leaves of the heap, in bytes.
func live() uint64 {
	runtime.GC()
	runtime.GC() // what has a finalizer, or is in a pool, goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
