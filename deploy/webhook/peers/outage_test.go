package peers

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	tidegate "tidegate.io/tidegate/webhook"
)

// TestNoOutageBlocksAnAdmission: while the webhook does not answer, or is not
// there, pods are made as they are, and the API server counts each; afterwards
// they are given the name again.
func TestNoOutageBlocksAnAdmission(t *testing.T) {
	c, r := installed(t)

	r.signal(syscall.SIGSTOP) // connections are taken, and nothing comes back
	c.admitsWithout("does not answer", 6)
	c.admitsItsOwn()
	r.signal(syscall.SIGCONT)
	c.waitPatched()

	r.stop()
	c.admitsWithout("is dead", 6)
	r = c.replica()
	r.waitReady()
	c.point(r)
	c.waitPatched()

	// Somebody has put another authority into the configuration: the webhook puts its own back.
	authority := c.authority()
	c.kubectl("", "patch", "mutatingwebhookconfiguration", "tidegate-webhook", "--type", "json", "-p",
		`[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":"`+base64.StdEncoding.EncodeToString(c.env.Config.CAData)+`"}]`)
	c.waitPatched()
	if c.authority() != authority {
		t.Error("the authority is not the webhook's own again")
	}
}

// admitsWithout makes n pods in scope at the same time.
func (c *cluster) admitsWithout(what string, n int) {
	c.t.Helper()
	before, began := c.ignored(), time.Now()
	if patched := c.together(n); patched != 0 {
		c.t.Errorf("a webhook that %s has patched %d pods", what, patched)
	}
	c.t.Logf("%d pods beside a webhook that %s: %v", n, what, time.Since(began).Round(time.Millisecond))
	if got := c.ignored() - before; got != n {
		c.t.Errorf("a webhook that %s: the API server has gone on without it %d times, want %d", what, got, n)
	}
}

// admitsItsOwn makes a pod in the webhook's own namespace. The API server does not
// even ask.
func (c *cluster) admitsItsOwn() {
	c.t.Helper()
	before := c.ignored()
	pod, err := c.asker()(namespace, `"securityContext":{"runAsNonRoot":true,"runAsUser":1,"seccompProfile":{"type":"RuntimeDefault"}},
		"containers":[{"name":"a","image":"a","securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}]`, tidegate.Annotation)
	if err != nil || len(podVariables(pod)) > 0 || c.ignored() != before {
		c.t.Errorf("a pod of its own namespace: %v, %v; asked %d times", podVariables(pod), err, c.ignored()-before)
	}
}

// together makes n pods of kube-system at the same time, none of which may be
// refused, and returns how many were given the name.
func (c *cluster) together(n int) (patched int) {
	c.t.Helper()
	cmds, outs := make([]*exec.Cmd, n), make([]bytes.Buffer, n)
	for i := range cmds {
		cmds[i] = exec.Command(filepath.Join(c.tools, "kubectl"), "--kubeconfig", c.admin, "create", "-o", "json", "-f", "-")
		cmds[i].Stdin = strings.NewReader(`{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"p-","namespace":"kube-system"},
			"spec":{"nodeName":"node-1","containers":[{"name":"a","image":"a"}]}}`)
		cmds[i].Stdout, cmds[i].Stderr = &outs[i], os.Stderr
		if err := cmds[i].Start(); err != nil {
			c.t.Fatal(err)
		}
	}
	for i := range cmds {
		if err := cmds[i].Wait(); err != nil {
			c.t.Errorf("a pod was not admitted: %v", err)
		} else if len(variables(c.t, outs[i].String())) > 0 {
			patched++
		}
	}
	return patched
}

// TestFloodBlocksNoAdmission: while many send large reviews, and others hold
// connections open on which nothing comes, every pod is made; the webhook keeps
// within the memory that its Deployment gives it; and it is back at once.
func TestFloodBlocksNoAdmission(t *testing.T) {
	c, r := installed(t)
	ctx, cancel := context.WithCancel(context.Background())
	var flooding sync.WaitGroup
	defer func() { cancel(); flooding.Wait() }()
	var answers, refusals atomic.Int64
	for range 64 {
		flooding.Go(func() { r.flood(ctx, &answers, &refusals) })
	}
	for range 500 {
		flooding.Go(func() { r.linger(ctx) })
	}
	waitFor(t, func() bool { return answers.Load() > 20 })

	began, before, patched, pods := time.Now(), c.ignored(), 0, 0
	for range 5 {
		patched += c.together(4)
		pods += 4
	}
	took, ignored := time.Since(began), c.ignored()-before
	cancel()
	flooding.Wait()
	t.Logf("%d pods in %v under a flood of %d reviews of 3 MiB (%d of them refused): %d given the name, %d ignored; at most %d MiB",
		pods, took.Round(time.Millisecond), answers.Load(), refusals.Load(), patched, ignored, r.peak()>>20)
	if patched+ignored != pods {
		t.Errorf("of %d pods %d were given the name, and the API server has ignored %d", pods, patched, ignored)
	}
	if limit := c.memoryLimit(); r.peak() > limit {
		t.Errorf("it took %d bytes of memory, and its Deployment gives it %d", r.peak(), limit)
	}
	c.waitPatched()
}

// flood sends the largest reviews that an API server could send, until ctx is done.
func (r *replica) flood(ctx context.Context, answers, refusals *atomic.Int64) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // who floods does not ask who it is
	defer transport.CloseIdleConnections()
	env := strings.Repeat(`{"name":"A","value":"`+strings.Repeat("x", 40)+`"},`, 3<<20/66)
	review := []byte(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","resource":{"version":"v1","resource":"pods"},
		"namespace":"kube-system","operation":"CREATE","object":{"spec":{"containers":[{"name":"a","env":[` + strings.TrimSuffix(env, ",") + `]}]}}}}`)
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+r.reviews+"/mutate", bytes.NewReader(review))
		if err != nil {
			return
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			refusals.Add(1)
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if answers.Add(1); resp.StatusCode != http.StatusOK {
			refusals.Add(1)
		}
	}
}

// linger keeps a connection open on which nothing is said, until ctx is done; a
// new one when it is closed.
func (r *replica) linger(ctx context.Context) {
	for ctx.Err() == nil {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", r.reviews)
		if err != nil {
			return
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		_, _ = conn.Read(make([]byte, 1))
		stop()
		conn.Close()
	}
}

var peakMemory = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak is the most memory that the process has had, in bytes.
func (r *replica) peak() int64 {
	r.c.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		r.c.t.Fatal(err)
	}
	m := peakMemory.FindSubmatch(b)
	if m == nil {
		r.c.t.Fatalf("no peak of memory in\n%s", b)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		r.c.t.Fatal(err)
	}
	return kib << 10
}

// memoryLimit is what the Deployment gives each replica, in bytes.
func (c *cluster) memoryLimit() int64 {
	c.t.Helper()
	limit := c.kubectl("", "-n", namespace, "get", "deployment", "tidegate-webhook", "-o", "jsonpath={.spec.template.spec.containers[0].resources.limits.memory}")
	q, err := resource.ParseQuantity(limit)
	if err != nil {
		c.t.Fatal(err)
	}
	return q.Value()
}
