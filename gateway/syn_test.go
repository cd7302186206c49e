package gateway

import (
	"net/netip"
	"testing"

	"tidegate.io/tidegate/wire"
	"tidegate.io/tidegate/wire/wiretest"
)

// TestDenialTellsBothEnds looks at the sequence numbers of the resets: a TCP takes a reset that is
// exactly what it expects next.
func TestDenialTellsBothEnds(t *testing.T) {
	family(t, func(t *testing.T, r *rig) {
		hello := clientHello(evil)
		r.handshake()
		r.say(0, hello[:100])
		r.after(releaseAfter)
		last := r.say(100, hello[100:])
		if r.fate(last) != "cut" || len(r.resets) != 2 {
			t.Fatalf("%s with %d resets: %s", r.fate(last), len(r.resets), r.words())
		}
		toClient, toServer := r.resets[0], r.resets[1]
		if toClient.Src != r.dst || toClient.Dst != r.src || toClient.Seq != r.sisn+1 {
			t.Errorf("to the client: %+v", toClient)
		}
		if toServer.Src != r.src || toServer.Dst != r.dst || toServer.Seq != r.isn+1+100 {
			t.Errorf("to the server: %+v", toServer)
		}
		if id := r.server(wire.ACK, 100, 0, nil); r.fate(id) != "cut" {
			t.Errorf("what the server says then is %s", r.fate(id))
		}
		if id := r.say(100, hello[100:]); r.fate(id) != "cut" {
			t.Errorf("what the client says then is %s", r.fate(id))
		}
		if len(r.flows) != 1 {
			t.Errorf("told %d times", len(r.flows))
		}
		r.handshake() // and its ports can be used again
	})
}

func TestFirstPacket(t *testing.T) {
	for _, tt := range []struct {
		name string
		dst  string
		set  func(r *rig)
		fate string
		want string
	}{
		{"an address rule settles it", "20.7.0.1:443", nil, "allowed", "allow address-rule house/db"},
		{"a port without a rule is refused", "20.1.2.3:25", nil, "cut", "deny no-rule"},
		{"an unknown address waits for the hello", "20.1.2.9:443", nil, "passed", ""},
		{"an unknown address is refused where DNS passes us", "20.1.2.9:443", func(r *rig) { r.names.See("prod") }, "cut", "deny address-unknown"},
		{"unless answers are known to come another way", "20.1.2.9:443", func(r *rig) { r.names.See("prod"); r.names.Missed(r.now, "prod") }, "passed", ""},
		{"a known address waits for the hello there", "20.1.2.3:443", func(r *rig) { r.names.See("prod") }, "passed", ""},
		{"the API server's address too", "20.9.9.9:443", func(r *rig) { r.names.See("prod") }, "passed", ""},
	} {
		r := newRig(t)
		r.dst = netip.MustParseAddrPort(tt.dst)
		if tt.set != nil {
			tt.set(r)
		}
		if id := r.syn(); r.fate(id) != tt.fate || r.words() != tt.want {
			t.Errorf("%s: the SYN is %s, %q", tt.name, r.fate(id), r.words())
		}
	}
}

