package isolated

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
)

var update = flag.Bool("update", false, "write the golden files anew")

func cluster(t testing.TB, name string) *aks.Cluster {
	t.Helper()
	f, err := os.Open("../aks/testdata/clusters/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := aks.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

// examples are every example cluster, with a registry of AKS's and one of one's own.
func examples(t *testing.T) map[string]Options {
	t.Helper()
	files, err := filepath.Glob("../aks/testdata/clusters/*.arm.json")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d example clusters: %v", len(files), err)
	}
	out := map[string]Options{}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".arm.json")
		out[name] = Options{}
		out[name+".own"] = Options{Registry: "acrisolated", Subnet: "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg-net/providers/Microsoft.Network/virtualNetworks/vnet/subnets/endpoints", Outbound: "block"}
	}
	return out
}

func TestGolden(t *testing.T) {
	for name, o := range examples(t) {
		t.Run(name, func(t *testing.T) {
			file := strings.TrimSuffix(name, ".own")
			c := cluster(t, file+".arm.json")
			p, err := PlanFor(c, o)
			if c.CachedArtifacts && o.Registry != "" {
				if err == nil {
					t.Fatal("it boots from another registry already, and that was not said")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			cli, err := PlanFor(cluster(t, file+".cli.json"), o)
			if err != nil || !bytes.Equal(text(t, cli), text(t, p)) {
				t.Errorf("the two spellings of the cluster make two plans: %v", err)
			}
			golden(t, name+".json", text(t, p))
			golden(t, name+".sh", p.Script())
			arm, armErr := p.ARM()
			bicep, bicepErr := p.Bicep()
			if (armErr != nil) != p.Managed || (bicepErr != nil) != p.Managed {
				t.Fatalf("%v, %v", armErr, bicepErr)
			}
			if !p.Managed {
				golden(t, name+".arm.json", arm)
				golden(t, name+".bicep", bicep)
			}
		})
	}
}

func text(t *testing.T, v any) []byte {
	t.Helper()
	b, err := encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update):\n%s", name, got)
	}
}

// TestOrder: the way out is closed last, after the nodes are imaged anew, and
// nodes are told of the registry only once it is there.
func TestOrder(t *testing.T) {
	p, err := PlanFor(cluster(t, "example-usgov-private-keyvault-wi.arm.json"), Options{Registry: "acrgov"})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range p.Steps {
		ids = append(ids, s.ID)
	}
	want := "registry cache-rule private-endpoint dns role bootstrap-source reimage outbound verify"
	if strings.Join(ids, " ") != want {
		t.Errorf("%v", ids)
	}
	if r := p.Records; r[0].FQDN != "acrgov.azurecr.us" || r[1].FQDN != "acrgov.usgovvirginia.data.azurecr.us" || r[1].Member != "registry_data_usgovvirginia" || r[0].Zone != "privatelink.azurecr.us" {
		t.Errorf("%+v", r)
	}
}

// TestScriptRuns gives the script to sh, with an az that writes down what it was
// told: word for word what is meant, in the order that is meant.
func TestScriptRuns(t *testing.T) {
	p, err := PlanFor(cluster(t, "example-usgov-private-keyvault-wi.arm.json"), Options{Registry: "acrgov"})
	if err != nil {
		t.Fatal(err)
	}
	log := runScript(t, p.Script(), 0)
	for i, want := range []string{
		"[acr] [create]", "[acr] [cache] [create]", "[network] [private-endpoint] [create]", "[network] [private-dns] [zone] [create]",
		"[network] [private-dns] [link] [vnet] [create]", "[network] [private-endpoint] [dns-zone-group] [create]", "[role] [assignment] [create]",
		"[aks] [update]", "[aks] [upgrade]", "[aks] [update]",
	} {
		if i >= len(log) || !strings.HasPrefix(log[i], want) {
			t.Fatalf("command %d is not %s in\n%s", i+1, want, strings.Join(log, "\n"))
		}
	}
	for i, want := range map[int]string{
		0: "[--public-network-enabled] [false]", 1: "[--source-repo] [mcr.microsoft.com/*] [--target-repo] [aks-managed-repository/*]",
		7: "[--bootstrap-artifact-source] [Cache] [--bootstrap-container-registry-resource-id]", 8: "[--node-image-only]", 9: "[--outbound-type] [none]",
	} {
		if !strings.Contains(log[i], want) {
			t.Errorf("command %d lacks %s: %s", i+1, want, log[i])
		}
	}
}

