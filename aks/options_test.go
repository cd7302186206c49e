package aks

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

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
