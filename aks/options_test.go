package aks

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"tidegate.io/tidegate/egress"
)

// rulesOf makes the rules and fails the test when they cannot be made.
func rulesOf(t *testing.T, c Cluster, o Options) Result {
	t.Helper()
	res, err := c.Rules(o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// to is what a rule opens, as text; "" when there is no such rule.
func to(res Result, id string) string {
	for _, r := range res.Rules {
		if r.ID == id {
			var out []string
			for _, e := range r.To {
				out = append(out, e.String())
			}
			return strings.Join(out, " ")
		}
	}
	return ""
}

func ids(res Result) []string {
	var out []string
	for _, r := range res.Rules {
		out = append(out, r.ID)
	}
	return out
}

func hasNote(res Result, code string) bool { return noteOf(res, code) != "" }

func noteOf(res Result, code string) string {
	for _, n := range res.Notes {
		if n.Code == code {
			return n.Level.String() + ": " + n.Text
		}
	}
	return ""
}

func plan(t *testing.T, cloud Cloud, region string, with ...Feature) Cluster {
	t.Helper()
	c, err := Plan(cloud, region)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range with {
		c = c.With(f, "test")
	}
	return c
}

// Each row: a cluster, and what one rule of it opens.
func TestWhatARuleOpens(t *testing.T) {
	public, china, gov := plan(t, Public, "westeurope"), plan(t, China, "chinanorth3"), plan(t, USGov, "usgovvirginia")
	with := func(c Cluster, change func(*Cluster)) Cluster { change(&c); return c }
	addr := []netip.Addr{netip.MustParseAddr("20.1.2.3")}
	for _, tc := range []struct {
		name    string
		cluster Cluster
		options Options
		rule    string
		want    string
	}{
		{"S14: without a file, the region's API servers", public, Options{}, "core/apiserver", "https://*.hcp.westeurope.azmk8s.io:443"},
		{"S14: with one, its own", mustRead(t, clusterJSON("")), Options{}, "core/apiserver", "https://c-1a2b3c4d.hcp.westeurope.azmk8s.io:443"},
		{"S14: to the letter, the wildcard", mustRead(t, clusterJSON("")), Options{AsStated: true}, "core/apiserver", "https://*.hcp.westeurope.azmk8s.io:443"},
		{"S14: without a region, if asked for, every region", plan(t, Public, ""), Options{Wildcards: true}, "core/apiserver", "https://*.hcp.*.azmk8s.io:443"},
		{"S28: a private cluster needs none", public.With(Private, "test"), Options{}, "core/apiserver", ""},
		{"S28: nor does one with VNet integration", public.With(VNet, "test"), Options{}, "core/apiserver", ""},
		{"S28: in any cloud", gov.With(Private, "test"), Options{}, "core/apiserver", ""},

		{"S26: no tunnel beside Konnectivity", public, Options{}, "tunnel/udp", ""},
		{"S26: nor to the letter", public, Options{AsStated: true}, "tunnel/udp", ""},
		{"S26: the old one, by the region's tag", public.With(LegacyTunnel, "test"), Options{}, "tunnel/udp", "udp://@AzureCloud.westeurope:1194"},
		{"S26: and by TCP", public.With(LegacyTunnel, "test"), Options{}, "tunnel/tcp", "tcp://@AzureCloud.westeurope:9000"},
		{"S15: narrower, by the API server's address", with(public.With(LegacyTunnel, "test"), func(c *Cluster) { c.APIServerAddrs = addr }), Options{}, "tunnel/udp", "udp://20.1.2.3:1194"},
		{"S15: wider, where the region is not known", plan(t, Public, "", LegacyTunnel), Options{Wildcards: true}, "tunnel/udp", "udp://0.0.0.0/0:1194"},
		{"S15: in IPv6 too, where nodes have it", with(plan(t, Public, "", LegacyTunnel), func(c *Cluster) { c.IPv6 = true }), Options{Wildcards: true}, "tunnel/udp", "udp://0.0.0.0/0:1194 udp://[::/0]:1194"},
		{"S17: the tag has a spelling of its own", plan(t, Public, "francecentral", LegacyTunnel), Options{}, "tunnel/udp", "udp://@AzureCloud.centralfrance:1194"},
		{"S26: not for a private cluster", public.With(LegacyTunnel, "test").With(Private, "test"), Options{}, "tunnel/udp", ""},
		{"S27: to the letter China has the tunnel", china, Options{AsStated: true}, "tunnel/udp", "udp://@AzureCloud.chinanorth3:1194"},
		{"S27: and port 22", china, Options{AsStated: true}, "tunnel/ssh", "tcp://@AzureCloud.chinanorth3:22"},
		{"S27: and its name", china, Options{AsStated: true}, "tunnel/name", "https://*.tun.chinanorth3.cx.prod.service.azk8s.cn:443"},
		{"S27: but does not need it", china, Options{}, "tunnel/ssh", ""},
		{"S27: nor its name", china, Options{}, "tunnel/name", ""},

		{"S31: new nodes need no time server", public, Options{}, "ntp/time", ""},
		{"S31: old ones do; S32: by its name", public.With("old-nodes", "test"), Options{}, "ntp/time", "udp://ntp.ubuntu.com:123"},
		{"S31: to the letter in China all do", china, Options{AsStated: true}, "ntp/time", "udp://0.0.0.0/0:123"},

		{"S33: DNS servers of one's own", with(public.With(CustomDNS, "test"), func(c *Cluster) {
			c.DNSServers = []netip.Addr{netip.MustParseAddr("10.1.0.4"), netip.MustParseAddr("fd00::4")}
		}), Options{}, "dns/custom", "udp://10.1.0.4:53 udp://[fd00::4]:53"},
		{"S33: by TCP too, which the article lacks", with(public.With(CustomDNS, "test"), func(c *Cluster) { c.DNSServers = addr }), Options{}, "dns/custom-tcp", "tcp://20.1.2.3:53"},
		{"S33: so not to the letter", with(public.With(CustomDNS, "test"), func(c *Cluster) { c.DNSServers = addr }), Options{AsStated: true}, "dns/custom-tcp", ""},

		{"S35: layers from any region", public, Options{}, "core/mcr-data", "https://*.data.mcr.microsoft.com:443 https://mcr-0001.mcr-msedge.net:443"},
		{"S35: without the public cloud's front", gov, Options{}, "core/mcr-data", "https://*.data.mcr.microsoft.com:443"},
		{"S37: the leading dot is a star", china, Options{Edition: Oldest}, "core/mcr-data", "https://*.data.mcr.microsoft.com:443"},

		{"S43: one Entra host, public", public.With("workload-identity", "test"), Options{}, "workload-identity/entra", "https://login.microsoftonline.com:443"},
		{"S43: one Entra host, China", china.With("workload-identity", "test"), Options{}, "workload-identity/entra", "https://login.chinacloudapi.cn:443"},
		{"S43: one Entra host, US Government", gov.With("workload-identity", "test"), Options{}, "workload-identity/entra", "https://login.microsoftonline.us:443"},

		{"S48: every vault", public.With(KeyVault, "test"), Options{}, "keyvault/vaults", "https://*.vault.azure.net:443"},
		{"S48: or one's own", with(public.With(KeyVault, "test"), func(c *Cluster) { c.KeyVaults = []string{"kv1", "kv2"} }), Options{}, "keyvault/vaults", "https://kv1.vault.azure.net:443 https://kv2.vault.azure.net:443"},
		{"S48: to the letter, a name that is no vault's", public.With(KeyVault, "test"), Options{AsStated: true}, "keyvault/vaults", "https://vault.azure.net:443"},
		{"S48: China has none to the letter", china.With(KeyVault, "test"), Options{AsStated: true}, "keyvault/vaults", ""},
		{"S48: and one in fact", china.With(KeyVault, "test"), Options{}, "keyvault/vaults", "https://*.vault.azure.cn:443"},

		{"S50: names, not the tag", public.With(Monitor, "test"), Options{}, "monitor/tag", ""},
		{"S50: the tag, if asked for", public.With(Monitor, "test").With(MonitorByTag, "test"), Options{}, "monitor/tag", "tcp://@AzureMonitor:443"},
		{"S50: and then no names", public.With(Monitor, "test").With(MonitorByTag, "test"), Options{}, "monitor/logs", ""},
		{"S51: a public host in US Government", gov.With(Monitor, "test"), Options{}, "monitor/telemetry", "https://dc.services.visualstudio.com:443"},
		{"S51: and in China", china.With(Monitor, "test"), Options{}, "monitor/telemetry", "https://dc.services.visualstudio.com:443"},
		{"Application Insights, when it is on", gov.With("app-insights", "test"), Options{}, "monitor/app-insights", "https://*.in.applicationinsights.azure.com:443"},
		{"Application Insights, not before 2025-05-27", gov.With("app-insights", "test"), Options{Edition: Date{"2025-05-26"}}, "monitor/app-insights", ""},

		{"S52: Policy, US Government", gov.With("policy", "test"), Options{}, "policy/data", "https://data.policy.azure.us:443"},
		{"S52: Policy, China", china.With("policy", "test"), Options{}, "policy/store", "https://store.policy.azure.cn:443"},
		{"S52: Policy's telemetry is public only", china.With("policy", "test"), Options{}, "policy/telemetry", ""},
		{"S17: the region in a name", public.With(Extensions, "test"), Options{}, "extensions/config", "https://westeurope.dp.kubernetesconfiguration.azure.com:443"},

		{"packages.aks.azure.com, today", public, Options{}, "core/packages-aks", "https://packages.aks.azure.com:443"},
		{"packages.aks.azure.com, on its first day", public, Options{Edition: Date{"2025-02-05"}}, "core/packages-aks", "https://packages.aks.azure.com:443"},
		{"packages.aks.azure.com, a day before", public, Options{Edition: Date{"2025-02-04"}}, "core/packages-aks", ""},
		{"packages.aks.azure.com, a day later in US Government", gov, Options{Edition: Date{"2025-02-05"}}, "core/packages-aks", ""},
		{"mcr.azure.cn, for twelve days", china, Options{Edition: Date{"2025-03-24"}, AsStated: true}, "core/mcr-china", "https://mcr.azure.cn:443 https://*.data.mcr.azure.cn:443"},
		{"mcr.azure.cn, withdrawn", china, Options{Edition: Date{"2025-03-25"}}, "core/mcr-china", ""},
		{"managed GPUs ask NVIDIA, which the article lacks", public.With("gpu-managed", "test"), Options{}, "gpu/nvidia-managed", "https://developer.download.nvidia.com:443"},
	} {
		if got := to(rulesOf(t, tc.cluster, tc.options), tc.rule); got != tc.want {
			t.Errorf("%s: %s opens %q, want %q", tc.name, tc.rule, got, tc.want)
		}
	}
}

// S23, S30: by address only if asked for, and never into a private network.
func TestAccessToTheAPIServer(t *testing.T) {
	public := mustRead(t, clusterJSON(""))
	public.APIServerAddrs = []netip.Addr{netip.MustParseAddr("20.1.2.3")}
	gov := readExample(t, "usgov-private-keyvault-wi.cli")
	for _, tc := range []struct {
		name    string
		cluster Cluster
		access  APIAccess
		opens   string
		note    string
	}{
		{"not said", public, "", "", "cannot be known"},
		{"by address", public, ByAddress, "tcp://20.1.2.3:443", ""},
		{"by name", public, ByName, "", "set-kube-service-host-fqdn"},
		{"not at all", public, NoAccess, "", "neither a rule"},
		{"by address, private", gov, ByAddress, "", "inside the network"},
		{"not said, private", gov, "", "", ""},
	} {
		c := tc.cluster
		if tc.access != "" {
			var err error
			if c, err = c.WithAPIAccess(tc.access); err != nil {
				t.Fatal(err)
			}
		}
		res := rulesOf(t, c, Options{})
		if got := to(res, "core/apiserver-address"); got != tc.opens {
			t.Errorf("%s: opens %q, want %q", tc.name, got, tc.opens)
		}
		if got := noteOf(res, "api-access"); !strings.Contains(got, tc.note) || (got == "") != (tc.note == "") {
			t.Errorf("%s: note %q, want %q", tc.name, got, tc.note)
		}
		if !c.Has(Private) && to(res, "core/apiserver") == "" { // S19
			t.Errorf("%s: the rule by name is gone", tc.name)
		}
	}
	if _, err := public.WithAPIAccess("sometimes"); err == nil {
		t.Error("an unknown way is accepted")
	}
}

// S16: what is needed before the cluster exists covers what is needed after.
func TestPlanCoversTheClusterThatFollows(t *testing.T) {
	for _, name := range []string{"public-gpu-monitor-policy.cli", "china-windows-cost.cli"} {
		after := readExample(t, name)
		before := plan(t, after.Cloud, after.Region, after.On()...)
		wide := rulesOf(t, before, Options{})
		for _, r := range rulesOf(t, after, Options{}).Rules {
			for _, e := range r.To {
				if !covered(e, wide.Rules) {
					t.Errorf("%s: %s of %s was not planned", name, e, r.ID)
				}
			}
		}
	}
}

// No placeholder is ever left, and none is filled in silence.
func TestUnfilledPlaceholders(t *testing.T) {
	noRegion := plan(t, Public, "")
	byAddress, err := mustRead(t, clusterJSON("")).WithAPIAccess(ByAddress)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		cluster     Cluster
		options     Options
		rule, field string
	}{
		{noRegion, Options{}, "core/apiserver", "location"},
		{plan(t, Public, "", Monitor), Options{Wildcards: true}, "", ""},
		{byAddress, Options{}, "core/apiserver-address", "APIServerPublicIP"},
		{byAddress, Options{Wildcards: true}, "core/apiserver-address", "APIServerPublicIP"}, // a wildcard would be everything
	} {
		_, err := tc.cluster.Rules(tc.options)
		var unfilled *UnfilledError
		if errors.As(err, &unfilled) != (tc.rule != "") || unfilled != nil && (unfilled.Rule != tc.rule || unfilled.Placeholder != tc.field) {
			t.Errorf("error %v, want one of %s for %s", err, tc.rule, tc.field)
		}
	}
	all := plan(t, China, "chinaeast2")
	for _, f := range Features() {
		if f.Name != Isolated && f.Name != Private && f.Name != VNet {
			all = all.With(f.Name, "test")
		}
	}
	for _, asStated := range []bool{false, true} {
		for _, r := range rulesOf(t, all, Options{AsStated: asStated}).Rules {
			for _, e := range r.To {
				if strings.ContainsAny(e.String(), "{}<>") {
					t.Errorf("%s: a placeholder is left in %s", r.ID, e)
				}
			}
		}
	}
}

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

// S44: no host of another cloud, but for those that the article itself lists.
func TestCloudsStayApart(t *testing.T) {
	foreign := map[Cloud][]string{
		China: {".azure.com", ".azure.us", "microsoftonline.com", "usgovcloudapi"},
		USGov: {".azure.cn", "chinacloudapi", "azk8s.cn", "microsoftonline.com", "opinsights.azure.com", "monitor.azure.com", "management.azure.com"},
	}
	regions := map[Cloud]string{China: "chinaeast2", USGov: "usgovvirginia"}
	allowed := []string{"packages.aks.azure.com", "azure.archive.ubuntu.com", "in.applicationinsights.azure.com"}
	for cloud, wrong := range foreign {
		c := plan(t, cloud, regions[cloud], "defender", "cost-analysis", "policy", Monitor, "app-insights", KeyVault, "workload-identity", Extensions, Marketplace)
		for _, r := range rulesOf(t, c, Options{}).Rules {
			for _, e := range r.To {
				host := e.Host.String()
				for _, w := range wrong {
					if strings.Contains(host, w) && !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasSuffix(host, a) }) {
						t.Errorf("%s: %s opens %s", cloud, r.ID, e)
					}
				}
			}
		}
	}
}

