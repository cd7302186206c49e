package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// An isolated cluster's nodes know one registry, in the virtual network; here it is a mirror on the second node's machine.
const (
	isolatedFile  = "../aks/testdata/clusters/example-network-isolated.cli.json"
	mcr           = "mcr.microsoft.com"
	bootstrapName = "bootstrapacr7f3k2.azurecr.io" // of its containerRegistryId
)

// nodeHosts is what AKS writes for containerd on a node of that cluster, below the line that says who wrote it.
const nodeHosts = `[host."https://` + bootstrapName + `/v2/aks-managed-repository"]
  capabilities = ["pull", "resolve"]
  override_path = true
`

// TestAnIsolatedNodeBootsFromTheMirror: the gateway of a network isolated cluster, which knows nothing but its JSON, lets
// nobody out. A node registers, gets ready and runs pods with images of a mirror inside, which came in an archive; and of
// one that holds what was fetched elsewhere and asks in vain for more. Without the mirror, and for what the mirror
// lacks, the pull fails with the error that people know, however names reach the nodes.
func TestAnIsolatedNodeBootsFromTheMirror(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster of its own, and waits for pulls to fail")
	}
	i := openIsolated(t)
	i.fetchOutside(pauseImage, appImage, numbered(3), numbered(4), numbered(5))
	offline := i.startMirror("offline", "imported")
	i.pointAtMirror()
	i.startNode()
	i.ready()
	i.comes(t, i.askPod("app"))
	i.says("app", "at "+i.name+": I am system:serviceaccount:default:default")
	i.stays(t, "through", 1, "mcr.microsoft.com/tidegate/app-1:1: not found") // the first to be asked is who is quoted
	i.stays(t, "elsewhere", 2, "mcr.microsoft.com/tidegate/app-2:1: not found")

	i.hosts("--undo")
	i.stays(t, "through", 3, "no such host")
	i.stays(t, "elsewhere", 4, "connect: connection refused")
	i.hosts("--write")
	i.comes(t, numberedPod(3))
	i.comes(t, numberedPod(4))
	i.served(t, "offline", pauseImage, appImage, numbered(3), numbered(4))

	i.stop(offline)
	i.startMirror("online", "outside")
	i.comes(t, numberedPod(5))
	i.served(t, "online", numbered(5))
	i.nothingGotOut(t)
}

// An isolated cluster is the example's.
type isolated struct {
	*cluster
	outside *lab.Node // where there is internet
}

func openIsolated(t *testing.T) *isolated {
	t.Helper()
	need(t)
	aks, err := os.ReadFile(isolatedFile)
	if err != nil {
		t.Fatal(err)
	}
	i := &isolated{cluster: start(t, setting{aks: string(aks)})}
	if i.outside, err = i.Outside("workstation"); err != nil {
		t.Fatal(err)
	}
	at := i.Node(2).Addrs[0]
	i.Zone.Move(bootstrapName, at)
	leaf, err := i.CA.Sign(bootstrapName, at)
	if err != nil {
		t.Fatal(err)
	}
	i.write("mirror.crt", chain(leaf))
	i.write("mirror.key", keyPEMOf(t, leaf.PrivateKey))
	return i
}

// numbered is an image such as pull asks for.
func numbered(n int) string { return fmt.Sprintf("mcr.microsoft.com/tidegate/app-%d:1", n) }

func numberedPod(n int) *corev1.Pod {
	p := appPod(fmt.Sprintf("numbered-%d", n), "pause")
	p.Spec.Containers[0].Image = numbered(n)
	return p
}

// fetchOutside preloads a store where there is internet, and takes an archive of it into another one that has never seen any.
func (i *isolated) fetchOutside(images ...string) {
	i.t.Helper()
	i.write("images.txt", []byte(strings.Join(images, "\n")+"\n"))
	i.mirrorFile("outside", "online", "outside")
	i.mirrorFile("imported", "offline", "imported")
	i.mirror(i.outside, "outside", "preload", "-f", "images.txt")
	i.mirror(i.outside, "outside", "export", "-f", "images.txt", "--to", "images.tar")
	i.mirror(i.Node(2), "imported", "import", "images.tar")
}

