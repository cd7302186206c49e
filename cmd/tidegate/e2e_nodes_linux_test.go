package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// TestWhatOneNodeResolvesIsOpenToTheOther: CoreDNS asks from one node, and pods connect from another. Here each node
// asks for names of its own, over both families and by a resolver that is not the gateway's address.
func TestWhatOneNodeResolvesIsOpenToTheOther(t *testing.T) {
	bothGSO(t, func(t *testing.T, noGSO bool) {
		s := startSite(t, setting{noGSO: noGSO})
		s.found(1, "mcr.microsoft.com", false) // so that the cluster's DNS is known to pass here
		for asks := 1; asks <= 2; asks++ {
			for i, resolver := range []netip.Addr{lab.GatewayInside[0], lab.GatewayInside[1], lab.AzureDNS, netip.MustParseAddr("8.8.8.8")} {
				for _, v6 := range families {
					name := fmt.Sprintf("n%d-%d-%t.data.mcr.microsoft.com", asks, i, v6)
					s.resolvedElsewhere(t, asks, resolver, name, v6)
				}
			}
		}
	})
}

// TestWhoseDNSIsNotSeenIsAskedFor: where the clients ask elsewhere, the gateway asks itself, and what it is told counts.
func TestWhoseDNSIsNotSeenIsAskedFor(t *testing.T) {
	s := startSite(t, setting{})
	for _, v6 := range families {
		if err := s.visit(1, "mcr.microsoft.com", s.where("mcr.microsoft.com", v6)); err != nil {
			t.Errorf("a permitted name over %s: %v", familyName(v6), err)
		}
		elsewhere := s.where("vm.evil.example", v6)
		if err := s.visit(1, "mcr.microsoft.com", elsewhere); err == nil {
			t.Errorf("a permitted name is reached at %s, which is somebody else's", elsewhere)
		}
		if f, ok := s.denied(func(f *egress.Flow) bool { return f.Conn.Dst.Addr() == elsewhere }); !ok || f.Verdict.Reason != egress.AnswerLacksAddress {
			t.Errorf("a permitted name at somebody else's address over %s: the log says %v: %v", familyName(v6), ok, f.Verdict)
		}
	}
}

// resolvedElsewhere lets one node ask for a name, and the other connect to what it was told. Before, nobody can.
func (s *site) resolvedElsewhere(t *testing.T, asks int, resolver netip.Addr, name string, v6 bool) {
	t.Helper()
	connects := 3 - asks
	where := s.where(name, v6)
	began := time.Now()
	if err := s.visit(connects, name, where); err == nil {
		t.Errorf("%s is reached at %s, which nobody has asked for", name, where)
	}
	if f, ok := s.denied(func(f *egress.Flow) bool { return f.Conn.Dst.Addr() == where && f.Time.After(began) }); !ok || !unbound(f.Verdict.Reason) {
		t.Errorf("%s at %s, which nobody has asked for: the log says %v %v", name, where, ok, f.Verdict)
	}
	addr, err := s.ask(asks, resolver, name, v6)
	if err == nil && addr != where {
		err = fmt.Errorf("%s instead of %s", addr, where)
	}
	if err != nil {
		t.Errorf("node%d asks %s for %s: %v", asks, resolver, name, err)
		return
	}
	for _, node := range []int{connects, asks} {
		if err := s.visit(node, name, addr); err != nil {
			t.Errorf("node%d to %s, which node%d has asked for: %v", node, name, asks, err)
		}
	}
}

// unbound reports whether a connection was denied because DNS had told nobody of its address.
func unbound(r egress.Reason) bool {
	return r == egress.AddressUnknown || r == egress.AddressNotBound || r == egress.AnswerLacksAddress
}