// S45, S53: both of China's Entra hosts, each with its own rule, and said.
func TestChinaHasTwoEntraHosts(t *testing.T) {
	res := rulesOf(t, readExample(t, "china-windows-cost.cli"), Options{})
	if a, b := to(res, "core/entra"), to(res, "cost-analysis/entra"); a != "https://login.chinacloudapi.cn:443" || b != "https://login.microsoftonline.cn:443" {
		t.Errorf("Entra is %s and %s", a, b)
	}
	if !slices.ContainsFunc(res.Notes, func(n Note) bool { return n.About == "cost-analysis/entra" && n.Level == Warning }) {
		t.Error("the contradiction is not said")
	}
	if got := noteOf(res, "shared"); !strings.Contains(got, "core/arm and cost-analysis/arm") {
		t.Errorf("that two rules share a destination is not said: %q", got)
	}
}

// S54: marketplace rows are for extensions that have a plan.
func TestFluxAloneNeedsNoMarketplace(t *testing.T) {
	es, err := ReadExtensions(strings.NewReader(`{"value": [{"name": "flux", "plan": null, "properties": {"extensionType": "microsoft.flux"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	res := rulesOf(t, readExample(t, "public-gpu-monitor-policy.cli").WithExtensions(es), Options{})
	for _, id := range ids(res) {
		if strings.HasPrefix(id, "extensions/marketplace") || id == "extensions/metering" {
			t.Errorf("%s is on", id)
		}
	}
	if to(res, "extensions/config") == "" || !hasNote(res, "own-list") || hasNote(res, "extensions-unknown") {
		t.Errorf("rules %v, notes %v", ids(res), res.Notes)
	}
	none := rulesOf(t, readExample(t, "public-gpu-monitor-policy.cli").WithExtensions(nil), Options{})
	if hasNote(none, "extensions-unknown") || to(none, "extensions/config") != "" {
		t.Error("an empty list is not taken for an answer")
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
		{`"networkProfile": {"outboundType": "none"}, "addonProfiles": {"azureKeyvaultSecretsProvider": {"enabled": true}}`, "private-endpoint", "info: Reach key vaults by a private endpoint, with the zone privatelink.vaultcore.azure.net"},
		{`"networkProfile": {"outboundType": "none"}, "addonProfiles": {"omsagent": {"enabled": true}}`, "private-endpoint", "info: Send to Azure Monitor by private endpoints"},
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

// S60: switching a feature on changes the rows of that feature and no other.
func TestAFeatureChangesItsOwnRows(t *testing.T) {
	before := ids(rulesOf(t, plan(t, Public, "westeurope"), Options{}))
	for f, group := range map[Feature]string{Monitor: "monitor/", "policy": "policy/", KeyVault: "keyvault/", "defender": "defender/", GPU: "gpu/", Windows: "windows/"} {
		for _, id := range ids(rulesOf(t, plan(t, Public, "westeurope", f), Options{})) {
			if !slices.Contains(before, id) && !strings.HasPrefix(id, group) {
				t.Errorf("%s switches %s on", f, id)
			}
		}
	}
}

// S3: a network that AKS manages has no subnet id, and needs the same.
func TestManagedNetworkNeedsTheSame(t *testing.T) {
	managed := rulesOf(t, mustRead(t, clusterJSON(`"agentPoolProfiles": [{"name": "p", "osType": "Linux", "vnetSubnetId": null}]`)), Options{})
	own := rulesOf(t, mustRead(t, clusterJSON(`"agentPoolProfiles": [{"name": "p", "osType": "Linux", "vnetSubnetId": "/x"}]`)), Options{})
	if !slices.Equal(ids(managed), ids(own)) || len(managed.Rules) < 8 {
		t.Errorf("managed: %v, own: %v", ids(managed), ids(own))
	}
}

// S8, S12, S13: rules only lead out; by address for TCP and UDP, by name for
// the others, and each on its own protocol and port.
func TestRulesHoldToProtocolAndPort(t *testing.T) {
	res := rulesOf(t, readExample(t, "china-windows-cost.cli"), Options{})
	p, err := egress.Compile(res.Egress(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]egress.Action{
		"http 20.0.0.1:80 ctldl.windowsupdate.com":                                    egress.Allow,
		"https 20.0.0.1:443 ctldl.windowsupdate.com":                                  egress.Deny,
		"https 20.0.0.1:443 go.microsoft.com":                                         egress.Allow,
		"http 20.0.0.1:80 go.microsoft.com":                                           egress.Deny,
		"https 20.0.0.1:8443 go.microsoft.com":                                        egress.Deny,
		"https 20.0.0.1:443 aks-cn-9z8y7x6w.hcp.chinanorth3.cx.prod.service.azk8s.cn": egress.Allow,
		"udp 20.0.0.1:1194":                                                           egress.Deny,
		"tcp 20.0.0.1:9000":                                                           egress.Deny,
	} {
		conn, err := egress.ParseConn(text)
		if err != nil {
			t.Fatal(err)
		}
		conn.Bound = []egress.Name{conn.Name}
		if v := p.Decide(conn); v.Action != want {
			t.Errorf("%s: %s, want %s", text, v, want)
		}
	}
}

func TestHTTPProxy(t *testing.T) {
	c := mustRead(t, clusterJSON(`"httpProxyConfig": {"httpProxy": "http://u:p@proxy.corp.example:3128/", "httpsProxy": "https://10.9.8.7/", "noProxy": ["mcr.microsoft.com", ".opinsights.azure.com", "10.0.0.0/8"]},
		"addonProfiles": {"omsagent": {"enabled": true}}`))
	res := rulesOf(t, c, Options{})
	if got := to(res, "proxy/http"); got != "tcp://proxy.corp.example:3128 tcp://10.9.8.7:443" {
		t.Errorf("the proxy's rule opens %s", got)
	}
	states := map[string]State{"core/apiserver": Needed, "core/mcr": Needed, "core/arm": Proxied, "monitor/logs": Needed, "monitor/telemetry": Proxied, "proxy/http": Needed}
	for _, r := range res.Rules {
		if want, ok := states[r.ID]; ok && r.State != want {
			t.Errorf("%s is %s, want %s", r.ID, r.State, want)
		}
	}
	if len(res.Egress()) >= len(res.Rules) || !hasNote(res, "http-proxy") {
		t.Error("what goes to the proxy stays among the firewall's rules")
	}
	off := mustRead(t, clusterJSON(`"httpProxyConfig": {"enabled": false, "httpProxy": "http://p:1"}`))
	if len(off.Proxy.Endpoints) != 0 {
		t.Error("a proxy that is switched off is used")
	}
}

func TestAzuresOwnListIsCompared(t *testing.T) {
	f, err := os.Open(clustersDir + "/example-outboundNetworkDependenciesEndpoints.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := readExample(t, "public-gpu-monitor-policy.cli")
	if c.Listed, err = ReadListed(f); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range rulesOf(t, c, Options{}).Notes {
		if n.Code == "azure-lists" || n.Code == "azure-omits" {
			got = append(got, n.Code+" "+n.About)
		}
	}
	want := []string{
		"azure-lists ", // ntp.ubuntu.com
		"azure-omits core/mcr-data", "azure-omits core/binaries", "azure-omits ubuntu/snapshot",
		"azure-omits gpu/nvidia-github", "azure-omits gpu/nvidia-download", "azure-omits gpu/docker-download",
	}
	if !slices.Equal(got, want) {
		t.Errorf("differences %q, want %q", got, want)
	}
	for _, bad := range []string{"", "x", "{}", `[{"endpoints": []}]`, `[{"category": "a", "endpoints": [{"domainName": "a b", "endpointDetails": [{"port": 443, "protocol": "Https"}]}]}]`} {
		if _, err := ReadListed(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// S9, S10: AKS does not support blocking inside the network.
func TestLintNSG(t *testing.T) {
	rule := func(priority, access, src, dst, port string) string {
		return `{"name": "r` + priority + `", "properties": {"access": "` + access + `", "direction": "Outbound", "priority": ` + priority +
			`, "protocol": "*", "sourceAddressPrefix": "` + src + `", "destinationAddressPrefix": "` + dst + `", "destinationPortRange": "` + port + `"}}`
	}
	for _, tc := range []struct {
		name  string
		rules []string
		want  string // the names of the rules that block inside
	}{
		{"nothing", nil, ""},
		{"the nodes' subnet", []string{rule("100", "Deny", "10.224.0.0/16", "10.224.0.0/16", "*")}, "r100"},
		{"kubelet's port", []string{rule("100", "Deny", "VirtualNetwork", "VirtualNetwork", "10250")}, "r100"},
		{"everything", []string{rule("4000", "Deny", "*", "*", "*")}, "r4000"},
		{"everything, the network let through before", []string{rule("4000", "Deny", "*", "*", "*"), rule("100", "Allow", "VirtualNetwork", "VirtualNetwork", "*")}, ""},
		{"everything, one port let through before", []string{rule("100", "Allow", "VirtualNetwork", "VirtualNetwork", "443"), rule("4000", "Deny", "*", "*", "*")}, "r4000"},
		{"the internet", []string{rule("4000", "Deny", "*", "Internet", "*")}, ""},
		{"an address outside", []string{rule("100", "Deny", "*", "20.1.0.0/16", "*")}, ""},
	} {
		notes, err := LintNSG(strings.NewReader(`{"name": "g", "properties": {"securityRules": [` + strings.Join(tc.rules, ",") + `]}}`))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range notes {
			got = append(got, strings.Split(n.Text, `"`)[1])
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%s: %q blocks inside, want %q", tc.name, s, tc.want)
		}
	}
	if _, err := LintNSG(strings.NewReader(clusterJSON(""))); err == nil {
		t.Error("a cluster is taken for a security group")
	}
}

