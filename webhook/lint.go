package webhook

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Problem is what Lint finds wrong with a workload.
type Problem string

// The problems, and what there is to do about each.
const (
	Lacks     Problem = "lacks-annotation"     // uses the API server by its address, and does not ask for the name
	Misplaced Problem = "annotation-misplaced" // asks for the name where nobody looks
	AsLabel   Problem = "annotation-is-label"  // asks for it with a label
	Before    Problem = "started-before"       // runs without the name that it would be given today
	ByService Problem = "dials-service-name"   // names the API server's service, which no variable changes
)

// Finding is one problem of one object.
type Finding struct {
	Problem   Problem `json:"problem"`
	Kind      string  `json:"kind"`
	Namespace string  `json:"namespace"`
	Name      string  `json:"name"`
	File      string  `json:"file,omitempty"`
	Line      int     `json:"line,omitempty"`
	Why       string  `json:"why"`
	Do        string  `json:"do"`
	// Patch is a JSON merge patch (RFC 7386) of the object that mends it; nil
	// where the object cannot be changed.
	Patch json.RawMessage `json:"patch,omitempty"`
}

// Lint says which workloads talk to the API server by its address although a
// name could be had, in the order of the objects. Objects without a namespace
// are taken to be of the one called namespace. What it cannot see in the objects
// it does not guess: bindings and service accounts count if they are among them.
func Lint(objects []Object, scope *Scope, namespace string) []Finding {
	l := linter{scope: scope, namespace: namespace, bound: map[account]string{}, tokenless: map[account]bool{}}
	for i := range objects {
		l.learn(&objects[i])
	}
	var all []Finding
	for i := range objects {
		if o := &objects[i]; o.Template != nil {
			all = append(all, l.lint(o)...)
		}
	}
	return all
}

// account is a service account.
type account struct{ namespace, name string }

type linter struct {
	scope     *Scope
	namespace string
	bound     map[account]string // the role of each account that has one
	tokenless map[account]bool   // accounts whose pods get no token unless they say so
}

// learn remembers what an object says of service accounts.
func (l *linter) learn(o *Object) {
	if o.Kind == "ServiceAccount" && o.Automount != nil && !*o.Automount {
		l.tokenless[account{l.namespaceOf(o), o.Name}] = true
	}
	for _, s := range o.Subjects {
		if s.Kind == "ServiceAccount" {
			l.bound[account{cmp.Or(s.Namespace, l.namespaceOf(o)), s.Name}] = o.RoleRef.Kind + " " + o.RoleRef.Name
		}
	}
}

func (l *linter) namespaceOf(o *Object) string { return cmp.Or(o.Namespace, l.namespace) }

func (l *linter) lint(o *Object) []Finding {
	namespace, t := l.namespaceOf(o), o.Template
	if slices.Contains(l.scope.Excluded, namespace) || controlled(o) && !o.Live {
		return nil
	}
	var all []Finding
	add := func(p Problem, patch any, why, do string) {
		f := Finding{Problem: p, Kind: o.Kind, Namespace: namespace, Name: cmp.Or(o.Name, o.GenerateName), File: o.File, Line: o.Line, Why: why, Do: do}
		if patch != nil {
			f.Patch = mustJSON(patch)
		}
		all = append(all, f)
	}
	if service := dialled(&t.Spec); service != "" && !controlled(o) {
		add(ByService, nil, service+" names the API server's service: no variable changes that.",
			"Have it use KUBERNETES_SERVICE_HOST, or permit TCP 443 to the API server's address (apiServer: by-address).")
	}
	switch covered := l.scope.Covers(namespace, t.Annotations); {
	case covered && o.Live && !named(&t.Spec) && !mirrored(t):
		add(Before, nil, "It is to be given the name, and runs without it.", "Start it again, once the webhook answers.")
	case covered || controlled(o) || l.optedOut(t):
	default:
		l.lintUncovered(o, add)
	}
	return all
}

func (l *linter) optedOut(t *corev1.PodTemplateSpec) bool {
	_, out := t.Annotations[l.scope.OptOut]
	return out && l.scope.OptOut != ""
}

// lintUncovered looks at a workload whose pods are not given the name.
func (l *linter) lintUncovered(o *Object, add func(p Problem, patch any, why, do string)) {
	patch, do := mend(o)
	if _, label := o.Template.Labels[Annotation]; label {
		add(AsLabel, patch, "The pods carry "+Annotation+" as a label, and it counts as an annotation.", do)
		return
	}
	if where := misplaced(o); where != "" {
		add(Misplaced, patch, Annotation+" is on "+where+", and the pods get what their template carries.", do)
		return
	}
	if why := l.uses(o); why != "" && !named(&o.Template.Spec) {
		add(Lacks, patch, why+" Its pods are told the API server's address, and do not ask for the name.", do)
	}
}

