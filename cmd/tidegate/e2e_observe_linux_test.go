package main

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// observing is the lab's file with its cluster only observed.
func observing(more string) string {
	return strings.Replace(lab.GatewayConfig("lab", more), "    aks: ", "    mode: observe\n    aks: ", 1)
}

// TestObservedNothingIsRefused tries everything that an enforcing gateway stops, and finds that it arrives, as without a
// gateway, and that the log says what would have been.
func TestObservedNothingIsRefused(t *testing.T) {
	bothGSO(t, func(t *testing.T, noGSO bool) {
		s := startSite(t, setting{file: observing(everyKind), noGSO: noGSO})
		needs := lab.Bootstrap(s.Zone, s.policy)
		results, err := s.Run(t.Context(), slices.Concat(needs, lab.NearMisses(s.Zone, s.policy), lab.Attacks(s.Zone, s.policy)), s.flows, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			switch {
			case i < len(needs) && r.Denied:
				t.Errorf("%s: a node %s: the log says that this would be denied: %s", r.Group, r.Name, r.Reason)
			case strings.Contains(r.Name, " NULL ") || strings.Contains(r.Name, " ANY "): // the DNS server answers them to nobody
			case !r.As(true):
				t.Errorf("%s: a node %s: does not arrive: %v", r.Group, r.Name, r.Err)
			case len(r.Deny) > 0 && !r.Denied && !unsaid(r):
				t.Errorf("%s: a node %s: the log does not say that this would be denied", r.Group, r.Name)
			}
		}
		all, err := s.flows.All()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if !f.End && f.Verdict.Action == egress.Deny && !f.Observed {
				t.Errorf("the log says that %s > %s %q was refused: %s", f.Conn.Src, f.Conn.Dst, f.Conn.Name, f.Verdict)
			}
		}
	})
}

// unsaid reports whether nobody can say of a case that it would be denied: where nothing is held, DNS to others is not
// diverted, requests behind the first are not read, a reset ends what is known of a connection, and the packets that
// conntrack calls invalid are as often late as wrong.
func unsaid(r lab.Result) bool {
	switch r.Group {
	case "other resolvers":
		return strings.HasPrefix(r.Name, "asks ")
	case "HTTP requests":
		return strings.Contains(r.Name, "second")
	case "decoys":
		return strings.Contains(r.Name, "and a reset, which die")
	case "raw packets":
		return strings.Contains(r.Name, "SCTP") || strings.Contains(r.Name, "UDP-Lite") || strings.Contains(r.Name, "AH over IPv6")
	}
	return false
}

// TestObservedTheLogSaysWhatWouldBe: one connection of each kind, and the record of it.
func TestObservedTheLogSaysWhatWouldBe(t *testing.T) {
	s := startSite(t, setting{file: observing(everyKind)})
	for _, v6 := range families {
		permitted, unlisted := s.found(1, "shop.example.org", v6), s.found(1, "unlisted.example.net", v6)
		for _, c := range []struct {
			what string
			to   netip.AddrPort
			try  func(ctx context.Context, to netip.AddrPort) error
			why  []egress.Reason // of a denial; nil: it is permitted
		}{
			{"a permitted name", netip.AddrPortFrom(permitted, 443), s.shaking("shop.example.org"), nil},
			{"an unlisted name", netip.AddrPortFrom(unlisted, 443), s.shaking("unlisted.example.net"), []egress.Reason{egress.NameNotAllowed, egress.AddressUnknown}},
			{"an unlisted name at a permitted address", netip.AddrPortFrom(permitted, 443), s.shaking("unlisted.example.net"), []egress.Reason{egress.NameNotAllowed}},
			{"an unlisted port", netip.AddrPortFrom(permitted, 22), s.echoing("tcp"), []egress.Reason{egress.NoRule}},
			{"an unlisted datagram", netip.AddrPortFrom(permitted, 4500), s.echoing("udp"), []egress.Reason{egress.NoRule}},
			{"QUIC", netip.AddrPortFrom(permitted, 443), s.echoing("udp"), []egress.Reason{egress.QUIC}},
			{"a page of an unlisted host", netip.AddrPortFrom(unlisted, 80), s.getting("unlisted.example.net"), []egress.Reason{egress.NameNotAllowed, egress.AddressUnknown}},
		} {
			began := time.Now()
			if err := c.try(within(t, 10*time.Second), c.to); err != nil {
				t.Errorf("%s over %s: %v", c.what, familyName(v6), err)
			}
			f, ok := s.decided(func(f *egress.Flow) bool {
				return f.Conn.Dst == c.to && f.Time.After(began) && (f.Verdict.Action == egress.Allow) == (c.why == nil)
			})
			if !ok || c.why != nil && (!f.Observed || !slices.Contains(c.why, f.Verdict.Reason)) {
				t.Errorf("%s over %s: the log says %v, observed %v: %v", c.what, familyName(v6), ok, f.Observed, f.Verdict)
			}
		}
		s.pageIsPermitted(t, v6)
	}
}

