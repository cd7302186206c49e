package aks

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

// S38, S39, S40: the switch takes exactly the four recommended hosts, and says
// what follows; for a channel that installs from them, loudly.
func TestNoRecommended(t *testing.T) {
	for channel, want := range map[string]string{
		"": "", "None": "", "NodeImage": "", "SecurityPatch": "warning: nodeOSUpgradeChannel is SecurityPatch", "Unmanaged": "warning: nodeOSUpgradeChannel is Unmanaged",
	} {
		c := plan(t, Public, "westeurope")
		c.OSUpgrades = channel
		all, less := rulesOf(t, c, Options{}), rulesOf(t, c, Options{NoRecommended: true})
		gone := 0
		for _, r := range all.Rules {
			if !slices.Contains(ids(less), r.ID) {
				gone += len(r.To)
			}
		}
		if gone != 4 {
			t.Errorf("%d endpoints are gone, want 4", gone)
		}
		if got := noteOf(less, "os-upgrades"); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("channel %q: note %q, want %q", channel, got, want)
		}
		if got := noteOf(less, "not-recommended"); !strings.Contains(got, "only with a node image or cluster upgrade; node images bring security fixes too") {
			t.Errorf("channel %q: the consequence is not said: %q", channel, got)
		}
	}
}

// S55, S56, S57, and what else is said of a cluster.
func TestNotesOnACluster(t *testing.T) {
	for _, tc := range []struct{ fields, code, want string }{
		{`"addonProfiles": {"confcom": {"enabled": true}}`, "unlisted", "info: The article has no rows for confcom"},
		{`"aiToolchainOperatorProfile": {"enabled": true}`, "unlisted", "info: The article has no rows for KAITO"},
		{`"workloadAutoScalerProfile": {"keda": {"enabled": true}}`, "unlisted", "info: The article has no rows for KEDA"},
		{`"serviceMeshProfile": {"mode": "Istio", "istio": {"certificateAuthority": {"plugin": {}}}}`, "keyvault-addon-off", "warning: Istio's plug-in CA"},
		{`"serviceMeshProfile": {"mode": "Istio", "istio": {"components": {"ingressGateways": [{"enabled": true}]}}}`, "istio-gateway", "info: The mesh has an ingress gateway"},
		{`"networkProfile": {"outboundType": "loadBalancer"}`, "not-in-path", "warning: outboundType is loadBalancer"},
		{`"networkProfile": {"outboundType": "managedNATGatewayV2"}`, "not-in-path", "warning: outboundType is managedNATGatewayV2"},
		{`"networkProfile": {"outboundType": "userDefinedRouting"}`, "not-in-path", ""},
		{`"agentPoolProfiles": [{"name": "p", "enableNodePublicIp": true}]`, "node-public-ip", `warning: Pool "p" gives its nodes public addresses`},
		{`"agentPoolProfiles": [{"name": "p", "mode": "Gateway"}]`, "egress-gateway", `warning: Pool "p" is an egress gateway`},
		{`"networkProfile": {"staticEgressGatewayProfile": {"enabled": true}}`, "egress-gateway", "warning: The static egress gateway"},
		{`"nodeProvisioningProfile": {"mode": "Auto"}`, "unknown-nodes", "warning: Node auto-provisioning"},
		{`"agentPoolProfiles": [{"name": "g", "vmSize": "Standard_NC4as_T4_v3", "gpuProfile": {"driver": "None"}}]`, "gpu-driver-none", `info: Pool "g" has GPUs`},
		{`"apiServerAccessProfile": {"enablePrivateCluster": true, "privateDnsZone": "none"}`, "private-zone-none", "info: privateDNSZone is none"},
		{`"networkProfile": {"outboundType": "none"}`, "isolated-direct", "warning: The cluster has no way out"},
		{`"networkProfile": {"outboundType": "none"}, "addonProfiles": {"azureKeyvaultSecretsProvider": {"enabled": true}}`, "private-endpoint", "info: Reach Azure Key Vault by a private endpoint (group vault), with the private DNS zone privatelink.vaultcore.azure.net"},
		{`"networkProfile": {"outboundType": "none"}, "addonProfiles": {"omsagent": {"enabled": true}}`, "private-endpoint", "info: Reach Azure Monitor by a private endpoint (group azuremonitor), with the private DNS zones privatelink.monitor.azure.com, "},
		{`"bootstrapProfile": {"artifactSource": "Cache", "containerRegistryId": "/x/acr1"}, "networkProfile": {"outboundType": "userDefinedRouting"}`, "cached-artifacts", "info: Nodes boot from the registry acr1"},
		{`"addonProfiles": {"extensionManager": {"enabled": true}}`, "extension-manager", "info: The extension manager is on"},
		{`"addonProfiles": {"azureKeyvaultSecretsProvider": {"enabled": true}}`, "wide", "info: https://*.vault.azure.net:443 is wide"},
		{`"apiServerAccessProfile": {"enableVnetIntegration": true}`, "vnet-integration", "info: API Server VNet Integration: nodes reach"},
		{``, "konnectivity", "info: No field shows Konnectivity"},
	} {
		res := rulesOf(t, mustRead(t, clusterJSON(tc.fields)), Options{})
		if got := noteOf(res, tc.code); !strings.HasPrefix(got, tc.want) || (got == "") != (tc.want == "") {
			t.Errorf("%s: note %s is %q, want %q", tc.fields, tc.code, got, tc.want)
		}
	}
	nap := mustRead(t, clusterJSON(`"nodeProvisioningProfile": {"mode": "Auto"}`)).With(GPU, "test").With(Windows, "test").With(Ubuntu, "test")
	if res := rulesOf(t, nap, Options{}); hasNote(res, "unknown-nodes") || to(res, "gpu/nvidia-github") == "" {
		t.Error("what is forced is still called unknown")
	}
	auto := rulesOf(t, readExample(t, "automatic-vnetint-nap.arm"), Options{})
	i := slices.IndexFunc(auto.Rules, func(r Rule) bool { return r.ID == "keyvault/vaults" })
	if got := strings.Join(auto.Rules[i].Because, " "); got != "addonProfiles.azureKeyvaultSecretsProvider.enabled serviceMeshProfile.istio.certificateAuthority.plugin ingressProfile.webAppRouting.enabled" {
		t.Errorf("Key Vault is on because of %s", got)
	}
}

