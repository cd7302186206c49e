package aks

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// observe notes what the JSON leaves open, and what of the cluster goes around
// a firewall or does not work behind one.
func (c *Cluster) observe(r *resource) {
	c.openQuestions(r)
	c.aroundTheFirewall(r)
	c.addons(r)
}

func (c *Cluster) openQuestions(r *resource) {
	if strings.EqualFold(r.NodeProvisioningMode.Mode, "Auto") {
		for _, f := range []Feature{GPU, Windows, Ubuntu} {
			if !c.Has(f) {
				c.Unknown = append(c.Unknown, f)
			}
		}
	}
	if !c.Has(Private) && !c.Has(Isolated) {
		c.note(Info, "konnectivity", "", "No field shows Konnectivity; it is taken to be there, as on every supported version, so the tunnel's ports stay closed.")
	}
	for i := range r.AgentPoolProfiles {
		if p := &r.AgentPoolProfiles[i]; p.gpu() && !p.nvidia() {
			c.note(Info, "gpu-driver-none", "", "Pool %q has GPUs and gpuProfile.driver None: you install the driver, so what that needs is yours to add.", p.Name)
		}
	}
	if c.Has(VNet) {
		c.note(Info, "vnet-integration", "core/apiserver", "API Server VNet Integration: nodes reach the API server by its address in a subnet of the network, which must stay open to them. Its public name has no rule.")
		if c.Cloud != Public {
			c.note(Info, "vnet-integration-cloud", "", "API Server VNet Integration is documented for the public cloud only.")
		}
	}
	if c.istioGatewayOnly(r) {
		c.note(Info, "istio-gateway", "", "The mesh has an ingress gateway; if its certificates come from a key vault, switch keyvault on.")
	}
	if c.Has(Private) && strings.EqualFold(c.PrivateDNSZone, "none") {
		c.note(Info, "private-zone-none", "", "privateDNSZone is none: nodes use the public name, which leads to a private address. It needs no rule, but DNS has to answer it.")
	}
}

func (c *Cluster) istioGatewayOnly(r *resource) bool { return r.istioGateway() && !c.Has(KeyVault) }

// aroundTheFirewall: ways out of the cluster that no route table leads to a
// firewall.
func (c *Cluster) aroundTheFirewall(r *resource) {
	switch strings.ToLower(c.OutboundType) {
	case "", "userdefinedrouting", "none", "block":
	default:
		c.note(Warning, "not-in-path", "", "outboundType is %s: traffic does not pass a firewall of yours, so the rules are advice until it is userDefinedRouting.", c.OutboundType)
	}
	for i := range r.AgentPoolProfiles {
		p := &r.AgentPoolProfiles[i]
		if p.EnableNodePublicIP {
			c.note(Warning, "node-public-ip", "", "Pool %q gives its nodes public addresses (enableNodePublicIP), by which they get out around the firewall.", p.Name)
		}
		if strings.EqualFold(p.Mode, "Gateway") {
			c.note(Warning, "egress-gateway", "", "Pool %q is an egress gateway, by which pods get out around the firewall.", p.Name)
		}
	}
	if r.NetworkProfile.StaticEgressGatewayProfile.Enabled {
		c.note(Warning, "egress-gateway", "", "The static egress gateway is on (networkProfile.staticEgressGatewayProfile), by which pods get out around the firewall.")
	}
}

// listedAddons have rows of their own.
var listedAddons = []string{"omsagent", "azurepolicy", "azurekeyvaultsecretsprovider", "extensionmanager"}

// addons notes what is on and has no row: the article says that the core rows
// cover it.
func (c *Cluster) addons(r *resource) {
	var unlisted []string
	for _, key := range slices.Sorted(maps.Keys(r.AddonProfiles)) {
		if a := r.AddonProfiles[key]; a != nil && a.Enabled && !slices.Contains(listedAddons, strings.ToLower(key)) {
			unlisted = append(unlisted, key)
		}
	}
	for _, s := range []struct {
		on   bool
		name string
	}{
		{r.AIToolchainOperatorProfile.Enabled, "KAITO"}, {r.WorkloadAutoScalerProfile.KEDA.Enabled, "KEDA"},
	} {
		if s.on {
			unlisted = append(unlisted, s.name)
		}
	}
	if len(unlisted) > 0 {
		c.note(Info, "unlisted", "", "The article has no rows for %s and says that the core rows cover such add-ons; what they fetch on your behalf (models, scalers' targets) is yours to add.", strings.Join(unlisted, ", "))
	}
	if len(r.addonOn("extensionManager")) > 0 {
		c.note(Info, "extension-manager", "", "The extension manager is on: list the cluster's extensions, which no field of the cluster shows.")
	}
	if c.Has(KeyVault) && len(r.addonOn("azureKeyvaultSecretsProvider")) == 0 {
		c.note(Warning, "keyvault-addon-off", "keyvault/vaults", "Istio's plug-in CA is set and the Key Vault provider that it reads from is not shown as enabled.")
	}
}

// lint holds the cluster against where its firewall stands, given the
// addresses that its traffic comes from.
func (c *Cluster) lint(gateway []netip.Addr) []Note {
	if len(c.AuthorizedRanges) == 0 || c.Has(Private) {
		return nil
	}
	if len(gateway) == 0 {
		return []Note{{Info, "authorized-ranges", "", "The API server admits authorizedIPRanges only; the firewall's outbound address must be one of them."}}
	}
	var notes []Note
	for _, a := range gateway {
		if !slices.ContainsFunc(c.AuthorizedRanges, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) }) {
			notes = append(notes, Note{Warning, "authorized-ranges", "", "authorizedIPRanges lacks the firewall's address " + a.String() + ": nodes behind it cannot reach the API server."})
		}
	}
	return notes
}