// pageIsPermitted gets a page that a rule permits: the log must not say that it would be denied.
func (s *site) pageIsPermitted(t *testing.T, v6 bool) {
	t.Helper()
	to := netip.AddrPortFrom(s.found(1, "security.ubuntu.com", v6), 80)
	if err := s.getting("security.ubuntu.com")(within(t, 10*time.Second), to); err != nil {
		t.Errorf("a permitted page over %s: %v", familyName(v6), err)
	}
	if f, ok := s.decided(func(f *egress.Flow) bool { return f.Conn.Dst == to }); !ok || f.Verdict.Action != egress.Allow {
		t.Errorf("a permitted page over %s: the log says %v: %v", familyName(v6), ok, f.Verdict)
	}
}

// TestObservingAndDeadBlocksNobody: without its process an observing gateway is a router.
func TestObservingAndDeadBlocksNobody(t *testing.T) {
	bothGSO(t, func(t *testing.T, noGSO bool) {
		s := startSite(t, setting{file: observing(everyKind), noGSO: noGSO})
		links := s.openMany(20)
		s.KillGateway()
		if err := allAlive(links); err != nil {
			t.Errorf("established before: %v", err)
		}
		s.everythingGoes(t, "while the process is dead")
		if err := s.RestartGateway(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := allAlive(links); err != nil {
			t.Errorf("after the restart: %v", err)
		}
		s.everythingGoes(t, "after the restart")
	})
}

// everythingGoes asks any resolver, and connects to names and ports that no rule has.
func (s *site) everythingGoes(t *testing.T, when string) {
	t.Helper()
	for _, v6 := range families {
		addr, err := s.ask(1, lab.AzureDNS, "unlisted.example.net", v6)
		if err != nil {
			t.Errorf("%s: %v", when, err)
			continue
		}
		for what, try := range map[string]func() error{
			"TLS": func() error {
				return s.shaking("unlisted.example.net")(within(t, 10*time.Second), netip.AddrPortFrom(addr, 443))
			},
			"HTTP": func() error {
				return s.getting("unlisted.example.net")(within(t, 10*time.Second), netip.AddrPortFrom(addr, 80))
			},
			"TCP": func() error { return s.echoing("tcp")(within(t, 10*time.Second), netip.AddrPortFrom(addr, 22)) },
			"UDP": func() error { return s.echoing("udp")(within(t, 10*time.Second), netip.AddrPortFrom(addr, 4500)) },
		} {
			if err := try(); err != nil {
				t.Errorf("%s: %s over %s: %v", when, what, familyName(v6), err)
			}
		}
	}
}

// shaking, echoing and getting are ways to use a server from node 1.
func (s *site) shaking(name string) func(context.Context, netip.AddrPort) error {
	return func(ctx context.Context, to netip.AddrPort) error {
		c, err := s.shake(ctx, 1, name, to)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

func (s *site) echoing(network string) func(context.Context, netip.AddrPort) error {
	return func(ctx context.Context, to netip.AddrPort) error {
		c, err := s.Node(1).Dial(ctx, network, to)
		if err != nil {
			return err
		}
		defer c.Close()
		if network == "udp" {
			return echoDatagram(c)
		}
		return echo(c)
	}
}

func (s *site) getting(host string) func(context.Context, netip.AddrPort) error {
	return func(ctx context.Context, to netip.AddrPort) error {
		status, err := s.get(ctx, 1, to, "http://"+host+"/")
		if err == nil && status != http.StatusOK {
			err = &statusError{status}
		}
		return err
	}
}

type statusError struct{ code int }

func (e *statusError) Error() string { return "answered " + http.StatusText(e.code) }
