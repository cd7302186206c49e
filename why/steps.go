package why

import "regexp"

// A Step is what a node or a pod was doing.
type Step struct {
	ID     string
	Means  string   // what it was, and what the message means
	To     []string // what it reaches, as endpoints, where the text names nothing; apiserver is the API server
	Inside bool     // the firewall has no part in it

	match *regexp.Regexp
}

// steps are tried in this order: the first that matches is the one.
var steps = []Step{
	{ID: "windows-api-server", match: re(`WINDOWS_CSE_ERROR_CHECK_API_SERVER_CONNECTIVITY`),
		Means: "A Windows node could not connect to the API server on port 443 when it booted.", To: []string{apiServer}},
	{ID: "windows-download", match: re(`WINDOWS_CSE_ERROR_DOWNLOAD|WINDOWS_CSE_ERROR_.*_DOWNLOAD`),
		Means: "A Windows node could not download what it boots with.", To: []string{binaries}},
	{ID: "preflight", match: re(`curl .*(?:mcr\.microsoft\.com|gcr\.azk8s\.cn)/v2/?`),
		Means: "The node's first check of the outside: without an answer from the registry its bootstrap ends with exit 50.", To: []string{registry}},
	{ID: "egress-blocked", match: re(`EgressBlocked`),
		Means: "The node's problem detector could not reach one of the hosts that it tries: the registry, Entra, the resource manager, Microsoft's packages.",
		To:    []string{registry, entra, arm, packages, binaries}},
	{ID: "packages-fallback", match: re(`acs-mirror/healthz|falling back to acs-mirror`),
		Means: "The node asks packages.aks.azure.com before it downloads; without an answer it falls back to acs-mirror.azureedge.net, which was retired in May 2025.", To: []string{binaries}},
	{ID: "image-auth", match: re(`failed to authorize|failed to fetch (?:anonymous|oauth) token`),
		Means: "The node could not get a token for a registry; the token's host is another one than the registry's, and needs a rule too."},
	{ID: "image-layer", match: re(`(?:failed to copy|httpReadSeeker|failed to extract layer|error reading from server).*|.*\.data\.mcr\.microsoft\.com`),
		Means: "The registry answered and a layer of the image did not come; layers come from data hosts, *.data.mcr.microsoft.com at Microsoft's registry.", To: []string{layers}},
	{ID: "image-pull", match: re(`failed to pull|ErrImagePull|ImagePullBackOff|Back-off pulling image|failed to resolve reference|failed to do request: Head|pulling image|PullImage|FailedCreatePodSandBox|failed to get sandbox image`),
		Means: "An image could not be pulled.", To: []string{registry, layers}},
	{ID: "tunnel", match: re(`(?:dial tcp|remote error).*:10250|error dialing backend|konnectivity|proxy-agent|No agent available|tunnelfront|aks-link`),
		Means: "The API server could not reach a node: the tunnel is down. Konnectivity's agents dial the API server on port 443 with the ALPN konnectivity; kubectl logs, exec and webhooks need it.", To: []string{apiServer}},
	{ID: "webhook", match: re(`failed calling webhook|failed to call webhook`),
		Means: "The API server could not call a webhook in the cluster, which goes through the same tunnel as kubectl logs.", To: []string{apiServer}},
	{ID: "api-by-address", match: re(`https?://10\.\d+\.\d+\.1(?::443)?/|dial tcp 10\.\d+\.\d+\.1:443|kubernetes\.default(?:\.svc)?|SNI TLS extension was missing|SNI extension was missing|KUBERNETES_SERVICE_HOST`),
		Means: "A pod dials the API server by its service address, so that it shows a firewall no name that leads there. Annotate the pod's template with kubernetes.azure.com/set-kube-service-host-fqdn, or let the gateway judge by address (apiServer: by-address).", To: []string{apiServer}},
	{ID: "api-server", match: re(`\.azmk8s\.io|\.cx\.aks\.containerservice\.azure\.us|\.cx\.prod\.service\.azk8s\.cn|Unable to register node|failed to (?:get|list|ensure|update) (?:node|lease|\*v1)|reflector\.go|Kubelet stopped posting node status|NodeStatusUnknown|Unable to connect to the server`),
		Means: "The node or a client could not speak to the API server.", To: []string{apiServer}},
	{ID: "imds", match: re(`169\.254\.169\.254`), Inside: true,
		Means: "The instance metadata service did not answer. It never passes a firewall: look at network policies, at the node's own rules, and at a proxy without 169.254.169.254 in noProxy."},
	{ID: "wireserver", match: re(`168\.63\.129\.16`),
		Means: "Azure's own DNS and agent service did not answer. It never passes a firewall of yours, except as the DNS upstream of one: look at the VNet's DNS servers and at NSG rules.", Inside: true},
	{ID: "entra", match: re(`login\.microsoftonline|login\.chinacloudapi|login\.microsoftonline\.us|AADSTS|adal|MSAL|WorkloadIdentityCredential|ManagedIdentityCredential|acquire.*token`),
		Means: "A token of Entra could not be fetched.", To: []string{entra}},
	{ID: "arm", match: re(`management\.azure\.com|management\.chinacloudapi|management\.usgovcloudapi|SyncLoadBalancerFailed|AttachVolume|FailedAttachVolume|azure-cloud-provider|CreatingLoadBalancerFailed|EnsuringLoadBalancer`),
		Means: "Kubernetes could not ask Azure's resource manager for a disk, an address or a load balancer.", To: []string{arm}},
	{ID: "key-vault", match: re(`\.vault\.(?:azure\.net|azure\.cn|usgovcloudapi\.net)|keyvault|secrets-store`),
		Means: "A secret of a key vault could not be mounted; the vault is reached by its own name.", To: []string{entra}},
	{ID: "monitor", match: re(`opinsights|monitor\.azure|visualstudio\.com|ama-logs|omsagent|mdsd`),
		Means: "Azure Monitor's agent could not send or get its configuration."},
	{ID: "policy", match: re(`policy\.core\.(?:windows|usgovcloudapi|chinacloudapi)|azure-policy|gatekeeper`),
		Means: "The Azure Policy add-on could not get its policies."},
	{ID: "nvidia", match: re(`nvidia`),
		Means: "The GPU driver or its packages could not be fetched."},
	{ID: "security-patch", match: re(`snapshot\.ubuntu\.com|snapshot-update`),
		Means: "Security patches of the node could not be fetched (node OS channel SecurityPatch).", To: []string{snapshot}},
	{ID: "apt", match: re(`\bapt(?:-get)?\b|archive\.ubuntu\.com|security\.ubuntu\.com|Failed to fetch http|Some index files failed|W: Failed to fetch|Err:\d+ `),
		Means: "Packages could not be fetched with apt; a node that runs goes on without the updates, one that boots may need them.", To: []string{archive, security}},
	{ID: "time", match: re(`chrony|ntpd|systemd-timesyncd|ntp\.ubuntu\.com|time-sync|clock skew`),
		Means: "The clock could not be set from a time server; nodes made since 2021 take the time from the host.", To: []string{"udp://ntp.ubuntu.com:123"}},
	{ID: "vm-extension", match: re(`VMExtensionProvisioningError|VMExtensionProvisioningTimeout|vmssCSE|VMExtensionHandlerNonTransientError`),
		Means: "The node's bootstrap failed; the exit code behind it says which step, and is in the extension's message or in /var/log/azure/cluster-provision.log.",
		To:    []string{registry, apiServer, binaries}},
	{ID: "node-not-ready", match: re(`NodeNotReady|node .* not ready|NotReady`),
		Means: "The node does not tell the API server that it is well: it cannot reach it, or the kubelet is down.", To: []string{apiServer}},
}

func re(s string) *regexp.Regexp { return regexp.MustCompile(`(?i)` + s) }

func stepOf(line string) (Step, bool) {
	if s, ok := codeOf(line); ok {
		return s, true
	}
	for _, s := range steps {
		if s.match.MatchString(line) {
			return s, true
		}
	}
	return Step{}, false
}
