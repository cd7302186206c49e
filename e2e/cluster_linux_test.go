package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/lab"
)

// noTime is for what has no date.
var noTime time.Time

// A setting says how a cluster is built. The zero value is one that is described by lab.Example alone.
type setting struct {
	aks  string // `az aks show -o json`; "" is lab.Example
	file string // the gateway's; "" is the lab's, with more
	more string // appended to the lab's file

	// tunnel says how the API server reaches nodes and webhooks: it starts what that needs, and returns the API server's
	// egress selection. Nil: straight.
	tunnel func(c *cluster) string
}

// A cluster is a real one: its control plane in a box of its own behind the lab's internet, its gateway as in the lab, and,
// once startNode has been called, a node.
type cluster struct {
	*lab.Lab
	t       testing.TB
	dir     string     // the gateway's too
	name    string     // the API server's
	addr    netip.Addr // the API server's IPv4 address at the start
	control *lab.Node  // the control plane's box
	pki     *pki
	images  *registry
	flows   *lab.FlowLog
	client  kubernetes.Interface // as an administrator, not through the gateway
	running []*process           // in the order in which they were started
}

// start builds the cluster, without a node, and waits for its API server. It ends with the test.
func start(t testing.TB, s setting) *cluster {
	t.Helper()
	need(t)
	dir, err := os.MkdirTemp(room, "c")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, pki: newPKI(t)}
	t.Cleanup(c.close)
	c.startLab(s)
	if c.control, err = c.Apart("control plane"); err != nil {
		t.Fatal(err)
	}
	c.startControlPlane(s)
	return c
}

// startLab starts the lab with the real gateway.
func (c *cluster) startLab(s setting) {
	c.t.Helper()
	if s.aks == "" {
		s.aks = string(lab.Example)
	}
	if s.file == "" {
		s.file = lab.GatewayConfig("lab", s.more)
	}
	c.write(lab.ClusterFile, []byte(s.aks))
	c.write(lab.GatewayFile, []byte(s.file))
	c.flows = lab.FollowFlows(c.path(lab.FlowLogFile))
	g, err := config.Read(lab.GatewayFile, []byte(s.file), func(name string) (io.ReadCloser, error) { return os.Open(c.path(name)) })
	if err != nil {
		c.t.Fatal(err)
	}
	policy, err := g.Policy()
	if err != nil {
		c.t.Fatal(err)
	}
	c.images = newRegistry(c.t, own("app"))
	c.name = policy.Clusters()[0].APIServer.String()
	c.Lab, err = lab.Start(c.t.Context(), lab.Config{
		Dir: c.dir, Rules: g.Rules, Clusters: policy.Clusters(), Ready: lab.Ready,
		HTTP: c.images.serve, APIServer: c.front,
		Gateway: func() *exec.Cmd { return c.tidegate("gateway", "run", "--config", lab.GatewayFile) },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.addr = c.Zone.Addrs(c.name)[0]
}

// tidegate is the program as it is now.
func (c *cluster) tidegate(args ...string) *exec.Cmd {
	return exec.Command(own("tidegate"), args...)
}

// close ends everything, the node first, and leaves nothing.
func (c *cluster) close() {
	if c.t.Failed() {
		c.show()
	}
	for i := range c.running {
		c.running[len(c.running)-1-i].stop()
	}
	if c.Lab != nil {
		c.Close()
	}
	killAll()
	if err := os.RemoveAll(c.dir); err != nil {
		c.t.Error(err)
	}
}

// show prints the ends of all logs.
func (c *cluster) show() {
	const end = 3 << 10
	logs, _ := filepath.Glob(c.path("*.log"))
	for _, name := range append(logs, c.path(lab.FlowLogFile)) {
		text, _ := os.ReadFile(name)
		c.t.Logf("the end of %s:\n%s", filepath.Base(name), text[max(0, len(text)-end):])
	}
}

// write writes a file in the cluster's directory.
func (c *cluster) write(name string, text []byte) {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), text, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// mkdir makes directories in the cluster's.
func (c *cluster) mkdir(names ...string) {
	c.t.Helper()
	for _, name := range names {
		if err := os.MkdirAll(c.path(name), 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
}

// A process is one of the cluster's parts.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// run starts a part in a box; what it says goes to NAME.log.
func (c *cluster) run(in *lab.Node, name string, cmd *exec.Cmd) *process {
	c.t.Helper()
	out, err := os.OpenFile(c.path(name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer out.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, out, out
	if err := in.Start(cmd); err != nil {
		c.t.Fatalf("start %s: %v", name, err)
	}
	p := &process{name, cmd, make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.done) }()
	c.running = append(c.running, p)
	return p
}

// patience is how long a part may take to end when it is asked to.
const patience = 2 * time.Second

// stop ends a part; those that go on do not miss it.
func (c *cluster) stop(p *process) {
	p.stop()
	c.running = slices.DeleteFunc(c.running, func(other *process) bool { return other == p })
}

// stop asks the process to end, and kills it if it does not.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// part is a program of scripts/test-bin.
func part(name string, args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(parts(), name), args...)
}

// kubectl runs kubectl as an administrator, beside the API server, and returns its output, standard error included.
func (c *cluster) kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(parts(), "kubectl"), append([]string{"--kubeconfig", c.path("admin.kubeconfig")}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.dir)
	return output(c.control, cmd)
}

// output runs a command in a box, and returns what it writes to standard output and error; the error holds it too.
func output(in *lab.Node, cmd *exec.Cmd) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := in.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	if err != nil {
		err = fmt.Errorf("%s %q: %w\n%s", filepath.Base(cmd.Path), cmd.Args[1:], err, out.String())
	}
	return out.String(), err
}

// must is for a command that has to work.
func (c *cluster) must(out string, err error) string {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// connect makes the client of the test itself.
func (c *cluster) connect() kubernetes.Interface {
	c.t.Helper()
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: "https://" + c.name, QPS: 100, Burst: 100,
		TLSClientConfig: rest.TLSClientConfig{CAFile: c.path("ca.pem"), CertFile: c.path("admin.crt"), KeyFile: c.path("admin.key")},
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.control.Dial(ctx, "tcp", apiAddr)
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return client
}

// until waits until f returns nil; a failure of the test shows the last of its errors. A part that ends ends the wait.
func (c *cluster) until(what string, within time.Duration, f func() error) {
	c.t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
		for _, p := range c.running {
			select {
			case <-p.done:
				c.t.Fatalf("%s: %s has ended: %s", what, p.name, p.cmd.ProcessState)
			default:
			}
		}
	}
	c.t.Fatalf("%s: waited %v in vain: %v", what, within, err)
}
