package export

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"testing"

	"tidegate.io/tidegate/egress"
)

// TestSomeClientsInPlace: a rule for one node opens nothing for the other, and where a format cannot say that, nothing
// for either.
func TestSomeClientsInPlace(t *testing.T) {
	const name = "only-node1.example.org"
	rule := egress.Rule{ID: "own/node1", Why: "One node's.", From: []netip.Prefix{netip.MustParsePrefix("10.224.1.4/32")}, To: []egress.Endpoint{egress.MustParseEndpoint("https://" + name + ":443")}}
	for _, s := range stands() {
		t.Run(s.format, func(t *testing.T) {
			b := putInPlace(t, s, true, rule)
			all := !slices.ContainsFunc(b.gaps, func(g Gap) bool { return g.Rule == rule.ID })
			for node, want := range map[int]bool{1: all, 2: false} {
				if got := b.shakesHands(t, node, name); got != want {
					t.Errorf("node %d reaches %s: %v, want %v", node, name, got, want)
				}
			}
			if all == (s.format == "nginx") {
				t.Errorf("tells clients apart: %v", all)
			}
		})
	}
}

// shakesHands reports whether a node finishes a handshake with the server of that name.
func (b *bench) shakesHands(t *testing.T, node int, name string) bool {
	t.Helper()
	addrs, err := b.Node(1).Lookup(t.Context(), name, false)
	if err != nil {
		return false
	}
	raw, err := b.Node(node).Dial(t.Context(), "tcp", netip.AddrPortFrom(addrs[0], 443))
	if err != nil {
		return false
	}
	defer raw.Close()
	return tls.Client(raw, &tls.Config{RootCAs: b.CA.Pool(), ServerName: name}).HandshakeContext(t.Context()) == nil
}
