package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// serviceAddr is where a pod without the webhook's variables looks for the API server.
var serviceAddr = netip.MustParseAddrPort("10.0.0.1:443")

// unnamed are the ways in which clients that ignore the variables begin to talk to the API server, as openssl is told
// to; %s is the address.
var unnamed = []struct{ what, flags string }{
	{"no name", "-noservername"},
	{"kubernetes.default.svc", "-servername kubernetes.default.svc"},
	{"the address", "-servername %s"},
}

// TestClientsThatDoNotUseTheName: a client that shows no name, or one that says nothing to a firewall, reaches the API
// server at its current address and nobody at any other. When DNS moves the API server, the new address works within
// the refresh, and what is connected to the old one stays connected.
func TestClientsThatDoNotUseTheName(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for DNS to be asked again")
	}
	c := start(t, setting{})
	c.startNode()
	c.ready()
	old := c.api()
	c.reachTheAPI(t, c.Zone.Addrs(c.name))
	c.reachNobodyElse(t)
	c.podByService(t)

	watch := c.watchByAddress(t, old)
	next := []netip.Addr{netip.MustParseAddr("20.77.1.9"), netip.MustParseAddr("2603:1077:1::9")}
	moved := netip.AddrPortFrom(next[0], 443)
	if out, err := c.openssl(unnamed[0].flags, moved); err == nil {
		t.Errorf("the API server's next address is open before it is one: %s", out)
	}
	began := time.Now()
	c.Zone.Move(c.name, next...)
	c.until("the new address is open", 2*time.Minute, func() error {
		_, err := c.openssl(unnamed[0].flags, moved)
		return err
	})
	t.Logf("the new address is open after %v", time.Since(began).Round(time.Second))
	c.reachTheAPI(t, next)
	c.event(t, watch, "after the move")
	c.KillGateway()
	c.event(t, watch, "while the gateway is dead")
	if err := c.RestartGateway(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.event(t, watch, "after its restart")
	c.reachTheAPI(t, next)
}

// api is the API server's IPv4 address at the moment, for who dials it without its name.
func (c *cluster) api() netip.AddrPort { return netip.AddrPortFrom(c.Zone.Addrs(c.name)[0], 443) }

// openssl asks for the version over a connection to an address, on the node.
func (c *cluster) openssl(flags string, to netip.AddrPort) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	args := []string{"s_client", "-connect", to.String(), "-CAfile", c.path("ca.pem"), "-verify_return_error", "-quiet"}
	if strings.Contains(flags, "%s") {
		flags = fmt.Sprintf(flags, to.Addr())
	}
	cmd := exec.CommandContext(ctx, "openssl", append(args, strings.Fields(flags)...)...)
	cmd.Stdin = strings.NewReader("GET /version HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n")
	out, err := output(c.Node(1), cmd)
	if err == nil && !strings.Contains(out, `"gitVersion": "v1.`) {
		err = fmt.Errorf("no API server answers: %s", out)
	}
	return out, err
}

// reachTheAPI reaches the API server without its name.
func (c *cluster) reachTheAPI(t *testing.T, at []netip.Addr) {
	t.Helper()
	for _, addr := range at {
		for _, u := range unnamed {
			if _, err := c.openssl(u.flags, netip.AddrPortFrom(addr, 443)); err != nil {
				t.Errorf("the API server at %s, showing %s: %v", addr, u.what, err)
			}
		}
	}
}

// reachNobodyElse shows the same to others: who is permitted by name, another API server, and anybody.
func (c *cluster) reachNobodyElse(t *testing.T) {
	t.Helper()
	for _, name := range []string{"mcr.microsoft.com", "other-12345678.hcp.eastus2.azmk8s.io", "unlisted.example.net"} {
		_, _ = c.curl("https://" + name + "/v2/") // so that its addresses are known where they may be
		for _, addr := range c.Zone.Addrs(name) {
			c.shut(t, name, netip.AddrPortFrom(addr, 443))
		}
	}
}

// shut shows somebody else what the API server is shown, and finds every try denied in the flow log.
func (c *cluster) shut(t *testing.T, name string, to netip.AddrPort) {
	t.Helper()
	for _, u := range unnamed {
		before := len(c.hellos(to))
		if _, err := c.openssl(u.flags, to); err == nil {
			t.Errorf("%s is reached showing %s", name, u.what)
		}
		if n := len(c.hellos(to)) - before; n > 0 {
			t.Errorf("the server of %s got %d hellos showing %s", name, n, u.what)
		}
	}
	denied := 0
	for _, f := range c.decisions(t) {
		if f.Conn.Dst == to && f.Verdict.Action == egress.Deny {
			denied++
		}
	}
	if denied < len(unnamed) {
		t.Errorf("the flow log has %d denials of %s, want %d", denied, name, len(unnamed))
	}
}

// hellos are the TLS connections that a server got a whole first message of.
func (c *cluster) hellos(at netip.AddrPort) []lab.Seen {
	return c.Record.Find(func(s *lab.Seen) bool { return s.Local == at && s.Proto == "tls" && s.Whole })
}

// podByService runs a pod without the webhook's variables. It dials the address of the service kubernetes, which the
// node translates, as kube-proxy would have it do.
func (c *cluster) podByService(t *testing.T) {
	t.Helper()
	c.serve("proxy")
	c.create(appPod("plain", "ask"))
	c.runs("plain")
	c.until("a pod without the variables talks to the API server", startTimeout, func() error {
		out, err := c.kubectl(t.Context(), "logs", "plain")
		if err == nil && !strings.Contains(out, "at 10.0.0.1: I am system:serviceaccount:default:default") {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
}

// serve makes the address of the service kubernetes work on the node, as kube-proxy does, in an nftables table.
func (c *cluster) serve(table string) {
	c.t.Helper()
	for _, command := range []string{
		"add table ip " + table,
		"add chain ip " + table + " out { type nat hook output priority -100; }",
		fmt.Sprintf("add rule ip %s out ip daddr %s tcp dport %d dnat to %s", table, serviceAddr.Addr(), serviceAddr.Port(), c.api()),
	} {
		c.must(output(c.Node(1), exec.Command("/usr/sbin/nft", command)))
	}
}

// watchByAddress watches the namespace's config maps over one connection from the node, which shows no name.
func (c *cluster) watchByAddress(t *testing.T, at netip.AddrPort) <-chan string {
	t.Helper()
	dials := 0
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + at.String(),
		TLSClientConfig: rest.TLSClientConfig{
			CAFile: c.path("ca.pem"), CertFile: c.path("admin.crt"), KeyFile: c.path("admin.key"),
		},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, fmt.Errorf("the watch's connection was lost")
			}
			return c.Node(1).Dial(ctx, "tcp", at)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.CoreV1().ConfigMaps("default").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	names := make(chan string, 100)
	go func() {
		defer close(names)
		for e := range w.ResultChan() {
			if m, ok := e.Object.(metav1.Object); ok {
				names <- m.GetName()
			}
		}
	}()
	return names
}

// event makes something happen, and waits until the watch tells of it.
func (c *cluster) event(t *testing.T, watch <-chan string, when string) {
	t.Helper()
	name := strings.ReplaceAll(when, " ", "-")
	c.must(c.kubectl(t.Context(), "create", "configmap", name))
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got, open := <-watch:
			if !open {
				t.Fatalf("%s the watch has ended", when)
			}
			if got == name {
				return
			}
		case <-timeout:
			t.Fatalf("%s the watch says nothing", when)
		}
	}
}