func TestDiff(t *testing.T) {
	d := Embedded().Diff(Oldest, Newest)
	var changes []string
	for _, x := range d.Removed {
		changes = append(changes, "-"+x.Row+" "+x.Text)
	}
	for _, x := range d.Added {
		changes = append(changes, "+"+x.Row+" "+x.Text)
	}
	want := []string{
		"-CF4 .data.mcr.microsoft.com", "-CN1 ServiceTag - AzureCloud.Region:1194",
		"+CF4 *.data.mcr.microsoft.com", "+CF9 mcr.azure.cn", "+CF9 *.data.mcr.azure.cn", "+PF8 packages.aks.azure.com", "+UF8 packages.aks.azure.com",
		"+CN1 ServiceTag - AzureCloud.<Region>:1194", "+DEF4 *.cloud.defender.microsoft.com",
		"+MP10 *.in.applicationinsights.azure.com", "+MC8 *.in.applicationinsights.azure.com", "+MU8 *.in.applicationinsights.azure.com",
	}
	if !slices.Equal(changes, want) {
		t.Errorf("changes %q, want %q", changes, want)
	}
	if !slices.IsSortedFunc(d.Text, func(a, b Change) int { return strings.Compare(a.Date.s, b.Date.s) }) || len(d.Text) < 9 {
		t.Errorf("changes of the text: %v", d.Text)
	}
	if same := Embedded().Diff(Newest, Newest); len(same.Removed)+len(same.Added)+len(same.Text) != 0 {
		t.Errorf("an edition differs from itself: %v", same)
	}
}

