package webhook

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"tidegate.io/tidegate/egress"
)

// serviceHost is the variable from which clients take the API server's host.
const serviceHost = "KUBERNETES_SERVICE_HOST"

// Variables are the four variables that name the API server, as AKS sets them.
// KUBERNETES_SERVICE_PORT is not among them: the kubelet's 443 is right.
func Variables(apiServer egress.Name) []corev1.EnvVar {
	host := apiServer.String()
	url := "tcp://" + host + ":443"
	return []corev1.EnvVar{
		{Name: serviceHost, Value: host},
		{Name: "KUBERNETES_PORT", Value: url},
		{Name: "KUBERNETES_PORT_443_TCP", Value: url},
		{Name: "KUBERNETES_PORT_443_TCP_ADDR", Value: host},
	}
}

// Operation is one step of a JSON patch (RFC 6902, section 4). Value is a
// variable, or the list of a container's variables.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Patch returns the steps that give every container and init container of pod
// the variables; none if they have them. A variable that is there keeps its
// place and loses its value, wherever that came from. One that is missing is
// put before the others, since a $(KUBERNETES_SERVICE_HOST) sees only what
// stands above it.
//
// The steps name places in the pod and hold nothing else of it, so that fields
// that this program has never heard of survive.
func Patch(pod *corev1.Pod, variables []corev1.EnvVar) []Operation {
	if len(variables) == 0 {
		return nil
	}
	ops := patchContainers(nil, "/spec/initContainers", pod.Spec.InitContainers, variables)
	return patchContainers(ops, "/spec/containers", pod.Spec.Containers, variables)
}

func patchContainers(ops []Operation, path string, containers []corev1.Container, variables []corev1.EnvVar) []Operation {
	for i := range containers {
		// A container without a name is one that the API server refuses, or a
		// null, in which a patch finds no place: it would fail, and the pod with it.
		if containers[i].Name != "" {
			ops = patchContainer(ops, fmt.Sprintf("%s/%d/env", path, i), containers[i].Env, variables)
		}
	}
	return ops
}

func patchContainer(ops []Operation, path string, env, variables []corev1.EnvVar) []Operation {
	if len(env) == 0 {
		return append(ops, Operation{"add", path, variables})
	}
	var missing []corev1.EnvVar
	for _, v := range variables {
		found := false
		for i, e := range env {
			if e.Name != v.Name {
				continue
			}
			found = true // more than once is legal: the last one counts, so that all are set
			if e != v {
				ops = append(ops, Operation{"replace", fmt.Sprintf("%s/%d", path, i), v})
			}
		}
		if !found {
			missing = append(missing, v)
		}
	}
	// Insertions move what stands below, so they come last, and the first of them at the end.
	for i := len(missing) - 1; i >= 0; i-- {
		ops = append(ops, Operation{"add", path + "/0", missing[i]})
	}
	return ops
}
