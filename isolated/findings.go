package isolated

import (
	"fmt"
	"slices"
	"strings"

	"tidegate.io/tidegate/aks"
)

// Severity is how much a finding matters. The zero Severity is Unsupported.
type Severity uint8

// The severities.
const (
	Unsupported Severity = iota // isolation does not work with it; it has to change first
	Warning                     // something will not work, or gets out in spite of it
	Info                        // good to know
)

// String returns the word.
func (s Severity) String() string { return [...]string{"unsupported", "warning", "info"}[s] }

// MarshalText is String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is something about this very cluster that isolation runs into.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"`            // a word that stays the same, for programs
	About    string   `json:"about,omitempty"` // a field of the cluster's JSON
	Text     string   `json:"text"`
}

// findings gathers them, the gravest first.
type findings struct {
	c   *aks.Cluster
	all []Finding
}

func findingsOf(c *aks.Cluster) []Finding {
	f := &findings{c: c}
	f.network()
	f.nodes()
	f.upgrades()
	f.extensions()
	f.storage()
	f.addons()
	slices.SortStableFunc(f.all, func(a, b Finding) int { return int(a.Severity) - int(b.Severity) })
	return f.all
}

func (f *findings) add(s Severity, code, about, format string, args ...any) {
	f.all = append(f.all, Finding{s, code, about, fmt.Sprintf(format, args...)})
}

func (f *findings) network() {
	c := f.c
	if strings.EqualFold(c.NetworkPlugin, "kubenet") {
		f.add(Unsupported, "kubenet", "networkProfile.networkPlugin", "kubenet is not supported: move to Azure CNI overlay first.")
	}
	if !c.Has(aks.Private) && !c.Has(aks.VNet) {
		f.add(Unsupported, "public-api-server", "apiServerAccessProfile", "The API server has a public address, which nodes without a way out cannot reach: the cluster has to be private, or have API Server VNet Integration.")
	}
	if c.Has(aks.Private) && c.PrivateFQDN.IsZero() && !strings.EqualFold(c.PrivateDNSZone, "none") {
		f.add(Info, "api-server-name", "privateFQDN", "The API server's private name is not in the file, so it is not checked.")
	}
	if len(c.Proxy.Endpoints) > 0 {
		f.add(Warning, "http-proxy", "httpProxyConfig", "Nodes and pods use an HTTP proxy, which is a way out; the registry's names must be in its noProxy.")
	}
	if len(c.DNSServers) > 0 {
		f.add(Info, "custom-dns", "", "DNS servers of your own must ask Azure's (168.63.129.16) for the private zones.")
	}
	if c.Cloud == aks.China {
		f.add(Info, "china", "location", "Whether a registry in the cloud of 21Vianet fetches from mcr.microsoft.com by a cache rule is not documented: try the pull before the last step.")
	}
	f.add(Info, "arm-authentication", "", "The registry's authentication-as-arm policy is on by default, and has to stay on.")
}

func (f *findings) nodes() {
	if v, err := parseVersion(f.c.Kubernetes); err == nil && v < oldestMinor {
		f.add(Unsupported, "old-kubernetes", "kubernetesVersion", "Kubernetes %s is older than 1.%d, from which on clusters can be isolated.", f.c.Kubernetes, oldestMinor)
	}
	for _, p := range f.c.Pools {
		if p.Windows {
			f.add(Unsupported, "windows-pool", "agentPoolProfiles["+p.Name+"].osType", "Windows pools are not supported: pool %q has to go.", p.Name)
		}
		if p.PublicIPs {
			f.add(Warning, "node-public-ip", "agentPoolProfiles["+p.Name+"].enableNodePublicIP", "The nodes of pool %q have public addresses, by which they get out in spite of outboundType none.", p.Name)
		}
		if p.Gateway {
			f.add(Warning, "egress-gateway", "agentPoolProfiles["+p.Name+"].mode", "Pool %q is an egress gateway, by which pods get out in spite of outboundType none.", p.Name)
		}
	}
	if len(f.c.Unknown) > 0 {
		f.add(Info, "node-auto-provisioning", "nodeProvisioningProfile.mode", "Node auto-provisioning decides the kinds of nodes inside the cluster: its NodePools must ask for Linux only.")
	}
	if f.c.KubeletID == "" {
		f.add(Info, "kubelet-identity", "identityProfile.kubeletidentity", "The kubelet's identity is not in the file; it needs the role AcrPull on the registry.")
	}
}

// oldestMinor is of the oldest Kubernetes that AKS isolates.
const oldestMinor = 30

func (f *findings) upgrades() {
	switch strings.ToLower(f.c.OSUpgrades) {
	case "unmanaged", "securitypatch":
		f.add(Unsupported, "os-upgrade-channel", "autoUpgradeProfile.nodeOSUpgradeChannel", "The channel %s installs packages from outside: set it to NodeImage or None.", f.c.OSUpgrades)
	case "":
		f.add(Info, "os-upgrade-channel", "autoUpgradeProfile.nodeOSUpgradeChannel", "The channel of node OS upgrades is not in the file: it must be NodeImage or None.")
	}
}

// refused are the extensions that isolated clusters cannot have.
var refused = []struct{ kind, name string }{
	{"microsoft.dapr", "Dapr"},
	{"microsoft.appconfiguration", "Azure App Configuration"},
	{"microsoft.azureml.kubernetes", "Azure Machine Learning"},
	{"microsoft.flux", "Flux (GitOps)"},
	{"microsoft.dataprotection.kubernetes", "Azure Backup"},
}

func (f *findings) extensions() {
	if f.c.Installed == nil {
		f.add(Info, "extensions-unknown", "", "No field shows cluster extensions, of which Dapr, App Configuration, Azure Machine Learning, Flux and Backup are not supported: give their list.")
	}
	for _, e := range f.c.Installed {
		for _, r := range refused {
			if strings.EqualFold(e.Type, r.kind) {
				f.add(Unsupported, "extension", e.Type, "The extension %s (%s) is not supported.", e.Name, r.name)
			}
		}
		if e.Marketplace {
			f.add(Warning, "marketplace-extension", e.Type, "The extension %s is from the marketplace: its images and its metering are outside.", e.Name)
		}
	}
}

func (f *findings) storage() {
	for _, s := range []struct {
		on    bool
		field string
		name  string
	}{{f.c.FileCSI, "fileCSIDriver", "Azure Files"}, {f.c.BlobCSI, "blobCSIDriver", "Azure Blob Storage"}} {
		if s.on {
			f.add(Warning, "csi-endpoint", "storageProfile."+s.field, "The driver for %s is on: what it provisions has a public endpoint unless a storage class of your own says networkEndpointType: privateEndpoint.", s.name)
		}
	}
}

// addons finds those that reach services for which no private endpoint is known.
func (f *findings) addons() {
	for _, feature := range f.c.Openings() {
		f.add(Warning, "opening", strings.Join(f.c.Features[feature], ", "), "%s reaches hosts for which no private endpoint is known: it needs an opening of its own, or has to go.", feature)
	}
}