func TestEditions(t *testing.T) {
	for text, want := range map[string]string{"": "", "2024-12-11": "", "2026-06-18": "", "2025-04-01": "", "2024-12-10": "known are", "2026-06-19": "known are", "today": "want a day"} {
		if _, err := ParseEdition(text); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("edition %q: error %v, want %q", text, err, want)
		}
	}
}

func TestLintFinds(t *testing.T) {
	const row = "- id: a/b\n  why: w\n  breaks: b\n  source: s\n"
	for _, tc := range []struct{ name, text, want string }{
		{"two of an id", row + "  all: [{to: [\"https://a.b.c:443\"]}]\n" + row + "  all: [{to: [\"https://a.b.c:443\"]}]\n", "x.yaml:8: a/b: id: there are two of it"},
		{"a hole", row + "  public: [{to: [\"https://a.b.c:443\"]}]\n  china: [{none: why}]\n", "x.yaml:3: a/b: usgov: missing"},
		{"no reason", "- id: a/b\n  breaks: b\n  source: s\n  all: [{to: [\"https://a.b.c:443\"]}]\n", "why: missing"},
		{"a feature that is none", row + "  when: [gpus]\n  all: [{to: [\"https://a.b.c:443\"]}]\n", `feature "gpus"`},
		{"nothing said", row + "  all: [{row: PF1}]\n", "a line must say one of: to, any, none"},
		{"times that do not fit", row + "  all: [{since: 2025-02-05, until: 2025-02-05, to: [\"https://a.b.c:443\"]}]\n", "until 2025-02-05 is not after since"},
		{"a public suffix", row + "  all: [{to: [\"https://*.co.uk:443\"]}]\n", "public suffix co.uk"},
		{"other people's names", row + "  all: [{to: [\"https://*.blob.core.windows.net:443\"]}]\n", "any customer can make a name below blob.core.windows.net"},
		{"rows of the article that are missing", row + "  all: [{row: PF1, to: [\"https://a.b.c:443\"]}]\n", "PF2: row: no line of the catalogue has it"},
		{"a row of no table", row + "  all: [{row: XX1, to: [\"https://a.b.c:443\"]}]\n", "XX1: row: the article has no table of this prefix"},
		{"words that are too few", row + "  all: [{to: [\"https://a.b.c:443\"], stated: {text: [a, b]}}]\n", "2 texts for 1 destinations"},
	} {
		c, err := ReadCatalogue(fstest.MapFS{"x.yaml": {Data: []byte("section: gpu\nrows:\n" + tc.text)}})
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		var all []string
		for _, p := range c.Lint() {
			all = append(all, p.String())
		}
		if s := strings.Join(all, "\n"); !strings.Contains(s, tc.want) {
			t.Errorf("%s: %q is not in\n%s", tc.name, tc.want, s)
		}
	}
}
