package peers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"
)

// definitions are where the kinds are defined: module, version, file.
var definitions = [][3]string{
	{"github.com/cilium/cilium", "v1.20.2", "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumclusterwidenetworkpolicies.yaml"},
	{"github.com/cilium/cilium", "v1.20.2", "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml"},
	{"istio.io/api", "v1.31.1", "kubernetes/customresourcedefinitions.gen.yaml"},
	{"sigs.k8s.io/network-policy-api", "v0.2.0", "config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml"},
}

// module returns the folder of a module's source, which is none that this one imports.
func module(t *testing.T, path, version string) string {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", path+"@"+version).Output()
	if err != nil {
		t.Fatalf("go mod download %s@%s: %v %s", path, version, err, out)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	return m.Dir
}

// apiServer is a real API server that knows the kinds, and kubectl for it.
type apiServer struct{ kubectl, config string }

// openAPIServer starts etcd and kube-apiserver from the folder KUBEBUILDER_ASSETS.
func openAPIServer(t *testing.T) apiServer {
	t.Helper()
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if _, err := os.Stat(filepath.Join(assets, "kube-apiserver")); assets == "" || err != nil {
		missing(t, "kube-apiserver", "KUBEBUILDER_ASSETS names the folder that holds etcd, kube-apiserver and kubectl")
	}
	crds := []string{filepath.Join("testdata", "egressfirewalls.yaml")}
	for _, d := range definitions {
		crds = append(crds, filepath.Join(module(t, d[0], d[1]), filepath.FromSlash(d[2])))
	}
	env := &envtest.Environment{BinaryAssetsDirectory: assets, CRDDirectoryPaths: crds, ErrorIfCRDPathMissing: true}
	if _, err := env.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	user, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := user.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	s := apiServer{filepath.Join(assets, "kubectl"), filepath.Join(t.TempDir(), "kubeconfig")}
	if err := os.WriteFile(s.config, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// apply lets the server decide whether it would take the objects. Of two with
// the same name it would keep the second, and say nothing.
func (s apiServer) apply(data []byte) error {
	if err := distinct(data); err != nil {
		return err
	}
	cmd := exec.Command(s.kubectl, "--kubeconfig", s.config, "apply", "--dry-run=server", "--validate=strict", "-f", "-")
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func distinct(data []byte) error {
	seen := map[string]bool{}
	for doc := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var o struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal(doc, &o); err != nil {
			return err
		}
		id := o.Kind + " " + o.Metadata.Namespace + "/" + o.Metadata.Name
		if seen[id] {
			return fmt.Errorf("two objects are %s", id)
		}
		seen[id] = true
	}
	return nil
}

// TestKubernetes lets a real API server read every object strictly, with the
// definitions of those who made the kinds.
func TestKubernetes(t *testing.T) {
	server := openAPIServer(t)
	for _, k := range kinds {
		outputs(t, k.format, k.file, func(_ string, data []byte) error { return server.apply(data) })
		t.Run(k.format+"/defects", func(t *testing.T) {
			refuses(t, everyShape(t, k.format, k.file), k.defects, server.apply)
		})
	}
}

// kinds are the formats that the API server reads, and what it has to refuse.
var kinds = []struct {
	format, file string
	defects      []spoil
}{
	{"cilium", "cilium.yaml", []spoil{
		{"toFQDNs:", "toFQDN:"},
		{`matchName: "one.exact.example"`, `matchName: "one exact"`},
		{`protocol: "TCP"`, `protocol: "HTTPS"`},
		{"endpointSelector:", "endpointSelectors:"},
	}},
	{"cilium-namespace", "cilium.yaml", []spoil{
		{"toFQDNs:", "toFQDN:"},
		{`cidr: "20.40.1.2/32"`, `cidr: "20.40.1.2.3/32"`},
	}},
	{"clusternetworkpolicy", "clusternetworkpolicy.yaml", []spoil{
		{`"*.below.example.com"`, `"b*.below.example.com"`},
		{`action: "Accept"`, `action: "Allow"`},
		{"domainNames:", "domainName:"},
		{"20.40.1.2/32", "20.40.1.300/32"},
	}},
	{"istio", "istio.yaml", []spoil{
		{`resolution: "DNS"`, `resolution: "DNSX"`},
		{"hosts:", "host:"},
		{`number: 443`, `number: 99999`},
		{`mode: "REGISTRY_ONLY"`, `mode: "REGISTRY"`},
	}},
	{"ovn", "egressfirewall.yaml", []spoil{
		{`dnsName: "one.exact.example"`, `dnsName: "*.exact.example"`},
		{`type: "Allow"`, `type: "Accept"`},
		{"port: 443", "port: 99999"},
	}},
	{"networkpolicy", "networkpolicy.yaml", []spoil{
		{"20.40.1.2/32", "20.40.1.300/32"},
		{"ipBlock:", "ipBlocks:"},
		{`protocol: "TCP"`, `protocol: "HTTPS"`},
	}},
}
