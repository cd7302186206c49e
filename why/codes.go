package why

import (
	"regexp"
	"strconv"
	"strings"
)

// Where the parts of a node's bootstrap come from. apiServer stands for the API server's name, which no table knows.
const (
	apiServer   = "apiserver"
	registry    = "https://mcr.microsoft.com:443"
	layers      = "https://eastus.data.mcr.microsoft.com:443"
	binaries    = "https://packages.aks.azure.com:443"
	packages    = "https://packages.microsoft.com:443"
	archive     = "http://azure.archive.ubuntu.com:80"
	security    = "http://security.ubuntu.com:80"
	snapshot    = "https://snapshot.ubuntu.com:443"
	entra       = "https://login.microsoftonline.com:443"
	arm         = "https://management.azure.com:443"
	registryNow = "The node pulls from Microsoft's registry, or from the registry it boots from in an isolated cluster."
)

// codes are the exit codes of a Linux node's bootstrap (the custom script extension of the scale set) that are about the
// network, and those that are often taken for it.
var codes = map[int]Step{
	4:   {Means: "A system service did not start (exit 4). It is rarely the network: look at the service's own log.", Inside: true},
	5:   {Means: "cloud-init did not finish in time (exit 5). If it installs packages, those come from the hosts below.", To: []string{archive, packages}},
	9:   {Means: "Packages that the node needs could not be installed (exit 9).", To: []string{archive, security, packages}},
	21:  {Means: "The container runtime could not be downloaded (exit 21).", To: []string{packages}},
	22:  {Means: "The key of the runtime's package repository could not be downloaded (exit 22).", To: []string{packages}},
	25:  {Means: "The list of Microsoft's package repository could not be downloaded (exit 25).", To: []string{packages}},
	26:  {Means: "The key of Microsoft's package repository could not be downloaded (exit 26).", To: []string{packages}},
	27:  {Means: "The container runtime could not be installed (exit 27).", To: []string{packages, archive}},
	28:  {Means: "containerd could not be installed (exit 28).", To: []string{packages, archive}},
	29:  {Means: "runc could not be installed (exit 29).", To: []string{packages, archive}},
	30:  {Means: "The kubelet did not become healthy (exit 30): it could not register with the API server, or it could not pull its first images.", To: []string{apiServer, registry, layers}},
	31:  {Means: "The Kubernetes binaries could not be downloaded (exit 31).", To: []string{binaries}},
	33:  {Means: "An image could not be downloaded (exit 33).", To: []string{registry, layers}},
	34:  {Means: "The kubelet could not be started (exit 34). It is rarely the network: look at journalctl -u kubelet.", Inside: true},
	35:  {Means: "An image could not be pulled (exit 35).", To: []string{registry, layers}},
	36:  {Means: "An image could not be pulled with ctr (exit 36).", To: []string{registry, layers}},
	37:  {Means: "An image could not be pulled with crictl (exit 37).", To: []string{registry, layers}},
	41:  {Means: "The network plugins (CNI) could not be downloaded (exit 41).", To: []string{binaries}},
	42:  {Means: "The package that sets Microsoft's package repository up could not be downloaded (exit 42).", To: []string{packages}},
	45:  {Means: "oras, which fetches artifacts from a registry, could not be installed (exit 45).", To: []string{registry, layers}},
	50:  {Means: "The node's first check of the outside failed (exit 50): it asked for https://mcr.microsoft.com/v2/, in China https://gcr.azk8s.cn/v2/, twenty times.", To: []string{registry}},
	51:  {Means: "The node resolved the API server's name and could not connect to it on port 443 (exit 51).", To: []string{apiServer}},
	52:  {Means: "The node could not resolve the API server's name (exit 52). With a custom DNS server, that server must ask Azure's (168.63.129.16) for privatelink zones, and be reachable over UDP and TCP 53.", To: []string{apiServer}},
	53:  {Means: "Azure's own DNS did not resolve the API server's name (exit 53): the private DNS zone is not linked to the nodes' network, or the record is missing.", To: []string{apiServer}},
	60:  {Means: "The key of the Kata repository could not be downloaded (exit 60).", To: []string{packages}},
	62:  {Means: "Kata could not be installed (exit 62).", To: []string{packages}},
	65:  {Means: "The node image lacks its log file (exit 65); the image is not one of AKS's. It is not the network.", Inside: true},
	70:  {Means: "containerd could not be downloaded (exit 70).", To: []string{packages, binaries}},
	71:  {Means: "runc could not be downloaded (exit 71).", To: []string{packages, binaries}},
	83:  {Means: "The GPU driver could not be downloaded (exit 83); on Ubuntu it is an image of Microsoft's registry.", To: []string{registry, layers}},
	84:  {Means: "The GPU driver did not start (exit 84). It is rarely the network: driver and VM size may not match.", Inside: true},
	85:  {Means: "The GPU driver could not be installed in time (exit 85); on Ubuntu it is an image of Microsoft's registry.", To: []string{registry, layers}},
	90:  {Means: "What SGX needs could not be downloaded (exit 90).", To: []string{archive, packages}},
	98:  {Means: "The daily apt job did not end in time (exit 98).", To: []string{archive, security, packages}},
	99:  {Means: "apt-get update did not end in time (exit 99).", To: []string{archive, security, packages}},
	100: {Means: "The provisioning script was not placed on the node in time (exit 100). It is not the network.", Inside: true},
	101: {Means: "apt-get dist-upgrade did not end in time (exit 101).", To: []string{archive, security, packages}},
	117: {Means: "crictl could not be downloaded (exit 117).", To: []string{binaries}},
	121: {Means: "The kubelet could not be downloaded (exit 121).", To: []string{binaries}},
	124: {Means: "The bootstrap as a whole ran out of its 15 minutes (exit 124), usually because one step kept trying what is blocked: it hides 50, 51 and 52. /var/log/azure/cluster-provision.log tells which.", To: []string{registry, layers, apiServer, binaries}},
	152: {Means: "What artifact streaming needs could not be downloaded (exit 152).", To: []string{binaries}},
	160: {Means: "The HTTP proxy's certificate could not be read (exit 160): httpProxyConfig.trustedCa is not PEM in base64.", Inside: true},
	169: {Means: "The secure TLS bootstrap client could not be downloaded (exit 169).", To: []string{binaries}},
	205: {Means: "The credential provider could not be downloaded (exit 205).", To: []string{binaries}},
	207: {Means: "The Kubernetes binaries could not be pulled as an artifact (exit 207). " + registryNow, To: []string{registry, layers}},
	208: {Means: "The credential provider could not be pulled as an artifact (exit 208). " + registryNow, To: []string{registry, layers}},
	210: {Means: "The instance metadata service at 169.254.169.254 did not answer (exit 210). It never passes a firewall: look at the node's own rules, and at a proxy without 169.254.169.254 in noProxy.", Inside: true},
	211: {Means: "The token for the registry could not be fetched in time (exit 211). " + registryNow, To: []string{entra, registry}},
	212: {Means: "The registry refuses the node (exit 212): the kubelet's identity lacks AcrPull on it. It is not the network.", Inside: true},
	215: {Means: "The node's check of DNS failed (exit 215): the VNet's DNS servers do not answer, over UDP or TCP 53.", To: []string{registry}},
	220: {Means: "Secure TLS bootstrapping did not start (exit 220): the node speaks to the API server with the ALPN aks-tls-bootstrap.", To: []string{apiServer}},
}

