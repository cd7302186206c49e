package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/gateway"
	"tidegate.io/tidegate/kernel"
)

// enforcing is a box that only decides.
func enforcing(t *testing.T, mode config.Mode, rules ...egress.Rule) *box {
	t.Helper()
	g := &config.Gateway{Rules: rules, Clusters: []config.Cluster{{
		Cluster: egress.Cluster{Name: "prod", From: []netip.Prefix{netip.MustParsePrefix("10.224.0.0/16")}}, Mode: mode,
	}}}
	p, err := g.Policy()
	if err != nil {
		t.Fatal(err)
	}
	b := &box{}
	b.now.Store(&inForce{conf: g, policy: p, rules: &kernel.Ruleset{}})
	return b
}

// TestTheProxyIsNoWayIntoTheGateway: what the HTTP proxy dials, the gateway dials, past the
// rules that keep clients away from it, and with the identity that the platform gives
// it.
func TestTheProxyIsNoWayIntoTheGateway(t *testing.T) {
	var own string
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			own = p.Addr().String()
		}
	}
	everything := egress.Rule{ID: "any", To: []egress.Endpoint{egress.MustParseEndpoint("tcp://0.0.0.0/0:1-65535"), egress.MustParseEndpoint("tcp://[::/0]:1-65535")}}
	for _, mode := range []config.Mode{config.Enforce, config.Observe} {
		b := enforcing(t, mode, everything)
		for _, tt := range []struct {
			why, src, dst string
			want          egress.Verdict
		}{
			{"the internet", "10.224.0.4", "20.1.2.3", egress.Verdict{Action: egress.Allow, Reason: egress.ByAddressRule}},
			{"an address inside, by a rule", "10.224.0.4", "10.9.0.1", egress.Verdict{Action: egress.Allow, Reason: egress.ByAddressRule}},
			{"loopback", "10.224.0.4", "127.0.0.1", egress.Denied(egress.GuardedAddress)},
			{"loopback, written as IPv6", "10.224.0.4", "::ffff:127.0.0.1", egress.Denied(egress.GuardedAddress)},
			{"loopback of IPv6", "10.224.0.4", "::1", egress.Denied(egress.GuardedAddress)},
			{"this host", "10.224.0.4", "0.0.0.0", egress.Denied(egress.GuardedAddress)},
			{"the gateway's identity", "10.224.0.4", "169.254.169.254", egress.Denied(egress.GuardedAddress)},
			{"the platform", "10.224.0.4", "168.63.129.16", egress.Denied(egress.GuardedAddress)},
			{"a neighbour", "10.224.0.4", "fe80::1", egress.Denied(egress.GuardedAddress)},
			{"an address of the gateway", "10.224.0.4", own, egress.Denied(egress.GuardedAddress)},
			{"no client", "fe80::2", "20.1.2.3", egress.Denied(egress.NoRule)},
		} {
			if tt.dst == "" {
				t.Log("this machine has no address to try")
				continue
			}
			c := egress.Conn{Proto: egress.TCP, Src: netip.AddrPortFrom(netip.MustParseAddr(tt.src), 4000), Dst: netip.AddrPortFrom(netip.MustParseAddr(tt.dst), 80)}
			f := b.decideHTTP(t.Context(), c)
			if f.Verdict.Action != tt.want.Action || f.Verdict.Reason != tt.want.Reason || f.Observed {
				t.Errorf("%s: %s from %s to %s: %v, observed %t", mode, tt.why, tt.src, tt.dst, f.Verdict, f.Observed)
			}
		}
	}
}

func bindings(t *testing.T, n int) (bs []egress.Binding) {
	t.Helper()
	a := netip.MustParseAddr("20.0.0.0")
	for range n {
		a = a.Next()
		bs = append(bs, egress.Binding{Scope: "prod", Name: egress.MustParseName("mcr.microsoft.com"), Addr: a, Expires: time.Now().Add(time.Hour)})
	}
	return bs
}

// A tunnel may live for days, and a policy can have a hundred thousand rules.
func TestATunnelDoesNotKeepThePolicyThatPermittedIt(t *testing.T) {
	b := enforcing(t, config.Enforce, egress.Rule{ID: "any", To: []egress.Endpoint{egress.MustParseEndpoint("tcp://20.0.0.0/8:443")}})
	c, err := egress.ParseConn("tcp 10.224.0.4:1 > 20.1.2.3:443")
	if err != nil {
		t.Fatal(err)
	}
	r := b.decideHTTP(t.Context(), c).Verdict.Rule
	if r == nil || r.ID != "any" || r == &b.now.Load().policy.Rules()[0] {
		t.Errorf("its rule is %+v", r)
	}
}

// A journal that cannot be written is no reason to deny, nor to try at each answer.
func TestAJournalThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	s, err := openState(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var known gateway.Bindings
	at := time.Now()
	known.Learn(at, bindings(t, 3))
	s.dir = filepath.Join(dir, "missing")
	if err := s.record(&known, at, bindings(t, 1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
	if err := s.record(&known, at.Add(time.Second), bindings(t, 1)); err != nil {
		t.Errorf("it was tried again at once: %v", err)
	}
	s.dir = dir
	if err := s.record(&known, at.Add(retryAfter), bindings(t, 1)); err != nil {
		t.Fatal(err)
	}
	var back gateway.Bindings
	if n, err := (&stateDir{dir: dir}).restore(&back, at); n != 3 || err != nil {
		t.Errorf("%d bindings are back, %v", n, err)
	}
}

// Whoever repeats a question must not make a journal that the next process refuses.
func TestTheJournalIsBounded(t *testing.T) {
	dir := t.TempDir()
	s, err := openState(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var known gateway.Bindings
	at := time.Now()
	same := bindings(t, 1000)
	known.Learn(at, same)
	for range maxRecords/len(same) + 3 {
		if err := s.record(&known, at, same); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 1<<20 {
		t.Errorf("%d bytes for %d bindings", info.Size(), len(same))
	}
}

// While the kernel is given new rules, an answer waits for nothing but its own sets:
// the addresses of HTTPS rules count at once.
func TestLearningDoesNotWaitForAChange(t *testing.T) {
	b := enforcing(t, config.Enforce)
	var err error
	if b.state, err = openState(t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	defer b.state.Close()
	b.changes.Lock()
	done := make(chan error)
	go func() { done <- b.learn(context.Background(), bindings(t, 1)) }()
	for len(b.bindings.Names(time.Now(), "prod", netip.MustParseAddr("20.0.0.1"))) == 0 {
		time.Sleep(time.Millisecond)
	}
	b.changes.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
