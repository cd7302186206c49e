package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tidegate.io/tidegate/kernel"
	"tidegate.io/tidegate/lab"
)

// konnectivity starts the tunnel's server beside the API server, which has no other way to nodes and webhooks. What the
// server and the agent send each other to keep a connection alive is left at their own default, once an hour: AKS's agent
// does it every 30 seconds, and no idleness would be seen.
func konnectivity(c *cluster) string {
	c.t.Helper()
	cert, key := c.pki.sign("konnectivity-server", nil, []string{c.name})
	c.write("konnectivity.crt", cert)
	c.write("konnectivity.key", key)
	c.run(c.control, "konnectivity-server", part("konnectivity-server", "--mode=grpc", "--uds-name", c.path("konnectivity.sock"),
		"--server-port=0", "--agent-bind-address", tunnelAddr.Addr().String(), "--agent-port", strconv.Itoa(int(tunnelAddr.Port())),
		"--cluster-cert", c.path("konnectivity.crt"), "--cluster-key", c.path("konnectivity.key"), "--cluster-ca-cert", c.path("clients.pem")))
	return egressSelection("GRPC", c.path("konnectivity.sock"))
}

// startAgent starts the tunnel's other end on the node, with the arguments that AKS gives it, but for two: it keeps
// nothing alive (see konnectivity), and does not go on connecting to find further servers, since each of those
// connections would count as one that was made anew.
func (c *cluster) startAgent() {
	c.t.Helper()
	cert, key := c.pki.sign("konnectivity-agent", nil, nil)
	c.write("agent.crt", cert)
	c.write("agent.key", key)
	agent := part("konnectivity-agent", "--proxy-server-host", c.name, "--proxy-server-port=443", "--alpn-proto=konnectivity",
		"--ca-cert", c.path("clients.pem"), "--agent-cert", c.path("agent.crt"), "--agent-key", c.path("agent.key"),
		"--agent-identifiers=default-route=true", "--health-server-port=8082")
	agent.Env = c.Environ(os.Environ())
	c.run(c.Node(1), "konnectivity-agent", agent)
}

// arrived is how many connections of the tunnel the API server's front has had: those whose ClientHello offers its ALPN.
func (c *cluster) arrived() int {
	return len(c.Record.Find(func(s *lab.Seen) bool { return s.Proto == "tls" && bytes.Contains(s.Data, []byte("\x0ckonnectivity")) }))
}

// A follower of the cluster is a command that goes on while it can, and writes to a file.
type follower struct {
	*process
	log string
}

func (c *cluster) follow(in *lab.Node, name, kubeconfig string, args ...string) follower {
	c.t.Helper()
	cmd := part("kubectl", append([]string{"--kubeconfig", c.path(kubeconfig)}, args...)...)
	cmd.Env = c.Environ([]string{"HOME=" + c.dir})
	return follower{c.run(in, name, cmd), c.path(name + ".log")}
}

