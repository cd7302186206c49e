package webhook

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"sigs.k8s.io/yaml"
)

const (
	fixed = `{"spec":{"template":{"metadata":{"annotations":{"` + Annotation + `":"true"}}}}}`
	moved = `{"metadata":{"annotations":{"` + Annotation + `":null}},"spec":{"template":{"metadata":{"annotations":{"` + Annotation + `":"true"}}}}}`
)

// deployment is one of the namespace shop: what stands in its metadata, in its
// template's metadata, and in its pods' spec besides a container, each as YAML's
// flow of a map without its braces.
func deployment(metadata, template, spec, container string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {%s}
spec: {template: {metadata: {%s}, spec: {%s}}}
`, fields("name: d, namespace: shop", metadata), template, fields(spec, "containers: [{"+fields("name: a", container)+"}]"))
}

// fields are parts of a YAML flow map; empty ones are left out.
func fields(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

const (
	asked  = `annotations: {"` + Annotation + `": ""}`
	binds  = "\n---\n" + `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b, namespace: shop}, roleRef: {kind: Role, name: reader}, subjects: [{kind: ServiceAccount, name: default}]}`
	runner = `serviceAccountName: runner`
)

func TestLint(t *testing.T) {
	pod := func(namespace, metadata, status, env string) string {
		return `{apiVersion: v1, kind: Pod, metadata: {` + fields("name: p, namespace: "+namespace, metadata) + `}, spec: {nodeName: node-1, serviceAccountName: runner, containers: [{name: a, env: [` + env + `]}]}, status: {phase: ` + status + `}}`
	}
	hostVar := func(v string) string { return `{name: KUBERNETES_SERVICE_HOST, value: ` + v + `}` }
	owned := func(kind string) string {
		return `ownerReferences: [{kind: ` + kind + `, controller: true}]`
	}
	for _, row := range []struct{ name, manifest, want string }{
		{"an account of its own means that the API server is used", deployment("", "", runner, ""), "lacks-annotation " + fixed},
		{"the annotation on the template is what is wanted", deployment("", asked, runner, ""), ""},
		{"the default account alone means nothing", deployment("", "", "", ""), ""},
		{"unless it has a role", deployment("", "", "", "") + binds, "lacks-annotation " + fixed},
		{"in its own namespace", strings.Replace(deployment("", "", "", ""), "shop", "other", 1) + binds, ""},
		{"without a token nothing is used", deployment("", "", runner+", automountServiceAccountToken: false", ""), ""},
		{
			"nor when the account gives none",
			deployment("", "", runner, "") + "---\n{apiVersion: v1, kind: ServiceAccount, metadata: {name: runner, namespace: shop}, automountServiceAccountToken: false}", "",
		},
		{
			"but with one that is projected",
			deployment("", "", runner+", automountServiceAccountToken: false, volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: token}}]}}]", ""), "lacks-annotation " + fixed,
		},
		{
			"a token for somebody else is none",
			deployment("", "", runner+", automountServiceAccountToken: false, volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: token, audience: vault}}]}}]", ""), "",
		},
		{"an address that is written down is used", deployment("", "", "", "env: ["+hostVar("10.0.0.1")+"]"), "lacks-annotation " + fixed},
		{"a name that is written down is a name", deployment("", "", runner, "env: ["+hostVar("a.hcp.westeurope.azmk8s.io")+"]"), ""},
		{"the annotation on the deployment is in the wrong place", deployment(asked, "", "", ""), "annotation-misplaced " + moved},
		{"on both it does what it should", deployment(asked, asked, runner, ""), ""},
		{"a label is no annotation", deployment("", strings.Replace(asked, "annotations", "labels", 1), "", ""), "annotation-is-label " + fixed},
		{"the system's namespaces need none", strings.Replace(deployment("", "", runner, ""), "shop", "kube-system", 1), ""},
		{"what opted out is left alone", deployment("", `annotations: {`+OptOut+`: ""}`, runner, ""), ""},
		{"what is excluded is left alone", strings.Replace(deployment("", "", runner, ""), "shop", "own", 1), ""},
		{
			"the service's name is not changed by variables",
			deployment("", asked, "", `args: ["--master=https://kubernetes.default.svc.cluster.local"]`), "dials-service-name",
		},
		{"nor in a variable", deployment("", asked, "", "env: [{name: MASTER, value: 'https://kubernetes.default:443'}]"), "dials-service-name"},
		{"a name that looks alike is another's", deployment("", asked, "", "args: [my-kubernetes.default, kubernetes.defaults, a.kubernetes.default.b]"), ""},
		{"a stateful set", strings.Replace(deployment("", "", runner, ""), "Deployment", "StatefulSet", 1), "lacks-annotation " + fixed},
		{"a kind of one's own with a template", strings.Replace(deployment("", "", runner, ""), "apps/v1\nkind: Deployment", "argoproj.io/v1\nkind: Rollout", 1), "lacks-annotation " + fixed},
		{"a kind of one's own without", `{apiVersion: a.example/v1, kind: Thing, metadata: {name: d}, spec: {template: "x"}, template: 7}`, ""},
		{"a job cannot be patched", strings.Replace(deployment("", "", runner, ""), "apps/v1\nkind: Deployment", "batch/v1\nkind: Job", 1), "lacks-annotation"},
		{
			"a cron job's template is deeper", cron("", "", runner),
			`lacks-annotation {"spec":{"jobTemplate":{"spec":` + strings.TrimPrefix(fixed[:len(fixed)-1], `{"spec":`) + `}}}`,
		},
		{
			"and has one more wrong place", cron(asked, "", ""),
			`annotation-misplaced {"spec":{"jobTemplate":{"metadata":{"annotations":{"` + Annotation + `":null}},"spec":` + strings.TrimPrefix(fixed[:len(fixed)-1], `{"spec":`) + `}}}`,
		},
		{"and the right one", cron("", asked, runner), ""},
		{"a pod alone is made again", strings.Replace(pod("shop", "", "Pending", ""), "nodeName: node-1, ", "", 1), "lacks-annotation"},
		{"a replica set of a deployment is the deployment's", strings.Replace(deployment(owned("Deployment"), "", runner, ""), "Deployment\nmetadata", "ReplicaSet\nmetadata", 1), ""},
		{"a deployment of an operator is its own", deployment(owned("Prometheus"), "", runner, ""), "lacks-annotation " + fixed},
		{"a pod of kube-system that was not given the name", pod("kube-system", owned("ReplicaSet"), "Running", ""), "started-before"},
		{"one that has an address", pod("kube-system", owned("ReplicaSet"), "Running", hostVar("10.0.0.1")), "started-before"},
		{"one that was", pod("kube-system", owned("ReplicaSet"), "Running", hostVar("a.hcp.westeurope.azmk8s.io")), ""},
		{"one that has ended", pod("kube-system", owned("Job"), "Succeeded", ""), ""},
		{"one that a node runs from a file", pod("kube-system", "annotations: {kubernetes.io/config.mirror: x}", "Running", ""), ""},
		{"an annotated pod that was not", pod("shop", asked, "Running", ""), "started-before"},
	} {
		t.Run(row.name, func(t *testing.T) {
			objects, err := ReadObjects(strings.NewReader(row.manifest), "")
			if err != nil {
				t.Fatal(err)
			}
			scope := Scope{Namespaces: SystemNamespaces(), Excluded: []string{"own"}, OptOut: OptOut}
			var got []string
			for _, f := range Lint(objects, &scope, "default") {
				got = append(got, strings.TrimSpace(string(f.Problem)+" "+string(f.Patch)))
			}
			if diff := cmp.Diff(row.want, strings.Join(got, "\n")); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func cron(job, template, spec string) string {
	return fmt.Sprintf(`
apiVersion: batch/v1
kind: CronJob
metadata: {name: c, namespace: shop}
spec: {jobTemplate: {metadata: {%s}, spec: {template: {metadata: {%s}, spec: {%s}}}}}
`, job, template, fields(spec, "containers: [{name: a}]"))
}

func TestReadObjects(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"documents, and their lines", "kind: A\nmetadata: {name: a}\n---\n\n# why\nkind: B\n--- # more\n---\nkind: C", "A a 1, B  5, C  9"},
		{"windows' line ends", "kind: A\r\n---\r\nkind: B\r\n", "A  1, B  3"},
		{"dashes inside a text are text", "kind: A\nx: |\n  ---\n  more\n", "A  1"},
		{"a list", "apiVersion: v1\nkind: List\nitems: [{kind: A}, {kind: List, items: [{kind: B}]}]", "A  1, B  1"},
		{"a list of one kind, whose items do not say it", `{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"p"}}]}`, "Pod p 1"},
		{"values that follow each other", "{\"kind\":\"A\"}\n{\"kind\":\"B\"}", "A  1, B  1"},
		{"YAML that begins like JSON", "{kind: A, metadata: {name: a}}", "A a 1"},
		{"nothing but a comment", "# a\n---\n# b\n", ""},
	} {
		objects, err := ReadObjects(strings.NewReader(row.text), "f")
		var got []string
		for _, o := range objects {
			got = append(got, fmt.Sprint(o.Kind, " ", o.Name, " ", o.Line))
		}
		if g := strings.Join(got, ", "); err != nil || g != row.want {
			t.Errorf("%s: %q, %v; want %q", row.name, g, err, row.want)
		}
	}
	for _, row := range []struct{ name, text, want string }{
		{"no YAML", "kind: A\n---\n\tkind: B", "line 3"},
		{"no object", "- a", "line 1"},
		{"no kind", "metadata: {}", "without a kind"},
		{"a pod that is none", "a: 1\nkind: X\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: 7}", `line 4: Pod "p"`},
		{"half an object", `{"kind": "A"`, "line 1"},
		{"a list with something else", `{kind: List, items: [{kind: A}, 7]}`, "item 1"},
	} {
		if _, err := ReadObjects(strings.NewReader(row.text), "f"); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: error %v, want %q in it", row.name, err, row.want)
		}
	}
}

// FuzzLint: any text is read or refused, and what is found can be said and, of a
// pod, is never to be patched.
func FuzzLint(f *testing.F) {
	f.Add(deployment("", "", runner, ""))
	f.Add(deployment(asked, "", "", "") + binds)
	f.Add(cron(asked, "", ""))
	f.Add(`{"kind":"List","items":[{"kind":"Pod","apiVersion":"v1"}]}`)
	f.Add("---\n--- #\n{kind: A")
	f.Fuzz(func(t *testing.T, text string) {
		objects, err := ReadObjects(strings.NewReader(text), "f")
		if err != nil {
			return
		}
		for _, found := range Lint(objects, &Scope{}, "default") {
			if found.Why == "" || found.Do == "" || found.Line < 1 || found.Patch != nil && found.Kind == "Pod" {
				t.Fatalf("finding %+v", found)
			}
		}
	})
}

// TestPatchesMend: what a patch is said to mend, it mends.
func TestPatchesMend(t *testing.T) {
	for _, text := range []string{deployment("", "", runner, ""), deployment(asked, "", "", ""), cron(asked, "", ""), cron("", "", runner)} {
		objects, err := ReadObjects(strings.NewReader(text), "")
		if err != nil {
			t.Fatal(err)
		}
		found := Lint(objects, &Scope{}, "default")
		if len(found) != 1 {
			t.Fatalf("findings %+v", found)
		}
		mended := merge(t, text, found[0].Patch)
		if objects, err = ReadObjects(strings.NewReader(mended), ""); err != nil {
			t.Fatal(err)
		}
		if again := Lint(objects, &Scope{}, "default"); len(again) > 0 {
			t.Errorf("after the patch: %+v", again)
		}
	}
}

// merge applies a merge patch with the API server's library.
func merge(t *testing.T, text string, patch []byte) string {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonpatch.MergePatch(b, patch)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
