package gateway

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
	"tidegate.io/tidegate/wire/wiretest"
)

// family runs a test in IPv4 and in IPv6.
func family(t *testing.T, do func(t *testing.T, r *rig)) {
	t.Run("v4", func(t *testing.T) { do(t, newRig(t)) })
	t.Run("v6", func(t *testing.T) {
		r := newRig(t)
		r.src, r.dst = node6, shared6
		do(t, r)
	})
}

func TestAllowedHello(t *testing.T) {
	family(t, func(t *testing.T, r *rig) {
		hello := clientHello(good)
		r.handshake()
		id := r.say(0, hello)
		if r.fate(id) != "passed" {
			t.Fatalf("the hello is %s: %s", r.fate(id), r.words())
		}
		if len(r.flows) > 0 {
			t.Fatalf("decided before the server answered: %s", r.words())
		}
		if id := r.server(wire.ACK, len(hello), 0, nil); r.fate(id) != "passed" {
			t.Fatalf("the acknowledgement alone is %s", r.fate(id))
		}
		id = r.answer(len(hello), 0, serverHello())
		if r.fate(id) != "allowed" || r.verdicts[id].mark != allowedMark|1 || r.words() != "allow name-rule core/mcr" {
			t.Fatalf("the answer is %s with mark %x: %s", r.fate(id), r.verdicts[id].mark, r.words())
		}
		if id := r.say(len(hello), []byte("behind the verdict")); r.fate(id) != "allowed" {
			t.Errorf("a segment that was queued behind the verdict is %s", r.fate(id))
		}
		if len(r.resets) > 0 {
			t.Error("an allowed connection was reset")
		}
		r.empty()
	})
}

// empty says that nothing is kept of the connections.
func (r *rig) empty() {
	r.t.Helper()
	if st := r.f.Stats(); st != (Stats{}) {
		r.t.Errorf("the follower still keeps %+v", st)
	}
	for _, d := range []*deadlines{&r.f.syns, &r.f.hellos, &r.f.idle, &r.f.releases} {
		if d.root.next != &d.root {
			r.t.Error("a timer is left")
		}
	}
	for id := range r.packets {
		if r.fate(id) == "held" {
			r.t.Errorf("packet %d is held for ever", id)
		}
	}
}

