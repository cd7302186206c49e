package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/webhook"
)

func webhookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Make pods talk to their API server by name",
		Long: `A firewall that goes by names cannot know a connection to the API server's address.
AKS gives the pods of kube-system and gatekeeper-system the API server's name, and
any pod whose own metadata carries the annotation
` + webhook.Annotation + `, whatever its value. The
webhook does the same where AKS does not, and lint says which workloads lack it.`,
		Example: `  tidegate webhook lint deploy/
  tidegate webhook manifests --cluster prod.json --image registry.example/tidegate:1 | kubectl apply -f -`,
	}
	cmd.AddCommand(webhookRunCommand(), webhookManifestsCommand(), webhookLintCommand())
	return cmd
}

// apiServerFlags name the API server: directly, or by the cluster's file.
type apiServerFlags struct{ name, cluster string }

func (f *apiServerFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.name, "api-server", "", "the API server's `NAME`, such as demo-abc123.hcp.westeurope.azmk8s.io")
	fs.StringVar(&f.cluster, "cluster", "", "or a `FILE` with the output of az aks show -o json, which holds it; - is stdin")
}

func (f *apiServerFlags) read(stdin io.Reader) (egress.Name, error) {
	if (f.name == "") == (f.cluster == "") {
		return egress.Name{}, errors.New("which API server? give one of --api-server NAME and --cluster FILE")
	}
	if f.name != "" {
		return egress.ParseName(f.name)
	}
	c, err := readFile(f.cluster, stdin, aks.Read)
	if err != nil {
		return egress.Name{}, err
	}
	name := c.APIServer()
	if name.IsZero() {
		return name, errors.New(f.cluster + ": the cluster's API server has no name yet; give --api-server")
	}
	return name, nil
}

// scopeFlags say which pods are given the name.
type scopeFlags struct{ webhook.Scope }

func (f *scopeFlags) add(fs *pflag.FlagSet) {
	fs.StringSliceVar(&f.Namespaces, "namespaces", webhook.SystemNamespaces(), "every pod of these `NAMESPACES` is given the name")
	fs.StringSliceVar(&f.Excluded, "exclude-namespaces", nil, "no pod of these `NAMESPACES` is, whatever it carries")
	fs.StringVar(&f.OptOut, "opt-out", webhook.OptOut, "the `ANNOTATION` that keeps a pod as it is, with any value; empty for none")
}