func TestSYN(t *testing.T) {
	t.Run("sent again it passes", func(t *testing.T) {
		r := newRig(t)
		r.syn()
		if id := r.syn(); r.fate(id) != "passed" {
			t.Error(r.fate(id))
		}
	})
	t.Run("another one on the same ports has to wait", func(t *testing.T) {
		r := newRig(t)
		r.syn()
		if id := r.client(wire.SYN, 1000, nil); r.fate(id) != "dropped" {
			t.Error(r.fate(id))
		}
		r.after(quietFor)
		if id := r.client(wire.SYN, 1000, nil); r.fate(id) != "passed" {
			t.Errorf("and then it is %s", r.fate(id))
		}
	})
	t.Run("with data it is dropped, for it comes again without", func(t *testing.T) {
		r := newRig(t)
		if id := r.client(wire.SYN, -1, clientHello(good)); r.fate(id) != "dropped" || r.words() != "deny invalid-packet" {
			t.Error(r.fate(id), r.words())
		}
		r.handshake()
	})
	t.Run("with a request for a cookie of Fast Open it passes", func(t *testing.T) {
		if r := newRig(t); r.fate(r.client(wire.SYN, -1, nil, tcpOption(34, 2))) != "passed" {
			t.Error(r.words())
		}
	})
	t.Run("that opens more paths is refused", func(t *testing.T) {
		if r := newRig(t); r.fate(r.client(wire.SYN, -1, nil, tcpOption(30, 4, 0, 0))) != "cut" {
			t.Error(r.words())
		}
	})
	t.Run("sent again after data has passed it is dropped", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, clientHello(good)[:50])
		r.after(releaseAfter)
		if id := r.syn(); r.fate(id) != "dropped" {
			t.Error(r.fate(id))
		}
	})
	t.Run("data before its answer is dropped", func(t *testing.T) {
		r := newRig(t)
		r.syn()
		r.heard = -int(r.sisn + 1) // an acknowledgement number of 0
		if id := r.say(0, clientHello(good)); r.fate(id) != "dropped" {
			t.Error(r.fate(id))
		}
	})
	t.Run("from the server is a simultaneous open, and dropped", func(t *testing.T) {
		r := newRig(t)
		r.syn()
		if id := r.server(wire.SYN, 0, -1, nil); r.fate(id) != "dropped" {
			t.Error(r.fate(id))
		}
	})
	t.Run("a SYN-ACK for another SYN reaches the client and counts for nothing", func(t *testing.T) {
		r := newRig(t)
		r.syn()
		if id := r.server(wire.SYN|wire.ACK, 77, -1, nil); r.fate(id) != "passed" {
			t.Error(r.fate(id))
		}
		if id := r.say(77, clientHello(good)); r.fate(id) != "dropped" {
			t.Errorf("data in its wake is %s", r.fate(id))
		}
	})
	t.Run("a refused SYN is told", func(t *testing.T) {
		r := newRig(t)
		r.syn()
		if id := r.server(wire.RST|wire.ACK, 0, -1, nil); r.fate(id) != "passed" || r.words() != "deny upstream-unreachable" {
			t.Error(r.fate(id), r.words())
		}
		r.empty()
	})
	t.Run("one that is never answered is told", func(t *testing.T) {
		r := newRig(t)
		r.syn()
		r.after(quietFor)
		if r.words() != "deny upstream-unreachable" || len(r.resets) > 0 {
			t.Error(r.words(), len(r.resets))
		}
		r.empty()
	})
	t.Run("on the ports of an allowed connection it begins anew", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, clientHello(good))
		r.answer(len(clientHello(good)), 0, serverHello())
		r.isn, r.heard = 12345, 0
		r.handshake()
		if id := r.say(0, clientHello(evil)); r.fate(id) != "cut" {
			t.Errorf("the second connection's hello is %s", r.fate(id))
		}
	})
}

// TestDeniedSYNEndsWhatWas: what is queued behind a SYN must not ride the verdict on the connection
// before.
func TestDeniedSYNEndsWhatWas(t *testing.T) {
	r := newRig(t).handshake()
	hello := clientHello(good)
	r.say(0, hello)
	r.answer(len(hello), 0, serverHello())
	r.policy = policyOf(t, "other https://other.example.com:8443")
	if id := r.syn(); r.fate(id) != "cut" {
		t.Fatalf("the SYN is %s", r.fate(id))
	}
	if id := r.say(0, clientHello(evil)); r.fate(id) != "cut" {
		t.Errorf("what comes behind it is %s", r.fate(id))
	}
}

func TestResetsOfTheEnds(t *testing.T) {
	hello := clientHello(good)
	t.Run("the client gives up while its hello is held", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello[:90])
		rst := r.client(wire.RST, 90, nil)
		if r.fate(rst) != "dropped" || len(r.resets) != 1 || r.resets[0].Seq != r.isn+1 || r.resets[0].Dst != r.dst {
			t.Errorf("%s, resets %+v", r.fate(rst), r.resets)
		}
		r.empty()
	})
	t.Run("the client gives up before the confirmation", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello)
		r.client(wire.RST, len(hello), nil)
		if r.words() != "allow name-rule core/mcr" || len(r.resets) != 1 {
			t.Errorf("%s, resets %+v", r.words(), r.resets)
		}
		r.empty()
	})
	t.Run("the server resets", func(t *testing.T) {
		r := newRig(t).handshake()
		held := r.say(0, hello[:90])
		if id := r.server(wire.RST, 0, 0, nil); r.fate(id) != "passed" || r.fate(held) != "dropped" {
			t.Error(r.fate(id), r.fate(held))
		}
		r.empty()
	})
	t.Run("a reset in the server's name that the client will not take changes nothing", func(t *testing.T) {
		r := newRig(t).handshake()
		r.server(wire.RST, 0, 500, nil)
		if id := r.say(0, hello); r.fate(id) != "passed" || len(r.flows) > 0 {
			t.Error(r.fate(id), r.words())
		}
	})
	t.Run("the client closes after early data that is held", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello)
		r.say(len(hello), wiretest.Record(23, 0x0303, make([]byte, 35)))
		if id := r.client(wire.FIN|wire.ACK, len(hello)+40, nil); r.fate(id) != "held" {
			t.Error(r.fate(id))
		}
	})
	t.Run("the client closes after its hello", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello)
		if id := r.client(wire.FIN|wire.ACK, len(hello), nil); r.fate(id) != "passed" {
			t.Error(r.fate(id))
		}
		if id := r.answer(len(hello)+1, 0, serverHello()); r.fate(id) != "allowed" {
			t.Errorf("the answer is %s: %s", r.fate(id), r.words())
		}
	})
}