// TestAttacks holds what is known to pass filters of other designs. Each row is an act of a client
// against a shared server that an allowed and a denied name live on.
func TestAttacks(t *testing.T) {
	allowed, denied := clientHello(good), clientHello(evil)
	size := len(allowed)
	pad := func(h wiretest.Hello) []byte { return h.PadTo(600).Bytes() }
	sameA, sameB := pad(wiretest.Client(good.String())), pad(wiretest.Client(evil.String()))
	md5 := tcpOption(append([]byte{19, 18}, make([]byte, 16)...)...)
	// decoyThen sends a hello that the server does not take, and then what it should take.
	decoyThen := func(decoy func(r *rig)) func(r *rig) {
		return func(r *rig) {
			r.handshake()
			decoy(r)
			r.say(0, denied)
			r.answer(len(denied), 0, serverHello())
		}
	}
	for _, tt := range []struct {
		name   string
		act    func(r *rig)
		reason egress.Reason
	}{
		{"a denied name is denied", func(r *rig) { r.handshake().say(0, denied) }, egress.NameNotAllowed},
		{"a decoy whose TTL ends behind the gateway, then other bytes in its place",
			decoyThen(func(r *rig) { r.say(0, allowed) }), egress.ConflictingData},
		{"a decoy with an old timestamp (PAWS), then other bytes",
			decoyThen(func(r *rig) { r.say(0, allowed, tcpOption(8, 10, 0, 0, 0, 1, 0, 0, 0, 0)) }), egress.ConflictingData},
		{"a decoy with an MD5 signature", decoyThen(func(r *rig) { r.say(0, allowed, md5) }), egress.InvalidPacket},
		{"a decoy with an authentication option", decoyThen(func(r *rig) { r.say(0, allowed, tcpOption(29, 4, 0, 0)) }), egress.InvalidPacket},
		{"a decoy with MD5 and FIN", decoyThen(func(r *rig) { r.client(push|wire.FIN, 0, allowed, md5) }), egress.InvalidPacket},
		{"a decoy with IP options", decoyThen(func(r *rig) { r.say(0, allowed, ipOption) }), egress.InvalidPacket},
		{"a decoy without the ACK flag", decoyThen(func(r *rig) { r.client(wire.PSH, 0, allowed) }), egress.InvalidPacket},
		{"a decoy without any flag", decoyThen(func(r *rig) { r.client(0, 0, allowed) }), egress.InvalidPacket},
		{"a decoy with SYN", decoyThen(func(r *rig) { r.client(wire.SYN|push, 0, allowed) }), egress.InvalidPacket},
		{"a decoy with SYN and FIN", decoyThen(func(r *rig) { r.client(wire.SYN|wire.FIN|wire.ACK, 0, allowed) }), egress.InvalidPacket},
		{"a decoy that acknowledges too old data is not read", decoyThen(func(r *rig) { r.heard = -70000; r.say(0, allowed); r.heard = 0 }), egress.NameNotAllowed},
		{"a decoy that acknowledges future data is not read", decoyThen(func(r *rig) { r.heard = 70000; r.say(0, allowed); r.heard = 0 }), egress.NameNotAllowed},
		{"a decoy left of the first byte is not read", decoyThen(func(r *rig) { r.say(-10000, allowed) }), egress.NameNotAllowed},
		{"a decoy far right, with FIN, is not read", decoyThen(func(r *rig) { r.client(push|wire.FIN, 70000, allowed) }), egress.NameNotAllowed},
		{"a decoy that begins ten bytes left is not read", decoyThen(func(r *rig) { r.say(-10, join(make([]byte, 10), allowed)) }), egress.NameNotAllowed},
		{"a fake RST elsewhere changes nothing", decoyThen(func(r *rig) { r.client(wire.RST, 5000, nil) }), egress.NameNotAllowed},
		{"a fake FIN elsewhere changes nothing", decoyThen(func(r *rig) { r.client(wire.FIN|wire.ACK, 5000, nil) }), egress.NameNotAllowed},
		{"a fake RST with the allowed name in it", decoyThen(func(r *rig) { r.client(wire.RST, 0, allowed) }), egress.InvalidPacket},
		{"an urgent byte in the hello", func(r *rig) { r.handshake().client(push|wire.URG, 0, allowed, urgent(3)) }, egress.InvalidPacket},
		{"an urgent byte with a pointer of 0", func(r *rig) { r.handshake().client(push|wire.URG, 0, allowed) }, egress.InvalidPacket},
		{"other bytes after the verdict and before the confirmation",
			func(r *rig) { r.handshake().say(0, sameA); r.say(0, sameB) }, egress.ConflictingData},
		{"one other byte in the middle, sent again",
			func(r *rig) {
				r.handshake().say(0, sameA[:300])
				b := bytes.Clone(sameA[100:500])
				b[7] ^= 1
				r.say(100, b)
			}, egress.ConflictingData},
		{"two versions of what lies behind a hole",
			func(r *rig) { r.handshake().say(300, sameA[300:]); r.say(300, sameB[300:]) }, egress.ConflictingData},
		{"a later segment that overlaps an earlier one with other bytes",
			func(r *rig) { r.handshake().say(200, sameA[200:400]); r.say(100, bytes.Repeat([]byte{7}, 200)) }, egress.ConflictingData},
		{"a retransmission with other bytes after a retransmission with the same",
			func(r *rig) { r.handshake().say(0, sameA); r.say(0, sameA); r.say(0, sameB) }, egress.ConflictingData},
		{"other bytes in place of what was let through early",
			func(r *rig) { r.handshake().say(0, sameA[:300]); r.after(releaseAfter); r.say(0, sameB) }, egress.ConflictingData},
		{"the server acknowledges what it was never sent",
			func(r *rig) { r.handshake().say(0, allowed); r.answer(size+1, 0, serverHello()) }, egress.UnconfirmedData},
		{"the server acknowledges what is held",
			func(r *rig) { r.handshake().say(0, allowed[:100]); r.server(wire.ACK, 100, 0, nil) }, egress.UnconfirmedData},
		{"a second SYN that would move the first byte",
			func(r *rig) {
				r.handshake()
				r.client(wire.SYN, 99, nil)
				r.server(wire.SYN|wire.ACK, 100, -1, nil)
				r.say(100, allowed)
				r.say(0, denied)
			}, egress.ConflictingData},
		{"the second hello, after a HelloRetryRequest, names another server",
			func(r *rig) {
				r.handshake().say(0, allowed)
				r.answer(size, 0, retryRequest())
				r.say(size, denied)
			}, egress.ServerNameChanged},
		{"the same behind a ChangeCipherSpec",
			func(r *rig) {
				r.handshake().say(0, allowed)
				r.answer(size, 0, join(retryRequest(), changeCipher()))
				r.say(size, join(changeCipher(), denied))
			}, egress.ServerNameChanged},
		{"the second hello is sent before it is asked for",
			func(r *rig) { r.handshake().say(0, allowed); r.say(size, denied) }, egress.MalformedHello},
		{"the second hello arrives before the first",
			func(r *rig) { r.handshake().say(size, denied); r.say(0, allowed) }, egress.MalformedHello},
		{"both hellos in one segment", func(r *rig) { r.handshake().say(0, join(allowed, denied)) }, egress.MalformedHello},
		{"the second hello behind early data, before it is asked for",
			func(r *rig) {
				early := wiretest.Record(23, 0x0303, make([]byte, 40))
				r.handshake().say(0, join(allowed, early))
				r.say(size+len(early), denied)
			}, egress.MalformedHello},
		{"the second hello shows no name",
			func(r *rig) {
				r.handshake().say(0, allowed)
				r.answer(size, 0, retryRequest())
				r.say(size, wiretest.Client("").Without(0).Bytes())
			}, egress.ServerNameChanged},
		{"the second hello hides a name",
			func(r *rig) {
				r.handshake().say(0, allowed)
				r.answer(size, 0, retryRequest())
				r.say(size, wiretest.Client(good.String(), wiretest.ECH()).Bytes())
			}, egress.ServerNameChanged},
		{"the first hello's bytes again, with another name, while the second is read",
			func(r *rig) {
				r.handshake().say(0, sameA)
				r.answer(len(sameA), 0, retryRequest())
				r.say(0, sameB)
			}, egress.ConflictingData},
		{"a second HelloRetryRequest",
			func(r *rig) {
				r.handshake().say(0, allowed)
				r.answer(size, 0, retryRequest())
				r.say(size, allowed)
				r.answer(2*size, len(retryRequest()), retryRequest())
			}, egress.ServerNotTLS},
		{"a ServerHello in the same breath as the HelloRetryRequest",
			func(r *rig) {
				r.handshake().say(0, allowed)
				r.answer(size, 0, join(retryRequest(), serverHello()))
				r.say(size, denied)
			}, egress.ServerNotTLS},
		{"no name to a shared server", func(r *rig) { r.handshake().say(0, wiretest.Client("").Without(0).Bytes()) }, egress.NoServerName},
		{"an address as the name", func(r *rig) { r.handshake().say(0, wiretest.Client("20.1.2.3").Bytes()) }, egress.AddressAsName},
		{"an IPv6 address as the name", func(r *rig) { r.handshake().say(0, wiretest.Client("2603:1000::3").Bytes()) }, egress.AddressAsName},
		{"a name with a byte that no name has", func(r *rig) { r.handshake().say(0, wiretest.Client("mcr.microsoft.com\x00.evil").Bytes()) }, egress.MalformedHello},
		{"two names", func(r *rig) {
			r.handshake().say(0, wiretest.Client(good.String(), wiretest.ServerName(good.String(), evil.String())).Bytes())
		}, egress.MalformedHello},
		{"not TLS at all", func(r *rig) { r.handshake().say(0, []byte("GET / HTTP/1.1\r\n")) }, egress.NotTLS},
		{"not TLS, in its first byte", func(r *rig) { r.handshake().say(0, []byte("S")) }, egress.NotTLS},
		{"a hello in 17 records", func(r *rig) { r.handshake().say(0, wiretest.Records(wiretest.Client(good.String()).Message(), 1)) }, egress.HelloTooLarge},
		{"a server that speaks first", func(r *rig) { r.handshake().answer(0, 0, []byte("SSH-2.0-x\r\n")) }, egress.ServerNotTLS},
		{"a server that says a ServerHello before it has the hello", func(r *rig) { r.handshake().answer(0, 0, serverHello()) }, egress.ServerNotTLS},
		{"a server that does not answer in TLS", func(r *rig) { r.handshake().say(0, allowed); r.answer(size, 0, []byte("HTTP/1.1 400")) }, egress.ServerNotTLS},
		{"a server whose answer comes in two versions", func(r *rig) {
			r.handshake().say(0, allowed)
			r.answer(size, 0, retryRequest()[:20])
			r.answer(size, 10, serverHello()[12:])
		}, egress.ConflictingData},
		{"a hello that never ends", func(r *rig) { r.handshake().say(0, allowed[:50]); r.after(helloWithin) }, egress.HelloTimeout},
		{"a hello whose bytes trickle", func(r *rig) {
			r.handshake()
			for i := range 50 {
				r.say(i, allowed[i:i+1])
				r.after(helloWithin / 49)
			}
		}, egress.HelloTimeout},
		{"a client that sends nothing", func(r *rig) { r.handshake().after(quietFor) }, egress.HelloTimeout},
		{"a client that closes before its hello", func(r *rig) { r.handshake().client(wire.FIN|wire.ACK, 0, nil) }, egress.ClientLeft},
		{"a client that closes within its hello", func(r *rig) { r.handshake().client(push|wire.FIN, 0, allowed[:90]) }, egress.ClientLeft},
		{"a client that resets before its hello", func(r *rig) { r.handshake().client(wire.RST, 0, nil) }, egress.ClientLeft},
		{"a connection that was open before the process started", func(r *rig) { r.say(0, allowed) }, egress.Interrupted},
		{"a SYN-ACK for a SYN that was not seen", func(r *rig) { r.synAck() }, egress.Interrupted},
		{"the name of another port's rule", func(r *rig) { r.dst = netip.AddrPortFrom(r.dst.Addr(), 8443); r.syn() }, egress.NoRule},
		{"an IPv4 address inside an IPv6 one", func(r *rig) {
			r.src, r.dst = node6, netip.AddrPortFrom(netip.AddrFrom16(shared.Addr().As16()), 443)
			r.syn()
		}, egress.InvalidPacket},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, v6 := range []bool{false, true} {
				r := newRig(t)
				if v6 {
					r.src, r.dst = node6, shared6
				}
				tt.act(r)
				if len(r.flows) == 0 || r.flows[0].Verdict != egress.Denied(tt.reason) {
					t.Errorf("decided %q, want deny %s", r.words(), tt.reason)
				}
				for _, got := range two(r.delivered()) {
					if h, err := wire.ReadClientHello(got); err == nil && h.ServerName != good.String() {
						t.Errorf("the server has the hello of %q", h.ServerName)
					}
				}
				r.after(quietFor)
				r.empty()
			}
		})
	}
}

