package main

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate.io/tidegate/lab"
)

const manyFeatures = examples + "example-public-gpu-monitor-policy.cli.json"

// reload gives the gateway another file and waits until it is in force.
func (h *house) reload(t *testing.T, text string) {
	t.Helper()
	before := h.loads("msg=reloaded")
	h.write(t, lab.GatewayFile, text)
	if err := h.SignalGateway(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is in force", func() bool { return h.loads("msg=reloaded") > before })
}

// ended reports that a flow is reset, and soon.
func (f flow) ended() bool {
	_ = f.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := f.Read(make([]byte, 1))
	return errors.Is(err, syscall.ECONNRESET)
}

func TestEnforcingEndsWhatWasOnlyObserved(t *testing.T) {
	h := open(t, manyFeatures, ownRules, true)
	enforced := lab.GatewayConfig("lab", ownRules)
	h.reload(t, strings.Replace(enforced, "    aks:", "    mode: observe\n    aks:", 1))
	flows := h.hold(t, 30)
	evil := netip.AddrPortFrom(h.Zone.Addrs("vm.evil.example")[0], 443)
	raw, err := h.Node(1).Dial(t.Context(), "tcp", evil)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{RootCAs: h.CA.Pool(), ServerName: "vm.evil.example"})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatalf("control: observing refuses: %v\n%s", err, h.log())
	}
	quiet, err := h.Node(1).Dial(t.Context(), "tcp", evil) // has not shown its name
	if err != nil {
		t.Fatal(err)
	}
	h.reload(t, enforced)
	for what, f := range map[string]flow{"a denied connection": {raw, ""}, "an undecided one": {quiet, ""}} {
		if !f.ended() {
			t.Errorf("%s goes on\n%s", what, h.log())
		}
	}
	eventually(t, "the servers are told", func() bool { return h.Connections(evil) == 0 })
	if lost := pingAll(t, flows); lost > 0 {
		t.Errorf("%d permitted flows were cut too", lost)
	}
}

// TestLostNumbersEndConnections: the marks of connections outlive the files that say which
// rule, or which name, each number is.
func TestLostNumbersEndConnections(t *testing.T) {
	h := open(t, manyFeatures, ownRules, true)
	flows := h.hold(t, 30)
	h.KillGateway()
	for _, file := range []string{numbersFile, namesFile} {
		if err := os.Remove(filepath.Join(h.dir, "state", file)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.RestartGateway(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		switch f.kind {
		case "tls": // by which name it was allowed is not known any more, nor by which rule
			if !f.ended() {
				t.Fatalf("a connection lives by the number of another rule\n%s", h.log())
			}
		default: // its address is still permitted
			if err := f.ping(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestSomebodyFlushesTheRules, as the start of a service does that has rules of its own.
func TestSomebodyFlushesTheRules(t *testing.T) {
	h := open(t, manyFeatures, ownRules, true)
	flows := h.hold(t, 30)
	evil := netip.AddrPortFrom(h.Zone.Addrs("vm.evil.example")[0], 22)
	flush := func() {
		t.Helper()
		if err := h.DoGateway(func() error { return exec.Command("nft", "flush", "ruleset").Run() }); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 3 {
		time.Sleep(300 * time.Millisecond) // what is on its way while the rules are gone is not masqueraded
		flush()
		eventually(t, "nothing evil leaves", func() bool {
			c, err := h.Node(1).Dial(t.Context(), "tcp", evil)
			if err == nil {
				_ = c.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
		if lost := pingAll(t, flows); lost > 0 {
			t.Errorf("round %d: %d flows were lost\n%s", round, lost, h.log())
		}
	}
	// Where the kernel can, the table is the process's own, and no flush touches it.
	if n := h.loads("they are put back"); n != 0 && n != 3 {
		t.Errorf("put back %d times\n%s", n, h.log())
	}
}

// opened is a connection to a name, from a node.
func (h *house) opened(t *testing.T, node int, name string, addr netip.Addr) flow {
	t.Helper()
	raw, err := h.Node(node).Dial(t.Context(), "tcp", netip.AddrPortFrom(addr, 443))
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{RootCAs: h.CA.Pool(), ServerName: name})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, h.log())
	}
	return flow{raw, "tls"}
}

// goOn sees to it that flows have not ended, for their clients or for their server.
func (h *house) goOn(t *testing.T, when string, addr netip.Addr, flows ...flow) {
	t.Helper()
	for _, f := range flows {
		_ = f.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		var err error
		for buf := make([]byte, 4096); err == nil; { // what the server says of itself
			_, err = f.Read(buf)
		}
		if errors.Is(err, syscall.ECONNRESET) || h.Connections(netip.AddrPortFrom(addr, 443)) != len(flows) {
			t.Fatalf("%s: %v\n%s", when, err, h.log())
		}
	}
}

// TestAChangedRuleKeepsItsConnections through a reload, and through the death of the process behind it.
func TestAChangedRuleKeepsItsConnections(t *testing.T) {
	const name = "api.payments.example.net"
	own := ownRules + "  - id: own/web\n    to: [\"https://" + name + ":443\"]\n"
	h := open(t, manyFeatures, own, true)
	addr := h.address(t, name)
	flows := []flow{h.opened(t, 1, name, addr), h.opened(t, 2, name, addr)}
	h.goOn(t, "before", addr, flows...)
	h.reload(t, lab.GatewayConfig("lab", strings.Replace(own, name+":443\"", name+":443\", \"https://more.example.net:443\"", 1)))
	h.goOn(t, "after the reload", addr, flows...)
	h.KillGateway()
	if err := h.RestartGateway(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.goOn(t, "after the restart", addr, flows...)
}

// TestARuleThatShrinksCutsWhatItLost and nothing else, of two names that one wildcard permitted: by a reload behind the
// death of the process that knew the connections, and by a restart.
func TestARuleThatShrinksCutsWhatItLost(t *testing.T) {
	const kept, lost = "kept.payments.example.net", "lost.payments.example.net"
	rule := func(to string) string {
		return lab.GatewayConfig("lab", ownRules+"  - id: own/web\n    to: [\"https://"+to+":443\"]\n")
	}
	const wide, narrow = "*.payments.example.net", kept
	for _, reload := range []bool{true, false} {
		h := open(t, manyFeatures, ownRules, true)
		h.reload(t, rule(wide))
		here, there := h.address(t, kept), h.address(t, lost)
		goesOn, ends := h.opened(t, 1, kept, here), h.opened(t, 1, lost, there)
		h.KillGateway()
		if !reload {
			h.write(t, lab.GatewayFile, rule(narrow))
		}
		if err := h.RestartGateway(t.Context()); err != nil {
			t.Fatal(err)
		}
		if reload {
			h.goOn(t, "after the restart", there, ends)
			h.reload(t, rule(narrow))
		}
		if !ends.ended() {
			t.Errorf("reload %t: a connection to a name that no rule permits goes on\n%s", reload, h.log())
		}
		eventually(t, "its server is told", func() bool { return h.Connections(netip.AddrPortFrom(there, 443)) == 0 })
		h.goOn(t, "the name that is still permitted", here, goesOn)
	}
}
