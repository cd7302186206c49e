package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"tidegate.io/tidegate/webhook"
)

// kubeFlags choose a cluster as kubectl does: by flag, by KUBECONFIG, by the
// home directory's file, or by the pod that this runs in.
type kubeFlags struct{ kubeconfig, context string }

func (f *kubeFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "the `FILE` of clusters and credentials, as kubectl has it")
	fs.StringVar(&f.context, "context", "", "the `CONTEXT` in it")
}

func (f *kubeFlags) config() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return c, nil
}

// clusterKinds are what lint reads of a cluster: what makes pods, the pods, and
// who may ask the API server for something.
var clusterKinds = []schema.GroupVersionResource{
	{Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "apps", Version: "v1", Resource: "daemonsets"},
	{Group: "apps", Version: "v1", Resource: "statefulsets"},
	{Group: "apps", Version: "v1", Resource: "replicasets"},
	{Group: "batch", Version: "v1", Resource: "cronjobs"},
	{Group: "batch", Version: "v1", Resource: "jobs"},
	{Version: "v1", Resource: "replicationcontrollers"},
	{Version: "v1", Resource: "pods"},
	{Version: "v1", Resource: "serviceaccounts"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"},
}

// page is how many objects are asked for at once: a few MiB of pods.
const page = 500

// readCluster lists what lint looks at, in one namespace or, if that is empty, in all.
func readCluster(ctx context.Context, config *rest.Config, namespace string) ([]webhook.Object, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	var all []webhook.Object
	for _, kind := range clusterKinds {
		var resource dynamic.ResourceInterface = client.Resource(kind)
		if kind.Resource != "clusterrolebindings" {
			resource = client.Resource(kind).Namespace(namespace)
		}
		objects, err := listAll(ctx, resource)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", kind.Resource, err)
		}
		all = append(all, objects...)
	}
	return all, nil
}

func listAll(ctx context.Context, resource dynamic.ResourceInterface) ([]webhook.Object, error) {
	var all []webhook.Object
	for next := ""; ; {
		list, err := resource.List(ctx, metav1.ListOptions{Limit: page, Continue: next})
		if err != nil {
			return nil, err
		}
		b, err := list.MarshalJSON()
		if err != nil {
			return nil, err
		}
		objects, err := webhook.ReadObjects(bytes.NewReader(b), "")
		if err != nil {
			return nil, err
		}
		all = append(all, objects...)
		if next = list.GetContinue(); next == "" {
			return all, nil
		}
	}
}