func two(a, b []byte) [][]byte { return [][]byte{a, b} }

// TestLegal holds what is odd and yet sent by honest clients.
func TestLegal(t *testing.T) {
	small := clientHello(good)
	large := wiretest.Client(good.String()).PadTo(60000).Bytes()
	segments := func(b []byte, size int) func(r *rig) {
		return func(r *rig) {
			for at := 0; at < len(b); at += size {
				r.say(at, b[at:min(at+size, len(b))])
			}
		}
	}
	for _, tt := range []struct {
		name  string
		hello []byte
		send  func(r *rig)
	}{
		{"in one segment", small, segments(small, 1460)},
		{"byte by byte", small, segments(small, 1)},
		{"eight bytes at a time", small, segments(small, 8)},
		{"60 KB in segments of 1,448 bytes", large, segments(large, 1448)},
		{"60 KB in offload units", large, segments(large, 30000)},
		{"reversed", small, func(r *rig) {
			for at := len(small) - 20; at > -20; at -= 20 {
				r.say(max(at, 0), small[max(at, 0):at+20])
			}
		}},
		{"every segment twice", small, func(r *rig) { segments(small, 100)(r); segments(small, 100)(r) }},
		{"overlapping, with the same bytes", small, func(r *rig) {
			for at := 0; at < len(small); at += 50 {
				r.say(at, small[at:min(at+90, len(small))])
			}
		}},
		{"over many records", wiretest.Records(wiretest.Client(good.String()).Message(), 20), func(r *rig) {
			r.say(0, wiretest.Records(wiretest.Client(good.String()).Message(), 20))
		}},
		{"with a timestamp and selective acknowledgement", small, func(r *rig) {
			r.say(0, small, tcpOption(8, 10, 0, 0, 0, 1, 0, 0, 0, 0), tcpOption(4, 2))
		}},
		{"with its beginning sent again", small, func(r *rig) { r.say(0, small); r.say(0, small[:10]) }},
		{"with a keep-alive in front", small, func(r *rig) { r.client(wire.ACK, -1, nil); r.say(0, small) }},
		{"with a SYN sent twice", small, func(r *rig) { r.syn(); r.synAck(); r.say(0, small) }},
		{"with congestion marks", small, func(r *rig) { r.client(push|wire.CWR|wire.ECE, 0, small) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).handshake()
			tt.send(r)
			first, last := r.delivered()
			if !bytes.Equal(first, tt.hello) || !bytes.Equal(last, tt.hello) {
				t.Fatalf("the server got %d bytes of %d: %s", len(first), len(tt.hello), r.words())
			}
			if id := r.answer(len(tt.hello), 0, serverHello()); r.fate(id) != "allowed" {
				t.Errorf("the answer is %s: %s", r.fate(id), r.words())
			}
			r.empty()
		})
	}
}

