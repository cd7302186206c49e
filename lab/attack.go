//go:build linux

package lab

import (
	"context"
	"fmt"

	"tidegate.io/tidegate/egress"
)

// Attacks returns what somebody does who knows that the first bytes are judged, against the first server that the rules
// permit: packets that the gateway takes for the client's and the server does not, a second hello that differs from the
// first, a connection that inherits another one's verdict. All of them must be stopped; without a gateway all of them must
// arrive. They are the hardest of the tactics, each once; [Siege] carries out all, in all their shapes.
func Attacks(z *Zone, policy *egress.Policy) []Case {
	m := &misses{boot: boot{zone: z, policy: policy}}
	m.https = append(names(policy, egress.HTTPS, 443), m.wildInstances()...)
	for _, name := range m.https {
		if len(name) > len(evilSuffix)+1 && len(z.Addrs(name)) > 1 && !m.isAPI(name) {
			m.attack("decoys", name, decoysIn(decoyPlaces[:1]))
			m.attack("overlaps", name, overlapTactics())
			m.attack("second hellos", name, retryTactics())
			m.attack("re-used ports", name, reuseTactics())
			break
		}
	}
	return m.cases
}

// found are the reasons by which such a play may be found out: what it does to the bytes, or that the evil name is the one
// that is seen.
var found = []egress.Reason{
	egress.ConflictingData, egress.UnconfirmedData, egress.InvalidPacket, egress.NameNotAllowed, egress.MalformedHello, egress.HelloTimeout, egress.NotTLS,
	egress.ServerNameChanged, egress.NoServerName, egress.ClientLeft, egress.HelloTooLarge,
}

// attack adds each tactic against one permitted name, in both families.
func (m *misses) attack(group, name string, tactics []tactic) {
	for _, t := range tactics {
		for _, v6 := range []bool{false, true} {
			s := shape{v6: v6, name: name}
			if t.needs != "" || t.fits != nil && !t.fits(s) {
				continue
			}
			m.deny(group, fmt.Sprintf("%s, to %s over %s", t.name, name, family(v6)), found, func(ctx context.Context, try *Try) error {
				return t.evil(ctx, try, s)
			})
			m.cases[len(m.cases)-1].Quiet = t.quiet
		}
	}
}
