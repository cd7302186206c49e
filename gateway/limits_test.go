package gateway

import (
	"net/netip"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire/wiretest"
)

func TestLimits(t *testing.T) {
	t.Run("one source at its bound leaves the others alone", func(t *testing.T) {
		r := newRig(t)
		for i := range maxSourceConns + 10 {
			r.src = netip.AddrPortFrom(node.Addr(), uint16(10000+i))
			id := r.syn()
			if want := map[bool]string{true: "passed", false: "cut"}[i < maxSourceConns]; r.fate(id) != want {
				t.Fatalf("SYN %d is %s", i, r.fate(id))
			}
		}
		if r.flows[0].Verdict != egress.Denied(egress.TooManyPending) {
			t.Error(r.words())
		}
		r.src = netip.MustParseAddrPort("10.224.0.5:50000")
		r.handshake()
		r.after(quietFor + time.Second)
		r.empty()
	})
	t.Run("a flood of half hellos keeps within its bytes", func(t *testing.T) {
		r := newRig(t)
		hello := wiretest.Client(good.String()).PadTo(60000).Bytes()
		for i := range maxSourceConns {
			r.src = netip.AddrPortFrom(node.Addr(), uint16(10000+i))
			r.handshake().say(0, hello[:50000])
			if st := r.f.Stats(); st.Bytes > maxSourceBytes {
				t.Fatalf("%d bytes", st.Bytes)
			}
		}
		r.src = netip.MustParseAddrPort("10.224.0.5:50000")
		if id := r.handshake().say(0, hello[:50000]); r.fate(id) != "passed" {
			t.Errorf("another source's hello is %s", r.fate(id))
		}
		r.after(helloWithin)
		r.empty()
	})
	t.Run("all together", func(t *testing.T) {
		r := newRig(t)
		for i := range maxConns + 10 {
			r.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 224, byte(i >> 10), 1}), uint16(10000+i&1023))
			if id := r.syn(); r.fate(id) != "passed" {
				t.Fatalf("SYN %d is %s", i, r.fate(id))
			}
		}
		if st := r.f.Stats(); st.Connections != maxConns || len(r.flows) != 10 || r.flows[0].Conn.Src.Port() != 10000 || r.flows[0].Verdict != egress.Denied(egress.TooManyPending) {
			t.Errorf("%d connections, %d had to go", st.Connections, len(r.flows))
		}
	})
	t.Run("all together, with servers that answer", func(t *testing.T) {
		r := newRig(t)
		for i := range maxConns + 10 {
			r.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 224, byte(i >> 10), 1}), uint16(10000+i&1023))
			id := r.syn()
			if (r.fate(id) == "passed") != (i < maxConns) {
				t.Fatalf("SYN %d is %s", i, r.fate(id))
			}
			if i < maxConns {
				r.synAck()
			}
		}
	})
	t.Run("scattered bytes are dropped", func(t *testing.T) {
		r := newRig(t).handshake()
		hello := clientHello(good)
		dropped := 0
		for i := 1; i < len(hello); i += 2 {
			if id := r.say(i, hello[i:i+1]); r.fate(id) == "dropped" {
				dropped++
			}
		}
		if want := len(hello)/2 - maxAhead; dropped != want {
			t.Errorf("%d are, want %d", dropped, want)
		}
	})
	t.Run("packets in the queue, of one connection", func(t *testing.T) {
		r := newRig(t).handshake()
		hello := clientHello(good)
		for i := range maxHeld + 5 {
			if id := r.say(1+i, hello[1+i:2+i]); (r.fate(id) == "held") != (i < maxHeld) {
				t.Fatalf("segment %d is %s", i, r.fate(id))
			}
		}
		if id := r.say(0, hello[:1]); r.fate(id) != "passed" || r.f.Stats().Held > 0 {
			t.Errorf("what fills the hole is %s, and %d stay", r.fate(id), r.f.Stats().Held)
		}
	})
	t.Run("packets in the queue, of one source", func(t *testing.T) {
		r := newRig(t)
		hello := clientHello(good)
		for i := range maxSourceHeld/maxHeld + 2 {
			r.src = netip.AddrPortFrom(node.Addr(), uint16(10000+i))
			r.handshake()
			for i := range maxHeld {
				r.say(1+i, hello[1+i:2+i])
			}
		}
		if st := r.f.Stats(); st.Held != maxSourceHeld {
			t.Errorf("%d are held", st.Held)
		}
		r.src = netip.AddrPortFrom(node.Addr(), 50001)
		if id := r.handshake().say(0, hello[:50]); r.fate(id) != "passed" {
			t.Errorf("the beginning of another hello is %s", r.fate(id))
		}
		r.src = netip.MustParseAddrPort("10.224.0.5:50000")
		if id := r.handshake().say(0, hello[:50]); r.fate(id) != "held" {
			t.Errorf("another source's is %s", r.fate(id))
		}
		r.after(quietFor)
		r.empty()
	})
	t.Run("recent connections are bounded", func(t *testing.T) {
		r := newRig(t)
		kept := func() int { return len(r.f.recent.young) + len(r.f.recent.old) }
		end := func(i int) key { return key{netip.AddrPortFrom(node.Addr(), uint16(i)), shared} }
		const many = 3*maxRecent + 1000
		for i := range many {
			r.f.recent.keep(end(i), 1, r.now)
		}
		if n := kept(); n < maxRecent || n > 2*maxRecent {
			t.Errorf("%d are kept", n)
		}
		for i := many - maxRecent; i < many; i++ {
			if _, ok := r.f.recent.find(end(i), r.now); !ok {
				t.Fatalf("the %dth before the last is forgotten", many-i)
			}
		}
		r.f.recent.forget(end(many - 1))
		if _, ok := r.f.recent.find(end(many-1), r.now); ok {
			t.Error("what is to be forgotten is not")
		}
		for range 2 {
			r.after(recentFor)
			r.f.recent.keep(end(0), 1, r.now)
		}
		if n := kept(); n != 2 {
			t.Errorf("twice as long afterwards %d are kept", n)
		}
	})
}
