package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

const apiName = "demo-abc123.hcp.westeurope.azmk8s.io"

// cluster is a real API server, and kubectl for it.
type cluster struct {
	t                  *testing.T
	env                *envtest.Environment
	admin              string // its kubeconfig
	account            string // the kubeconfig of the webhook's service account
	tidegate, manifest string
	tools              string // where kubectl is
}

// part is a program that scripts/test-bin has built. Where it is missing the test
// is skipped, which TIDEGATE_E2E=required forbids.
func part(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../../bin/parts", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("TIDEGATE_E2E") == "required" {
			t.Fatalf("not built (make test-bin): %v", err)
		}
		t.Skipf("SKIPPED: no %s has been built (make test-bin); TIDEGATE_E2E=required makes this an error", name)
	}
	return path
}

// ours is a folder for the program, which TestMain removes.
var ours = filepath.Join(os.TempDir(), fmt.Sprintf("tidegate-peers-%d", os.Getpid()))

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(ours)
	os.Exit(code)
}

// binary builds the program, once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(ours, "tidegate")
	build := exec.Command("go", "build", "-o", path, "./cmd/tidegate")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// openCluster starts etcd and kube-apiserver.
func openCluster(t *testing.T) *cluster {
	t.Helper()
	ctrllog.SetLogger(logr.Discard()) // or envtest complains that nobody has
	c := &cluster{t: t}
	c.tools = filepath.Dir(part(t, "kubectl"))
	c.env = &envtest.Environment{BinaryAssetsDirectory: filepath.Dir(part(t, "kube-apiserver")), ControlPlaneStartTimeout: 2 * time.Minute}
	var err error
	if c.tidegate, err = binary(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.env.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.env.Stop() })
	c.admin = c.kubeconfig("admin", "system:masters")
	c.account = c.kubeconfig("system:serviceaccount:"+namespace+":tidegate-webhook", "system:serviceaccounts", "system:serviceaccounts:"+namespace)
	c.manifest = c.command(nil, c.tidegate, "webhook", "manifests", "--api-server", apiName, "--image", "registry.example/tidegate:1")
	return c
}

// install applies the manifests. The namespace comes first in them, so that a
// deployment whose pods are not restricted is warned of.
func (c *cluster) install() {
	c.t.Helper()
	c.kubectl(c.manifest, "apply", "--validate=strict", "--warnings-as-errors", "-f", "-")
}

// installed is a cluster whose API server calls a replica.
func installed(t *testing.T) (*cluster, *replica) {
	t.Helper()
	c := openCluster(t)
	c.install()
	r := c.replica()
	r.waitReady()
	c.point(r)
	c.waitPatched()
	return c, r
}

// controllers starts the controllers that make pods of what is deployed.
func (c *cluster) controllers() {
	c.t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(part(c.t, "kube-controller-manager"), "--kubeconfig", c.admin, "--leader-elect=false", "--secure-port=0",
		"--controllers=deployment-controller,replicaset-controller,daemonset-controller")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if c.t.Failed() {
			c.t.Logf("kube-controller-manager:\n%s", tail(log.String()))
		}
	})
}

func (c *cluster) kubeconfig(user string, groups ...string) string {
	c.t.Helper()
	u, err := c.env.AddUser(envtest.User{Name: user, Groups: groups}, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := u.KubeConfig()
	if err != nil {
		c.t.Fatal(err)
	}
	path := filepath.Join(c.t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c *cluster) command(stdin []byte, name string, args ...string) string {
	c.t.Helper()
	var stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("%s %q: %v\n%s%s", filepath.Base(name), args, err, out, stderr.String())
	}
	return string(out)
}

func (c *cluster) kubectl(stdin string, args ...string) string {
	c.t.Helper()
	return c.command([]byte(stdin), filepath.Join(c.tools, "kubectl"), append([]string{"--kubeconfig", c.admin}, args...)...)
}

// point makes the API server find a replica on this machine: under the name that
// its certificate is for.
func (c *cluster) point(r *replica) {
	c.kubectl("", "-n", namespace, "patch", "service", "tidegate-webhook", "--type", "merge", "-p",
		`{"spec":{"type":"ExternalName","externalName":"localhost","clusterIP":null,"clusterIPs":null,"selector":null}}`)
	c.kubectl("", "patch", "mutatingwebhookconfiguration", "tidegate-webhook", "--type", "json", "-p",
		`[{"op":"replace","path":"/webhooks/0/clientConfig/service/port","value":`+r.port()+`}]`)
}

// pod makes a pod, and returns the variables of its init container and its container.
func (c *cluster) pod(ns, metadata, env string) []string {
	c.t.Helper()
	name := fmt.Sprintf("p-%d", time.Now().UnixNano())
	text := c.kubectl(fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":%q%s},"spec":{"nodeName":"node-1",
		"initContainers":[{"name":"i","image":"a"}],"containers":[{"name":"a","image":"a"%s}]}}`, name, ns, metadata, env), "create", "-f", "-", "-o", "json")
	return variables(c.t, text)
}

// variables are those of a pod in JSON.
func variables(t *testing.T, text string) []string {
	t.Helper()
	var pod corev1.Pod
	if err := json.Unmarshal([]byte(text), &pod); err != nil {
		t.Fatal(err)
	}
	return podVariables(&pod)
}

// podVariables are those of a pod's containers, init containers first, each
// after its container's name.
func podVariables(pod *corev1.Pod) []string {
	var got []string
	for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		for _, e := range container.Env {
			got = append(got, container.Name+" "+e.Name+"="+e.Value)
		}
	}
	return got
}

// four are the variables that the webhook gives a container.
func four(container string) []string {
	return []string{
		container + " KUBERNETES_SERVICE_HOST=" + apiName, container + " KUBERNETES_PORT=tcp://" + apiName + ":443",
		container + " KUBERNETES_PORT_443_TCP=tcp://" + apiName + ":443", container + " KUBERNETES_PORT_443_TCP_ADDR=" + apiName,
	}
}

// waitPatched waits until a pod of kube-system is given the name, and returns how
// many were not before.
func (c *cluster) waitPatched() (before int) {
	c.t.Helper()
	waitFor(c.t, func() bool {
		if len(c.pod("kube-system", "", "")) > 0 {
			return true
		}
		before++
		return false
	})
	return before
}

// ignored is how many calls of the webhook the API server says that it went on without.
func (c *cluster) ignored() int {
	c.t.Helper()
	m := failOpen.FindStringSubmatch(c.kubectl("", "get", "--raw", "/metrics"))
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

var failOpen = regexp.MustCompile(`(?m)^apiserver_admission_webhook_fail_open_count\{name="kube-service-host.tidegate.io",type="admit"\} (\d+)$`)

func (c *cluster) authority() string {
	return c.kubectl("", "get", "mutatingwebhookconfiguration", "tidegate-webhook", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}")
}

func (c *cluster) secret() map[string][]byte {
	c.t.Helper()
	var s corev1.Secret
	if err := json.Unmarshal([]byte(c.kubectl("", "-n", namespace, "get", "secret", "tidegate-webhook", "-o", "json")), &s); err != nil {
		c.t.Fatal(err)
	}
	return s.Data
}

// lines are those of a text that are not empty.
func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }

// waitFor waits for what takes a moment to reach the API server.
func waitFor(t *testing.T, until func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if until() {
			return
		}
	}
	t.Fatal("waited in vain")
}
