package aks

import (
	"slices"
	"strings"
)

// PrivateEndpoint is how an isolated cluster reaches a service of Azure: by an
// address inside its own network, which takes the place of a rule.
type PrivateEndpoint struct {
	Feature  Feature  `json:"feature,omitempty"` // what of the cluster needs it; empty for the registry it boots from
	Service  string   `json:"service"`
	Resource string   `json:"resource"` // the type of resource that the endpoint leads to
	Group    string   `json:"group"`    // the sub-resource, --group-id
	Zones    []string `json:"zones"`    // the private DNS zones; none where Microsoft's list has none for the cloud
	Why      string   `json:"why"`
}

// privateLink is a row of the table below.
type privateLink struct {
	PrivateEndpoint
	wanted func(*Cluster) bool
	zones  [USGov + 1][]string // by cloud
}

// privateLinks are the services that something of a cluster reaches by a
// private endpoint, with the zones of Microsoft's list
// (https://learn.microsoft.com/azure/private-link/private-endpoint-dns).
var privateLinks = []privateLink{
	{PrivateEndpoint{"", "Azure Container Registry", "Microsoft.ContainerRegistry/registries", "registry", nil, "Nodes boot from it; it fetches from Microsoft's registry itself, over Azure's own network."},
		func(*Cluster) bool { return true }, registryZones()},
	{PrivateEndpoint{KeyVault, "Azure Key Vault", "Microsoft.KeyVault/vaults", "vault", nil, "Secrets and certificates, for the Secrets Store CSI driver."},
		func(c *Cluster) bool { return c.Has(KeyVault) }, vaultZones()},
	{PrivateEndpoint{Monitor, "Azure Monitor", "Microsoft.Insights/privateLinkScopes", "azuremonitor", nil, "One private link scope for the Log Analytics workspace of Container insights, and for the data collection endpoint of the Azure Monitor workspace of managed Prometheus."},
		func(c *Cluster) bool { return c.Has(Monitor) }, [...][]string{
			Public: {"privatelink.monitor.azure.com", "privatelink.oms.opinsights.azure.com", "privatelink.ods.opinsights.azure.com", "privatelink.agentsvc.azure-automation.net", "privatelink.blob.core.windows.net"},
			USGov:  {"privatelink.monitor.azure.us", "privatelink.adx.monitor.azure.us", "privatelink.oms.opinsights.azure.us", "privatelink.ods.opinsights.azure.us", "privatelink.agentsvc.azure-automation.us", "privatelink.blob.core.usgovcloudapi.net"},
		}},
	{PrivateEndpoint{"", "Azure Files", "Microsoft.Storage/storageAccounts", "file", nil, "Shares: storage classes of the Azure Files driver need networkEndpointType: privateEndpoint, with which it makes endpoint and zone itself."},
		func(c *Cluster) bool { return c.FileCSI }, storageZones("file")},
	{PrivateEndpoint{"", "Azure Blob Storage", "Microsoft.Storage/storageAccounts", "blob", nil, "Containers: storage classes of the blob driver need networkEndpointType: privateEndpoint, with which it makes endpoint and zone itself."},
		func(c *Cluster) bool { return c.BlobCSI }, storageZones("blob")},
}

func registryZones() (z [USGov + 1][]string) {
	for _, c := range Clouds {
		z[c] = []string{clouds[c].registryZone}
	}
	return z
}

func vaultZones() (z [USGov + 1][]string) {
	for _, c := range Clouds {
		z[c] = []string{clouds[c].vaultZone}
	}
	return z
}

func storageZones(kind string) [USGov + 1][]string {
	return [...][]string{
		Public: {"privatelink." + kind + ".core.windows.net"},
		China:  {"privatelink." + kind + ".core.chinacloudapi.cn"},
		USGov:  {"privatelink." + kind + ".core.usgovcloudapi.net"},
	}
}

// PrivateEndpoints returns what the cluster, were it isolated, reaches by
// private endpoints, the registry first.
func (c *Cluster) PrivateEndpoints() []PrivateEndpoint {
	var out []PrivateEndpoint
	for _, l := range privateLinks {
		if l.wanted(c) {
			e := l.PrivateEndpoint
			e.Zones = append([]string{}, l.zones[c.Cloud]...)
			out = append(out, e)
		}
	}
	return out
}

// hasPrivateEndpoint reports whether the table has a way to what a feature needs.
func hasPrivateEndpoint(f Feature) bool {
	return slices.ContainsFunc(privateLinks, func(l privateLink) bool { return l.Feature == f && f != "" })
}

// inZones is what a note says of zones.
func (e *PrivateEndpoint) inZones() string {
	switch len(e.Zones) {
	case 0:
		return "its private DNS zones in this cloud are not in Microsoft's list"
	case 1:
		return "with the private DNS zone " + e.Zones[0]
	}
	return "with the private DNS zones " + strings.Join(e.Zones, ", ")
}

// RegistryName is what a registry of the cluster's cloud is called in DNS.
func (c *Cluster) RegistryName(registry string) string {
	return registry + "." + clouds[c.Cloud].registries
}

// RegistryDataName is the regional name under which such a registry serves layers.
func (c *Cluster) RegistryDataName(registry string) string {
	return registry + "." + c.Region + ".data." + clouds[c.Cloud].registries
}

// RegistryZone is the private DNS zone of registries in the cluster's cloud.
func (c *Cluster) RegistryZone() string { return clouds[c.Cloud].registryZone }

// WhenIsolated says what takes the place of a row in an isolated cluster.
func WhenIsolated(r *Row) string {
	for _, f := range r.When {
		for _, l := range privateLinks {
			if f == l.Feature && f != "" {
				return "a private endpoint to " + l.Service + " (group " + l.Group + ") takes its place, and it is not opened."
			}
		}
	}
	var on []string
	for _, f := range r.When {
		if needsHosts(f) {
			on = append(on, string(f))
		}
	}
	switch {
	case r.neverOpened():
		return "never opened. Nodes have images and packages from the registry that they boot from; what is missing there is for its cache rule, its private endpoint and its DNS to mend."
	case len(on) > 0:
		return "an opening of its own, without which " + strings.Join(on, ", ") + " does not work."
	case r.ID == "core/apiserver":
		return "reached inside the network, by its private name or in a subnet of the network."
	case r.Section == "required-fqdn" || r.Section == "recommended":
		return "not needed: nodes boot and are renewed without it."
	}
	return ""
}

// neverOpened reports whether some line of the row is of a host that isolated
// clusters do not ask.
func (r *Row) neverOpened() bool {
	for _, l := range r.everyLine {
		ts, _ := l.templates()
		for _, t := range ts {
			to, err := t.fill(anything)
			if err == nil && slices.ContainsFunc(to, NeverOpened) {
				return true
			}
		}
	}
	return false
}
