package aks

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Cluster is what is known of one cluster: the facts that decide which rows of
// the catalogue it needs, and with which names. [Read] fills it from a
// cluster's JSON and [Plan] for a cluster that is yet to be; what neither can
// know is set on the fields, or with [Cluster.With].
type Cluster struct {
	Name   string
	Cloud  Cloud
	Region string // as the resource manager spells it: westeurope

	FQDN        egress.Name // the API server's public name; zero when it is not known or has none
	PrivateFQDN egress.Name // its name on a private link; zero when it has none

	// PrivateDNSZone is system, none, or the resource id of a zone; it says which
	// of the two names the nodes of a private cluster use.
	PrivateDNSZone string

	// Features are what is on, each with the fields of the JSON, or the words of
	// the user, that say so. Use Has, With and Without.
	Features map[Feature][]string
	Unknown  []Feature // what the JSON cannot say: with node auto-provisioning, the kinds of nodes

	OutboundType string // as in the JSON; unknown words are kept
	OSUpgrades   string // the channel of node OS upgrades; empty when it is not known
	IPv6         bool   // nodes have IPv6 addresses too

	ID            string // the cluster's resource id; empty when it is not known
	NodeGroup     string // the resource group that AKS keeps for the cluster
	Kubernetes    string // the version that runs, such as 1.34.2; empty when it is not known
	NetworkPlugin string // as in the JSON: azure, kubenet, none
	KubeletID     string // the object id of the identity by which nodes pull images
	Pools         []Pool
	FileCSI       bool // the storage driver for Azure Files is on
	BlobCSI       bool // the one for blobs is

	Registry         string         // the name of the registry that an isolated cluster boots from
	RegistryID       string         // its resource id
	CachedArtifacts  bool           // it boots from Registry rather than from Microsoft's
	AuthorizedRanges []netip.Prefix // who may reach the API server; empty is everyone
	Subnets          []string       // resource ids of the nodes' and pods' subnets: the sources of all this traffic
	Proxy            Proxy

	APIAccess      APIAccess    // how pods of yours reach the API server; empty when it is not known
	APIServerAddrs []netip.Addr // current addresses of the API server, which are in no JSON
	DNSServers     []netip.Addr // of the virtual network, if they are not Azure's
	KeyVaults      []string     // names of the vaults it may read; empty is any

	Installed []Extension // cluster extensions, which are in no cluster's JSON
	Listed    []Listed    // what Azure itself lists for this cluster, a third opinion

	notes []Note
}

// Pool is a node pool, as far as isolation depends on it.
type Pool struct {
	Name      string
	Windows   bool
	Image     string // such as AKSUbuntu-2204gen2containerd-202607.13.0; empty when it is not known
	PublicIPs bool   // its nodes have public addresses
	Gateway   bool   // it is a static egress gateway
}

// APIAccess is how pods, other than the system's own, reach the API server.
type APIAccess string

// The ways.
const (
	ByName    APIAccess = "fqdn" // by its name: they carry AKS's annotation
	ByAddress APIAccess = "ip"   // by its address, as Kubernetes has it
	NoAccess  APIAccess = "none" // not at all
)

// WithAPIAccess returns the cluster with the way given, which is one of the three.
func (c Cluster) WithAPIAccess(a APIAccess) (Cluster, error) {
	switch a {
	case ByAddress:
		c = c.With(APIByAddress, "asked for")
	case ByName, NoAccess:
		c = c.Without(APIByAddress)
	default:
		return c, fmt.Errorf("api access %q: want ip, fqdn or none", a)
	}
	c.APIAccess = a
	return c, nil
}

// Proxy is the HTTP proxy that nodes and pods are told to use. The zero Proxy
// is none.
type Proxy struct {
	Endpoints []egress.Endpoint // tcp://, one for each of the proxy's URLs
	Bypass    []string          // lower case; a name, everything below a name, an address or a prefix
}

// assumed is the word of nobody: see Plan.
const assumed = "assumed"

// Plan is a cluster before it exists: its nodes are taken to run Ubuntu until
// something else is said.
func Plan(cloud Cloud, region string) (Cluster, error) {
	c := Cluster{Cloud: cloud, Features: map[Feature][]string{}}
	if cloud == 0 {
		return c, fmt.Errorf("cloud: want public, china or usgov")
	}
	if region != "" {
		plain, err := plainRegion(region)
		if err != nil {
			return c, err
		}
		if err := checkRegion(cloud, plain); err != nil {
			return c, err
		}
		c.Region = plain
	}
	c.on(Ubuntu, assumed)
	return c, nil
}

// Has reports whether a feature is on.
func (c *Cluster) Has(f Feature) bool { return f == Always || len(c.Features[f]) > 0 }

// With returns the cluster with a feature switched on, and what comes along
// with it; why says who wants it.
func (c Cluster) With(f Feature, why string) Cluster {
	c.Features = maps.Clone(c.Features)
	if c.Features == nil {
		c.Features = map[Feature][]string{}
	}
	c.on(f, why)
	c.Unknown = slices.DeleteFunc(slices.Clone(c.Unknown), c.Has)
	return c
}

// Without returns the cluster with a feature switched off.
func (c Cluster) Without(f Feature) Cluster {
	c.Features = maps.Clone(c.Features)
	delete(c.Features, f)
	c.Unknown = slices.DeleteFunc(slices.Clone(c.Unknown), func(u Feature) bool { return u == f })
	return c
}

func (c *Cluster) on(f Feature, why ...string) {
	row, _ := featureRow(f)
	for _, w := range why {
		if !slices.Contains(c.Features[f], w) {
			c.Features[f] = append(slices.Clip(c.Features[f]), w)
		}
	}
	for _, also := range row.implies {
		if !c.Has(also) {
			c.on(also, why...)
		}
	}
}

// On returns the features that are on, in the table's order.
func (c *Cluster) On() []Feature {
	var out []Feature
	for _, f := range features {
		if c.Has(f.name) {
			out = append(out, f.name)
		}
	}
	return out
}

// APIServer returns the name by which nodes know the API server, and the zero
// Name when that is not known. Nodes of a private cluster use the private name,
// unless its zone is "none": then they use the public one, which leads to the
// private address.
func (c *Cluster) APIServer() egress.Name {
	if c.Has(Private) && !c.PrivateFQDN.IsZero() && !strings.EqualFold(c.PrivateDNSZone, "none") {
		return c.PrivateFQDN
	}
	if c.FQDN.IsZero() {
		return c.PrivateFQDN
	}
	return c.FQDN
}

func (c *Cluster) note(level Level, code, about, format string, args ...any) {
	c.notes = append(slices.Clip(c.notes), Note{level, code, about, fmt.Sprintf(format, args...)})
}

// Level is how much a note matters. The zero Level is Info.
type Level uint8

// The levels.
const (
	Info    Level = iota // good to know
	Warning              // something does not work, or is open that should not be
)

// String returns the word.
func (l Level) String() string { return [...]string{"info", "warning"}[l] }

// MarshalText is String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the word.
func (l *Level) UnmarshalText(b []byte) error {
	switch string(b) {
	case "info":
		*l = Info
	case "warning":
		*l = Warning
	default:
		return fmt.Errorf("level %q: want info or warning", b)
	}
	return nil
}

// Note is something that the rules alone do not say: what could not be known,
// what the article contradicts itself in, what is wrong with the cluster.
type Note struct {
	Level Level  `json:"level"`
	Code  string `json:"code"`            // a word that stays the same, for programs
	About string `json:"about,omitempty"` // a rule's id, where the note is about one
	Text  string `json:"text"`
}
