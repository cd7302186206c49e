package webhook

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"

	"tidegate.io/tidegate/egress"
)

const host = "demo-abc123.hcp.westeurope.azmk8s.io"

func name(t testing.TB) egress.Name {
	t.Helper()
	n, err := egress.ParseName(host)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// four are the variables as they stand in a pod.
const four = `{"name":"KUBERNETES_SERVICE_HOST","value":"` + host + `"},` +
	`{"name":"KUBERNETES_PORT","value":"tcp://` + host + `:443"},` +
	`{"name":"KUBERNETES_PORT_443_TCP","value":"tcp://` + host + `:443"},` +
	`{"name":"KUBERNETES_PORT_443_TCP_ADDR","value":"` + host + `"}`

// one, two, three and fourth are the variables alone.
const (
	one    = `{"name":"KUBERNETES_SERVICE_HOST","value":"` + host + `"}`
	two    = `{"name":"KUBERNETES_PORT","value":"tcp://` + host + `:443"}`
	three  = `{"name":"KUBERNETES_PORT_443_TCP","value":"tcp://` + host + `:443"}`
	fourth = `{"name":"KUBERNETES_PORT_443_TCP_ADDR","value":"` + host + `"}`
)

func TestPatch(t *testing.T) {
	for _, test := range []struct{ name, spec, want string }{
		{
			"a container without variables gets the four",
			`{"containers":[{"name":"a"}]}`,
			`{"containers":[{"name":"a","env":[` + four + `]}]}`,
		},
		{
			"so does an init container, and a sidecar among them",
			`{"initContainers":[{"name":"i"},{"name":"s","restartPolicy":"Always","env":null}],"containers":[{"name":"a","env":[]}]}`,
			`{"initContainers":[{"name":"i","env":[` + four + `]},{"name":"s","restartPolicy":"Always","env":[` + four + `]}],"containers":[{"name":"a","env":[` + four + `]}]}`,
		},
		{
			"they stand before what may refer to them",
			`{"containers":[{"name":"a","env":[{"name":"URL","value":"https://$(KUBERNETES_SERVICE_HOST)"}]}]}`,
			`{"containers":[{"name":"a","env":[` + four + `,{"name":"URL","value":"https://$(KUBERNETES_SERVICE_HOST)"}]}]}`,
		},
		{
			"an address that somebody set becomes the name, in its place",
			`{"containers":[{"name":"a","env":[{"name":"A","value":"1"},{"name":"KUBERNETES_SERVICE_HOST","value":"10.0.0.1"},{"name":"B"}]}]}`,
			`{"containers":[{"name":"a","env":[` + two + `,` + three + `,` + fourth + `,{"name":"A","value":"1"},` + one + `,{"name":"B"}]}]}`,
		},
		{
			"one that comes from elsewhere becomes a value",
			`{"containers":[{"name":"a","env":[` + two + `,` + three + `,` + fourth + `,{"name":"KUBERNETES_SERVICE_HOST","valueFrom":{"fieldRef":{"fieldPath":"status.hostIP"}}}]}]}`,
			`{"containers":[{"name":"a","env":[` + two + `,` + three + `,` + fourth + `,` + one + `]}]}`,
		},
		{
			"one that is there twice is set twice, since the last counts",
			`{"containers":[{"name":"a","env":[` + four + `,{"name":"KUBERNETES_PORT","value":"x"}]}]}`,
			`{"containers":[{"name":"a","env":[` + four + `,` + two + `]}]}`,
		},
		{
			"the port is left alone",
			`{"containers":[{"name":"a","env":[{"name":"KUBERNETES_SERVICE_PORT","value":"6443"}]}]}`,
			`{"containers":[{"name":"a","env":[` + four + `,{"name":"KUBERNETES_SERVICE_PORT","value":"6443"}]}]}`,
		},
		{
			"fields that nobody knows yet survive",
			`{"containers":[{"name":"a","hyperdrive":{"on":true},"env":[{"name":"A","colour":"red"}]}],"from":"2031"}`,
			`{"containers":[{"name":"a","hyperdrive":{"on":true},"env":[` + four + `,{"name":"A","colour":"red"}]}],"from":"2031"}`,
		},
		{
			"what is no container is left for the API server to refuse",
			`{"containers":[null,{"image":"x"},{"name":"a"}]}`,
			`{"containers":[null,{"image":"x"},{"name":"a","env":[` + four + `]}]}`,
		},
		{"a pod that has them stays as it is", `{"containers":[{"name":"a","env":[` + four + `]}]}`, `{"containers":[{"name":"a","env":[` + four + `]}]}`},
		{"a pod without containers stays as it is", `{}`, `{}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw := []byte(`{"spec":` + test.spec + `}`)
			got := apply(t, raw, patchOf(t, raw))
			if diff := cmp.Diff(generic(t, []byte(`{"spec":`+test.want+`}`)), generic(t, got)); diff != "" {
				t.Errorf("patched pod (-want +got):\n%s", diff)
			}
			if again := patchOf(t, got); len(again) != 0 {
				t.Errorf("a second patch does %v, want nothing", again)
			}
		})
	}
}

func TestPatchWithoutVariablesIsNone(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}}}}
	if ops := Patch(pod, nil); ops != nil {
		t.Errorf("Patch = %v, want none", ops)
	}
}

func patchOf(t testing.TB, raw []byte) []Operation {
	t.Helper()
	var pod corev1.Pod
	if err := unmarshal(raw, &pod); err != nil {
		t.Fatal(err)
	}
	return Patch(&pod, Variables(name(t)))
}

// apply patches a document with the API server's library.
func apply(t testing.TB, raw []byte, ops []Operation) []byte {
	t.Helper()
	if len(ops) == 0 {
		return raw
	}
	b, err := json.Marshal(ops)
	if err != nil {
		t.Fatal(err)
	}
	return applyRaw(t, raw, b)
}

func applyRaw(t testing.TB, raw, patch []byte) []byte {
	t.Helper()
	p, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Apply(raw)
	if err != nil {
		t.Fatalf("apply %s: %v", patch, err)
	}
	return out
}

func generic(t testing.TB, b []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}
