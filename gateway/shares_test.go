package gateway

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

// A pod that makes names up below a wildcard must not make others lose theirs: their next connections would be denied
// until they ask again, which a client with a long cache does not do for an hour.
func TestAFloodBelowOneWildcardEvictsItself(t *testing.T) {
	b := &Bindings{}
	b.Keep(policyOf(t, "hcp https://*.hcp.westeurope.azmk8s.io:443", "blob https://*.blob.core.windows.net:443"))
	learn := func(name string, i int) {
		b.Learn(start, []egress.Binding{{Scope: "prod", Name: egress.MustParseName(name),
			Addr: netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)}), Expires: start.Add(time.Hour)}})
	}
	const others = 100
	for i := range others {
		learn(fmt.Sprintf("c%d.hcp.westeurope.azmk8s.io", i), i)
		learn(fmt.Sprintf("unlisted%d.example", i), others+i)
	}
	for i := range 3 * maxNames {
		learn(fmt.Sprintf("x%d.y%d.blob.core.windows.net", i, i), 1<<12+i)
	}
	for i := range others {
		for at, want := range map[int]string{i: fmt.Sprintf("c%d.hcp.westeurope.azmk8s.io", i), others + i: fmt.Sprintf("unlisted%d.example", i)} {
			if got := namesAt(b, start, "prod", netip.AddrFrom4([4]byte{20, 0, 0, byte(at)}).String()); got != want {
				t.Fatalf("%q is left of %q", got, want)
			}
		}
	}
	if st := b.Stats(); st.Names != maxNames {
		t.Errorf("%+v", st)
	}
	// Another policy puts the names into other zones, and what is kept stays within the bound.
	b.Keep(policyOf(t, "all https://*.windows.net:443"))
	learn("z.core.windows.net", 9)
	if st := b.Stats(); st.Names != maxNames || len(b.scopes["prod"].shares.by) != 2 {
		t.Errorf("%+v, %d shares", st, len(b.scopes["prod"].shares.by))
	}
}
