package aks

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Feature is a fact that switches rows of the catalogue, such as gpu. The
// catalogue names features under when and unless; nothing else connects the two.
type Feature string

// The features that code speaks of; the others are only in the table.
const (
	Always       Feature = "always"
	Linux        Feature = "linux"
	Ubuntu       Feature = "ubuntu"
	Windows      Feature = "windows"
	GPU          Feature = "gpu"
	Private      Feature = "private"
	VNet         Feature = "vnet-integrated"
	Isolated     Feature = "network-isolated"
	LegacyTunnel Feature = "legacy-tunnel"
	CustomDNS    Feature = "custom-dns"
	APIByAddress Feature = "api-by-address"
	KeyVault     Feature = "keyvault"
	Monitor      Feature = "monitor"
	MonitorByTag Feature = "monitor-tag"
	Extensions   Feature = "extensions"
	Marketplace  Feature = "marketplace"
)

// feature is a row of the table below.
type feature struct {
	name    Feature
	doc     string
	implies []Feature                  // switched on along with it
	found   func(r *resource) []string // the evidence in a cluster's JSON; none: off, or not to be seen there
}

// features joins a cluster's JSON to the catalogue: which field, with which
// value, switches which feature on. Each function returns the paths that say
// so, in the resource manager's spelling.
var features = []feature{
	{name: Linux, doc: "Linux node pools", found: pools("osType", func(p *pool) bool { return !p.windows() })},
	{name: Ubuntu, doc: "node pools with Ubuntu", implies: []Feature{Linux}, found: pools("osSKU", (*pool).ubuntu)},
	{name: Windows, doc: "Windows Server node pools", found: pools("osType", (*pool).windows)},
	{name: GPU, doc: "node pools with NVIDIA GPUs", found: pools("vmSize", (*pool).nvidia)},
	{name: "gpu-managed", doc: "NVIDIA GPUs whose whole software AKS manages (preview)", implies: []Feature{GPU}, found: pools("gpuProfile.nvidia.managementMode", func(p *pool) bool {
		return p.nvidia() && strings.EqualFold(p.GPUProfile.NVIDIA.ManagementMode, "Managed")
	})},
	{name: "old-nodes", doc: "Linux nodes with images older than April 2021", implies: []Feature{Linux}, found: pools("nodeImageVersion", (*pool).old)},
	{name: Private, doc: "the API server has a private address only", found: flag("apiServerAccessProfile.enablePrivateCluster", func(r *resource) bool {
		return r.APIServerAccessProfile.EnablePrivateCluster
	})},
	{name: VNet, doc: "API Server VNet Integration", found: flag("apiServerAccessProfile.enableVnetIntegration", func(r *resource) bool {
		return r.APIServerAccessProfile.EnableVnetIntegration
	})},
	{name: Isolated, doc: "network isolated: no way out at all", found: isolated},
	{name: "workload-identity", doc: "workload identity", found: flag("securityProfile.workloadIdentity.enabled", func(r *resource) bool { return r.SecurityProfile.WorkloadIdentity.Enabled })},
	{name: "defender", doc: "Microsoft Defender for Containers", found: defended},
	{name: KeyVault, doc: "Key Vault provider for the Secrets Store CSI driver", found: keyVault},
	{name: Monitor, doc: "Azure Monitor: Container insights, managed Prometheus or Application Insights", found: monitored},
	{name: "app-insights", doc: "Application Insights auto-instrumentation", implies: []Feature{Monitor}, found: flag("azureMonitorProfile.appMonitoring.autoInstrumentation.enabled", func(r *resource) bool {
		return r.AzureMonitorProfile.AppMonitoring.AutoInstrumentation.Enabled
	})},
	{name: "policy", doc: "Azure Policy", found: func(r *resource) []string { return r.addonOn("azurepolicy") }},
	{name: "cost-analysis", doc: "AKS cost analysis", found: flag("metricsProfile.costAnalysis.enabled", func(r *resource) bool { return r.MetricsProfile.CostAnalysis.Enabled })},
	{name: Extensions, doc: "cluster extensions", found: func(*resource) []string { return nil }},
	{name: Marketplace, doc: "cluster extensions from the marketplace", implies: []Feature{Extensions}, found: func(*resource) []string { return nil }},
	{name: LegacyTunnel, doc: "tunnelfront or aks-link in the place of Konnectivity", found: func(*resource) []string { return nil }},
	{name: CustomDNS, doc: "DNS servers of your own", found: func(*resource) []string { return nil }},
	{name: APIByAddress, doc: "pods that dial the API server's address", found: func(*resource) []string { return nil }},
	{name: MonitorByTag, doc: "Azure Monitor by service tag in the place of names", found: func(*resource) []string { return nil }},
}

// viaFlag are the features that need a value besides, and so have a way of
// their own to be set: see the fields and methods of Cluster.
var viaFlag = []Feature{CustomDNS, APIByAddress, MonitorByTag, LegacyTunnel}

// FeatureDoc is a feature that can be named to [Cluster.With], for people.
type FeatureDoc struct {
	Name Feature
	Doc  string
}

// Features returns the features that can be switched by name.
func Features() []FeatureDoc {
	var out []FeatureDoc
	for _, f := range features {
		if !slices.Contains(viaFlag, f.name) {
			out = append(out, FeatureDoc{f.name, f.doc})
		}
	}
	return out
}

// ParseFeature reads a feature that can be switched by name.
func ParseFeature(s string) (Feature, error) {
	var names []string
	for _, f := range Features() {
		if string(f.Name) == s {
			return f.Name, nil
		}
		names = append(names, string(f.Name))
	}
	return "", fmt.Errorf("feature %q: want one of %s", s, strings.Join(names, ", "))
}

