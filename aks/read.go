package aks

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// maxClusterJSON bounds a cluster's JSON: a hundred pools with all their fields
// are below one megabyte.
const maxClusterJSON = 4 << 20

const clusterType = "Microsoft.ContainerService/managedClusters"

// Read reads a cluster as `az aks show -o json` or the resource manager prints
// it. JSON that is something else is refused with what it is; so are facts
// that contradict each other. What the JSON cannot say becomes notes of
// [Cluster.Rules].
func Read(r io.Reader) (Cluster, error) {
	b, err := readBounded(r, maxClusterJSON)
	if err != nil {
		return Cluster{}, fmt.Errorf("cluster: %w", err)
	}
	res, err := readResource(b)
	if err != nil {
		return Cluster{}, fmt.Errorf("cluster: %w", err)
	}
	c, err := res.cluster()
	if err != nil {
		return Cluster{}, fmt.Errorf("cluster %q: %w", res.Name, err)
	}
	return c, nil
}

// readBounded also drops the byte order mark that Windows shells put in front
// of what they redirect.
func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("longer than %d MiB", limit>>20)
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
		return nil, errors.New("UTF-16, as Windows PowerShell redirects; save it as UTF-8")
	}
	if err == nil && len(bytes.TrimSpace(b)) == 0 {
		err = errors.New("empty input")
	}
	return b, err
}

func readResource(b []byte) (*resource, error) {
	if err := wrongShape(b); err != nil {
		return nil, err
	}
	var r resource
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, jsonError(b, err)
	}
	if r.Type != "" && !strings.EqualFold(r.Type, clusterType) {
		return nil, fmt.Errorf("JSON of a %s, not of a %s", r.Type, clusterType)
	}
	if p := bytes.TrimSpace(r.Properties); len(p) > 0 && p[0] == '{' {
		nested := r.Properties
		if err := json.Unmarshal(nested, &r); err != nil {
			return nil, fmt.Errorf("properties: %w", jsonError(nested, err))
		}
	}
	if r.Type == "" && r.AgentPoolProfiles == nil && r.FQDN == "" && r.PrivateFQDN == "" {
		return nil, errors.New("JSON of something else; want the output of: az aks show -o json")
	}
	return &r, nil
}

// wrongShape recognises what people pass by mistake.
func wrongShape(b []byte) error {
	switch b = bytes.TrimSpace(b); b[0] {
	case '{':
	case '[':
		var list []json.RawMessage
		if err := json.Unmarshal(b, &list); err != nil {
			return jsonError(b, err)
		}
		return fmt.Errorf("a list of %d, as az aks list prints it; pass one cluster: az aks show, or jq '.[0]'", len(list))
	case '<':
		return errors.New("HTML or XML, not JSON")
	default:
		return errors.New("not JSON; want the output of: az aks show -o json")
	}
	var shape struct {
		Schema     string `json:"$schema"`
		Resources  json.RawMessage
		Value      json.RawMessage
		Parameters json.RawMessage
		Error      *struct{ Code, Message string }
	}
	if err := json.Unmarshal(b, &shape); err != nil {
		var mismatch *json.UnmarshalTypeError
		if errors.As(err, &mismatch) {
			return nil // a field of ours in another shape is the decoder's to judge
		}
		return jsonError(b, err)
	}
	switch {
	case shape.Resources != nil && (shape.Schema != "" || shape.Parameters != nil):
		return errors.New("a deployment template, not a cluster; pass the output of: az aks show -o json")
	case len(shape.Value) > 0 && bytes.TrimSpace(shape.Value)[0] == '[':
		return errors.New("a list, as the resource manager prints it; pass one cluster: jq '.value[0]'")
	case shape.Error != nil:
		return fmt.Errorf("an error of Azure, not a cluster: %s: %s", shape.Error.Code, shape.Error.Message)
	}
	return nil
}

// jsonError adds the line.
func jsonError(b []byte, err error) error {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: not JSON: %w", lineAt(b, syntax.Offset), err)
	case errors.As(err, &mismatch):
		return fmt.Errorf("line %d: %s is a %s, not as in a cluster", lineAt(b, mismatch.Offset), mismatch.Field, mismatch.Value)
	}
	return err
}

func lineAt(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(offset, int64(len(b)))], []byte("\n"))
}

// cluster turns the JSON into facts.
func (r *resource) cluster() (Cluster, error) {
	c := Cluster{
		Name: r.Name, Features: map[Feature][]string{},
		OutboundType:    r.NetworkProfile.OutboundType,
		OSUpgrades:      r.AutoUpgradeProfile.NodeOSUpgradeChannel,
		PrivateDNSZone:  r.APIServerAccessProfile.PrivateDNSZone,
		IPv6:            slices.ContainsFunc(r.NetworkProfile.IPFamilies, func(s string) bool { return strings.EqualFold(s, "IPv6") }),
		CachedArtifacts: strings.EqualFold(r.BootstrapProfile.ArtifactSource, "Cache"),
		ID:              r.ID,
		NodeGroup:       r.NodeResourceGroup,
		Kubernetes:      cmp.Or(r.CurrentVersion, r.KubernetesVersion),
		NetworkPlugin:   r.NetworkProfile.NetworkPlugin,
		KubeletID:       r.kubeletID(),
		Pools:           r.pools(),
		FileCSI:         r.StorageProfile.FileCSIDriver.Enabled,
		BlobCSI:         r.StorageProfile.BlobCSIDriver.Enabled,
	}
	if id := r.BootstrapProfile.ContainerRegistryID; id != "" {
		c.RegistryID, c.Registry = id, strings.ToLower(path.Base(id))
		if _, err := egress.ParseName(c.Registry); err != nil || strings.Contains(c.Registry, ".") {
			return c, fmt.Errorf("bootstrapProfile.containerRegistryId: %q is not the id of a registry", id)
		}
	}
	if err := errors.Join(c.where(r), c.ranges(r), c.proxy(r)); err != nil {
		return c, err
	}
	for _, f := range features {
		if evidence := f.found(r); len(evidence) > 0 {
			c.on(f.name, evidence...)
		}
	}
	c.subnets(r)
	c.observe(r)
	return c, nil
}

