package webhook

import "testing"

func TestScopeCovers(t *testing.T) {
	scope := Scope{Namespaces: SystemNamespaces(), Excluded: []string{"tidegate-webhook"}, OptOut: OptOut}
	for _, row := range []struct {
		name, namespace string
		annotations     map[string]string
		want            bool
	}{
		{"a pod of kube-system", "kube-system", nil, true},
		{"a pod of gatekeeper-system", "gatekeeper-system", nil, true},
		{"a pod of another namespace", "default", nil, false},
		{"a pod of a namespace that begins alike", "kube-system-2", nil, false},
		{"an annotated pod", "default", map[string]string{Annotation: "true"}, true},
		{"an annotated pod, with an empty value", "default", map[string]string{Annotation: ""}, true},
		{"an annotated pod, even with the value false", "default", map[string]string{Annotation: "false"}, true},
		{"a pod with another annotation of AKS", "default", map[string]string{"kubernetes.azure.com/no-http-proxy-vars": "true"}, false},
		{"a pod of kube-system that opted out", "kube-system", map[string]string{OptOut: ""}, false},
		{"an annotated pod that opted out", "default", map[string]string{Annotation: "", OptOut: "true"}, false},
		{"an annotated pod of an excluded namespace", "tidegate-webhook", map[string]string{Annotation: ""}, false},
	} {
		if got := scope.Covers(row.namespace, row.annotations); got != row.want {
			t.Errorf("%s: Covers = %v, want %v", row.name, got, row.want)
		}
	}
	var zero Scope
	if zero.Covers("kube-system", nil) || zero.Covers("", map[string]string{"": ""}) {
		t.Error("the zero Scope covers a pod that did not ask")
	}
	if !zero.Covers("default", map[string]string{Annotation: ""}) {
		t.Error("the zero Scope leaves an annotated pod out")
	}
}