// TestScriptRefuses: what is not supported is not begun.
func TestScriptRefuses(t *testing.T) {
	p, err := PlanFor(cluster(t, "example-china-windows-cost.arm.json"), Options{Registry: "acrcn"})
	if err != nil {
		t.Fatal(err)
	}
	if log := runScript(t, p.Script(), 1); len(log) > 0 {
		t.Errorf("it ran %v", log)
	}
}

func runScript(t *testing.T, script []byte, code int) []string {
	t.Helper()
	dir := t.TempDir()
	az := "#!/bin/sh\nfor w; do printf '[%s] ' \"$w\"; done >> \"$LOG\"; echo >> \"$LOG\"\n"
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte(az), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh")
	cmd.Stdin = bytes.NewReader(script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "LOG="+dir+"/log")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("%v: %s", err, out)
	}
	log, err := os.ReadFile(dir + "/log")
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(log)), "\n")
}

// TestHostileFile: no text of a file becomes a command, an expression or a line
// of its own.
func TestHostileFile(t *testing.T) {
	good := cluster(t, "example-usgov-private-keyvault-wi.arm.json")
	for _, evil := range []string{"$(touch x)", "a'; touch x; '", "x\ntouch x", "[concat('a')]", "${x}", "a b", "`touch x`"} {
		for name, spoil := range map[string]func(*aks.Cluster){
			"id":      func(c *aks.Cluster) { c.ID = strings.Replace(c.ID, "aks-gov", evil, 1) },
			"group":   func(c *aks.Cluster) { c.ID = strings.Replace(c.ID, "rg-gov", evil, 1) },
			"subnet":  func(c *aks.Cluster) { c.Subnets = []string{c.Subnets[0] + evil} },
			"kubelet": func(c *aks.Cluster) { c.KubeletID = evil },
			"registry": func(c *aks.Cluster) {
				c.CachedArtifacts, c.RegistryID = true, strings.Replace("/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/X/providers/Microsoft.ContainerRegistry/registries/acrgov", "X", evil, 1)
				c.Registry = "acrgov"
			},
		} {
			c := *good
			spoil(&c)
			if p, err := PlanFor(&c, Options{Registry: "acrgov"}); err == nil {
				t.Errorf("%s %q was taken: %s", name, evil, p.Script())
			}
		}
		c := *good
		c.Pools = append(slices.Clone(c.Pools), aks.Pool{Name: evil, Windows: true})
		p, err := PlanFor(&c, Options{Registry: "acrgov"})
		if err != nil {
			t.Fatal(err)
		}
		if log := runScript(t, p.Script(), 1); len(log) > 0 {
			t.Errorf("pool %q: it ran %v", evil, log)
		}
	}
}