func TestHoldAndRelease(t *testing.T) {
	hello := wiretest.Client(good.String()).PadTo(20000).Bytes()
	t.Run("a lone first segment is held, and let through after a while", func(t *testing.T) {
		r := newRig(t).handshake()
		id := r.say(0, hello[:1000])
		r.after(releaseAfter - time.Millisecond)
		if r.fate(id) != "held" {
			t.Fatalf("it is %s", r.fate(id))
		}
		r.after(time.Millisecond)
		if r.fate(id) != "passed" {
			t.Fatalf("it is %s", r.fate(id))
		}
		if id := r.say(1000, hello[1000:2000]); r.fate(id) != "passed" {
			t.Errorf("the next is %s, and the client's window may be one segment", r.fate(id))
		}
	})
	t.Run("the eighth segment lets all through", func(t *testing.T) {
		r := newRig(t).handshake()
		for i := range releaseSegments {
			if id := r.say(i, hello[i:i+1]); (r.fate(id) == "held") != (i < releaseSegments-1) {
				t.Errorf("segment %d is %s", i, r.fate(id))
			}
		}
	})
	t.Run("8 KiB are let through at once", func(t *testing.T) {
		r := newRig(t).handshake()
		if id := r.say(0, hello[:releaseBytes]); r.fate(id) != "passed" {
			t.Errorf("it is %s", r.fate(id))
		}
	})
	t.Run("what lies behind a hole is not", func(t *testing.T) {
		r := newRig(t).handshake()
		id := r.say(1, hello[1:releaseBytes+1])
		r.after(releaseAfter)
		if r.fate(id) != "held" {
			t.Fatalf("it is %s", r.fate(id))
		}
		if first := r.say(0, hello[:1]); r.fate(first) != "passed" || r.fate(id) != "passed" {
			t.Errorf("with the hole filled: %s and %s", r.fate(first), r.fate(id))
		}
	})
	t.Run("a denied hello's last byte never is", func(t *testing.T) {
		r := newRig(t).handshake()
		bad := clientHello(evil)
		for i := range bad {
			r.say(i, bad[i:i+1])
			if i == 0 {
				r.after(releaseAfter)
			}
		}
		if first, _ := r.delivered(); len(first) != len(bad)-1 {
			t.Errorf("the server got %d bytes of %d", len(first), len(bad))
		}
	})
	t.Run("what repeats a held segment is dropped, what repeats a passed one passes", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello[:100])
		again := r.say(0, hello[:100])
		r.after(releaseAfter)
		lost := r.say(0, hello[:100])
		if r.fate(again) != "dropped" || r.fate(lost) != "passed" {
			t.Errorf("%s and %s", r.fate(again), r.fate(lost))
		}
	})
	t.Run("a FIN in the middle of what was sent is dropped, and one behind a hole", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello[:100])
		for _, id := range []uint32{r.client(wire.FIN|wire.ACK, 50, nil), r.client(push|wire.FIN, 10, hello[10:20]), r.client(wire.FIN|wire.ACK, 101, nil)} {
			if r.fate(id) != "dropped" || len(r.flows) > 0 {
				t.Errorf("%s: %s", r.fate(id), r.words())
			}
		}
	})
	t.Run("early data that came before its hello waits for the answer", func(t *testing.T) {
		r := newRig(t).handshake()
		small := clientHello(good)
		early := r.say(len(small), wiretest.Record(23, 0x0303, make([]byte, 300)))
		if id := r.say(0, small); r.fate(id) != "passed" || r.fate(early) != "held" {
			t.Errorf("the hello is %s and the early data %s", r.fate(id), r.fate(early))
		}
	})
	t.Run("early data waits for the answer", func(t *testing.T) {
		r := newRig(t).handshake()
		small := clientHello(good)
		r.say(0, small)
		early := r.say(len(small), join(changeCipher(), wiretest.Record(23, 0x0303, make([]byte, 300))))
		if r.fate(early) != "held" {
			t.Fatalf("it is %s", r.fate(early))
		}
		r.answer(len(small), 0, serverHello())
		if r.fate(early) != "allowed" {
			t.Errorf("then it is %s", r.fate(early))
		}
		r.empty()
	})
}

