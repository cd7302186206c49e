package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// examples are the clusters of package aks's test data.
const examples = "../../aks/testdata/clusters/"

// ownRules are rules of the kinds that no example cluster has.
const ownRules = `rules:
  - id: own/tcp
    to: ["tcp://20.103.4.5:9000", "tcp://[2603:1000:7::5]:9000"]
  - id: own/udp
    to: ["udp://20.103.4.0/24:1194"]
  - id: own/time
    to: ["udp://ntp.ubuntu.com:123"]
  - id: own/git
    to: ["tcp://git.example.org:22"]
`

// A house is a lab whose gateway is this program.
type house struct {
	*lab.Lab
	dir    string
	policy *egress.Policy
}

// open starts the gateway for a cluster's file in a lab.
func open(t *testing.T, cluster, more string, gso bool) *house {
	t.Helper()
	netnstest.Need(t)
	text, err := os.ReadFile(cluster)
	if err != nil {
		t.Fatal(err)
	}
	private, err := privateNames(text)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{dir: t.TempDir()}
	g, err := writeGatewayFiles(h.dir, text, more)
	if err != nil {
		t.Fatal(err)
	}
	if h.policy, err = g.Policy(); err != nil {
		t.Fatal(err)
	}
	h.Lab, err = lab.Start(t.Context(), lab.Config{
		Dir: h.dir, Rules: g.Rules, Clusters: h.policy.Clusters(), Private: private, NoGSO: !gso, Ready: lab.Ready,
		Gateway: func() *exec.Cmd {
			cmd := exec.Command("/proc/self/exe", "gateway", "run", "--config", lab.GatewayFile)
			cmd.Args[0] = "tidegate" // testscript runs the command of that name
			return cmd
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func (h *house) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// log is what the gateway said, for a failed test.
func (h *house) log() string {
	text, _ := os.ReadFile(filepath.Join(h.dir, "gateway.log"))
	return string(text[max(0, len(text)-4096):])
}

// TestLabThroughTheGateway boots a node of every example and tries everything that must not leave.
func TestLabThroughTheGateway(t *testing.T) {
	for _, c := range []struct{ file, more string }{
		{"example-public-gpu-monitor-policy.cli.json", ownRules},
		{"example-usgov-private-keyvault-wi.cli.json", ""},
		{"example-china-windows-cost.cli.json", ""},
		{"example-network-isolated.cli.json", ""},
	} {
		for _, gso := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/gso=%t", strings.TrimSuffix(c.file, ".cli.json"), gso), func(t *testing.T) {
				h := open(t, examples+c.file, c.more, gso)
				h.tryAll(t)
			})
		}
	}
}

func (h *house) tryAll(t *testing.T) {
	t.Helper()
	flows := lab.FollowFlows(filepath.Join(h.dir, lab.FlowLogFile))
	report := lab.Report{}
	for _, cases := range [][]lab.Case{
		lab.Bootstrap(h.Zone, h.policy), lab.NearMisses(h.Zone, h.policy), lab.Attacks(h.Zone, h.policy),
	} {
		results, err := h.Run(t.Context(), cases, flows, nil)
		if err != nil {
			t.Fatal(err)
		}
		report.Results = append(report.Results, results...)
	}
	if report.OK() {
		return
	}
	var table bytes.Buffer
	if err := report.WriteTable(&table, false); err != nil {
		t.Fatal(err)
	}
	t.Errorf("\n%s\n%s", table.String(), h.log())
}

// A flow is a connection that is held open.
type flow struct {
	net.Conn
	kind string
}

// ping sends a word and wants it back.
func (f flow) ping() error {
	word := []byte("still there?")
	_ = f.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := f.Write(word); err != nil {
		return fmt.Errorf("%s: %w", f.kind, err)
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(f, got); err != nil {
		return fmt.Errorf("%s: %w", f.kind, err)
	}
	if !bytes.Equal(got, word) {
		return fmt.Errorf("%s: got %q", f.kind, got)
	}
	return nil
}

// hold opens flows to where the rules permit, a third of each kind, and checks each once.
func (h *house) hold(t *testing.T, count int) []flow {
	t.Helper()
	api := h.address(t, h.apiServer())
	flows := make([]flow, count)
	var g errgroup.Group
	g.SetLimit(32)
	for i := range flows {
		g.Go(func() (err error) {
			n := h.Node(1 + i%2)
			switch i % 3 {
			case 0:
				flows[i], err = h.tunnel(t.Context(), n, api)
			case 1:
				flows[i].kind = "tcp"
				flows[i].Conn, err = n.Dial(t.Context(), "tcp", netip.MustParseAddrPort("20.103.4.5:9000"))
			case 2:
				flows[i].kind = "udp"
				flows[i].Conn, err = n.Dial(t.Context(), "udp", netip.MustParseAddrPort("20.103.4.9:1194"))
			}
			if err != nil {
				return err
			}
			return flows[i].ping()
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, h.log())
	}
	t.Cleanup(func() {
		for _, f := range flows {
			_ = f.Close()
		}
	})
	return flows
}

func (h *house) apiServer() string { return h.Clusters()[0].APIServer.String() }

// address asks the cluster's DNS.
func (h *house) address(t *testing.T, name string) netip.Addr {
	t.Helper()
	addrs, err := h.Node(1).Lookup(t.Context(), name, false)
	if err != nil {
		t.Fatalf("%v\n%s", err, h.log())
	}
	return addrs[0]
}

// tunnel opens what the konnectivity agent holds open.
func (h *house) tunnel(ctx context.Context, n *lab.Node, api netip.Addr) (flow, error) {
	raw, err := n.Dial(ctx, "tcp", netip.AddrPortFrom(api, 443))
	if err != nil {
		return flow{}, err
	}
	c := tls.Client(raw, &tls.Config{RootCAs: h.CA.Pool(), ServerName: h.apiServer(), NextProtos: []string{"konnectivity"}})
	return flow{c, "tls"}, c.HandshakeContext(ctx)
}

// pingAll pings every flow and returns how many failed.
func pingAll(t *testing.T, flows []flow) (lost int) {
	t.Helper()
	var failed atomic.Int64
	var first atomic.Value
	var g errgroup.Group
	g.SetLimit(64)
	for _, f := range flows {
		g.Go(func() error {
			if err := f.ping(); err != nil {
				failed.Add(1)
				first.CompareAndSwap(nil, err)
			}
			return nil
		})
	}
	_ = g.Wait()
	if n := failed.Load(); n > 0 {
		t.Logf("%d of %d lost, such as: %v", n, len(flows), first.Load())
	}
	return int(failed.Load())
}

// handshake makes one new connection to a name whose address is known from before.
func (h *house) handshake(ctx context.Context, n *lab.Node, name string, addr netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	raw, err := n.Dial(ctx, "tcp", netip.AddrPortFrom(addr, 443))
	if err != nil {
		return err
	}
	defer raw.Close()
	return tls.Client(raw, &tls.Config{RootCAs: h.CA.Pool(), ServerName: name}).HandshakeContext(ctx)
}

func eventually(t *testing.T, what string, until func() bool) {
	t.Helper()
	for range 500 {
		if until() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("waited in vain until %s", what)
}

// reloads is how often the log says that a file was taken or refused.
func (h *house) loads(words string) int {
	text, _ := os.ReadFile(filepath.Join(h.dir, "gateway.log"))
	return strings.Count(string(text), words)
}

// resident is the gateway's memory in bytes.
func (h *house) resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", h.GatewayPID()))
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize()
}
