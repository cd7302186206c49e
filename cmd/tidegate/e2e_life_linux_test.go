package main

import (
	"net/netip"
	"testing"
	"time"

	"tidegate.io/tidegate/lab"
)

// TestKilledGatewayIsNotMissed: verdicts live in the kernel. Of 2,000 established connections none notices that the
// process is killed, and that it starts again; what DNS has told is not forgotten.
func TestKilledGatewayIsNotMissed(t *testing.T) {
	bothGSO(t, func(t *testing.T, noGSO bool) {
		s := startSite(t, setting{more: everyKind, noGSO: noGSO})
		began := time.Now()
		flows := s.openMany(334) // of each of the six kinds
		t.Logf("%d flows established in %v", len(flows), time.Since(began).Round(time.Millisecond))
		known := s.resolveAll()

		s.KillGateway()
		if err := allAlive(flows); err != nil {
			t.Errorf("while the gateway is dead: %v", err)
		}
		s.nothingElsePasses(t, known)

		began = time.Now()
		if err := s.RestartGateway(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("ready again in %v", time.Since(began).Round(time.Millisecond))
		s.knownNamesWork(t, known)
		if err := allAlive(flows); err != nil {
			t.Errorf("after the restart: %v", err)
		}

		s.StopGateway()
		if err := s.RestartGateway(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := allAlive(flows); err != nil {
			t.Errorf("after a stop and a start: %v", err)
		}
	})
}

// known are names that were resolved and never connected to, with what they resolved to.
type known struct {
	name string
	v6   bool
	addr netip.Addr
}

// resolveAll asks for names of which some are instances of a wildcard: no rule spells them out.
func (s *site) resolveAll() []known {
	var all []known
	for _, name := range []string{"mcr.microsoft.com", "a.data.mcr.microsoft.com", "shop.example.org", "packages.microsoft.com"} {
		for _, v6 := range families {
			all = append(all, known{name, v6, s.found(1, name, v6)})
		}
	}
	return all
}

// nothingElsePasses tries, without a gateway's process, what needs a verdict: at an address that nobody has resolved,
// and at a permitted one with another name.
func (s *site) nothingElsePasses(t *testing.T, permitted []known) {
	t.Helper()
	for _, addr := range []netip.Addr{
		s.where("unlisted.example.net", false), s.where("unlisted.example.net", true), permitted[0].addr, permitted[1].addr,
	} {
		ctx := within(t, 1500*time.Millisecond)
		if c, err := s.shake(ctx, 1, "unlisted.example.net", netip.AddrPortFrom(addr, 443)); err == nil {
			c.Close()
			t.Errorf("while the gateway is dead an unlisted name is reached at %s", addr)
		}
		if c, err := s.Node(1).Dial(ctx, "tcp", netip.AddrPortFrom(addr, 22)); err == nil {
			c.Close()
			t.Errorf("while the gateway is dead port 22 of %s is reached", addr)
		}
	}
	if got := s.Record.Find(func(seen *lab.Seen) bool { return seen.Name == "unlisted.example.net" }); len(got) > 0 {
		t.Errorf("while the gateway is dead a server gets %d hellos with an unlisted name", len(got))
	}
}

// knownNamesWork connects to what was resolved before, and sees to it that nobody asks again.
func (s *site) knownNamesWork(t *testing.T, all []known) {
	t.Helper()
	asked := func() int {
		return len(s.Record.Find(func(seen *lab.Seen) bool {
			if seen.Proto != "dns" {
				return false
			}
			for _, k := range all {
				if seen.Name == k.name {
					return true
				}
			}
			return false
		}))
	}
	before := asked()
	for _, node := range []int{1, 2} {
		for _, k := range all {
			if err := s.visit(node, k.name, k.addr); err != nil {
				t.Errorf("node%d to %s, which was resolved before the gateway was killed: %v", node, k.name, err)
			}
		}
	}
	for i, k := range kinds {
		for _, v6 := range families {
			if k.name == "" && k.tls {
				continue
			}
			addr := s.firstKnown(i, v6)
			f, err := s.open(within(t, 10*time.Second), i, v6, addr)
			if err != nil {
				t.Errorf("after the restart: %v", err)
				continue
			}
			f.conn.Close()
		}
	}
	if n := asked() - before; n > 0 {
		t.Errorf("%d DNS questions after the restart", n)
	}
}

// firstKnown is where a kind's flows went: its names have one address in each family.
func (s *site) firstKnown(i int, v6 bool) netip.Addr {
	if name := kinds[i].name; name != "" {
		return s.where(name, v6)
	}
	return netip.MustParseAddr(kinds[i].addrs[map[bool]int{false: 0, true: 1}[v6]])
}
