package main

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/deploy/webhook/chart"
)

func webhookManifestsCommand() *cobra.Command {
	var (
		api       apiServerFlags
		scope     scopeFlags
		namespace string
		ca        string
		v         = chart.Defaults()
	)
	cmd := &cobra.Command{
		Use:   "manifests",
		Short: "Print what installs the webhook in a cluster",
		Long: `Manifests prints the webhook's namespace, rights, deployment, service and
configuration, to be applied as they are. The Helm chart in deploy/webhook/chart
makes the same objects of the same values.`,
		Example: `  tidegate webhook manifests --cluster prod.json --image registry.example/tidegate:1 | kubectl apply -f -`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := api.read(cmd.InOrStdin())
			if err != nil {
				return err
			}
			if v.Image == "" {
				return errors.New("which image? give --image")
			}
			if ca != "" {
				if v.Certificate.Secret == "" {
					return errors.New("--ca-bundle goes with --secret: the webhook's own certificate brings its own")
				}
				if v.Certificate.CABundle, err = readFile(ca, nil, readAuthority); err != nil {
					return err
				}
			}
			v.APIServer, v.Namespaces, v.ExcludedNamespaces, v.OptOut = name.String(), scope.Namespaces, scope.Excluded, scope.OptOut
			b, err := v.Manifests(namespace)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
	v.CreateNamespace = true
	fs := cmd.Flags()
	api.add(fs)
	scope.add(fs)
	fs.StringVar(&v.Image, "image", "", "the `IMAGE` with tidegate as its entry point")
	fs.StringVarP(&namespace, "namespace", "n", v.Name, "the webhook's own `NAMESPACE`, whose pods never meet it")
	fs.BoolVar(&v.CreateNamespace, "create-namespace", true, "print the namespace too")
	fs.IntVar(&v.Replicas, "replicas", v.Replicas, "how many of it run")
	fs.StringVar(&v.Certificate.Secret, "secret", "", "a `SECRET` with tls.crt and tls.key to serve with, rather than a certificate that the webhook makes and renews")
	fs.StringVar(&ca, "ca-bundle", "", "a `FILE` with the PEM of the authority of --secret")
	fs.StringToStringVar(&v.Certificate.Annotations, "annotation", nil, "annotations of the MutatingWebhookConfiguration, such as cert-manager.io/inject-ca-from=NAMESPACE/CERTIFICATE")
	return cmd
}

// maxAuthority bounds a bundle of authorities: one has a few KiB.
const maxAuthority = 256 << 10

// readAuthority reads certificates in PEM, and refuses what holds a key.
func readAuthority(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAuthority))
	if err != nil {
		return nil, err
	}
	found := false
	for rest := b; ; found = true {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("holds a " + block.Type + ": want certificates only, since everybody may read it in the cluster")
		}
	}
	if !found {
		return nil, errors.New("no certificate in PEM")
	}
	return bytes.TrimSpace(b), nil
}
