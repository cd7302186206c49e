package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// page asks the gateway's management address from within its box.
func (h *house) page(t *testing.T, path string) string {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		err = h.DoGateway(func() error {
			var d net.Dialer
			c, err = d.DialContext(ctx, network, addr)
			return err
		})
		return c, err
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: 10 * time.Second}).Get("http://127.0.0.1:9253" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return string(b)
}

// TestMetricsAreClean holds the metrics of a gateway that has decided something
// against Prometheus' own linter.
func TestMetricsAreClean(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil && os.Getenv(netnstest.Required) != "" {
		t.Fatal("promtool is not installed: scripts/setup installs it")
	} else if err != nil {
		t.Skipf("SKIP: the linter is the promtool command: %v", err)
	}
	h := open(t, manyFeatures, ownRules, true)
	h.hold(t, 6)
	metrics := h.page(t, "/metrics")
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(metrics)
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	for _, want := range []string{`tidegate_decisions_total{action="allow",reason="name-rule"}`, "tidegate_policy_rules ", `tidegate_queue_packets_total{queue="15300"}`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
}

// TestClientsDoNotReachTheManagement: neither its port nor the one that the kernel
// diverts HTTP to.
func TestClientsDoNotReachTheManagement(t *testing.T) {
	h := open(t, manyFeatures, "", true)
	for _, port := range []uint16{9253, transparentPort} {
		for _, addr := range lab.GatewayInside {
			to := netip.AddrPortFrom(addr, port)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if c, err := h.Node(1).Dial(ctx, "tcp", to); err == nil {
				c.Close()
				t.Errorf("a node reaches %s", to)
			}
			cancel()
		}
	}
}
