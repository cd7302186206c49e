package peers

import (
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tidegate "tidegate.io/tidegate/webhook"
)

func TestPodsOnARealAPIServer(t *testing.T) {
	c := openCluster(t)
	both := append(four("i"), four("a")...)
	c.install()
	c.kubectl("", "create", "namespace", "gatekeeper-system")

	// Without a webhook no admission is blocked.
	if got := c.pod("kube-system", "", ""); got != nil {
		t.Errorf("without a webhook: %q", got)
	}

	// Two replicas that start together agree on a certificate.
	first, second := c.replica(), c.replica()
	first.waitReady()
	second.waitReady()
	c.point(first)
	before := 1 + c.waitPatched()
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
		{
			"a pod that takes the address from a field", "kube-system", "", `,"env":[{"name":"KUBERNETES_SERVICE_HOST","valueFrom":{"fieldRef":{"fieldPath":"status.hostIP"}}}]`,
			append(four("i"), append(four("a")[1:], "a KUBERNETES_SERVICE_HOST="+apiName)...),
		},
	} {
		if diff := cmp.Diff(row.want, c.pod(row.ns, row.metadata, row.env)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}

	// Applying the manifests again leaves the authority and the certificate alone.
	authority, secret := c.authority(), c.secret()
	c.kubectl(c.manifest, "apply", "-f", "-")
	if c.authority() != authority || authority == "" || !reflect.DeepEqual(c.secret(), secret) || len(secret) == 0 {
		t.Error("applying again changed the authority or the certificate")
	}

	// What started without the name is found.
	out, _ := exec.Command(c.tidegate, "webhook", "lint", "--live", "--kubeconfig", c.admin, "-o", "json", "-n", "kube-system").Output()
	if n := strings.Count(string(out), `"started-before"`); n != before {
		t.Errorf("lint finds %d pods that started before, want %d:\n%s", n, before, out)
	}
}
