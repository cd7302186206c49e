package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	tidegate "tidegate.io/tidegate/webhook"
)

const apiName = "demo-abc123.hcp.westeurope.azmk8s.io"

// cluster is a real API server, and kubectl for it.
type cluster struct {
	t                  *testing.T
	env                *envtest.Environment
	admin              string // its kubeconfig
	tidegate, manifest string
}

// openCluster starts etcd and kube-apiserver from the folder KUBEBUILDER_ASSETS.
func openCluster(t *testing.T) *cluster {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if _, err := os.Stat(filepath.Join(assets, "kube-apiserver")); assets == "" || err != nil {
		if os.Getenv("TIDEGATE_REQUIRE_KUBE") != "" {
			t.Fatalf("KUBEBUILDER_ASSETS=%q: no kube-apiserver in it", assets)
		}
		t.Skip("SKIPPED: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver; TIDEGATE_REQUIRE_KUBE=1 makes this an error")
	}
	c := &cluster{t: t, env: &envtest.Environment{BinaryAssetsDirectory: assets}, tidegate: filepath.Join(t.TempDir(), "tidegate")}
	build := exec.Command("go", "build", "-o", c.tidegate, "./cmd/tidegate")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if _, err := c.env.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.env.Stop() })
	c.admin = c.kubeconfig("admin", "system:masters")
	c.manifest = c.command(nil, c.tidegate, "webhook", "manifests", "--api-server", apiName, "--image", "registry.example/tidegate:1")
	return c
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
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("%s %q: %v\n%s%s", filepath.Base(name), args, err, out, stderr.String())
	}
	return string(out)
}

func (c *cluster) kubectl(stdin string, args ...string) string {
	c.t.Helper()
	return c.command([]byte(stdin), "kubectl", append([]string{"--kubeconfig", c.admin}, args...)...)
}

// replica starts one webhook with the rights of its service account, and a
// stand-in for the kubelet that shows it its Secret. The API server finds it at
// port.
func (c *cluster) replica(account string) (port, management string, stop func()) {
	c.t.Helper()
	reviews, health := freeAddress(c.t), freeAddress(c.t)
	dir := c.t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, c.tidegate, "webhook", "run", "--api-server", apiName, "--cert-dir", dir, "--kubeconfig", account,
		"--manage-certificate", namespace+"/tidegate-webhook", "--exclude-namespaces", namespace, "--listen", reviews, "--management", health)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	mounting := make(chan struct{})
	go func() {
		defer close(mounting)
		for ctx.Err() == nil && !c.mount(dir) {
			time.Sleep(50 * time.Millisecond)
		}
	}()
	stop = func() {
		cancel()
		_ = cmd.Wait()
		<-mounting
		if c.t.Failed() {
			c.t.Logf("webhook:\n%s", log.String())
		}
	}
	c.t.Cleanup(stop)
	_, port, _ = strings.Cut(reviews, ":")
	return port, "http://" + health, stop
}

