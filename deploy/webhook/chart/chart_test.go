package chart

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

const own = "tidegate-webhook"

func values(edit func(*Values)) Values {
	v := Defaults()
	v.APIServer, v.Image, v.CreateNamespace = "demo-abc123.hcp.westeurope.azmk8s.io", "registry.example/tidegate:1", true
	if edit != nil {
		edit(&v)
	}
	return v
}

// variants are the ways in which people install the webhook. Each has a golden
// file, which Helm's engine is held against too, with the values beside it.
var variants = map[string]func(*Values){
	"managed": nil,
	"own-certificate": func(v *Values) {
		v.CreateNamespace, v.Certificate.Secret, v.Certificate.CABundle = false, "serving", []byte("-----BEGIN CERTIFICATE-----\n")
	},
	"cert-manager": func(v *Values) {
		v.Certificate.Secret = "serving"
		v.Certificate.Annotations = map[string]string{"cert-manager.io/inject-ca-from": own + "/serving"}
	},
	"annotated-only": func(v *Values) {
		v.Namespaces, v.ExcludedNamespaces, v.OptOut, v.Replicas = []string{}, []string{"legacy", "true"}, "", 3
	},
}

func TestManifests(t *testing.T) {
	for name, edit := range variants {
		t.Run(name, func(t *testing.T) {
			v := values(edit)
			got, err := v.Manifests(own)
			if err != nil {
				t.Fatal(err)
			}
			given, err := yaml.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".values.yaml", given)
			golden(t, name+".yaml", got)
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// objects is what the manifests say, read as strictly as the API server can.
type objects struct {
	Namespace   corev1.Namespace
	Account     corev1.ServiceAccount
	Roles       []rbacv1.Role
	ClusterRole rbacv1.ClusterRole
	Secret      *corev1.Secret
	Deployment  appsv1.Deployment
	Service     corev1.Service
	Budget      policyv1.PodDisruptionBudget
	Policy      networkingv1.NetworkPolicy
	Webhook     admissionregistrationv1.MutatingWebhookConfiguration
}

func read(t *testing.T, manifests []byte) objects {
	t.Helper()
	var o objects
	for doc := range bytes.SplitSeq(manifests, []byte("---\n")) {
		if len(doc) == 0 {
			continue
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		into := map[string]any{
			"Namespace": &o.Namespace, "ServiceAccount": &o.Account, "ClusterRole": &o.ClusterRole, "Deployment": &o.Deployment, "Service": &o.Service,
			"PodDisruptionBudget": &o.Budget, "NetworkPolicy": &o.Policy, "MutatingWebhookConfiguration": &o.Webhook,
			"RoleBinding": &rbacv1.RoleBinding{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{}, "Role": &rbacv1.Role{}, "Secret": &corev1.Secret{},
		}[kind.Kind]
		if into == nil {
			t.Fatalf("kind %q is not expected", kind.Kind)
		}
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			t.Errorf("%v in\n%s", err, doc)
		}
		switch v := into.(type) {
		case *corev1.Secret:
			o.Secret = v
		case *rbacv1.Role:
			o.Roles = append(o.Roles, *v)
		}
	}
	return o
}

func manifests(t *testing.T, edit func(*Values)) objects {
	t.Helper()
	v := values(edit)
	b, err := v.Manifests(own)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, b)
}

func TestWebhookNeverBlocksAdmission(t *testing.T) {
	for name, edit := range variants {
		o := manifests(t, edit)
		if len(o.Webhook.Webhooks) != 1 {
			t.Fatalf("%s: %d webhooks, want one", name, len(o.Webhook.Webhooks))
		}
		w := o.Webhook.Webhooks[0]
		if *w.FailurePolicy != admissionregistrationv1.Ignore || *w.TimeoutSeconds != 2 || *w.SideEffects != admissionregistrationv1.SideEffectClassNone {
			t.Errorf("%s: failure policy %s, timeout %d s, side effects %s; want Ignore, 2 s, None", name, *w.FailurePolicy, *w.TimeoutSeconds, *w.SideEffects)
		}
		if e := w.NamespaceSelector.MatchExpressions[0]; e.Operator != metav1.LabelSelectorOpNotIn || !slices.Contains(e.Values, own) {
			t.Errorf("%s: the webhook's own namespace is not excluded: %+v", name, e)
		}
		if !slices.ContainsFunc(o.Deployment.Spec.Template.Spec.Containers[0].Args, func(a string) bool { return strings.HasPrefix(a, "--exclude-namespaces="+own) }) {
			t.Errorf("%s: the command does not exclude its own namespace: %q", name, o.Deployment.Spec.Template.Spec.Containers[0].Args)
		}
	}
}

// TestEnforcerIsToldOfSystemNamespaces: AKS takes the system's namespaces out of
// every webhook that does not carry the label.
func TestEnforcerIsToldOfSystemNamespaces(t *testing.T) {
	for _, row := range []struct {
		name       string
		namespaces []string
		want       bool
	}{
		{"the default", Defaults().Namespaces, true},
		{"gatekeeper alone", []string{"gatekeeper-system"}, true},
		{"another namespace", []string{"shop"}, false},
		{"none", nil, false},
	} {
		o := manifests(t, func(v *Values) { v.Namespaces = row.namespaces })
		if got := o.Webhook.Labels["admissions.enforcer/disabled"] == "true"; got != row.want {
			t.Errorf("%s: label %v, want %v", row.name, got, row.want)
		}
	}
}

func TestRightsAreLeast(t *testing.T) {
	o := manifests(t, nil)
	for _, rule := range slices.Concat(o.Roles[0].Rules, o.ClusterRole.Rules) {
		for _, verb := range rule.Verbs {
			switch verb {
			case "get", "list", "watch":
			case "update":
				if !slices.Equal(rule.ResourceNames, []string{own}) {
					t.Errorf("may update any of %v", rule.Resources)
				}
			default:
				t.Errorf("may %s %v", verb, rule.Resources)
			}
		}
	}
	o = manifests(t, variants["own-certificate"])
	if len(o.Roles) > 0 || len(o.ClusterRole.Rules) > 0 || o.Secret != nil || *o.Deployment.Spec.Template.Spec.AutomountServiceAccountToken {
		t.Error("with a certificate of its own the webhook still has rights, a secret or a token")
	}
	if len(o.Policy.Spec.Egress) != 0 || len(o.Policy.Spec.PolicyTypes) != 2 {
		t.Errorf("with a certificate of its own the webhook may still connect: %+v", o.Policy.Spec)
	}
}

// TestPodsAreRestricted checks what the restricted Pod Security Standard asks.
func TestPodsAreRestricted(t *testing.T) {
	o := manifests(t, nil)
	if o.Namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Errorf("labels of the namespace: %v", o.Namespace.Labels)
	}
	spec := o.Deployment.Spec.Template.Spec
	c := spec.Containers[0].SecurityContext
	if !*spec.SecurityContext.RunAsNonRoot || spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(c.Capabilities.Add) > 0 {
		t.Errorf("pod %+v, container %+v", spec.SecurityContext, c)
	}
	if *o.Deployment.Spec.Replicas != 2 || o.Budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("%d replicas, of which %s may be away", *o.Deployment.Spec.Replicas, o.Budget.Spec.MaxUnavailable)
	}
	if m := *spec.Volumes[0].Secret.DefaultMode; m != 0o440 {
		t.Errorf("the key's file has mode %o", m)
	}
}

func TestManifestsRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		edit func(*Values)
		want string
	}{
		{"no name of an API server", func(v *Values) { v.APIServer = "" }, "api server"},
		{"an address", func(v *Values) { v.APIServer = "10.0.0.1" }, "api server"},
		{"no image", func(v *Values) { v.Image = "" }, `image ""`},
		{"an image that is more than one", func(v *Values) { v.Image = "a\"\nb" }, "image"},
		{"no replica", func(v *Values) { v.Replicas = 0 }, "replicas 0"},
		{"a namespace that is none", func(v *Values) { v.Namespaces = []string{`a"b`} }, `name "a\"b"`},
		{"an annotation that is none", func(v *Values) { v.OptOut = "a b" }, `opt-out "a b"`},
		{"a secret that is none", func(v *Values) { v.Certificate.Secret = "A" }, `secret "A"`},
		{"a webhook that admits itself", func(v *Values) { v.Namespaces = []string{own} }, "own"},
	} {
		v := values(row.edit)
		if _, err := v.Manifests(own); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v, want %q in it", row.name, err, row.want)
		}
	}
}

func TestEveryTemplateIsRendered(t *testing.T) {
	names, err := fs.Glob(files, "templates/*")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range names {
		got = append(got, strings.TrimSuffix(filepath.Base(n), ".yaml"))
	}
	want := slices.Sorted(slices.Values(order))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("templates (-in order +there):\n%s", diff)
	}
}
