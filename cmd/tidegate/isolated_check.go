package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/check"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/isolated"
)

// isolatedCheckFlags are those of check, and what only isolation has.
type isolatedCheckFlags struct {
	checkFlags
	registry, prefix, images string
	credentials              string
}

func isolatedCheckCommand() *cobra.Command {
	var f isolatedCheckFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "From a node or a machine in its network: is the cluster isolated, and can its nodes boot",
		Long: `Checks what an isolated cluster lives by, from this machine: that the names of the API
server, the registry and its data endpoint lead to private addresses, that the registry
answers, that it has each artefact which a node of this cluster asks for when it boots,
for the node's own system, and that nothing public is reachable.

The registry is the cluster's own, unless --registry names another, such as a mirror.
Where it wants to know who asks, --credentials is a file with USER:PASSWORD; az acr login
--expose-token gives one.

Exit status: 0 all is well, 1 something failed, 2 asked wrongly, 3 nothing failed and
something could not be proven.`,
		Example: `  tidegate isolated check --cluster prod.json
  tidegate isolated check --cluster prod.json --registry mirror.corp.example:5000 --roots ca.crt -o junit`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := f.plan(cmd.InOrStdin())
			if err != nil {
				return err
			}
			host, err := f.host(p)
			if err != nil {
				return err
			}
			if host.Credentials, err = readRegistryCredentials(f.credentials); err != nil {
				return err
			}
			return f.run(cmd, host, p)
		},
	}
	f.facts.addCluster(cmd)
	f.addHost(cmd)
	cmd.Flags().StringVar(&f.registry, "registry", "", "`HOST[:PORT]` of the registry that nodes boot from, or the name of an Azure one (default: the cluster's)")
	cmd.Flags().StringVar(&f.prefix, "prefix", isolated.Prefix, "the path in it below which Microsoft's images are; empty: none")
	cmd.Flags().StringVar(&f.images, "images", "", "a `FILE` with the images to look for in the place of those of the cluster's nodes, one a line, as plan -o images writes it")
	cmd.Flags().StringVar(&f.credentials, "credentials", "", "a `FILE` with USER:PASSWORD for the registry, which others cannot read; told to nobody else")
	cmd.Flags().BoolVar(&f.noForbidden, "no-forbidden", false, "do not try what must not be reached")
	outputFlag(cmd, &f.output, "text", "json", "junit")
	return cmd
}

// plan says what to try: names, the registry, artefacts, and what must not be reached.
func (f *isolatedCheckFlags) plan(stdin io.Reader) (checkPlan, error) {
	p := checkPlan{APIVersion: apiVersion, Kind: checkPlanKind, Skipped: []check.Skipped{}}
	c, err := f.facts.facts(stdin)
	if err != nil {
		return p, err
	}
	res, err := c.With(aks.Isolated, "checked").Rules(aks.Options{})
	if err != nil {
		return p, err
	}
	p.Title = checkTitle(c) + " · isolated"
	registry, data, err := f.registryOf(&c)
	if err != nil {
		return p, err
	}
	for _, private := range res.Private {
		name, exact := private.Name.Exact()
		if exact && (name == res.APIServer || private.Zone != c.RegistryZone()) { // the registry's are below
			p.Targets = append(p.Targets, check.Private(name, private.Port, private.Why, name == res.APIServer)...)
		}
	}
	p.Targets = append(p.Targets, check.Target{Kind: check.Registry, Name: registry.name, Port: registry.port, Private: true, Why: "The registry that nodes boot from."})
	if !data.IsZero() {
		p.Targets = append(p.Targets, check.Private(data, 443, "Its data endpoint, from which layers come.", false)...)
	}
	artefacts, err := f.artefacts(&c)
	if err != nil {
		return p, err
	}
	for _, a := range artefacts {
		image := a.Image
		if f.prefix != "" {
			image = strings.Trim(f.prefix, "/") + "/" + image
		}
		p.Targets = append(p.Targets, check.Target{Kind: check.Artefact, Name: registry.name, Port: registry.port, Private: true, Image: image, Platform: a.Platform, Why: a.Why})
	}
	if !f.noForbidden {
		p.Targets = append(p.Targets, outside()...)
	}
	return p, nil
}

