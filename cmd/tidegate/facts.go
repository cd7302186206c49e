package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tidegate.io/tidegate/aks"
)

// factFlags are how a cluster's facts and the reading of the catalogue are
// given on the command line, alike for every command that makes rules.
type factFlags struct {
	cluster, cloud, region string
	with, without          []string
	edition                string
	asStated               bool
	noRecommended          bool
	wildcards              bool

	apiAccess    string
	apiServerIPs []string
	dnsServers   []string
	keyVaults    []string
	legacyTunnel bool
	monitorVia   string
	gateways     []string

	extensions, endpoints, serviceTags, nsg string
}

// addCluster adds the flags of a cluster that exists, for commands about isolation.
func (f *factFlags) addCluster(cmd *cobra.Command) {
	fs := cmd.Flags()
	f.monitorVia = "fqdn"
	fs.StringVar(&f.cluster, "cluster", "", "the cluster: a `FILE` with the output of az aks show -o json (or the resource manager's JSON); - is stdin")
	fs.StringVar(&f.extensions, "extensions", "", "a `FILE` with the output of az k8s-extension list -o json")
	if err := cmd.MarkFlagRequired("cluster"); err != nil {
		panic(err) // a flag that is not there
	}
}

func (f *factFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.cluster, "cluster", "", "the cluster: a `FILE` with the output of az aks show -o json (or the resource manager's JSON); - is stdin")
	fs.StringVar(&f.cloud, "cloud", "", "public, china or usgov, for a cluster that is yet to be")
	fs.StringVar(&f.region, "region", "", "its region, such as westeurope")
	fs.StringSliceVar(&f.with, "with", nil, "features to switch on: "+featureNames())
	fs.StringSliceVar(&f.without, "without", nil, "features to switch off")
	fs.StringVar(&f.edition, "edition", "", "the article as it stood on a day, from "+aks.Oldest.String()+" to "+aks.Newest.String()+" (default: the newest)")
	fs.BoolVar(&f.asStated, "as-stated", false, "the article to the letter, rather than what works")
	fs.BoolVar(&f.noRecommended, "no-recommended", false, "leave out what is not required")
	fs.BoolVar(&f.wildcards, "wildcards", false, "a region that is not known becomes a *")
	fs.StringVar(&f.apiAccess, "api-access", "", "how your pods reach the API server: ip, fqdn or none")
	fs.StringSliceVar(&f.apiServerIPs, "api-server-ip", nil, "the API server's addresses, for rules by address")
	fs.StringSliceVar(&f.dnsServers, "dns-servers", nil, "the virtual network's DNS servers, if they are not Azure's")
	fs.StringSliceVar(&f.keyVaults, "key-vault", nil, "names of your key vaults, in the place of a wildcard for everyone's")
	fs.BoolVar(&f.legacyTunnel, "legacy-tunnel", false, "the cluster runs tunnelfront or aks-link instead of Konnectivity")
	fs.StringVar(&f.monitorVia, "monitor-via", "fqdn", "Azure Monitor by its names (fqdn) or by its service tag (tag)")
	fs.StringSliceVar(&f.gateways, "gateway-address", nil, "the address that the cluster's traffic comes from behind its firewall, to be looked for in authorizedIPRanges")
	fs.StringVar(&f.extensions, "extensions", "", "a `FILE` with the output of az k8s-extension list -o json")
	fs.StringVar(&f.endpoints, "endpoints", "", "a `FILE` with the output of az aks egress-endpoints list -o json, to compare with")
	fs.StringVar(&f.serviceTags, "service-tags", "", "Microsoft's ServiceTags_<Cloud>_<date>.json, a `FILE` by which service tags are written out as prefixes")
	fs.StringVar(&f.nsg, "nsg", "", "a `FILE` with the output of az network nsg show -o json for the nodes' subnet, to look for rules that block inside it")
	f.complete(cmd)
}

// complete offers the words of the flags that have few.
func (f *factFlags) complete(cmd *cobra.Command) {
	words := func(list ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp)
	}
	region := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		cloud, err := aks.ParseCloud(f.cloud)
		if err != nil {
			cloud = aks.Public
		}
		return aks.Regions(cloud), cobra.ShellCompDirectiveNoFileComp
	}
	features := words(strings.Split(featureNames(), ", ")...)
	for flag, complete := range map[string]cobra.CompletionFunc{
		"cloud": words("public", "china", "usgov"), "region": region, "with": features, "without": features,
		"edition": words(aks.Oldest.String(), aks.Newest.String()), "api-access": words("ip", "fqdn", "none"), "monitor-via": words("fqdn", "tag"),
	} {
		if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic(err) // a flag that is not there
		}
	}
}

func featureNames() string {
	var names []string
	for _, f := range aks.Features() {
		names = append(names, string(f.Name))
	}
	return strings.Join(names, ", ")
}

// rules reads the facts and makes the rules, with service tags written out if
// their file was given.
func (f *factFlags) rules(stdin io.Reader) (aks.Cluster, aks.Result, error) {
	c, err := f.facts(stdin)
	if err != nil {
		return c, aks.Result{}, err
	}
	o, err := f.options()
	if err != nil {
		return c, aks.Result{}, err
	}
	res, err := c.Rules(o)
	if err != nil {
		return c, res, unfilledHint(err)
	}
	if f.nsg != "" {
		notes, err := readFile(f.nsg, nil, aks.LintNSG)
		if err != nil {
			return c, res, err
		}
		res.Notes = append(res.Notes, notes...)
	}
	if f.serviceTags == "" {
		return c, res, nil
	}
	tags, err := readFile(f.serviceTags, nil, aks.ReadServiceTags)
	if err != nil {
		return c, res, err
	}
	if tags.Cloud != c.Cloud {
		return c, res, fmt.Errorf("%s: service tags of the cloud %s for a cluster in %s", f.serviceTags, tags.Cloud, c.Cloud)
	}
	return c, res, res.Resolve(tags)
}