// size is how much it has written.
func (f follower) size() int64 {
	info, err := os.Stat(f.log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// TestTunnel: the API server reaches the node through konnectivity, whose one connection the gateway lets through with
// its ALPN; and that connection, with all that is going on in it, is the same one when the gateway has been killed, was
// started again, and has had nothing to forward for 35 minutes.
func TestTunnel(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: takes a minute; without -short it runs")
	}
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "0") // the API server's own pings, inside the tunnel, would keep it from being idle
	c := start(t, setting{tunnel: konnectivity})
	c.startAgent()
	tunnel := c.theTunnel()
	c.startNode()
	c.ready()
	c.startWebhook()
	c.create(annotated("app", "ask"))
	c.runs("app")

	c.identify("watcher", "https://"+c.name, "admin", "system:masters")
	logs := c.follow(c.control, "logs", "admin.kubeconfig", "logs", "-f", "app")
	watch := c.follow(c.Node(1), "watch", "watcher.kubeconfig", "get", "configmaps", "--watch-only", "-o", "name")
	c.works(logs, watch)
	c.KillGateway()
	c.works(logs, watch)
	if err := c.RestartGateway(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.works(logs, watch)
	c.now(tunnel)

	c.stop(logs.process)
	c.stop(watch.process)
	c.idle(tunnel, 35*time.Minute)
	c.works()
	c.now(tunnel)

	// Control: where conntrack forgets sooner, nothing of this works.
	c.timeouts(func(name string, seconds int) int {
		if name == "established" {
			return 3
		}
		return seconds
	})
	c.must(c.kubectl(t.Context(), "logs", "--tail=1", "app")) // the connection's last packet is what the time counts from
	time.Sleep(6 * time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if out, err := c.kubectl(ctx, "logs", "--tail=1", "app"); err == nil {
		t.Errorf("control: logs go through a gateway that has forgotten the tunnel: %s", out)
	}
}

// works does what needs the tunnel: logs, exec and a call of the webhook, on connections of their own; and what goes on
// through the gateway goes on.
func (c *cluster) works(going ...follower) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	if out := c.must(c.kubectl(ctx, "logs", "app")); !strings.Contains(out, "1 at "+c.name) {
		c.t.Errorf("kubectl logs: %q", out)
	}
	if out := c.must(c.kubectl(ctx, "exec", "app", "--", "/app", "env")); !strings.Contains(out, "KUBERNETES_SERVICE_HOST="+c.name+"\n") {
		c.t.Errorf("kubectl exec: %q", out)
	}
	pod, err := c.tryPod(ctx, annotated("trial", "pause"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		c.t.Fatal(err)
	}
	if len(pod.Spec.Containers[0].Env) == 0 {
		c.t.Error("the webhook was not called")
	}
	before := make([]int64, len(going))
	for i, f := range going {
		before[i] = f.size()
	}
	thing := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "seen-", Namespace: "default"}}
	if _, err := c.client.CoreV1().ConfigMaps("default").Create(ctx, thing, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	for i, f := range going {
		c.until(f.name+" goes on", startTimeout, func() error {
			if f.size() == before[i] {
				return errors.New("it writes nothing more")
			}
			return nil
		})
	}
}

// theTunnel waits for the tunnel's connection, while nothing else on the node connects to the API server.
func (c *cluster) theTunnel() (tunnel kernel.Flow) {
	c.t.Helper()
	c.until("the tunnel stands", startTimeout, func() error {
		flows := c.toAPIServer()
		if len(flows) != 1 || flows[0].Mark.State() != kernel.Allowed {
			return fmt.Errorf("the connections to the API server are %v", flows)
		}
		tunnel = flows[0]
		return nil
	})
	return tunnel
}

// toAPIServer are the connections to the API server's name, as the gateway's kernel keeps them.
func (c *cluster) toAPIServer() (found []kernel.Flow) {
	c.t.Helper()
	err := c.DoGateway(func() error {
		tracker, err := kernel.OpenTracker()
		if err != nil {
			return err
		}
		defer tracker.Close()
		return tracker.Each(func(f kernel.Flow) {
			if f.Dst.Port() == 443 && slices.Contains(c.Zone.Addrs(c.name), f.Dst.Addr()) {
				found = append(found, f)
			}
		})
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}

// now is the tunnel's connection as it is now. That it is still there, and that there never was another, is what all of
// this is about.
func (c *cluster) now(tunnel kernel.Flow) kernel.Flow {
	c.t.Helper()
	if n := c.arrived(); n != 1 {
		c.t.Errorf("%d connections of the tunnel have arrived, want one", n)
	}
	for _, f := range c.toAPIServer() {
		if f.ID == tunnel.ID && f.Start.Equal(tunnel.Start) && f.Src == tunnel.Src {
			return f
		}
	}
	c.t.Fatalf("the tunnel's connection %v is gone", tunnel)
	return tunnel
}

// scale is how much faster than real time idleness is tried.
const scale = 60

// idle lets the tunnel be idle for as long as scale makes of d. Of whatever ends an idle connection sooner or later, only
// conntrack's times are in the gateway; each of them is divided by scale, and no packet may come to start them again.
func (c *cluster) idle(tunnel kernel.Flow, d time.Duration) {
	c.t.Helper()
	c.timeouts(func(name string, seconds int) int { return max(1, seconds/scale) })
	c.must(c.kubectl(c.t.Context(), "logs", "--tail=1", "app")) // the last packet before: the times count from it
	var before kernel.Flow
	c.until("the tunnel is quiet", startTimeout, func() error {
		before = c.now(tunnel)
		time.Sleep(2 * time.Second)
		if after := c.now(tunnel); after.Sent != before.Sent || after.Received != before.Received {
			return errors.New("bytes still pass")
		}
		return nil
	})
	time.Sleep(d / scale)
	if after := c.now(tunnel); after.Sent != before.Sent || after.Received != before.Received {
		c.t.Errorf("the tunnel was not idle: %d and %d bytes before, %d and %d after", before.Sent, before.Received, after.Sent, after.Received)
	}
}

// timeouts changes all times after which conntrack in the gateway forgets a TCP connection.
func (c *cluster) timeouts(change func(name string, seconds int) int) {
	c.t.Helper()
	var changed []string
	err := c.DoGateway(func() error {
		all, err := filepath.Glob("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_*")
		if err == nil && len(all) < 10 {
			err = fmt.Errorf("the kernel has %q", all)
		}
		for _, file := range all {
			text, readErr := os.ReadFile(file)
			seconds, atoiErr := strconv.Atoi(strings.TrimSpace(string(text)))
			name := strings.TrimPrefix(filepath.Base(file), "nf_conntrack_tcp_timeout_")
			to := change(name, seconds)
			if to != seconds {
				changed = append(changed, fmt.Sprintf("%s %d s, not %d", name, to, seconds))
			}
			err = errors.Join(err, readErr, atoiErr, os.WriteFile(file, strconv.AppendInt(nil, int64(to), 10), 0))
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("conntrack in the gateway forgets after: %s", strings.Join(changed, "; "))
}