// mirrorFile writes NAME.yaml for a mirror in the place of the cluster's registry.
func (i *isolated) mirrorFile(name, mode, store string) {
	i.t.Helper()
	i.write(name+".yaml", fmt.Appendf(nil, `apiVersion: tidegate.io/v1
kind: Mirror
store: %s
mode: %s
recheck: 0s
listen: %q
management: 127.0.0.1:9254
tls: {certificate: mirror.crt, key: mirror.key}
upstreams:
  - name: mcr.microsoft.com
    prefixes: [aks-managed-repository]
    repositories: ["oss/v2/kubernetes/pause", "tidegate/*"]
    authorities: ca.pem
`, store, mode, i.mirrorAddr()))
}

func (i *isolated) mirrorAddr() netip.AddrPort { return netip.AddrPortFrom(i.Node(2).Addrs[0], 443) }

// mirror runs one of the mirror's commands on a machine, with NAME.yaml.
func (i *isolated) mirror(on *lab.Node, name string, args ...string) {
	i.t.Helper()
	cmd := i.tidegate(append([]string{"mirror", "-c", name + ".yaml"}, args...)...)
	cmd.Dir = i.dir
	i.must(output(on, cmd))
}

// startMirror starts a mirror inside, in a mode and with a store.
func (i *isolated) startMirror(mode, store string) *process {
	i.t.Helper()
	i.mirrorFile(mode, mode, store)
	p := i.run(i.Node(2), mode, i.tidegate("mirror", "-c", mode+".yaml", "run"))
	i.until("the mirror listens", startTimeout, func() error {
		conn, err := i.Node(1).Dial(i.t.Context(), "tcp", i.mirrorAddr())
		if err == nil {
			conn.Close()
		}
		return err
	})
	return p
}

// hosts has the program write the node's file for containerd, or take it back.
func (i *isolated) hosts(how string) {
	i.t.Helper()
	i.must(output(i.Node(1), i.tidegate("mirror", "hosts-toml", "--mirror", "https://"+bootstrapName,
		"--registry", "mcr.microsoft.com", "--prefix", "aks-managed-repository", "--dir", i.path("certs.d"), how)))
}

// pointAtMirror writes that file, and sees that it is AKS's own.
func (i *isolated) pointAtMirror() {
	i.t.Helper()
	i.hosts("--write")
	text, err := os.ReadFile(i.path("certs.d/mcr.microsoft.com/hosts.toml"))
	if err != nil {
		i.t.Fatal(err)
	}
	if _, rest, _ := strings.Cut(string(text), "\n"); rest != nodeHosts {
		i.t.Fatalf("AKS does not write %q", text)
	}
}

// askPod is a pod that asks the API server by its private name.
func (i *isolated) askPod(name string) *corev1.Pod {
	p := appPod(name, "ask")
	p.Spec.Containers[0].Env = []corev1.EnvVar{
		{Name: "KUBERNETES_SERVICE_HOST", Value: i.name}, {Name: "KUBERNETES_SERVICE_PORT", Value: "443"},
	}
	return p
}

