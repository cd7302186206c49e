package gateway

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
	"tidegate.io/tidegate/wire/wiretest"
)

func TestAPIServer(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hello []byte
		want  string
	}{
		{"no name", wiretest.Client("").Without(0).Bytes(), "allow api-server-address core/apiserver"},
		{"the service's name", wiretest.Client("kubernetes.default.svc").Bytes(), "allow api-server-address core/apiserver"},
		{"an address", wiretest.Client("10.0.0.1").Bytes(), "allow api-server-address core/apiserver"},
		{"the name of another service that is allowed (live patching)", clientHello(good), "allow api-server-address core/apiserver"},
		{"a denied name", clientHello(evil), "deny name-not-allowed"},
	} {
		r := newRig(t)
		r.dst = apiAddr
		r.handshake().say(0, tt.hello)
		r.answer(len(tt.hello), 0, serverHello())
		if r.words() != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, r.words(), tt.want)
		}
	}
}

func TestLookup(t *testing.T) {
	hello := clientHello(good)
	elsewhere := netip.MustParseAddrPort("20.1.2.77:443")
	begin := func(t *testing.T) *rig {
		r := newRig(t)
		r.f.Lookup = func(n egress.Name) { r.lookups = append(r.lookups, n) }
		r.dst = elsewhere
		r.handshake()
		if id := r.say(0, hello); r.fate(id) != "held" || len(r.lookups) != 1 || r.lookups[0] != good {
			t.Fatalf("the hello is %s, asked for %v", r.fate(id), r.lookups)
		}
		return r
	}
	t.Run("our answer has the address", func(t *testing.T) {
		r := begin(t)
		r.f.Resolved(r.now, good, []netip.Addr{shared.Addr(), elsewhere.Addr()}, nil)
		r.answer(len(hello), 0, serverHello())
		if r.words() != "allow name-rule core/mcr" {
			t.Error(r.words())
		}
	})
	t.Run("our answer lacks the address", func(t *testing.T) {
		r := begin(t)
		r.f.Resolved(r.now, good, []netip.Addr{shared.Addr()}, nil)
		if r.words() != "deny answer-lacks-address" || len(r.resets) != 2 {
			t.Error(r.words())
		}
		r.empty()
	})
	t.Run("there is no answer", func(t *testing.T) {
		r := begin(t)
		r.f.Resolved(r.now, good, nil, errors.New("SERVFAIL"))
		if r.words() != "deny answer-lacks-address" {
			t.Error(r.words())
		}
	})
	t.Run("the answer comes too late", func(t *testing.T) {
		r := begin(t)
		r.after(helloWithin)
		if r.words() != "deny answer-lacks-address" {
			t.Error(r.words())
		}
		r.empty()
		r.src = netip.AddrPortFrom(node.Addr(), 50001)
		r.handshake().say(0, hello)
		if len(r.lookups) != 2 {
			t.Errorf("then asked for %v", r.lookups)
		}
		r.f.Resolved(r.now, good, []netip.Addr{elsewhere.Addr()}, nil)
		r.answer(len(hello), 0, serverHello())
		r.empty()
	})
	t.Run("a name is asked for once at a time", func(t *testing.T) {
		r := begin(t)
		r.src = netip.AddrPortFrom(node.Addr(), 50001)
		r.handshake().say(0, hello)
		if len(r.lookups) != 1 {
			t.Errorf("asked for %v", r.lookups)
		}
		r.f.Resolved(r.now, good, nil, nil)
		if len(r.flows) != 2 {
			t.Error(r.words())
		}
	})
	t.Run("nothing is let through meanwhile, whatever the client repeats", func(t *testing.T) {
		r := begin(t)
		r.say(0, hello)
		r.client(wire.FIN|wire.ACK, len(hello), nil)
		r.after(time.Second)
		if first, _ := r.delivered(); len(first) > 0 {
			t.Errorf("%d bytes", len(first))
		}
	})
	t.Run("not where DNS passes us", func(t *testing.T) {
		r := newRig(t)
		r.f.Lookup = func(egress.Name) { t.Error("asked") }
		r.names.See("prod")
		r.bind("prod", egress.MustParseName("eu.data.mcr.microsoft.com"), elsewhere.Addr())
		r.dst = elsewhere
		r.handshake().say(0, hello)
		if r.words() != "deny address-not-bound" {
			t.Error(r.words())
		}
	})
}