func TestAuthorizedRanges(t *testing.T) {
	c := readExample(t, "public-gpu-monitor-policy.arm")
	for gateway, want := range map[string]string{
		"":             "info: The API server admits",
		"203.0.113.10": "",
		"20.9.9.9":     "warning: authorizedIPRanges lacks the firewall's address 20.9.9.9",
	} {
		var o Options
		if gateway != "" {
			o.GatewayAddresses = []netip.Addr{netip.MustParseAddr(gateway)}
		}
		if got := noteOf(rulesOf(t, c, o), "authorized-ranges"); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("gateway %q: note %q, want %q", gateway, got, want)
		}
	}
}

// S58, S59: no public rule, whatever is on; the registry and the API server by
// private addresses, and their names resolvable.
func TestNetworkIsolated(t *testing.T) {
	c := readExample(t, "network-isolated.cli").With(KeyVault, "test").With(Monitor, "test").With(LegacyTunnel, "test")
	res := rulesOf(t, c, Options{})
	if len(res.Rules) != 0 {
		t.Errorf("rules %v, want none", ids(res))
	}
	var checks []string
	for _, p := range res.Private {
		checks = append(checks, p.Name.String()+" "+p.Zone)
	}
	want := []string{
		c.PrivateFQDN.String() + " privatelink.westeurope.azmk8s.io",
		"bootstrapacr7f3k2.azurecr.io privatelink.azurecr.io",
		"bootstrapacr7f3k2.westeurope.data.azurecr.io privatelink.azurecr.io",
		"*.vault.azure.net privatelink.vaultcore.azure.net",
	}
	if !slices.Equal(checks, want) {
		t.Errorf("checks %v, want %v", checks, want)
	}
	for _, name := range []string{c.FQDN.String(), c.PrivateFQDN.String(), "bootstrapacr7f3k2.azurecr.io", "bootstrapacr7f3k2.privatelink.azurecr.io", "kv1.vault.azure.net", "x.ods.opinsights.azure.com"} {
		n := egress.MustParseName(name)
		if !slices.ContainsFunc(res.MayResolve, func(p egress.Pattern) bool { return p.Match(n) }) {
			t.Errorf("%s may not be resolved", name)
		}
	}
	if n := egress.MustParseName("mcr.microsoft.com"); slices.ContainsFunc(res.MayResolve, func(p egress.Pattern) bool { return p.Match(n) }) {
		t.Error("mcr.microsoft.com may be resolved")
	}
}
