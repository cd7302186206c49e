package gateway

import (
	"net/netip"
	"testing"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

// TestExpected: the process need not see SYNs that are alike while they are what it lets pass.
func TestExpected(t *testing.T) {
	for _, tt := range []struct {
		why      string
		change   func(r *rig)
		expected bool
	}{
		{"a permitted name has the address", func(*rig) {}, true},
		{"and DNS passes us", func(r *rig) { r.names.See("prod") }, true},
		{"it is the API server's", func(r *rig) { r.dst = apiAddr }, true},
		{"the address has no name", func(r *rig) { r.dst = wildAddr }, false},
		{"a denied name alone has it", func(r *rig) { r.dst = wildAddr; r.bind("prod", evil, wildAddr.Addr()) }, false},
		{"the cluster is only observed", func(r *rig) { r.src = watchedNode }, false},
	} {
		r := newRig(t)
		tt.change(r)
		if id := r.syn(); r.fate(id) != "passed" || (r.verdicts[id].mark == expectedMark) != tt.expected {
			t.Errorf("%s: %+v, %s", tt.why, r.verdicts[id], r.words())
		}
	}
}

// TestOpened: the process has not seen the SYN, and knows from the kernel where it began.
func TestOpened(t *testing.T) {
	t.Run("a permitted name", func(t *testing.T) {
		family(t, func(t *testing.T, r *rig) {
			r.expected()
			hello := clientHello(good)
			if id := r.say(0, hello); r.fate(id) != "passed" {
				t.Fatalf("the hello is %s: %s", r.fate(id), r.words())
			}
			if id := r.answer(len(hello), 0, serverHello()); r.fate(id) != "allowed" {
				t.Errorf("the answer is %s: %s", r.fate(id), r.words())
			}
		})
	})
	t.Run("a denied name", func(t *testing.T) {
		family(t, func(t *testing.T, r *rig) {
			r.expected()
			if id := r.say(0, clientHello(evil)); r.fate(id) != "cut" || len(r.resets) != 1 || r.resets[0].Seq != r.isn+1 {
				t.Errorf("the hello is %s, resets %+v", r.fate(id), r.resets)
			}
		})
	})
	for _, tt := range []struct {
		what string
		send func(r *rig) uint32
		fate string
	}{
		{"an answer to an older SYN", func(r *rig) uint32 { return r.server(wire.SYN|wire.ACK, -500, -1, nil) }, "passed"},
		{"an answer to a SYN to come", func(r *rig) uint32 { return r.server(wire.SYN|wire.ACK, 1, -1, nil) }, "passed"},
		{"an answer with data", func(r *rig) uint32 { return r.server(wire.SYN|wire.ACK, 0, -1, []byte("x")) }, "dropped"},
		{"an answer with FIN", func(r *rig) uint32 { return r.server(wire.SYN|wire.ACK|wire.FIN, 0, -1, nil) }, "passed"},
		{"a simultaneous open", func(r *rig) uint32 { return r.server(wire.SYN, 0, -1, nil) }, "dropped"},
		{"the server's data", func(r *rig) uint32 { return r.server(push, 0, 0, []byte("SSH-2.0-x")) }, "dropped"},
		{"a refusal", func(r *rig) uint32 { return r.server(wire.RST|wire.ACK, 0, -1, nil) }, "passed"},
		{"a client's second thoughts", func(r *rig) uint32 { return r.client(wire.RST, 0, nil) }, "passed"},
		{"a reset with data", func(r *rig) uint32 { return r.client(wire.RST, 0, []byte("x")) }, "dropped"},
		{"a hello", func(r *rig) uint32 { return r.say(0, clientHello(good)) }, "dropped"},
	} {
		t.Run(tt.what+" does not open it", func(t *testing.T) {
			r := newRig(t)
			r.unseen = true
			if id := tt.send(r); r.fate(id) != tt.fate {
				t.Errorf("it is %s", r.fate(id))
			}
			r.empty()
			if !r.unseen || len(r.flows) > 0 || len(r.resets) > 0 {
				t.Errorf("%v, resets %v", r.words(), r.resets)
			}
			if first, _ := r.delivered(); len(first) > 0 {
				t.Errorf("%q is delivered", first)
			}
			r.expected()
		})
	}
	t.Run("it does not ride the verdict on the connection before", func(t *testing.T) {
		r := newRig(t).handshake()
		hello := clientHello(good)
		r.say(0, hello)
		r.answer(len(hello), 0, serverHello())
		r.unseen, r.heard = true, 0
		if id := r.say(0, clientHello(evil)); r.fate(id) != "dropped" {
			t.Errorf("a hello without an answer to the SYN is %s", r.fate(id))
		}
		r.expected()
		if id := r.say(0, clientHello(evil)); r.fate(id) != "cut" {
			t.Errorf("the second connection's hello is %s", r.fate(id))
		}
	})
	t.Run("an answer on the ports of what is still followed is no answer to that", func(t *testing.T) {
		r := newRig(t).handshake()
		r.unseen = true
		r.isn += 100
		if id := r.synAck(); r.fate(id) != "dropped" {
			t.Errorf("it is %s", r.fate(id))
		}
	})
	t.Run("an answer that is 16 MiB away opens nothing that the server reads", func(t *testing.T) {
		r := newRig(t)
		r.unseen = true
		r.server(wire.SYN|wire.ACK, 1<<24, -1, nil)
		r.say(0, clientHello(evil))
		r.say(1<<24, clientHello(good))
		if first, _ := r.delivered(); len(first) > 0 {
			t.Errorf("the server reads %d bytes", len(first))
		}
	})
	t.Run("a policy that came meanwhile counts", func(t *testing.T) {
		r := newRig(t)
		r.names.See("prod")
		r.policy = policyOf(t, "other https://other.example.com:443")
		r.unseen = true
		id := r.synAck()
		if r.fate(id) != "cut" || r.words() != "deny address-unknown" {
			t.Fatalf("the answer is %s: %s", r.fate(id), r.words())
		}
		if len(r.resets) != 1 || r.resets[0].Dst != r.src || r.resets[0].Ack != r.isn+1 {
			t.Errorf("resets %+v", r.resets)
		}
		r.empty()
	})
	t.Run("a source that has too many has no more", func(t *testing.T) {
		r := newRig(t)
		for i := range maxSourceConns {
			r.src = netip.AddrPortFrom(node.Addr(), uint16(1000+i))
			r.expected()
		}
		r.src, r.unseen = node, true
		if id := r.synAck(); r.fate(id) != "cut" || r.words() != egress.Denied(egress.TooManyPending).String() {
			t.Errorf("it is %s: %s", r.fate(id), r.words())
		}
	})
}

var (
	wildAddr    = netip.MustParseAddrPort("6.6.6.6:443")
	watchedNode = netip.MustParseAddrPort("10.225.0.4:50000")
)