// kubeletID is looked up without regard to case, as add-ons are.
func (r *resource) kubeletID() string {
	for key, id := range r.IdentityProfile {
		if strings.EqualFold(key, "kubeletidentity") && id != nil {
			return id.ObjectID
		}
	}
	return ""
}

func (r *resource) pools() []Pool {
	var out []Pool
	for i := range r.AgentPoolProfiles {
		p := &r.AgentPoolProfiles[i]
		out = append(out, Pool{p.Name, p.windows(), p.NodeImageVersion, p.EnableNodePublicIP, strings.EqualFold(p.Mode, "Gateway")})
	}
	return out
}

// where derives cloud and region, which no field names outright: the end of
// the API server's name decides, and the location has to agree.
func (c *Cluster) where(r *resource) error {
	region, err := plainRegion(r.Location)
	if err != nil {
		return fmt.Errorf("location: %w", err)
	}
	named := false
	for _, f := range []struct {
		field, text string
		to          *egress.Name
	}{{"fqdn", r.FQDN, &c.FQDN}, {"privateFQDN", r.PrivateFQDN, &c.PrivateFQDN}} {
		if f.text == "" {
			continue
		}
		if *f.to, err = egress.ParseName(f.text); err != nil {
			return fmt.Errorf("%s: %w", f.field, err)
		}
		cloud, at, err := apiServerName(*f.to)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", f.field, err)
		case region != "" && at != region:
			return fmt.Errorf("%s %q is in the region %s, but location says %s", f.field, f.text, at, region)
		case c.Cloud != 0 && c.Cloud != cloud:
			return fmt.Errorf("fqdn belongs to the cloud %s and privateFQDN to %s", c.Cloud, cloud)
		case cloudOfRegion(at) != cloud:
			return fmt.Errorf("%s %q belongs to the cloud %s, but the region %s to %s", f.field, f.text, cloud, at, cloudOfRegion(at))
		}
		c.Cloud, region, named = cloud, at, true
	}
	if c.Region = region; region == "" {
		return errors.New("neither location nor fqdn: nothing says where it is")
	}
	if !named {
		c.Cloud = cloudOfRegion(region)
	}
	if err := checkRegion(c.Cloud, region); err != nil {
		if !named {
			return fmt.Errorf("location: %w", err)
		}
		c.note(Info, "new-region", "", "The region %s is not known to this version; the API server's name confirms it, and its service tag is taken to be AzureCloud.%s.", region, region)
	}
	return nil
}

func (c *Cluster) ranges(r *resource) error {
	for _, s := range r.APIServerAccessProfile.AuthorizedIPRanges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, addrErr := netip.ParseAddr(s)
			if addrErr != nil {
				return fmt.Errorf("apiServerAccessProfile.authorizedIPRanges: %w", err)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		c.AuthorizedRanges = append(c.AuthorizedRanges, p)
	}
	return nil
}

// proxy reads the proxy's URLs. A proxy by name gets a rule for the name, one by
// address for the address.
func (c *Cluster) proxy(r *resource) error {
	p := r.HTTPProxyConfig
	if p == nil || (p.Enabled != nil && !*p.Enabled) {
		return nil
	}
	for _, s := range []string{p.HTTPProxy, p.HTTPSProxy} {
		if s == "" {
			continue
		}
		e, err := proxyEndpoint(s)
		if err != nil {
			return fmt.Errorf("httpProxyConfig: %w", err) // never with the URL, which may hold a password
		}
		if !slices.Contains(c.Proxy.Endpoints, e) {
			c.Proxy.Endpoints = append(c.Proxy.Endpoints, e)
		}
	}
	for _, s := range p.NoProxy {
		c.Proxy.Bypass = append(c.Proxy.Bypass, strings.ToLower(strings.TrimSpace(s)))
	}
	return nil
}

func proxyEndpoint(s string) (egress.Endpoint, error) {
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return egress.Endpoint{}, errors.New("a proxy that is not a URL")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return egress.ParseEndpoint("tcp://" + net.JoinHostPort(u.Hostname(), port))
}

// subnets are the sources: those of nodes and pods, not the API server's.
func (c *Cluster) subnets(r *resource) {
	add := func(id string) {
		if id != "" && !slices.ContainsFunc(c.Subnets, func(s string) bool { return strings.EqualFold(s, id) }) {
			c.Subnets = append(c.Subnets, id)
		}
	}
	for i := range r.AgentPoolProfiles {
		add(r.AgentPoolProfiles[i].VnetSubnetID)
		add(r.AgentPoolProfiles[i].PodSubnetID)
	}
	add(r.HostedSystemProfile.SystemNodeSubnetID)
	add(r.HostedSystemProfile.NodeSubnetID)
}