// facts joins the cluster's file, if there is one, with what the flags say.
func (f *factFlags) facts(stdin io.Reader) (aks.Cluster, error) {
	c, err := f.base(stdin)
	if err != nil {
		return c, err
	}
	if c, err = f.lists(c); err != nil {
		return c, err
	}
	return f.adjust(c)
}

func (f *factFlags) base(stdin io.Reader) (aks.Cluster, error) {
	if f.cluster == "" {
		if f.cloud == "" {
			return aks.Cluster{}, errors.New("which cluster? give --cluster FILE, or --cloud and --region")
		}
		cloud, err := aks.ParseCloud(f.cloud)
		if err != nil {
			return aks.Cluster{}, err
		}
		if f.region == "" && !f.wildcards {
			return aks.Cluster{}, errors.New("region: give --region, or --wildcards for rules of every region")
		}
		return aks.Plan(cloud, f.region)
	}
	c, err := readFile(f.cluster, stdin, aks.Read)
	if err != nil {
		return c, err
	}
	if f.cloud != "" {
		if cloud, err := aks.ParseCloud(f.cloud); err != nil || cloud != c.Cloud {
			return c, errors.Join(err, fmt.Errorf("--cloud %s, but %s is in the cloud %s", f.cloud, f.cluster, c.Cloud))
		}
	}
	if f.region != "" && !strings.EqualFold(strings.ReplaceAll(f.region, " ", ""), c.Region) {
		return c, fmt.Errorf("--region %s, but %s is in %s", f.region, f.cluster, c.Region)
	}
	return c, nil
}

// lists reads what goes with a cluster's file.
func (f *factFlags) lists(c aks.Cluster) (aks.Cluster, error) {
	if f.extensions != "" {
		es, err := readFile(f.extensions, nil, aks.ReadExtensions)
		if err != nil {
			return c, err
		}
		c = c.WithExtensions(es)
	}
	if f.endpoints != "" {
		listed, err := readFile(f.endpoints, nil, aks.ReadListed)
		if err != nil {
			return c, err
		}
		c.Listed = listed
	}
	return c, nil
}

// adjust applies what no file can say.
func (f *factFlags) adjust(c aks.Cluster) (aks.Cluster, error) {
	for _, w := range f.with {
		feature, err := aks.ParseFeature(w)
		if err != nil {
			return c, fmt.Errorf("--with: %w", err)
		}
		if slices.Contains(f.without, w) {
			return c, fmt.Errorf("%s is in --with and in --without", w)
		}
		c = c.With(feature, "--with "+w)
	}
	for _, w := range f.without {
		feature, err := aks.ParseFeature(w)
		if err != nil {
			return c, fmt.Errorf("--without: %w", err)
		}
		c = c.Without(feature)
	}
	var err error
	if f.apiAccess != "" {
		if c, err = c.WithAPIAccess(aks.APIAccess(f.apiAccess)); err != nil {
			return c, fmt.Errorf("--api-access: %w", err)
		}
	}
	if c.APIServerAddrs, err = addrs("--api-server-ip", f.apiServerIPs); err != nil {
		return c, err
	}
	if c.DNSServers, err = addrs("--dns-servers", f.dnsServers); err != nil {
		return c, err
	}
	if len(c.DNSServers) > 0 {
		c = c.With(aks.CustomDNS, "--dns-servers")
	}
	if f.legacyTunnel {
		c = c.With(aks.LegacyTunnel, "--legacy-tunnel")
	}
	switch f.monitorVia {
	case "tag":
		c = c.With(aks.MonitorByTag, "--monitor-via tag")
	case "fqdn":
	default:
		return c, fmt.Errorf("--monitor-via %q: want fqdn or tag", f.monitorVia)
	}
	c.KeyVaults = f.keyVaults
	return c, nil
}

func (f *factFlags) options() (aks.Options, error) {
	o := aks.Options{AsStated: f.asStated, NoRecommended: f.noRecommended, Wildcards: f.wildcards}
	var err error
	if o.Edition, err = aks.ParseEdition(f.edition); err != nil {
		return o, err
	}
	o.GatewayAddresses, err = addrs("--gateway-address", f.gateways)
	return o, err
}

func addrs(flag string, texts []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range texts {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("%s %q: want an address", flag, s)
		}
		out = append(out, a)
	}
	return out, nil
}

// unfilledHint says which flag gives the fact that is missing.
func unfilledHint(err error) error {
	var unfilled *aks.UnfilledError
	if !errors.As(err, &unfilled) {
		return err
	}
	switch unfilled.Placeholder {
	case "APIServerPublicIP":
		return fmt.Errorf("%w; give --api-server-ip", err)
	case "location", "region", "cluster-region-name", "Region":
		return fmt.Errorf("%w; give --region, or --wildcards", err)
	}
	return err
}

// readFile opens a file for a reader of package aks; - is stdin, where that is
// given. Errors name the file.
func readFile[T any](name string, stdin io.Reader, read func(io.Reader) (T, error)) (T, error) {
	var none T
	if name == "-" && stdin != nil {
		v, err := read(stdin)
		if err != nil {
			return none, fmt.Errorf("stdin: %w", err)
		}
		return v, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return none, err
	}
	defer f.Close()
	v, err := read(f)
	if err != nil {
		return none, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}