// misplaced is where the annotation stands, if that is not on the pods.
func misplaced(o *Object) string {
	if o.template == nil {
		return ""
	}
	if _, ok := o.Annotations[Annotation]; ok {
		return "the " + o.Kind + " itself"
	}
	if _, ok := o.JobAnnotations[Annotation]; ok {
		return "the template of its jobs"
	}
	return ""
}

// mend returns the patch that asks for the name, and what to do with it.
func mend(o *Object) (patch any, do string) {
	annotations := map[string]any{Annotation: "true"}
	switch {
	case o.template == nil:
		return nil, "Make it again with the annotation " + Annotation + ": variables are set when a pod is made."
	case o.Kind == "Job":
		return nil, "Make it again with the annotation " + Annotation + " in spec.template.metadata.annotations: a job's template cannot change."
	}
	tree := map[string]any{}
	at(tree, append(slices.Clone(o.template), "metadata", "annotations"), annotations)
	if _, ok := o.Annotations[Annotation]; ok {
		at(tree, []string{"metadata", "annotations"}, map[string]any{Annotation: nil})
	}
	if _, ok := o.JobAnnotations[Annotation]; ok {
		at(tree, []string{"spec", "jobTemplate", "metadata", "annotations"}, map[string]any{Annotation: nil})
	}
	return tree, "Patch the template; its pods are made anew."
}

// at puts v at a path of maps, and makes those that are missing.
func at(tree map[string]any, path []string, v any) {
	for _, step := range path[:len(path)-1] {
		next, ok := tree[step].(map[string]any)
		if !ok {
			next = map[string]any{}
			tree[step] = next
		}
		tree = next
	}
	tree[path[len(path)-1]] = v
}

// uses is why a workload is taken to use the API server, as a sentence, or empty.
func (l *linter) uses(o *Object) string {
	spec := &o.Template.Spec
	for c := range containers(spec) {
		for _, e := range c.Env {
			if _, err := netip.ParseAddr(e.Value); err == nil && e.Name == serviceHost {
				return fmt.Sprintf("Container %s sets %s to %s.", c.Name, serviceHost, e.Value)
			}
		}
	}
	a := account{l.namespaceOf(o), cmp.Or(spec.ServiceAccountName, spec.DeprecatedServiceAccount, "default")}
	if !l.token(spec, a) {
		return ""
	}
	if role := l.bound[a]; role != "" {
		return fmt.Sprintf("Its service account %s has the %s.", a.name, role)
	}
	if a.name != "default" {
		return fmt.Sprintf("It has a service account of its own, %s, with a token.", a.name)
	}
	return ""
}

// token reports whether the pods are given a token for the API server.
func (l *linter) token(spec *corev1.PodSpec, a account) bool {
	for _, v := range spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == "" {
				return true
			}
		}
	}
	if spec.AutomountServiceAccountToken != nil {
		return *spec.AutomountServiceAccountToken
	}
	return !l.tokenless[a]
}

// named reports whether every container is told a host that is not an address.
func named(spec *corev1.PodSpec) bool {
	for c := range containers(spec) {
		i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == serviceHost })
		if i < 0 || c.Env[i].Value == "" {
			return false
		}
		if _, err := netip.ParseAddr(c.Env[i].Value); err == nil {
			return false
		}
	}
	return true
}

// dialled is where a container names the API server's service, or empty.
func dialled(spec *corev1.PodSpec) string {
	for c := range containers(spec) {
		for _, text := range slices.Concat(c.Command, c.Args) {
			if namesService(text) {
				return fmt.Sprintf("Container %s is started with %q, which", c.Name, text)
			}
		}
		for _, e := range c.Env {
			if namesService(e.Value) {
				return fmt.Sprintf("Container %s has the variable %s, which", c.Name, e.Name)
			}
		}
	}
	return ""
}

// namesService reports whether text holds kubernetes.default as a whole name,
// or the beginning of one.
func namesService(text string) bool {
	const service = "kubernetes.default"
	for i := 0; ; {
		at := strings.Index(text[i:], service)
		if at < 0 {
			return false
		}
		before, after := text[:i+at], text[i+at+len(service):]
		i += at + len(service)
		if (before == "" || !nameByte(before[len(before)-1])) && (after == "" || !nameByte(after[0]) || strings.HasPrefix(after, ".svc")) {
			return true
		}
	}
}

func nameByte(b byte) bool {
	return b == '-' || b == '.' || b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

// containers goes through the containers of both kinds.
func containers(spec *corev1.PodSpec) func(func(*corev1.Container) bool) {
	return func(yield func(*corev1.Container) bool) {
		for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}

// controlled: made by a workload of Kubernetes, which is what has to change.
func controlled(o *Object) bool {
	for _, r := range o.OwnerReferences {
		if r.Controller != nil && *r.Controller {
			switch r.Kind {
			case "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job", "CronJob", "Node":
				return true
			}
		}
	}
	return false
}

// mirrored: a pod that a node runs from a file. No webhook sees it in time.
func mirrored(t *corev1.PodTemplateSpec) bool {
	_, ok := t.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings
	}
	return b
}