func TestRetry(t *testing.T) {
	first := clientHello(good)
	second := wiretest.Client(good.String()).PadTo(700).Bytes()
	for _, tt := range []struct {
		name string
		tail []byte // of the HelloRetryRequest
		head []byte // of the second hello
	}{
		{"plain", nil, nil},
		{"in the guise of TLS 1.2", changeCipher(), changeCipher()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t).handshake()
			r.say(0, first)
			ask := join(retryRequest(), tt.tail)
			for i := range ask { // a small window splits it
				if id := r.answer(len(first), i, ask[i:i+1]); r.fate(id) != "passed" {
					t.Fatalf("byte %d is %s: %s", i, r.fate(id), r.words())
				}
			}
			if len(r.flows) > 0 {
				t.Fatalf("decided on a retry: %s", r.words())
			}
			all := join(tt.head, second)
			half := r.say(len(first), all[:300])
			if r.fate(half) != "held" {
				t.Fatalf("the first half is %s", r.fate(half))
			}
			r.say(len(first)+300, all[300:])
			if r.fate(half) != "passed" {
				t.Fatalf("the first half is %s: %s", r.fate(half), r.words())
			}
			say := serverHello()
			for i := range say[:43] { // its random ends there
				r.answer(len(first)+len(all), len(ask)+i, say[i:i+1])
			}
			if r.words() != "allow name-rule core/mcr" {
				t.Errorf("decided %q", r.words())
			}
			if got, _ := r.delivered(); !bytes.Equal(got, join(first, all)) {
				t.Error("the server did not get what was sent")
			}
			r.empty()
		})
	}
}

