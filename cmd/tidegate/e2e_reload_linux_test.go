package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// cutWithin is what the gateway promises: a rule that is removed has ended its connections.
const cutWithin = time.Second

// Lines of the gateway's log.
const (
	reloaded  = "msg=reloaded"
	notLoaded = "the old policy stays in force"
)

// hangUp makes the gateway read its file again, and waits for a line of its log that says so.
func (s *site) hangUp(line string) {
	s.t.Helper()
	before := s.loads(line)
	if err := s.SignalGateway(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
	if !until(10*time.Second, func() bool { return s.loads(line) > before }) {
		s.t.Fatalf("after SIGHUP the gateway does not say %q", line)
	}
}

// without is the lab's file without one of everyKind.
func without(id string) string {
	var lines []string
	for line := range strings.Lines(everyKind) {
		if !strings.Contains(line, "{id: "+id+",") {
			lines = append(lines, line)
		}
	}
	return lab.GatewayConfig("lab", strings.Join(lines, ""))
}

// TestRemovedRulesCutIdleAndBusyLinks removes one rule after the other. The connections of that rule end, idle ones and
// busy ones, for the client and for the server; those of all other rules go on.
func TestRemovedRulesCutIdleAndBusyLinks(t *testing.T) {
	bothGSO(t, func(t *testing.T, noGSO bool) {
		s := startSite(t, setting{more: everyKind, noGSO: noGSO})
		all := s.openMany(20)
		for _, rule := range []string{"web", "address", "name", "datagrams", "named-datagrams"} {
			ends := watch(of(all, rule, false))
			s.set(lab.GatewayFile, without(rule))
			began := time.Now()
			s.hangUp(reloaded)
			s.checkCut(t, rule, ends, began)
			if err := allAlive(of(all, rule, true)); err != nil {
				t.Errorf("without rule %s: %v", rule, err)
			}
			s.set(lab.GatewayFile, lab.GatewayConfig("lab", everyKind))
			s.hangUp(reloaded)
			all = append(of(all, rule, true), s.reopen(t, rule)...)
		}
	})
}

// reopen opens flows of a rule that is there again: what was cut does not stand in their way.
func (s *site) reopen(t *testing.T, rule string) []*link {
	t.Helper()
	var flows []*link
	for i, k := range kinds {
		for _, v6 := range families {
			if k.rule != rule {
				continue
			}
			f, err := s.open(within(t, 10*time.Second), i, v6, s.firstKnown(i, v6))
			if err != nil {
				t.Errorf("with the rule again: %v", err)
				continue
			}
			t.Cleanup(func() { f.conn.Close() })
			flows = append(flows, f)
		}
	}
	return flows
}

// An end is what a client met when its flow ended.
type end struct {
	*link
	busy bool
	at   time.Time
	err  error
}

// watch waits for the end of every flow: every second one is busy, the others only listen. What has not ended after
// some time ends with os.ErrDeadlineExceeded.
func watch(flows []*link) <-chan end {
	const patience = 5 * time.Second // shorter than any keep-alive, which would wake an idle connection
	ends := make(chan end, len(flows))
	var g sync.WaitGroup
	for i, f := range flows {
		g.Go(func() {
			e := end{link: f, busy: i%2 == 0 || f.datagrams()}
			if e.busy {
				for stop := time.Now().Add(patience); e.err == nil && time.Now().Before(stop); time.Sleep(5 * time.Millisecond) {
					e.err = f.alive()
				}
			} else {
				_ = f.conn.SetDeadline(time.Now().Add(patience))
				_, e.err = f.conn.Read(make([]byte, 1))
			}
			e.at = time.Now()
			ends <- e
		})
	}
	go func() { g.Wait(); close(ends) }()
	return ends
}

func (s *site) checkCut(t *testing.T, rule string, ends <-chan end, began time.Time) {
	t.Helper()
	var slowest time.Duration
	servers := map[netip.AddrPort]bool{}
	n := 0
	for e := range ends {
		n++
		what := map[bool]string{false: "idle", true: "busy"}[e.busy] + " " + familyName(e.v6)
		if !e.datagrams() {
			servers[e.to] = true
		}
		if !wasReset(e.err) {
			t.Errorf("rule %s is gone; the client of an %s connection of it is told: %v", rule, what, e.err)
			continue
		}
		slowest = max(slowest, e.at.Sub(began))
	}
	if n == 0 {
		t.Fatalf("no flows of rule %s", rule)
	}
	if slowest > cutWithin {
		t.Errorf("rule %s is gone; its clients are told after %v", rule, slowest)
	}
	for to := range servers {
		if !until(cutWithin-time.Since(began), func() bool { return s.Connections(to) == 0 }) {
			t.Errorf("rule %s is gone; the server at %s believes that %d connections of it are open", rule, to, s.Connections(to))
		}
	}
	t.Logf("rule %s: %d connections cut, the last after %v", rule, n, slowest.Round(time.Millisecond))
}

// TestRuleRemovedWhileTheGatewayIsDead: the marks tell the new process by which rule, or which name, the connections of its
// predecessor were permitted.
func TestRuleRemovedWhileTheGatewayIsDead(t *testing.T) {
	s := startSite(t, setting{more: everyKind})
	all := s.openMany(10)
	s.KillGateway()
	s.set(lab.GatewayFile, without("web"))
	ends := watch(of(all, "web", false))
	began := time.Now()
	if err := s.RestartGateway(t.Context()); err != nil {
		t.Fatal(err)
	}
	for e := range ends {
		if !wasReset(e.err) {
			t.Errorf("the rule is gone after a restart; a client (busy: %v) is told: %v", e.busy, e.err)
		}
		if d := e.at.Sub(began); d > 5*time.Second {
			t.Errorf("a client is told after %v", d)
		}
	}
	if err := allAlive(of(all, "web", true)); err != nil {
		t.Errorf("of other rules: %v", err)
	}
}

// TestReloadsOfEveryKindFailNothing reloads 100 times, each time with another rule in the file, while connections are in use
// and new ones are made.
func TestReloadsOfEveryKindFailNothing(t *testing.T) {
	bothGSO(t, func(t *testing.T, noGSO bool) {
		s := startSite(t, setting{more: everyKind, noGSO: noGSO})
		flows := s.openMany(10)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var load sync.WaitGroup
		var pings, opened atomic.Int64
		for _, f := range flows {
			load.Go(func() {
				for ctx.Err() == nil {
					if err := f.alive(); err != nil {
						t.Errorf("established: %v", err)
						return
					}
					pings.Add(1)
					time.Sleep(pace)
				}
			})
		}
		for i := range kinds {
			for _, v6 := range families {
				load.Go(func() { s.keepOpening(ctx, i, v6, &opened) })
			}
		}
		for _, v6 := range families {
			load.Go(func() { s.keepFetching(ctx, v6, &opened) })
		}
		for i := range 100 {
			s.set(lab.GatewayFile, lab.GatewayConfig("lab", everyKind+extraRule(i)))
			s.hangUp(reloaded)
		}
		stop()
		load.Wait()
		if pings.Load() < 100 || opened.Load() < 100 {
			t.Errorf("%d answers on established connections and %d new ones are no load", pings.Load(), opened.Load())
		}
		t.Logf("%d answers on established connections, %d new ones", pings.Load(), opened.Load())
	})
}

// pace leaves the machine some time for the reloads.
const pace = 20 * time.Millisecond

// extraRule is one of each kind in turn, on the services of other rules and on new ones.
func extraRule(i int) string {
	to := []string{
		"https://extra%d.example.org:443", "tcp://20.103.9.%d:9000", "tcp://extra%d.example.org:9001", "http://extra%d.example.org:80",
		"udp://20.103.4.%d:1194", "https://extra%d.example.org:8443",
	}[i%6]
	return fmt.Sprintf("  - {id: extra, to: [%q]}\n", fmt.Sprintf(to, i))
}

// keepOpening resolves and opens one flow after the other.
func (s *site) keepOpening(ctx context.Context, i int, v6 bool, n *atomic.Int64) {
	for ctx.Err() == nil {
		addr, err := s.find(i, v6)
		if err != nil {
			s.t.Errorf("during reloads: %v", err)
			return
		}
		limited, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
		f, err := s.open(limited, i, v6, addr)
		cancel()
		if err != nil {
			s.t.Errorf("during reloads: %v", err)
			return
		}
		f.conn.Close()
		n.Add(1)
		time.Sleep(pace)
	}
}

// keepFetching makes one HTTP request after the other, each on a connection of its own.
func (s *site) keepFetching(ctx context.Context, v6 bool, n *atomic.Int64) {
	for ctx.Err() == nil {
		if err := s.fetch(1, "security.ubuntu.com", v6); err != nil {
			s.t.Errorf("during reloads: %v", err)
			return
		}
		n.Add(1)
		time.Sleep(pace)
	}
}

// TestBrokenFileChangesNothing: what is in force stays in force. The log and the command say where the mistake is, and
// the status goes on saying so.
func TestBrokenFileChangesNothing(t *testing.T) {
	s := startSite(t, setting{more: everyKind})
	links := s.openMany(4)
	good := lab.GatewayConfig("lab", everyKind)
	for _, mistake := range []struct {
		what, file, says string
		code             int // of the commands: without YAML they cannot find the gateway
	}{
		{"no YAML", "clusters: [", lab.GatewayFile, exitUsage},
		{"an unknown key", good + "exempt: everything\n", "exempt", exitNo},
		{"a rule that is none", strings.Replace(without("web"), "rules:", "rules:\n  - {id: bad, to: [\"https://*:443:1\"]}", 1), "line ", exitNo},
		{"a cluster's file that is not there", strings.Replace(without("web"), lab.ClusterFile, "absent.json", 1), "absent.json", exitNo},
		{"what needs a restart", strings.Replace(without("web"), "127.0.0.1:9253", "127.0.0.1:9254", 1), "restart", exitNo},
	} {
		s.set(lab.GatewayFile, mistake.file)
		before := len(s.said())
		s.hangUp(notLoaded)
		if said := s.said()[before:]; !strings.Contains(said, mistake.says) {
			t.Errorf("%s: the gateway does not say %q: %s", mistake.what, mistake.says, said)
		}
		if out, code := s.command("reload"); code != mistake.code || !strings.Contains(out, mistake.says) {
			t.Errorf("%s: gateway reload exits %d without saying %q: %s", mistake.what, code, mistake.says, out)
		}
		if out, code := s.command("status"); code != mistake.code || !strings.Contains(out, mistake.says) {
			t.Errorf("%s: gateway status exits %d without saying %q: %s", mistake.what, code, mistake.says, out)
		}
		if err := allAlive(links); err != nil {
			t.Errorf("%s: %v", mistake.what, err)
		}
		s.enforces(t, "after "+mistake.what)
	}
	s.set(lab.GatewayFile, good)
	for _, command := range []string{"reload", "status"} {
		if out, code := s.command(command); code != exitYes {
			t.Errorf("the file is good again; gateway %s exits %d: %s", command, code, out)
		}
	}
	s.enforces(t, "with the good file again")
}

// enforces checks that everyKind are what is in force: rule web permits, and nothing permits another name.
func (s *site) enforces(t *testing.T, when string) {
	t.Helper()
	for _, v6 := range families {
		addr, err := s.resolve(1, "shop.example.org", v6)
		if err == nil {
			err = s.visit(1, "shop.example.org", addr)
		}
		if err != nil {
			t.Errorf("%s: %v", when, err)
			continue
		}
		began := time.Now()
		if err := s.visit(1, "unlisted.example.net", addr); err == nil {
			t.Errorf("%s: an unlisted name is reached", when)
		}
		f, ok := s.denied(func(f *egress.Flow) bool { return f.Conn.Dst.Addr() == addr && f.Time.After(began) })
		if !ok || f.Verdict.Reason != egress.NameNotAllowed {
			t.Errorf("%s: the log says of it: %v %v", when, ok, f.Verdict)
		}
	}
}

// fetch gets a page over plain HTTP.
func (s *site) fetch(node int, host string, v6 bool) error {
	addr, err := s.resolve(node, host, v6)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	status, err := s.get(ctx, node, netip.AddrPortFrom(addr, 80), "http://"+host+"/")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("http://%s/ at %s: answered %d", host, addr, status)
	}
	return err
}