// TestNeverOpensTheRegistry: whatever a cluster is like, no plan of it suggests a rule or a route to Microsoft's registry.
func TestNeverOpensTheRegistry(t *testing.T) {
	rule := regexp.MustCompile(`(?i)firewall|route-table|application-rule|nsg|allow`)
	for name, o := range examples(t) {
		c := cluster(t, strings.TrimSuffix(name, ".own")+".arm.json")
		p, err := PlanFor(c, o)
		if err != nil {
			continue // refused, see TestGolden
		}
		if at := rule.Find(p.Script()); at != nil {
			t.Errorf("%s: the script says %q", name, at)
		}
		for _, f := range aks.Openable() {
			opened, err := c.Open(aks.Options{Wildcards: true}, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range opened.Added {
				for _, e := range r.To {
					for _, host := range []string{"mcr.microsoft.com", "westeurope.data.mcr.microsoft.com", "mcr.azure.cn", "eastus2.data.mcr.azure.cn"} {
						if p, ok := e.Host.(egress.Pattern); ok && p.Match(egress.MustParseName(host)) {
							t.Errorf("%s: opening %s opens %s by %s", name, f, host, e)
						}
					}
				}
			}
		}
	}
}

// TestFindings: each has what brings it about.
func TestFindings(t *testing.T) {
	for _, row := range []struct {
		code     string
		severity Severity
		change   func(*aks.Cluster)
	}{
		{"kubenet", Unsupported, func(c *aks.Cluster) { c.NetworkPlugin = "kubenet" }},
		{"windows-pool", Unsupported, func(c *aks.Cluster) { c.Pools = append(c.Pools, aks.Pool{Name: "win", Windows: true}) }},
		{"public-api-server", Unsupported, func(c *aks.Cluster) { *c = c.Without(aks.Private) }},
		{"os-upgrade-channel", Unsupported, func(c *aks.Cluster) { c.OSUpgrades = "Unmanaged" }},
		{"os-upgrade-channel", Unsupported, func(c *aks.Cluster) { c.OSUpgrades = "SecurityPatch" }},
		{"old-kubernetes", Unsupported, func(c *aks.Cluster) { c.Kubernetes = "1.29.4" }},
		{"extension", Unsupported, func(c *aks.Cluster) {
			*c = c.WithExtensions([]aks.Extension{{Name: "f", Type: "Microsoft.Flux"}})
		}},
		{"marketplace-extension", Warning, func(c *aks.Cluster) {
			*c = c.WithExtensions([]aks.Extension{{Name: "v", Type: "Vendor.App", Marketplace: true}})
		}},
		{"node-public-ip", Warning, func(c *aks.Cluster) { c.Pools = append(c.Pools, aks.Pool{Name: "pub", PublicIPs: true}) }},
		{"egress-gateway", Warning, func(c *aks.Cluster) { c.Pools = append(c.Pools, aks.Pool{Name: "gw", Gateway: true}) }},
		{"csi-endpoint", Warning, func(c *aks.Cluster) { c.BlobCSI = true }},
		{"opening", Warning, func(c *aks.Cluster) { *c = c.With("policy", "test") }},
		{"kubelet-identity", Info, func(c *aks.Cluster) { c.KubeletID = "" }},
	} {
		c := *cluster(t, "example-network-isolated.arm.json")
		c.Pools, c.FileCSI = slices.Clip(c.Pools), false
		has := func() bool {
			return slices.ContainsFunc(findingsOf(&c), func(f Finding) bool { return f.Code == row.code && f.Severity == row.severity })
		}
		if has() {
			t.Errorf("%s is found before anything is wrong", row.code)
		}
		if row.change(&c); !has() {
			t.Errorf("%s is not found", row.code)
		}
	}
}

func TestArtefacts(t *testing.T) {
	for _, row := range []struct{ version, image, has, lacks string }{
		{"1.34.2", "AKSUbuntu-2204gen2containerd-202607.13.0", "aks/packages/kubernetes/kubelet:v1.34.2 linux/amd64:ubuntu 22.04", "kubernetes-node"},
		{"1.34.2", "AKSAzureLinux-V3gen2arm64-202607.13.0", "aks/packages/kubernetes/kubectl:v1.34.2 linux/arm64:azurelinux 3.0", "kubernetes-node"},
		{"1.33.9", "AKSUbuntu-2204gen2containerd-202607.13.0", "oss/binaries/kubernetes/kubernetes-node:v1.33.9-linux-amd64 ", "aks/packages"},
		{"", "", "oss/v2/kubernetes/pause:3.6 ", "kubelet"},
	} {
		var all []string
		as, leftOut := Artefacts(&aks.Cluster{Kubernetes: row.version, Pools: []aks.Pool{{Image: row.image}}})
		for _, a := range as {
			all = append(all, a.Image+" "+a.Platform)
		}
		if !slices.Contains(all, row.has) || strings.Contains(strings.Join(all, "\n"), row.lacks) {
			t.Errorf("%s on %s: %q", row.version, row.image, all)
		}
		if (len(leftOut) > 0) != (row.version == "") {
			t.Errorf("%q: left out: %v", row.version, leftOut)
		}
	}
	for line := range strings.Lines(artefactLines) {
		if _, ok := artefactLine(line); !ok && !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			t.Errorf("artefacts.txt: not read: %q", line)
		}
	}
}

// TestTemplate: each resource is there once, and what it depends on is before it.
func TestTemplate(t *testing.T) {
	p, err := PlanFor(cluster(t, "example-usgov-private-keyvault-wi.arm.json"), Options{Registry: "acrgov"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.ARM()
	if err != nil {
		t.Fatal(err)
	}
	var tpl struct {
		Resources []struct {
			Type, Name, Scope string
			DependsOn         []string
		}
	}
	if err := json.Unmarshal(b, &tpl); err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, r := range tpl.Resources {
		if strings.Count(r.Type, "/") != 1+strings.Count(r.Name, "/") {
			t.Errorf("%s has the name %s, of another depth", r.Type, r.Name)
		}
		for _, d := range r.DependsOn {
			if !slices.Contains(seen, d) {
				t.Errorf("%s depends on %s, which is not before it", r.Name, d)
			}
		}
		id := armID(r.Type, r.Name)
		if slices.Contains(seen, id) {
			t.Errorf("%s twice", id)
		}
		seen = append(seen, id)
	}
	if again, err := p.ARM(); err != nil || !bytes.Equal(b, again) {
		t.Error("the same plan makes two templates")
	}
}
