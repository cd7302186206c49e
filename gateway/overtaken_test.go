package gateway

import (
	"net/netip"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire/wiretest"
)

// TestEnforcingEndsWhatWasOnlyWatched: the cluster is enforced while a connection of it
// is undecided. What passed of it was never held, so it has to begin again.
func TestEnforcingEndsWhatWasOnlyWatched(t *testing.T) {
	for _, tt := range []struct {
		why  string
		send func(r *rig) uint32
	}{
		{"a permitted hello", func(r *rig) uint32 { return r.say(0, clientHello(good)) }},
		{"a denied hello", func(r *rig) uint32 { return r.say(0, clientHello(evil)) }},
		{"the server speaks", func(r *rig) uint32 { return r.answer(0, 0, []byte("SSH-2.0-x\r\n")) }},
	} {
		r := newRig(t)
		r.src = netip.MustParseAddrPort("10.225.0.4:50000")
		observed := true
		r.f.Observe = func(string) bool { return observed }
		r.handshake()
		observed = false
		if got := r.fate(tt.send(r)); got != "cut" {
			t.Errorf("%s: %s", tt.why, got)
		}
		if len(r.resets) != 2 || len(r.flows) != 1 || r.flows[0].Verdict != egress.Denied(egress.PolicyChanged) || r.flows[0].Observed {
			t.Errorf("%s: %d resets, flows %+v", tt.why, len(r.resets), r.flows)
		}
		if got := r.fate(r.say(0, []byte("more"))); got != "cut" {
			t.Errorf("%s: what follows is %s", tt.why, got)
		}
	}
}

// TestNothingFlowsToAServerOfTheClientsChoice: a hello that is never complete would carry
// whatever its sender likes, where the DNS of a cluster is not seen and so any address gets
// as far as to be shown a name.
func TestNothingFlowsToAServerOfTheClientsChoice(t *testing.T) {
	for _, tt := range []struct {
		why    string
		dst    netip.AddrPort
		flows  bool
		change func(*rig)
	}{
		{"an address of a permitted name", shared, true, func(*rig) {}},
		{"the API server", apiAddr, true, func(*rig) {}},
		{"any other address", netip.MustParseAddrPort("6.6.6.6:443"), false, func(*rig) {}},
		{"an address of a denied name", netip.MustParseAddrPort("6.6.6.6:443"), false, func(r *rig) { r.bind("prod", evil, netip.MustParseAddr("6.6.6.6")) }},
		{"an address that a permitted name gets meanwhile", netip.MustParseAddrPort("6.6.6.6:443"), true, func(r *rig) { r.bind("prod", good, netip.MustParseAddr("6.6.6.6")) }},
	} {
		r := newRig(t)
		r.dst = tt.dst
		r.handshake()
		tt.change(r)
		hello := wiretest.Client(good.String()).PadTo(60000).Bytes()
		for i := 0; i < 50000; i += 1400 {
			r.say(i, hello[i:i+1400])
		}
		r.after(releaseAfter + time.Millisecond)
		if got, _ := r.delivered(); (len(got) > 0) != tt.flows {
			t.Errorf("%s: %d bytes of half a hello reach it", tt.why, len(got))
		}
		r.after(helloWithin)
		r.empty()
	}
}
