package gateway

import (
	"net/netip"
	"testing"

	"tidegate.io/tidegate/egress"
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