func featureRow(name Feature) (feature, bool) {
	for _, f := range features {
		if f.name == name {
			return f, true
		}
	}
	return feature{}, false
}

func flag(path string, on func(*resource) bool) func(*resource) []string {
	return func(r *resource) []string {
		if on(r) {
			return []string{path}
		}
		return nil
	}
}

func pools(path string, on func(*pool) bool) func(*resource) []string {
	return func(r *resource) []string {
		var out []string
		for i := range r.AgentPoolProfiles {
			if p := &r.AgentPoolProfiles[i]; on(p) {
				out = append(out, fmt.Sprintf("agentPoolProfiles[%s].%s", p.Name, path))
			}
		}
		return out
	}
}

func (p *pool) windows() bool { return strings.EqualFold(p.OSType, "Windows") }

// ubuntu: a pool that names no system has Ubuntu.
func (p *pool) ubuntu() bool {
	return !p.windows() && (p.OSSKU == "" || strings.HasPrefix(strings.ToLower(p.OSSKU), "ubuntu"))
}

// GPU sizes by name: NC, ND and NV are NVIDIA's but for some of AMD's; NG is
// AMD's, and NP has FPGAs.
var (
	gpuSize = regexp.MustCompile(`(?i)^Standard_N[CDV]`)
	amdSize = regexp.MustCompile(`(?i)^Standard_NV\d+as_v4$|_MI300X_|_V710_`)
)

// gpu reports whether the pool has NVIDIA GPUs, whoever installs their driver.
func (p *pool) gpu() bool {
	return p.GPUInstanceProfile != "" || slices.ContainsFunc(p.sizes(), func(s string) bool {
		return gpuSize.MatchString(s) && !amdSize.MatchString(s)
	})
}

// nvidia reports whether AKS installs the driver of the pool's GPUs.
func (p *pool) nvidia() bool { return p.gpu() && !strings.EqualFold(p.GPUProfile.Driver, "None") }

// imageDate finds 2020.10 in AKSUbuntu-1804-2020.10.28 and 202607 in
// AKSUbuntu-2204gen2containerd-202607.13.0.
var imageDate = regexp.MustCompile(`-(20\d\d)\.?([01]\d)\.\d`)

func (p *pool) old() bool {
	m := imageDate.FindStringSubmatch(p.NodeImageVersion)
	return !p.windows() && m != nil && m[1]+m[2] < "202104"
}

// addonOn looks an add-on up without regard to case, for the portal and
// Terraform write azurePolicy where the command line writes azurepolicy.
func (r *resource) addonOn(name string) []string {
	for key, a := range r.AddonProfiles {
		if strings.EqualFold(key, name) && a != nil && a.Enabled {
			return []string{"addonProfiles." + name + ".enabled"}
		}
	}
	return nil
}

// isolated: block is documented in preview and in no published list; both mean
// that nothing leaves.
func isolated(r *resource) []string {
	switch strings.ToLower(r.NetworkProfile.OutboundType) {
	case "none", "block":
		return []string{"networkProfile.outboundType"}
	}
	return nil
}

// defended knows the older forms, in which a workspace alone says that the
// sensor is on.
func defended(r *resource) []string {
	d := &r.SecurityProfile.Defender
	switch {
	case d.SecurityMonitoring != nil && d.SecurityMonitoring.Enabled:
		return []string{"securityProfile.defender.securityMonitoring.enabled"}
	case d.SecurityGating.Enabled:
		return []string{"securityProfile.defender.securityGating.enabled"}
	case d.SecurityMonitoring == nil && d.LogAnalyticsWorkspaceResourceID != "":
		return []string{"securityProfile.defender.logAnalyticsWorkspaceResourceId"}
	case r.SecurityProfile.AzureDefender.Enabled:
		return []string{"securityProfile.azureDefender.enabled"}
	}
	return nil
}

// keyVault: the add-on; a plug-in CA of Istio, which reads its key through the
// add-on whether or not that shows as enabled; application routing adds a
// reason where the add-on is on.
func keyVault(r *resource) []string {
	out := r.addonOn("azureKeyvaultSecretsProvider")
	if r.istio() && r.ServiceMeshProfile.Istio.CertificateAuthority.Plugin != nil {
		out = append(out, "serviceMeshProfile.istio.certificateAuthority.plugin")
	}
	if len(out) > 0 && r.IngressProfile.WebAppRouting.Enabled {
		out = append(out, "ingressProfile.webAppRouting.enabled")
	}
	return out
}

func (r *resource) istio() bool { return strings.EqualFold(r.ServiceMeshProfile.Mode, "Istio") }

// istioGateway reports whether the mesh has an ingress gateway, whose
// certificates may come from a vault.
func (r *resource) istioGateway() bool {
	return r.istio() && slices.ContainsFunc(r.ServiceMeshProfile.Istio.Components.IngressGateways, func(g enabled) bool { return g.Enabled })
}

func monitored(r *resource) []string {
	out := r.addonOn("omsagent")
	m := &r.AzureMonitorProfile
	for _, s := range []struct {
		on   bool
		path string
	}{
		{m.Metrics.Enabled, "metrics"}, {m.ContainerInsights.Enabled, "containerInsights"},
		{m.AppMonitoring.AutoInstrumentation.Enabled, "appMonitoring.autoInstrumentation"},
	} {
		if s.on {
			out = append(out, "azureMonitorProfile."+s.path+".enabled")
		}
	}
	return out
}