func TestConfirmation(t *testing.T) {
	hello := clientHello(good)
	t.Run("an answer before the acknowledgement waits for it", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello)
		r.answer(len(hello)-1, 0, serverHello())
		if len(r.flows) > 0 {
			t.Fatal(r.words())
		}
		if id := r.server(wire.ACK, len(hello), len(serverHello()), nil); r.fate(id) != "allowed" {
			t.Errorf("the acknowledgement is %s", r.fate(id))
		}
	})
	t.Run("an answer whose beginning is lost waits for it", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello)
		say := join(serverHello(), make([]byte, 3000))
		r.answer(len(hello), 20, say[20:])
		if len(r.flows) > 0 {
			t.Fatal(r.words())
		}
		if id := r.answer(len(hello), 0, say[:30]); r.fate(id) != "allowed" {
			t.Errorf("the lost beginning is %s", r.fate(id))
		}
	})
	t.Run("what the server sends again does not count back", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello)
		r.answer(len(hello), 0, serverHello()[:40])
		r.answer(len(hello), 0, serverHello()[:10])
		if id := r.client(wire.ACK, len(hello), nil); r.fate(id) != "passed" {
			t.Errorf("the client's acknowledgement is %s", r.fate(id))
		}
	})
	t.Run("a server that refuses with an alert ends it", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello)
		if id := r.answer(len(hello), 0, wiretest.Record(21, 0x0303, []byte{2, 40})); r.fate(id) != "allowed" {
			t.Errorf("the alert is %s", r.fate(id))
		}
	})
	t.Run("it has no limit while packets come, and one when none do", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello)
		for range 10 {
			r.after(idleFor / 2)
			r.say(0, hello)
		}
		if len(r.flows) > 0 {
			t.Fatal(r.words())
		}
		r.after(idleFor)
		if r.words() != "deny upstream-unreachable" || len(r.resets) != 2 {
			t.Errorf("%s, %d resets", r.words(), len(r.resets))
		}
		r.empty()
	})
	t.Run("a policy that came meanwhile counts", func(t *testing.T) {
		r := newRig(t).handshake()
		r.say(0, hello)
		r.policy = policyOf(t, "other https://other.example.com:443")
		if id := r.answer(len(hello), 0, serverHello()); r.fate(id) != "cut" || r.words() != "deny policy-changed" {
			t.Errorf("the answer is %s: %s", r.fate(id), r.words())
		}
	})
}