// outside are public destinations of every kind; Microsoft's registry is one of them.
func outside() []check.Target {
	targets, _ := check.Targets(check.Wanted{Rules: []egress.Rule{{To: []egress.Endpoint{
		egress.MustParseEndpoint("https://" + isolated.Upstream + ":443"), egress.MustParseEndpoint("https://packages.aks.azure.com:443"),
	}}}})
	for i := range targets {
		targets[i].Rules, targets[i].Forbidden, targets[i].Why = nil, true, "Nothing leaves an isolated cluster."
	}
	return append(targets, check.Forbidden(nil)...)
}

// hostPort is where a registry is.
type hostPort struct {
	name egress.Name
	port uint16
}

// registryOf finds the registry, and the name of its data endpoint if it has one.
func (f *isolatedCheckFlags) registryOf(c *aks.Cluster) (hostPort, egress.Name, error) {
	azure := c.Registry
	if f.registry != "" {
		if strings.ContainsAny(f.registry, ".:") && f.registry != c.RegistryName(c.Registry) {
			at, err := parseHostPort(f.registry)
			return at, egress.Name{}, err
		}
		azure, _, _ = strings.Cut(f.registry, ".")
	}
	if azure == "" {
		return hostPort{}, egress.Name{}, errors.New("which registry? the cluster's file names none in bootstrapProfile; give --registry")
	}
	name, err := egress.ParseName(c.RegistryName(azure))
	if err != nil {
		return hostPort{}, egress.Name{}, fmt.Errorf("--registry: %w", err)
	}
	data, err := egress.ParseName(c.RegistryDataName(azure))
	return hostPort{name, 443}, data, err
}

func parseHostPort(s string) (hostPort, error) {
	e, err := egress.ParseEndpoint("https://" + s)
	if err != nil && !strings.Contains(s, ":") {
		e, err = egress.ParseEndpoint("https://" + s + ":443")
	}
	if err != nil {
		return hostPort{}, fmt.Errorf("--registry %q: want a name, and a port if it is not 443", s)
	}
	p, _ := e.Host.(egress.Pattern) // HTTPS endpoints have names only, since an address has no certificate to be held against
	n, exact := p.Exact()
	if !exact {
		return hostPort{}, fmt.Errorf("--registry %q: want one name", s)
	}
	return hostPort{n, e.Ports.First}, nil
}

func (f *isolatedCheckFlags) artefacts(c *aks.Cluster) ([]isolated.Artefact, error) {
	if f.images == "" {
		found, leftOut := isolated.Artefacts(c)
		if len(leftOut) > 0 {
			return nil, fmt.Errorf("%s Give --images", strings.Join(leftOut, " "))
		}
		return found, nil
	}
	images, err := readFile(f.images, nil, readImages)
	if err != nil {
		return nil, err
	}
	var out []isolated.Artefact
	for _, r := range images {
		if r.Upstream != isolated.Upstream {
			return nil, fmt.Errorf("%s: %s: want an image of %s", f.images, r, isolated.Upstream)
		}
		image := r.Repository + ":" + r.Tag
		if r.Digest != "" {
			image = r.Repository + "@" + r.Digest.String()
		}
		out = append(out, isolated.Artefact{Image: image, Why: "in " + f.images})
	}
	return out, nil
}

// readRegistryCredentials reads USER:PASSWORD as the mirror does; the error never has it.
func readRegistryCredentials(file string) (*url.Userinfo, error) {
	if file == "" {
		return nil, nil
	}
	user, password, err := readCredentials(file)
	if err != nil {
		return nil, err
	}
	return url.UserPassword(user, password), nil
}
