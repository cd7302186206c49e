package peers

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	tidegate "tidegate.io/tidegate/webhook"
)

// TestWorkloads: what controllers make of Deployments and DaemonSets is given the
// name by the same rules as a pod: in the system's namespaces always, elsewhere
// if the template asks for it, and not if only the Deployment does.
func TestWorkloads(t *testing.T) {
	c := openCluster(t)
	c.controllers()
	for _, node := range []string{"node-1", "node-2"} {
		c.kubectl(fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":%q}}`, node), "create", "-f", "-")
	}
	c.kubectl(workload("Deployment", "kube-system", "early", "", ""), "apply", "-f", "-")
	c.podsOf("kube-system", "early", 2, nil)

	// The webhook's own pods are made while nobody answers reviews, and as restricted pods.
	c.install()
	c.podsOf(namespace, "tidegate-webhook", 2, four("webhook"))
	r := c.replica()
	r.waitReady()
	c.point(r)
	c.waitPatched()

	asked := fmt.Sprintf(`"annotations":{%q:""}`, tidegate.Annotation)
	both := append(four("i"), four("a")...)
	for _, row := range []struct {
		name                    string
		kind, ns, own, ofTheirs string // annotations
		want                    []string
	}{
		{"system-deployment", "Deployment", "kube-system", "", "", both},
		{"system-daemonset", "DaemonSet", "kube-system", "", "", both},
		{"annotated-deployment", "Deployment", "default", "", asked, both},
		{"annotated-daemonset", "DaemonSet", "default", "", asked, both},
		{"misplaced-deployment", "Deployment", "default", asked, "", nil},
		{"misplaced-daemonset", "DaemonSet", "default", asked, "", nil},
	} {
		c.kubectl(workload(row.kind, row.ns, row.name, row.own, row.ofTheirs), "apply", "--validate=strict", "-f", "-")
		c.podsOf(row.ns, row.name, 2, row.want)
	}

	// The patch that lint prints mends what is misplaced, and a restart what is early.
	out, _ := exec.Command(c.tidegate, "webhook", "lint", "--live", "--kubeconfig", c.admin, "-n", "default").Output()
	if n := strings.Count(string(out), "annotation-misplaced"); n != 2 {
		t.Errorf("lint finds %d misplaced annotations, want 2:\n%s", n, out)
	}
	for _, line := range lines(string(out)) {
		if patch, ok := strings.CutPrefix(strings.TrimSpace(line), "kubectl "); ok {
			c.command(nil, "sh", "-c", filepath.Join(c.tools, "kubectl")+" --kubeconfig "+c.admin+" "+patch)
		}
	}
	c.somePodOf("default", "misplaced-deployment", both)
	c.kubectl("", "-n", "kube-system", "rollout", "restart", "deployment", "early")
	c.somePodOf("kube-system", "early", both)
}

// workload is one whose pods have an init container and a container, on every
// node or twice. own are its own annotations, theirs those of its pods.
func workload(kind, ns, name, own, theirs string) string {
	replicas := ""
	if kind == "Deployment" {
		replicas = `"replicas":2,`
	}
	comma := func(s string) string {
		if s == "" {
			return ""
		}
		return "," + s
	}
	return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":%q,"metadata":{"name":%q,"namespace":%q%s},"spec":{%s
		"selector":{"matchLabels":{"app.kubernetes.io/name":%[2]q}},"template":{"metadata":{"labels":{"app.kubernetes.io/name":%[2]q}%[6]s},
		"spec":{"tolerations":[{"operator":"Exists"}],"initContainers":[{"name":"i","image":"a"}],"containers":[{"name":"a","image":"a"}]}}}}`,
		kind, name, ns, comma(own), replicas, comma(theirs))
}

// pods reads back those of a workload.
func (c *cluster) pods(ns, workload string) []corev1.Pod {
	c.t.Helper()
	var list corev1.PodList
	if err := json.Unmarshal([]byte(c.kubectl("", "-n", ns, "get", "pods", "-l", "app.kubernetes.io/name="+workload, "-o", "json")), &list); err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

// podsOf waits for the n pods of a workload, and holds the variables of each
// against want; nil: it has none.
func (c *cluster) podsOf(ns, workload string, n int, want []string) {
	c.t.Helper()
	var pods []corev1.Pod
	waitFor(c.t, func() bool { pods = c.pods(ns, workload); return len(pods) == n })
	for i := range pods {
		if diff := cmp.Diff(want, podVariables(&pods[i])); diff != "" {
			c.t.Errorf("pod %s of %s (-want +got):\n%s", pods[i].Name, workload, diff)
		}
	}
}

// somePodOf waits until one of a workload's pods has these variables.
func (c *cluster) somePodOf(ns, workload string, want []string) {
	c.t.Helper()
	waitFor(c.t, func() bool {
		for _, pod := range c.pods(ns, workload) {
			if cmp.Equal(want, podVariables(&pod)) {
				return true
			}
		}
		return false
	})
}
