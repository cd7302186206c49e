package why

// A Step is what a node or a pod was doing.
type Step struct {
	ID     string
	Means  string   // what it was, and what the message means
	To     []string // what it reaches, as endpoints, where the text names nothing; apiserver is the API server
	Inside bool     // the firewall has no part in it

	match   phrases // it says so itself
	mention phrases // it is only named: that says something where the line also tells how it failed
}

// steps are tried in this order: the first that matches is the one.
var steps = []Step{
	{ID: "windows-api-server", match: phrases{"windows_cse_error_check_api_server_connectivity"},
		Means: "A Windows node could not connect to the API server on port 443 when it booted.", To: []string{apiServer}},
	{ID: "windows-download", match: phrases{"windows_cse_error_…download"},
		Means: "A Windows node could not download what it boots with.", To: []string{binaries}},
	{ID: "preflight", mention: phrases{"curl …mcr.microsoft.com/v2", "curl …gcr.azk8s.cn/v2"},
		Means: "The node's first check of the outside: without an answer from the registry its bootstrap ends with exit 50.", To: []string{registry}},
	{ID: "egress-blocked", match: phrases{"egressblocked"},
		Means: "The node's problem detector could not reach one of the hosts that it tries: the registry, Entra, the resource manager, Microsoft's packages.",
		To:    []string{registry, entra, arm, packages, binaries}},
	{ID: "packages-fallback", match: phrases{"falling back to acs-mirror"}, mention: phrases{"acs-mirror/healthz"},
		Means: "The node asks packages.aks.azure.com before it downloads; without an answer it falls back to acs-mirror.azureedge.net, which was retired in May 2025.", To: []string{binaries}},
	{ID: "image-auth", match: phrases{"failed to authorize", "failed to fetch anonymous token", "failed to fetch oauth token"},
		Means: "The node could not get a token for a registry; the token's host is another one than the registry's, and needs a rule too."},
	{ID: "image-layer", match: phrases{"failed to copy", "httpreadseeker", "failed to extract layer"}, mention: phrases{".data.mcr.microsoft.com"},
		Means: "The registry answered and a layer of the image did not come; layers come from data hosts, *.data.mcr.microsoft.com at Microsoft's registry.", To: []string{layers}},
	{ID: "image-pull", match: phrases{"failed to pull", "errimagepull", "imagepullbackoff", "back-off pulling image", "failed to resolve reference", "failed to do request: head", "failed to get sandbox image", "failed to create pod sandbox…image", "pullimage…failed"},
		Means: "An image could not be pulled.", To: []string{registry, layers}},
	{ID: "tunnel", match: phrases{"dial tcp…:10250", "remote error…:10250", "error dialing backend", "no agent available"}, mention: phrases{"konnectivity", "proxy-agent", "tunnelfront", "aks-link"},
		Means: "The API server could not reach a node: the tunnel is down. Konnectivity's agents dial the API server on port 443 with the ALPN konnectivity; kubectl logs, exec and webhooks need it.", To: []string{apiServer}},
	{ID: "webhook", match: phrases{"failed calling webhook", "failed to call webhook"},
		Means: "The API server could not call a webhook in the cluster, which goes through the same tunnel as kubectl logs.", To: []string{apiServer}},
	{ID: "api-by-address", match: phrases{"dial tcp 10.…0.1:443", "sni tls extension was missing", "sni extension was missing"}, mention: phrases{"://10.…0.1:443/", "://10.…0.1/api", "kubernetes.default.svc", "kubernetes.default:443"},
		Means: "A pod dials the API server by its service address, so that it shows a firewall no name that leads there. Annotate the pod's template with kubernetes.azure.com/set-kube-service-host-fqdn, or let the gateway judge by address (apiServer: by-address).", To: []string{apiServer}},
	{ID: "api-server", match: phrases{"unable to register node", "failed to get node", "failed to ensure lease", "failed to update lease", "failed to list *v1", "kubelet stopped posting node status", "nodestatusunknown", "unable to connect to the server"}, mention: phrases{".azmk8s.io", ".cx.aks.containerservice.azure.us", ".cx.prod.service.azk8s.cn"},
		Means: "The node or a client could not speak to the API server.", To: []string{apiServer}},
	{ID: "imds", mention: phrases{"<169.254.169.254>"}, Inside: true,
		Means: "The instance metadata service did not answer. It never passes a firewall: look at network policies, at the node's own rules, and at a proxy without 169.254.169.254 in noProxy."},
	{ID: "wireserver", mention: phrases{"<168.63.129.16>"},
		Means: "Azure's own DNS and agent service did not answer. It never passes a firewall of yours, except as the DNS upstream of one: look at the VNet's DNS servers and at NSG rules.", Inside: true},
	{ID: "entra", match: phrases{"aadsts"}, mention: phrases{"login.microsoftonline", "login.chinacloudapi", "workloadidentitycredential", "managedidentitycredential", "acquire…token"},
		Means: "A token of Entra could not be fetched.", To: []string{entra}},
	{ID: "arm", match: phrases{"syncloadbalancerfailed", "attachvolume.attach failed", "failedattachvolume", "creatingloadbalancerfailed"}, mention: phrases{"management.azure.com", "management.chinacloudapi", "management.usgovcloudapi"},
		Means: "Kubernetes could not ask Azure's resource manager for a disk, an address or a load balancer.", To: []string{arm}},
	{ID: "key-vault", match: phrases{"mountvolume…secrets-store"}, mention: phrases{".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net", "keyvault.baseclient"},
		Means: "A secret of a key vault could not be mounted; the vault is reached by its own name.", To: []string{entra}},
	{ID: "monitor", match: phrases{"ama-logs…fail", "omsagent…fail"}, mention: phrases{".opinsights.azure.", ".monitor.azure.", "dc.services.visualstudio.com"},
		Means: "Azure Monitor's agent could not send or get its configuration."},
	{ID: "policy", match: phrases{"azure-policy…fail"}, mention: phrases{".policy.core.windows.net", ".policy.core.usgovcloudapi.net", ".policy.core.chinacloudapi.cn"},
		Means: "The Azure Policy add-on could not get its policies."},
	{ID: "nvidia", match: phrases{"nvidia…could not", "nvidia…failed"}, mention: phrases{"nvidia.github.io", "download.nvidia.com"},
		Means: "The GPU driver or its packages could not be fetched."},
	{ID: "security-patch", mention: phrases{"snapshot.ubuntu.com", "snapshot-update"},
		Means: "Security patches of the node could not be fetched (node OS channel SecurityPatch).", To: []string{snapshot}},
	{ID: "apt", match: phrases{"failed to fetch http", "some index files failed", "<apt-get>…fail", "<apt>…fail"}, mention: phrases{"archive.ubuntu.com", "security.ubuntu.com"},
		Means: "Packages could not be fetched with apt; a node that runs goes on without the updates, one that boots may need them.", To: []string{archive, security}},
	{ID: "time", match: phrases{"chronyd…could not", "chronyd…can't", "timesyncd…timed out", "ntpdig: lookup of", "ntpdig: no eligible servers", "clock skew"}, mention: phrases{"ntp.ubuntu.com"},
		Means: "The clock could not be set from a time server; nodes made since 2021 take the time from the host.", To: []string{"udp://ntp.ubuntu.com:123"}},
	{ID: "vm-extension", match: phrases{"vmextensionprovisioningerror", "vmextensionprovisioningtimeout", "vmextensionhandlernontransienterror", "vmsscse…fail"},
		Means: "The node's bootstrap failed; the exit code behind it says which step, and is in the extension's message or in /var/log/azure/cluster-provision.log.",
		To:    []string{registry, apiServer, binaries}},
	{ID: "node-not-ready", match: phrases{"nodenotready", "<notready>", "node …is not ready"},
		Means: "The node does not tell the API server that it is well: it cannot reach it, or the kubelet is down.", To: []string{apiServer}},
}

// stepOf finds what was being done in a line, given in lower case too; failed is whether it tells how something failed.
func stepOf(line, lower string, failed bool) (Step, bool) {
	if s, ok := codeOf(line, lower); ok {
		return s, true
	}
	for _, s := range steps {
		if s.match.in(lower) || failed && s.mention.in(lower) {
			return s, true
		}
	}
	return Step{}, false
}
