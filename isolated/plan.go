package isolated

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"tidegate.io/tidegate/aks"
)

// Options say what no file of a cluster can. The zero Options is a registry that
// AKS makes and manages, and outboundType none.
type Options struct {
	Registry string // the name of a registry of one's own, which the plan makes; empty: the file's, or one of AKS's
	Subnet   string // the resource id of the subnet for the private endpoint; empty: the nodes' own
	Outbound string // none or block; empty: none
}

// State is what the cluster's file says of a step.
type State string

// The states.
const (
	ToDo    State = "to do"
	Done    State = "done"    // the file says so
	Unseen  State = "unseen"  // no field shows it: check it
	Managed State = "managed" // AKS does it, and keeps it; it must not be changed
)

// Step is one thing to do; the order matters.
type Step struct {
	ID       string   `json:"id"`
	Title    string   `json:"title"`
	State    State    `json:"state"`
	Why      string   `json:"why"`
	Commands []string `json:"commands"` // lines of sh; what they use is quoted
}

// Record is a record of the private DNS zone.
type Record struct {
	Zone   string `json:"zone"`
	Name   string `json:"name"`   // in the zone
	FQDN   string `json:"fqdn"`   // by which nodes ask
	Member string `json:"member"` // of the private endpoint, whose address the record has
}

// CacheRule is by which the registry fetches from Microsoft's. AKS asks for
// exactly these names.
type CacheRule struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	Target string `json:"target"`
}

// AKSCacheRule is the rule of every isolated cluster's registry.
var AKSCacheRule = CacheRule{"aks-managed-mcr", Upstream + "/*", Prefix + "/*"}

// Prefix is the path in the registry below which Microsoft's images are.
const Prefix = "aks-managed-repository"

// Plan is what isolates one cluster, in plain values.
type Plan struct {
	Cluster   string                `json:"cluster"`
	Cloud     aks.Cloud             `json:"cloud"`
	Region    string                `json:"region"`
	Registry  string                `json:"registry,omitempty"` // its name in DNS; empty where AKS is to make one
	Managed   bool                  `json:"managed"`            // the registry is made and kept by AKS
	Isolated  bool                  `json:"isolated"`           // the file says that it is already
	Rule      CacheRule             `json:"cacheRule"`
	Records   []Record              `json:"records"`
	Findings  []Finding             `json:"findings"`
	Steps     []Step                `json:"steps"`
	Endpoints []aks.PrivateEndpoint `json:"privateEndpoints"`
	Artefacts []Artefact            `json:"artefacts"`
	LeftOut   []string              `json:"leftOut"` // of the artefacts

	place place
}

// place is where the plan's resources are.
type place struct {
	subscription, group string // of the cluster
	cluster             string
	region              string
	registry, registryG string // its name, and its resource group
	registryID          string
	zone                string
	subnet, network     string // resource ids
	kubelet             string // object id
	outbound            string
}

// PlanFor returns the plan. It fails where a fact is missing without which the
// commands would be guesses.
func PlanFor(c *aks.Cluster, o Options) (Plan, error) {
	p := Plan{
		Cluster: c.Name, Cloud: c.Cloud, Region: c.Region, Isolated: c.Has(aks.Isolated) && c.CachedArtifacts,
		Rule: AKSCacheRule, Records: []Record{}, Findings: findingsOf(c), Endpoints: c.PrivateEndpoints(),
	}
	p.Artefacts, p.LeftOut = Artefacts(c)
	p.LeftOut = append([]string{}, p.LeftOut...)
	if err := p.find(c, o); err != nil {
		return Plan{}, err
	}
	if p.place.registry != "" {
		p.Registry = c.RegistryName(p.place.registry)
		p.Records = []Record{
			{p.place.zone, p.place.registry, p.Registry, "registry"},
			{p.place.zone, p.place.registry + "." + c.Region + ".data", c.RegistryDataName(p.place.registry), "registry_data_" + c.Region},
		}
	}
	p.Steps = p.steps(c)
	return p, nil
}

// registryName is what Azure permits.
var registryName = regexp.MustCompile(`^[a-z0-9]{5,50}$`)