// says waits until a pod's log holds a text.
func (i *isolated) says(pod, want string) {
	i.t.Helper()
	i.until(pod+" talks to the API server", startTimeout, func() error {
		out, err := i.kubectl(i.t.Context(), "logs", pod)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
}

// comes sees that a pod runs, with the very image that the registry outside has.
func (i *isolated) comes(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	i.create(pod)
	i.runs(pod.Name)
	p, err := i.client.CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	repo, tag := split(pod.Spec.Containers[0].Image)
	dgst, _ := i.images.image("/v2/" + repo + "/manifests/" + tag)
	if id := p.Status.ContainerStatuses[0].ImageID; id != "mcr.microsoft.com/"+repo+"@"+dgst {
		t.Errorf("%s runs %s, and the registry has %s", pod.Name, id, dgst)
	}
}

// split is an image's repository and tag in the registry.
func split(image string) (repo, tag string) {
	repo, tag, _ = strings.Cut(strings.TrimPrefix(image, "mcr.microsoft.com/"), ":")
	return repo, tag
}

// served sees in a mirror's log that it gave the node images, and that it gave nothing from upstream.
func (i *isolated) served(t *testing.T, mirror string, images ...string) {
	t.Helper()
	text, err := os.ReadFile(i.path(mirror + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{} // by repository and kind
	for line := range strings.Lines(string(text)) {
		var l struct {
			Client, Path, Repository, Result string
			Status                           int
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		from, _ := netip.ParseAddrPort(l.Client)
		if from.Addr() != i.Node(1).Addrs[0] || l.Status != 200 {
			continue
		}
		if l.Result != "hit" && l.Result != "stale" {
			t.Errorf("the mirror did not have this: %s", line)
		}
		for _, kind := range []string{"manifests", "blobs"} {
			got[l.Repository+" "+kind] = got[l.Repository+" "+kind] || strings.HasPrefix(l.Path, "/v2/aks-managed-repository/"+l.Repository+"/"+kind+"/")
		}
	}
	for _, image := range images {
		repo, _ := split(image)
		if !got[repo+" manifests"] || !got[repo+" blobs"] {
			t.Errorf("the mirror did not give the node %s, but %v", image, got)
		}
	}
}

// stays sees that an image does not come, that people are told so in these words, and that the flow log says in its own
// that the registry was denied; names reach the nodes in this way.
func (i *isolated) stays(t *testing.T, way string, n int, says string) {
	t.Helper()
	reason := map[string]egress.Reason{"through": egress.NameNotResolvable, "elsewhere": egress.NoRule}[way]
	i.DNSElsewhere(way == "elsewhere")
	defer i.DNSElsewhere(false)
	before := len(i.decisions(t))
	if said := pull(i.cluster, n); !strings.Contains(said, "Failed to pull image") || !strings.Contains(said, says) {
		t.Errorf("%s, DNS %s: want %q, it says %q", numbered(n), way, says, said)
	}
	i.until("the flow log says that the registry is denied", 10*time.Second, func() error {
		for _, f := range i.decisions(t)[before:] {
			about := f.Conn.Name.String() == mcr || slices.Contains(i.Zone.Addrs(mcr), f.Conn.Dst.Addr())
			if about && f.Verdict.Action == egress.Deny && f.Verdict.Reason == reason {
				return nil
			}
		}
		return fmt.Errorf("it has %v", i.denials(t))
	})
}

// nothingGotOut holds the flow log and what the lab's servers saw against the promise: the archive's images were fetched
// there, and from the cluster nothing arrived.
func (i *isolated) nothingGotOut(t *testing.T) {
	t.Helper()
	for _, f := range i.decisions(t) {
		if f.Verdict.Action != egress.Deny {
			t.Errorf("the gateway let %s %s (%s) through: %s", f.Conn.Proto, f.Conn.Dst, f.Conn.Name, f.Verdict.Reason)
		}
	}
	fetched := 0
	for _, s := range i.Record.Find(func(s *lab.Seen) bool { return slices.Contains([]string{"tls", "https", "http", "tcp"}, s.Proto) }) {
		switch {
		case s.Remote.Addr() == lab.GatewayOutside[0] || s.Remote.Addr() == lab.GatewayOutside[1]:
			t.Errorf("%s %s at %s came from the gateway", s.Proto, s.Name, s.Local)
		case s.Proto == "https" && strings.HasSuffix(s.Name, "mcr.microsoft.com"):
			fetched++
		}
	}
	if fetched == 0 {
		t.Error("control: nobody saw the images being fetched outside")
	}
}
