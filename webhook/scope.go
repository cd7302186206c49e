package webhook

import "slices"

const (
	// Annotation asks for the name in a pod's own metadata, and so in the
	// template of whatever makes the pod. AKS takes any value for a yes, the
	// empty one too.
	Annotation = "kubernetes.azure.com/set-kube-service-host-fqdn"

	// OptOut is the annotation by which, unless a Scope says otherwise, a pod
	// stays as it is.
	OptOut = "tidegate.io/keep-kube-service-host"
)

// SystemNamespaces are those whose every pod AKS gives the name to.
func SystemNamespaces() []string { return []string{"kube-system", "gatekeeper-system"} }

// Scope says which pods are given the API server's name: those of some
// namespaces, and those whose own metadata carries Annotation. The zero Scope
// holds the annotated ones.
type Scope struct {
	Namespaces []string // every pod of these
	Excluded   []string // no pod of these, whatever it carries
	OptOut     string   // the annotation that keeps a pod out, with any value; empty: none does
}

// Covers reports whether a pod of the namespace with these annotations is in
// the scope. Only the keys of annotations count.
func (s *Scope) Covers(namespace string, annotations map[string]string) bool {
	if slices.Contains(s.Excluded, namespace) {
		return false
	}
	if _, out := annotations[s.OptOut]; out && s.OptOut != "" {
		return false
	}
	_, asked := annotations[Annotation]
	return asked || slices.Contains(s.Namespaces, namespace)
}
