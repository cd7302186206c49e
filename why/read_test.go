package why

import (
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

// texts are what people on call paste, in the words of the programs that write them.
var texts = []struct {
	text string
	step string // what was being done
	way  string // how it failed
	to   string // the endpoints, by spaces; apiserver where the text does not name it
}{
	{"50", "exit-50", "", "https://mcr.microsoft.com:443"},
	{"exit 51", "exit-51", "", "apiserver"},
	{"exit code 52", "exit-52", "", "apiserver"},
	{"53", "exit-53", "", "apiserver"},
	{`VMExtensionProvisioningError: VM has reported a failure when processing extension 'vmssCSE'. Error message: "Enable failed: failed to execute command: command terminated with exit status=50\n[stdout]\n[stderr]\n`,
		"exit-50", "", "https://mcr.microsoft.com:443"},
	{`Code="VMExtensionProvisioningError" Message="VM has reported a failure when processing extension 'vmssCSE' (publisher 'Microsoft.Azure.Extensions' and type 'CustomScript'). Error message: 'Enable failed: failed to execute command: command terminated with exit status=124`,
		"exit-124", "", "https://mcr.microsoft.com:443 https://eastus.data.mcr.microsoft.com:443 https://packages.aks.azure.com:443 apiserver"},
	{`{"ExitCode": "51", "Output": "nc: connect to aks-prod-1a2b3c4d.hcp.westeurope.azmk8s.io port 443 (tcp) failed: Connection timed out", "Error": ""}`,
		"exit-51", "timeout", "https://aks-prod-1a2b3c4d.hcp.westeurope.azmk8s.io:443"},
	{`K8SAPIServerDNSLookupFailVMExtensionError: Agents are unable to resolve Kubernetes API server name. It's likely custom DNS server is not correctly configured`,
		"exit-52", "", "apiserver"},
	{`OutboundConnFailVMExtensionError: Unable to establish outbound connection from agents`, "exit-50", "", "https://mcr.microsoft.com:443"},
	{`CniDownloadTimeoutVMExtensionError; Message="Agents are unable to download the CNI"`, "exit-41", "", "https://packages.aks.azure.com:443"},
	{`ERR_K8S_API_SERVER_CONN_FAIL`, "exit-51", "", "apiserver"},
	{`Total timeout 300 reached, nslookup -timeout=5 -retry=0 aks-prod-1a2b3c4d.hcp.westeurope.azmk8s.io failed`,
		"api-server", "dns-silent", "https://aks-prod-1a2b3c4d.hcp.westeurope.azmk8s.io:443"},
	{`Executed "curl -v --insecure --proxy-insecure https://mcr.microsoft.com/v2/" 20 times; giving up (last exit status: 28).`, "preflight", "timeout", "https://mcr.microsoft.com:443"},
	{`curl: (28) Failed to connect to mcr.microsoft.com port 443 after 130512 ms: Connection timed out`, "", "timeout", "https://mcr.microsoft.com:443"},
	{`curl: (6) Could not resolve host: packages.aks.azure.com`, "", "no-such-name", "https://packages.aks.azure.com:443"},
	{`curl: (35) OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to packages.microsoft.com:443`, "", "tls-reset", "https://packages.microsoft.com:443"},
	{`curl: (60) SSL certificate problem: unable to get local issuer certificate, connecting to packages.aks.azure.com:443`, "", "intercepted", "https://packages.aks.azure.com:443"},
	{`curl: (56) Received HTTP code 403 from proxy after CONNECT; URL https://mcr.microsoft.com/v2/`, "", "proxy-denied", "https://mcr.microsoft.com:443"},
	{`curl: (56) CONNECT tunnel failed, response 407 for https://login.microsoftonline.com/`, "entra", "proxy-authentication", "https://login.microsoftonline.com:443"},
	{`Failed to pull image "mcr.microsoft.com/oss/kubernetes/coredns:v1.9.4": rpc error: code = Unknown desc = failed to pull and unpack image "mcr.microsoft.com/oss/kubernetes/coredns:v1.9.4": failed to resolve reference "mcr.microsoft.com/oss/kubernetes/coredns:v1.9.4": failed to do request: Head "https://mcr.microsoft.com/v2/oss/kubernetes/coredns/manifests/v1.9.4": dial tcp 204.79.197.219:443: i/o timeout`,
		"image-pull", "timeout", "https://mcr.microsoft.com:443"},
	{`Failed to pull image "nginx:1.25": rpc error: code = DeadlineExceeded desc = failed to resolve reference "docker.io/library/nginx:1.25": failed to do request: Head "https://registry-1.docker.io/v2/library/nginx/manifests/1.25": dial tcp: lookup registry-1.docker.io on 10.0.0.10:53: no such host`,
		"image-pull", "no-such-name", "https://registry-1.docker.io:443"},
	{`failed to copy: httpReadSeeker: failed open: failed to do request: Get "https://westeurope.data.mcr.microsoft.com/01031d61e1024861afee5d512651eb9f/layer?sig=x": read tcp 10.224.0.4:51320->150.171.70.10:443: read: connection reset by peer`,
		"image-layer", "reset", "https://westeurope.data.mcr.microsoft.com:443"},
	{`failed to authorize: failed to fetch anonymous token: Get "https://auth.docker.io/token?scope=repository": EOF`, "image-auth", "eof", "https://auth.docker.io:443"},
	{`Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox image "mcr.microsoft.com/oss/kubernetes/pause:3.6": failed to pull image "mcr.microsoft.com/oss/kubernetes/pause:3.6": net/http: TLS handshake timeout`,
		"image-pull", "tls-timeout", "https://mcr.microsoft.com:443"},
	{`Back-off pulling image "ghcr.io/acme/shop:2.1"`, "image-pull", "", "https://ghcr.io:443"},
	{`Failed to pull image "acme.azurecr.io/shop:2": unexpected status code 403 Forbidden`, "image-pull", "forbidden", "https://acme.azurecr.io:443"},
	{`Back-off pulling image "docker.io/library/redis:7"`, "image-pull", "", "https://registry-1.docker.io:443"},
	{`"message": "Failed to pull image \"ghcr.io/acme/shop:2.1\": rpc error: dial tcp 140.82.1.1:443: i/o timeout",`, "image-pull", "timeout", "https://ghcr.io:443"},
	{`Error: ErrImagePull`, "image-pull", "", "https://mcr.microsoft.com:443 https://eastus.data.mcr.microsoft.com:443"},
	{`Error from server: Get "https://10.224.0.4:10250/containerLogs/default/shop/shop": dial tcp 10.224.0.4:10250: i/o timeout`, "tunnel", "timeout", "apiserver"},
	{`error: error dialing backend: EOF`, "tunnel", "eof", "apiserver"},
	{`Error from server: error dialing backend: No agent available`, "tunnel", "", "apiserver"},
	{`E1125 17:41:36.123456 1 clientset.go:158] "cannot connect once" err="rpc error: code = Unavailable desc = connection error: desc = transport: authentication handshake failed: tls: no application protocol" konnectivity`,
		"tunnel", "alpn", "apiserver"},
	{`Internal error occurred: failed calling webhook "validate.nginx.ingress.kubernetes.io": failed to call webhook: Post "https://ingress-nginx-controller-admission.ingress-nginx.svc:443/networking/v1/ingresses?timeout=10s": context deadline exceeded`,
		"webhook", "timeout", "apiserver"},
	{`Get "https://10.0.0.1:443/api/v1/namespaces/kube-system/configmaps": dial tcp 10.0.0.1:443: i/o timeout`, "api-by-address", "timeout", "apiserver"},
	{`error retrieving resource lock ingress/leader: Get "https://10.0.0.1:443/apis/coordination.k8s.io/v1": EOF`, "api-by-address", "eof", "apiserver"},
	{`HTTPS request from 10.224.0.7:41852. Action: Deny. Reason: SNI TLS extension was missing.`, "api-by-address", "sni-missing", "apiserver"},
	{`Unable to register node with API server: Post "https://aks-prod-1a2b3c4d.hcp.westeurope.azmk8s.io:443/api/v1/nodes": dial tcp 20.50.1.2:443: connect: connection refused`,
		"api-server", "refused", "https://aks-prod-1a2b3c4d.hcp.westeurope.azmk8s.io:443"},
	{`failed to ensure lease exists, will retry in 7s, error: Get "https://aks-prod-1a2b3c4d.hcp.westeurope.azmk8s.io:443/apis/coordination.k8s.io/v1": x509: certificate signed by unknown authority`,
		"api-server", "intercepted", "https://aks-prod-1a2b3c4d.hcp.westeurope.azmk8s.io:443"},
	{`Unable to connect to the server: dial tcp: lookup aks-priv-9f8e7d6c.privatelink.westeurope.azmk8s.io on 10.1.0.4:53: server misbehaving`,
		"api-server", "dns-silent", "https://aks-priv-9f8e7d6c.privatelink.westeurope.azmk8s.io:443"},
	{`Warning  NodeNotReady  2m  node-controller  Node aks-np1-123-vmss000000 status is now: NodeNotReady`, "node-not-ready", "", "apiserver"},
	{`Kubelet stopped posting node status.`, "api-server", "", "apiserver"},
	{`ManagedIdentityCredential authentication failed. Get "http://169.254.169.254/metadata/identity/oauth2/token": dial tcp 169.254.169.254:80: i/o timeout`, "imds", "timeout", ""},
	{`WorkloadIdentityCredential authentication failed: Post "https://login.microsoftonline.com/tenant/oauth2/v2.0/token": dial tcp: lookup login.microsoftonline.com: no such host`,
		"entra", "no-such-name", "https://login.microsoftonline.com:443"},
	{`Warning  SyncLoadBalancerFailed  service-controller  Error syncing load balancer: failed to ensure load balancer: Get "https://management.azure.com/subscriptions/0/resourceGroups/mc": net/http: TLS handshake timeout`,
		"arm", "tls-timeout", "https://management.azure.com:443"},
	{`AttachVolume.Attach failed for volume "pvc-1": context deadline exceeded`, "arm", "timeout", "https://management.azure.com:443"},
	{`MountVolume.SetUp failed for volume "secrets-store01-inline": keyvault.BaseClient#GetSecret: Get "https://kv-prod.vault.azure.net/secrets/db": connection reset by peer`,
		"key-vault", "reset", "https://kv-prod.vault.azure.net:443"},
	{`[error] ama-logs: failed to send to https://0a1b2c3d.ods.opinsights.azure.com/OperationalData.svc: Connection timed out`, "monitor", "timeout", "https://0a1b2c3d.ods.opinsights.azure.com:443"},
	{`azure-policy: Get "https://data.policy.core.windows.net/": proxyconnect tcp: dial tcp 10.1.0.9:3128: connect: connection refused`, "policy", "proxy", "https://data.policy.core.windows.net:443"},
	{`Err:1 http://azure.archive.ubuntu.com/ubuntu jammy InRelease  Could not connect to azure.archive.ubuntu.com:80 (52.252.163.49), connection timed out`, "apt", "timeout", "http://azure.archive.ubuntu.com:80"},
	{"* Connected to packages.aks.azure.com (20.1.2.3) port 443 (#0)\n* ALPN: offers h2,http/1.1\ncurl: (35) Recv failure: Connection reset by peer", "", "tls-reset", "https://packages.aks.azure.com:443"},
	{"* connect to 20.1.2.3 port 443 failed: Connection refused\ncurl: (7) Failed to connect to login.microsoftonline.com port 443 after 5 ms: Couldn't connect to server", "entra", "refused", "https://login.microsoftonline.com:443"},
	{"curl: (35) Recv failure: Connection reset by peer", "", "", ""},
	{`E: Failed to fetch http://azure.archive.ubuntu.com/ubuntu/dists/jammy/InRelease  Could not resolve 'azure.archive.ubuntu.com'`, "apt", "no-such-name", "http://azure.archive.ubuntu.com:80"},
	{`W: Failed to fetch http://security.ubuntu.com/ubuntu/dists/jammy-security/InRelease  Temporary failure resolving 'security.ubuntu.com'`, "apt", "dns-silent", "http://security.ubuntu.com:80"},
	{`E: Failed to fetch https://packages.microsoft.com/ubuntu/22.04/prod/dists/jammy/InRelease  gnutls_handshake() failed: Error in the pull function`, "apt", "tls-reset", "https://packages.microsoft.com:443"},
	{`Failed to fetch http://azure.archive.ubuntu.com/ubuntu/pool/main/j/jq.deb  470  status code 470`, "apt", "azure-firewall", "http://azure.archive.ubuntu.com:80"},
	{`EgressBlocked condition is now: True, reason: EgressBlocked, message: "Required endpoint https://packages.aks.azure.com/acs-mirror/healthz failed: timed out"`,
		"egress-blocked", "timeout", "https://packages.aks.azure.com:443"},
	{`2026-11-25T17:41:36Z curl to https://packages.aks.azure.com/acs-mirror/healthz failed: timed out`, "packages-fallback", "timeout", "https://packages.aks.azure.com:443"},
	{`chronyd[812]: Could not resolve host ntp.ubuntu.com`, "time", "no-such-name", "udp://ntp.ubuntu.com:123"},
	{`ntpdig: lookup of ntp.ubuntu.com failed, errno -2 = Name or service not known`, "time", "no-such-name", "udp://ntp.ubuntu.com:123"},
	{`ntpdig: no eligible servers`, "time", "", "udp://ntp.ubuntu.com:123"},
	{`systemd-timesyncd[512]: Timed out waiting for reply from 185.125.190.57:123 (ntp.ubuntu.com).`, "time", "timeout", "udp://ntp.ubuntu.com:123"},
	{`WINDOWS_CSE_ERROR_CHECK_API_SERVER_CONNECTIVITY: Failed to establish connection to API server`, "windows-api-server", "", "apiserver"},
	{`ExitCode: |35|, Output: |WINDOWS_CSE_ERROR_DOWNLOAD_CSE_PACKAGE|, Error: |The remote name could not be resolved: 'packages.aks.azure.com'|`, "windows-download", "no-such-name", "https://packages.aks.azure.com:443"},
	{`nvidia-driver: could not fetch https://us.download.nvidia.com/tesla/535/NVIDIA-Linux.run: No route to host`, "nvidia", "unreachable", "https://us.download.nvidia.com:443"},
	{`x509: certificate is valid for portal.corp.example, not mcr.microsoft.com`, "", "wrong-name", "https://mcr.microsoft.com:443"},
	{`http: server gave HTTP response to HTTPS client: https://api.stripe.com/v1/charges`, "", "not-tls", "https://api.stripe.com:443"},
	{`Post "https://api.stripe.com/v1/charges": x509: certificate has expired or is not yet valid: current time 2031-01-01T00:00:00Z is after 2027-01-01T00:00:00Z`, "", "clock", "https://api.stripe.com:443"},
	{`command terminated with exit status=212`, "exit-212", "", ""},
	{`exit status=210`, "exit-210", "", ""},
}

func TestTexts(t *testing.T) {
	explained := 0
	for _, tt := range texts {
		found, err := Read(strings.NewReader(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if tt.step == "" && tt.way == "" {
			if len(found) != 0 {
				t.Errorf("%s\n\texplained as %q %q, and it says nothing", tt.text, found[0].Step.ID, found[0].Way.ID)
			}
			continue
		}
		if len(found) != 1 {
			t.Errorf("%s\n\t%d findings", tt.text, len(found))
			continue
		}
		explained++
		f := found[0]
		var to []string
		for _, e := range f.Endpoints {
			to = append(to, e.String())
		}
		if f.APIServer {
			to = append(to, "apiserver")
		}
		if f.Step.ID != tt.step || f.Way.ID != tt.way || strings.Join(to, " ") != tt.to {
			t.Errorf("%s\n\tgot  %q %q %v\n\twant %q %q [%s]", tt.text, f.Step.ID, f.Way.ID, to, tt.step, tt.way, tt.to)
		}
	}
	t.Logf("%d texts explained", explained)
}

// TestOrdinaryLines: what is in every log and says nothing is not explained.
func TestOrdinaryLines(t *testing.T) {
	for _, line := range []string{
		"", "hello", "I1125 17:41:36.123456 1 main.go:50] starting", "200", "7", "GET https://mcr.microsoft.com/v2/ 200 OK", "exit code 0", "retry in 50 s",
		"listening on 0.0.0.0:443", "exit status 1",
		"konnectivity-agent started", "PUT https://management.azure.com/subscriptions/0 200 in 470 ms", "Pulling image \"mcr.microsoft.com/oss/kubernetes/pause:3.6\"",
		"Successfully pulled image \"mcr.microsoft.com/oss/kubernetes/pause:3.6\" in 407 ms", "* ALPN: curl offers h2,http/1.1", "Get:1 http://azure.archive.ubuntu.com/ubuntu jammy InRelease",
		"using DNS server 168.63.129.16", "Node aks-np1-123-vmss000000 status is now: NodeReady", "chronyd[812]: Selected source PHC0", "nvidia-device-plugin: registered",
	} {
		if found, err := Read(strings.NewReader(line)); err != nil || len(found) > 0 {
			t.Errorf("%q: %+v %v", line, found, err)
		}
	}
}

func TestSameThingOnce(t *testing.T) {
	text := "2026-11-25T17:41:36Z curl: (28) Failed to connect to mcr.microsoft.com port 443: timed out\nnoise\n" +
		"2026-11-25T17:51:36Z curl: (28) Failed to connect to mcr.microsoft.com port 443: timed out\n"
	found, err := Read(strings.NewReader(text))
	if err != nil || len(found) != 1 {
		t.Fatalf("%+v %v", found, err)
	}
	if f := found[0]; f.Count != 2 || f.Line != 1 || f.Last.Sub(f.First).Minutes() != 10 {
		t.Errorf("%+v", f)
	}
}

// TestTablesAreSound: every endpoint of the tables parses, and every word is used once.
func TestTablesAreSound(t *testing.T) {
	seen := map[string]bool{}
	every := steps
	for code := range codes {
		every = append(every, step(code))
	}
	for _, s := range every {
		if seen[s.ID] || s.Means == "" {
			t.Errorf("step %q is there twice or means nothing", s.ID)
		}
		seen[s.ID] = true
		for _, to := range s.To {
			if _, err := egress.ParseEndpoint(to); err != nil && to != apiServer {
				t.Errorf("step %q: %v", s.ID, err)
			}
		}
		if s.Inside && len(s.To) > 0 {
			t.Errorf("step %q is inside and reaches outside", s.ID)
		}
	}
	for _, w := range ways {
		if seen[w.ID] || w.Means == "" {
			t.Errorf("way %q is there twice or means nothing", w.ID)
		}
		seen[w.ID] = true
	}
	for _, n := range names {
		if _, ok := codes[n.code]; !ok {
			t.Errorf("%s leads to the code %d, which is not known", n.word, n.code)
		}
	}
}

// FuzzRead: whatever text somebody has, what is found in it has a meaning and a bound, and endpoints survive their text.
func FuzzRead(f *testing.F) {
	for _, tt := range texts {
		f.Add(tt.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found, _ := Read(strings.NewReader(text))
		for _, x := range found {
			if x.Step.ID == "" && (x.Way.ID == "" || len(x.Endpoints) == 0) {
				t.Errorf("%q: a finding without a meaning", text)
			}
			if len(x.Text) > maxText+len("…") || len(x.Endpoints) > maxEndpoints {
				t.Errorf("%q: longer than it may be", text)
			}
			for _, e := range x.Endpoints {
				if again, err := egress.ParseEndpoint(e.String()); err != nil || again != e {
					t.Errorf("%q: %s does not survive its text: %v", text, e, err)
				}
			}
		}
	})
}