// codeForms are the forms in which exit codes are told. A bare number is one only if it is all there is.
var codeForms = []*regexp.Regexp{
	regexp.MustCompile(`(?i)exit(?:ed)?[ _-]*(?:with )?(?:code|status)"?\s*(?:of|is)?\s*[:=]?\s*["'\\]*(\d{1,3})\b`),
	regexp.MustCompile(`(?i)\berror code:?\s*\(?(\d{1,3})\)?\b`),
	regexp.MustCompile(`^\s*(?:exit\s+)?(\d{1,3})\s*$`),
}

// names are what the resource manager and the bootstrap's scripts call some codes, in lower case.
var names = []struct {
	word string
	code int
}{
	{"outboundconnfail", 50}, {"err_outbound_conn_fail", 50},
	{"k8sapiserverconnfail", 51}, {"err_k8s_api_server_conn_fail", 51},
	{"k8sapiserverdnslookupfail", 52}, {"err_k8s_api_server_dns_lookup_fail", 52},
	{"k8sapiserverazurednslookupfail", 53}, {"err_k8s_api_server_azure_dns_lookup_fail", 53},
	{"cnidownloadtimeout", 41}, {"err_cni_download_timeout", 41},
	{"err_k8s_download_timeout", 31}, {"err_apt_update_timeout", 99}, {"err_apt_install_timeout", 9},
	{"err_containerd_download_timeout", 70}, {"err_gpu_drivers_install_timeout", 85}, {"err_oras_pull_network_timeout", 211},
	{"err_oras_pull_unauthorized", 212}, {"err_oras_imds_timeout", 210}, {"err_dns_health_fail", 215},
}

// codeOf finds a bootstrap exit code in a line, given in lower case too.
func codeOf(line, lower string) (Step, bool) {
	for _, n := range names {
		if strings.Contains(lower, n.word) {
			return step(n.code), true
		}
	}
	const bare = 16 // as much as a line with nothing but a number may have
	if len(line) > bare && !strings.Contains(lower, "exit") && !strings.Contains(lower, "error code") {
		return Step{}, false
	}
	for _, form := range codeForms {
		for _, at := range form.FindAllStringSubmatchIndex(line, -1) {
			code, _ := strconv.Atoi(line[at[2]:at[3]])        // digits only
			inner := strings.HasSuffix(line[:at[0]], "last ") // of a command that was tried again, not of the bootstrap
			if _, known := codes[code]; known && !inner {
				return step(code), true
			}
		}
	}
	return Step{}, false
}

func step(code int) Step {
	s := codes[code]
	s.ID = "exit-" + strconv.Itoa(code)
	return s
}