// mount writes the Secret's files, and reports whether there were any.
func (c *cluster) mount(dir string) bool {
	out, err := exec.Command("kubectl", "--kubeconfig", c.admin, "-n", namespace, "get", "secret", "tidegate-webhook", "-o", "json").Output()
	var s corev1.Secret
	if err != nil || json.Unmarshal(out, &s) != nil || len(s.Data["tls.crt"]) == 0 {
		return false
	}
	for _, name := range []string{"tls.key", "tls.crt"} {
		if err := os.WriteFile(filepath.Join(dir, name), s.Data[name], 0o600); err != nil {
			return false
		}
	}
	return true
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// point makes the API server find the webhook on this machine: under the name
// that its certificate is for.
func (c *cluster) point(port string) {
	c.kubectl("", "-n", namespace, "patch", "service", "tidegate-webhook", "--type", "merge", "-p",
		`{"spec":{"type":"ExternalName","externalName":"localhost","clusterIP":null,"clusterIPs":null,"selector":null}}`)
	c.kubectl("", "patch", "mutatingwebhookconfiguration", "tidegate-webhook", "--type", "json", "-p",
		`[{"op":"replace","path":"/webhooks/0/clientConfig/service/port","value":`+port+`}]`)
}

// pod makes a pod, and returns the variables of its init container and its container.
func (c *cluster) pod(ns, metadata, env string) []string {
	c.t.Helper()
	name := fmt.Sprintf("p-%d", time.Now().UnixNano())
	text := c.kubectl(fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"namespace":%q%s},"spec":{"nodeName":"node-1",
		"initContainers":[{"name":"i","image":"a"}],"containers":[{"name":"a","image":"a"%s}]}}`, name, ns, metadata, env), "create", "-f", "-", "-o", "json")
	var pod corev1.Pod
	if err := json.Unmarshal([]byte(text), &pod); err != nil {
		c.t.Fatal(err)
	}
	var got []string
	for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		for _, e := range container.Env {
			got = append(got, container.Name+" "+e.Name+"="+e.Value)
		}
	}
	return got
}

func TestOnARealAPIServer(t *testing.T) {
	c := openCluster(t)
	four := func(container string) []string {
		return []string{
			container + " KUBERNETES_SERVICE_HOST=" + apiName, container + " KUBERNETES_PORT=tcp://" + apiName + ":443",
			container + " KUBERNETES_PORT_443_TCP=tcp://" + apiName + ":443", container + " KUBERNETES_PORT_443_TCP_ADDR=" + apiName,
		}
	}
	both := append(four("i"), four("a")...)

	// The namespace comes first, so that a deployment whose pods are not restricted is warned of.
	c.kubectl(c.manifest, "apply", "--validate=strict", "--warnings-as-errors", "-f", "-")
	c.kubectl(c.manifest, "apply", "--validate=strict", "--warnings-as-errors", "--dry-run=server", "-f", "-")
	c.kubectl("", "create", "namespace", "gatekeeper-system")
	account := c.kubeconfig("system:serviceaccount:"+namespace+":tidegate-webhook", "system:serviceaccounts", "system:serviceaccounts:"+namespace)

	// Without a webhook no admission is blocked.
	if got := c.pod("kube-system", "", ""); got != nil {
		t.Errorf("without a webhook: %q", got)
	}

	// Two replicas that start together agree on a certificate.
	port, first, stopFirst := c.replica(account)
	_, second, stopSecond := c.replica(account)
	for _, url := range []string{first, second} {
		waitReady(t, url)
	}
	c.point(port)
	before := 1
	waitFor(t, func() bool {
		patched := len(c.pod("kube-system", "", "")) > 0
		if !patched {
			before++
		}
		return patched
	})
	asked := func(v string) string { return `,"annotations":{"` + tidegate.Annotation + `":"` + v + `"}` }
	for _, row := range []struct {
		name, ns, metadata, env string
		want                    []string
	}{
		{"a pod", "default", "", "", nil},
		{"an annotated pod", "default", asked("true"), "", both},
		{"a pod annotated with nothing", "default", asked(""), "", both},
		{"a pod of kube-system", "kube-system", "", "", both},
		{"a pod of gatekeeper-system", "gatekeeper-system", "", "", both},
		{"a pod that opted out", "kube-system", `,"annotations":{"` + tidegate.OptOut + `":""}`, "", nil},
		{
			"a pod that has the port and an address", "kube-system", "", `,"env":[{"name":"KUBERNETES_SERVICE_PORT","value":"443"},{"name":"KUBERNETES_SERVICE_HOST","value":"10.0.0.1"}]`,
			append(four("i"), append(four("a")[1:], "a KUBERNETES_SERVICE_PORT=443", "a KUBERNETES_SERVICE_HOST="+apiName)...),
		},
	} {
		if diff := cmp.Diff(row.want, c.pod(row.ns, row.metadata, row.env)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}

	// Applying the manifests again leaves the authority and the certificate alone.
	authority, secret := c.authority(), c.secret()
	c.kubectl(c.manifest, "apply", "-f", "-")
	if c.authority() != authority || authority == "" || c.secret() != secret || secret == "" {
		t.Error("applying again changed the authority or the certificate")
	}

	// What started without the name is found.
	out, _ := exec.Command(c.tidegate, "webhook", "lint", "--live", "--kubeconfig", c.admin, "-o", "json", "-n", "kube-system").Output()
	if n := strings.Count(string(out), `"started-before"`); n != before {
		t.Errorf("lint finds %d pods that started before, want %d:\n%s", n, before, out)
	}

	// And when it dies no admission is blocked.
	stopFirst()
	stopSecond()
	if got := c.pod("kube-system", "", ""); got != nil {
		t.Errorf("with a dead webhook: %q", got)
	}
}

func (c *cluster) authority() string {
	return c.kubectl("", "get", "mutatingwebhookconfiguration", "tidegate-webhook", "-o", "jsonpath={.webhooks[0].clientConfig.caBundle}")
}

func (c *cluster) secret() string {
	return c.kubectl("", "-n", namespace, "get", "secret", "tidegate-webhook", "-o", "jsonpath={.data}")
}

func waitReady(t *testing.T, url string) {
	t.Helper()
	waitFor(t, func() bool {
		r, err := http.Get(url + "/readyz")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		return err == nil && string(b) == "ok\n"
	})
}

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