// clusterID is a cluster's resource id, taken apart. What it admits is plain in
// sh, in ARM and in Bicep.
var clusterID = regexp.MustCompile(`(?i)^/subscriptions/([0-9a-f-]{36})/resourceGroups/([-\w.()]{1,90})/providers/Microsoft\.ContainerService/managedClusters/([-\w]{1,63})$`)

// subnetID is a subnet's, with its network's.
var subnetID = regexp.MustCompile(`(?i)^(/subscriptions/[0-9a-f-]{36}/resourceGroups/[-\w.()]{1,90}/providers/Microsoft\.Network/virtualNetworks/[-\w.]{1,64})/subnets/[-\w.]{1,80}$`)

// registryID is a registry's, with its group.
var registryID = regexp.MustCompile(`(?i)^/subscriptions/[0-9a-f-]{36}/resourceGroups/([-\w.()]{1,90})/providers/Microsoft\.ContainerRegistry/registries/[a-z0-9]{5,50}$`)

// find fills in the place. Every text of the file's is held against the form
// that Azure gives it: a name that is none could end a quote in what is run.
func (p *Plan) find(c *aks.Cluster, o Options) error {
	id := clusterID.FindStringSubmatch(c.ID)
	if id == nil {
		return errors.New("the cluster's file has no resource id, which says its subscription and group; want the output of: az aks show -o json")
	}
	at := &p.place
	at.subscription, at.group, at.cluster, at.region = id[1], id[2], id[3], c.Region
	at.zone, at.kubelet, at.outbound = c.RegistryZone(), c.KubeletID, "none"
	if at.kubelet != "" && !objectID.MatchString(at.kubelet) {
		return fmt.Errorf("identityProfile.kubeletidentity.objectId %q: want a UUID", at.kubelet)
	}
	switch o.Outbound {
	case "", "none":
	case "block":
		at.outbound = o.Outbound
	default:
		return fmt.Errorf("outbound type %q: want none or block", o.Outbound)
	}
	if err := p.findRegistry(c, o); err != nil {
		return err
	}
	return p.findSubnet(c, o)
}

var objectID = regexp.MustCompile(`(?i)^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func (p *Plan) findRegistry(c *aks.Cluster, o Options) error {
	at := &p.place
	switch {
	case o.Registry != "" && c.CachedArtifacts && !strings.EqualFold(o.Registry, c.Registry):
		return fmt.Errorf("registry %q: the cluster boots from %s already", o.Registry, c.Registry)
	case c.CachedArtifacts && c.RegistryID != "":
		m := registryID.FindStringSubmatch(c.RegistryID)
		if m == nil {
			return fmt.Errorf("bootstrapProfile.containerRegistryId %q: not the id of a registry", c.RegistryID)
		}
		at.registry, at.registryG, at.registryID = strings.ToLower(path.Base(c.RegistryID)), m[1], c.RegistryID
		p.Managed = strings.EqualFold(at.registryG, c.NodeGroup)
	case o.Registry != "":
		if !registryName.MatchString(o.Registry) {
			return fmt.Errorf("registry %q: want the name of a registry, 5 to 50 lower-case letters and digits, such as acrprod", o.Registry)
		}
		at.registry, at.registryG = o.Registry, at.group
		at.registryID = "/subscriptions/" + at.subscription + "/resourceGroups/" + at.group + "/providers/Microsoft.ContainerRegistry/registries/" + o.Registry
	default:
		p.Managed = true
	}
	return nil
}

func (p *Plan) findSubnet(c *aks.Cluster, o Options) error {
	if p.Managed {
		return nil
	}
	id := o.Subnet
	if id == "" && len(c.Subnets) > 0 {
		id = c.Subnets[0]
	}
	if id == "" {
		return errors.New("subnet: the cluster is in a network that AKS manages, where a registry of your own cannot be reached; leave the registry to AKS, or give the subnet for its private endpoint")
	}
	m := subnetID.FindStringSubmatch(id)
	if m == nil {
		return fmt.Errorf("subnet %q: want the resource id of a subnet", id)
	}
	p.place.subnet, p.place.network = id, m[1]
	return nil
}

// Unsupported reports whether something of the cluster keeps it from being isolated.
func (p *Plan) Unsupported() bool {
	return slices.ContainsFunc(p.Findings, func(f Finding) bool { return f.Severity == Unsupported })
}
