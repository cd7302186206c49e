package peers

import (
	"context"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"

	"tidegate.io/tidegate/deploy/webhook/chart"
	tidegate "tidegate.io/tidegate/webhook"
)

// TestConditionsAgreeWithTheScope: the API server calls the webhook for exactly
// the pods that the webhook would patch.
func TestConditionsAgreeWithTheScope(t *testing.T) {
	compiler := cel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	for _, scope := range []tidegate.Scope{
		{Namespaces: tidegate.SystemNamespaces(), OptOut: tidegate.OptOut},
		{Namespaces: []string{"shop"}, Excluded: []string{"kube-system", "legacy"}},
		{OptOut: "example.com/keep"},
		{},
	} {
		hook := configuration(t, scope)
		strict := *hook
		fail := admissionregistrationv1.Fail // so that an expression that breaks is an error, and not just no call
		strict.FailurePolicy = &fail
		matcher := webhook.NewMutatingWebhookAccessor("uid", "c", &strict).GetCompiledMatcher(compiler)
		scope.Excluded = append([]string{namespace}, scope.Excluded...)
		for _, ns := range []string{"kube-system", "gatekeeper-system", "kube-system-2", "shop", "legacy", "default", namespace} {
			for _, annotations := range []map[string]string{
				nil,
				{tidegate.Annotation: ""},
				{tidegate.Annotation: "false"},
				{tidegate.OptOut: "true"},
				{tidegate.Annotation: "true", tidegate.OptOut: ""},
				{"example.com/keep": ""},
				{"other": "true"},
			} {
				if want, got := scope.Covers(ns, annotations), called(t, hook, matcher, ns, annotations); got != want {
					t.Errorf("scope %+v, pod of %s with %v: called %v, want %v", scope, ns, annotations, got, want)
				}
			}
		}
	}
}

// configuration is what the chart makes of a scope.
func configuration(t *testing.T, scope tidegate.Scope) *admissionregistrationv1.MutatingWebhook {
	t.Helper()
	v := chart.Defaults()
	v.APIServer, v.Image = "a.hcp.westeurope.azmk8s.io", "registry.example/tidegate:1"
	v.Namespaces, v.ExcludedNamespaces, v.OptOut = scope.Namespaces, scope.Excluded, scope.OptOut
	manifests, err := v.Manifests(namespace)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	objects(t, all, manifests)
	b, err := yaml.Marshal(all["MutatingWebhookConfiguration tidegate-webhook"])
	if err != nil {
		t.Fatal(err)
	}
	var c admissionregistrationv1.MutatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		t.Fatal(err)
	}
	return &c.Webhooks[0]
}

// called asks what the API server asks before it calls: the selector of
// namespaces, and the conditions.
func called(t *testing.T, hook *admissionregistrationv1.MutatingWebhook, matcher matchconditions.Matcher, ns string, annotations map[string]string) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(hook.NamespaceSelector)
	if err != nil {
		t.Fatal(err)
	}
	if !selector.Matches(labels.Set{"kubernetes.io/metadata.name": ns}) {
		return false
	}
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{GenerateName: "p-", Namespace: ns, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}}},
	}
	kind := corev1.SchemeGroupVersion.WithKind("Pod")
	attributes := admission.NewAttributesRecord(pod, nil, kind, ns, "", corev1.SchemeGroupVersion.WithResource("pods"), "", admission.Create, nil, false, nil)
	versioned := &admission.VersionedAttributes{Attributes: attributes, VersionedKind: kind, VersionedObject: admission.NewLazyObject(pod)}
	result := matcher.Match(context.Background(), versioned, nil, nil)
	if result.Error != nil {
		t.Fatalf("conditions: %v", result.Error)
	}
	return result.Matches
}
