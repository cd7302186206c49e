package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// TestARealNodeLivesBehindTheGateway: a gateway that knows nothing but the cluster's JSON lets a node register, pull and
// run, and nothing of that is denied.
func TestARealNodeLivesBehindTheGateway(t *testing.T) {
	c := start(t, setting{})
	c.startNode()
	c.startWebhook()
	c.ready()
	c.create(annotated("app", "ask"))
	c.runs("app")

	want := "at " + c.name + ": I am system:serviceaccount:default:default"
	c.until("the pod talks to the API server", startTimeout, func() error {
		out, err := c.kubectl(t.Context(), "logs", "app")
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
	env := strings.Fields(c.must(c.kubectl(t.Context(), "exec", "app", "--", "/app", "env")))
	for _, v := range []string{
		"KUBERNETES_SERVICE_HOST=" + c.name, "KUBERNETES_PORT=tcp://" + c.name + ":443",
		"KUBERNETES_PORT_443_TCP=tcp://" + c.name + ":443", "KUBERNETES_PORT_443_TCP_ADDR=" + c.name, "KUBERNETES_SERVICE_PORT=443",
	} {
		if !slices.Contains(env, v) {
			t.Errorf("the pod lacks %s: %q", v, env)
		}
	}
	c.passed(t, "lab:core/apiserver", c.name)
	c.passed(t, "lab:core/mcr", "mcr.microsoft.com")
	c.passed(t, "lab:core/mcr-data", "eastus.data.mcr.microsoft.com")
	if denied := c.denials(t); len(denied) > 0 {
		t.Errorf("a node that does nothing else is denied %v", denied)
	}
	if out, err := c.curl("https://unlisted.example.net/"); err == nil {
		t.Errorf("control: the node reaches what no rule names: %s", out)
	}
	c.largest(t)
}

// passed sees in the flow log that a rule let the node through to a name, and in the lab's record that it arrived.
func (c *cluster) passed(t *testing.T, rule, name string) {
	t.Helper()
	flows := c.decisions(t)
	i := slices.IndexFunc(flows, func(f egress.Flow) bool {
		return f.Verdict.Action == egress.Allow && f.Verdict.Rule.ID == rule && f.Conn.Name.String() == name && f.Conn.Src.Addr() == c.Node(1).Addrs[0]
	})
	if i < 0 {
		t.Errorf("no flow of the node to %s passed by %s", name, rule)
		return
	}
	to := flows[i].Conn.Dst
	if len(c.Record.Find(func(s *lab.Seen) bool { return s.Local == to && s.Remote.Addr() == lab.GatewayOutside[0] })) == 0 {
		t.Errorf("no server at %s saw %s arrive from the gateway", to, name)
	}
}

// logDelay is more than what the flow log gathers before it writes.
const logDelay = 100 * time.Millisecond

// decisions are all that the gateway has logged of connections' beginnings.
func (c *cluster) decisions(t *testing.T) []egress.Flow {
	t.Helper()
	time.Sleep(logDelay)
	all, err := c.flows.All()
	if err != nil {
		t.Error(err)
	}
	return slices.DeleteFunc(slices.Clone(all), func(f egress.Flow) bool { return f.End })
}

// denials are what the gateway refused, as text.
func (c *cluster) denials(t *testing.T) (denied []string) {
	t.Helper()
	for _, f := range c.decisions(t) {
		if f.Verdict.Action == egress.Deny {
			denied = append(denied, fmt.Sprintf("%s %s (%s): %s", f.Conn.Proto, f.Conn.Dst, f.Conn.Name, f.Verdict.Reason))
		}
	}
	return denied
}

// curl asks for a URL on the node, with the patience of a node's own checks.
func (c *cluster) curl(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", append([]string{"-sS", "--max-time", "10"}, args...)...)
	cmd.Env = c.Environ([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + c.dir})
	return output(c.Node(1), cmd)
}
