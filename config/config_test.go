package config

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

// open finds the example clusters of package aks.
func open(name string) (io.ReadCloser, error) {
	return os.Open(filepath.Join("..", "aks", "testdata", "clusters", filepath.Base(name)))
}

const head = "apiVersion: tidegate.io/v1\nkind: Gateway\n"

const good = head + `clusters:
  - name: prod
    from: [10.224.0.0/16, "fd00:1::/64"]
    internal: [10.0.0.0/8]
    aks: example-public-gpu-monitor-policy.cli.json
  - name: soon
    from: [10.225.0.0/16]
    aks: {cloud: public, region: westeurope, with: [keyvault], keyVaults: [kv1], dnsServers: [10.1.0.4], recommended: false}
    mode: observe
    dns: elsewhere
    apiServer: by-name
rules:
  - id: payments/stripe
    from: [prod]
    to: ["https://api.stripe.com:443"]
    why: card payments
  - id: corp/anywhere
    from: [10.225.1.0/24]
    to: ["tcp://git.bücher.example:22", "tcp://20.9.0.0/16:1-1000"]
dns:
  upstream: [168.63.129.16, "10.0.0.4:5353"]
  also: [corp.example]
masquerade: false
`

func TestRead(t *testing.T) {
	g, err := Read("gateway.yaml", []byte(good), open)
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.Policy()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ why, conn, want string }{
		{"a core row of the first cluster", "https 10.224.0.4 > 20.1.2.3:443 mcr.microsoft.com", "allow name-rule prod:core/mcr"},
		{"the same row of the second", "https 10.225.0.4 > 20.1.2.3:443 mcr.microsoft.com", "allow name-rule soon:core/mcr"},
		{"nobody else has it", "https 10.226.0.4 > 20.1.2.3:443 mcr.microsoft.com", "deny name-not-allowed"},
		{"the first cluster's API server by its own name", "https 10.224.0.4 > 20.1.2.3:443 aks-ml-3k2j1h0g.hcp.eastus2.azmk8s.io", "allow name-rule prod:core/apiserver"},
		{"a feature that was asked for", "https 10.225.0.4 > 20.1.2.3:443 kv1.vault.azure.net", "allow name-rule soon:keyvault/public"},
		{"one's own vault and no other", "https 10.225.0.4 > 20.1.2.3:443 kv2.vault.azure.net", "deny name-not-allowed"},
		{"a server that the virtual network asks", "udp 10.225.0.4 > 10.1.0.4:53", "allow address-rule soon:dns/custom"},
		{"nothing recommended", "http 10.225.0.4 > 20.1.2.3:80 azure.archive.ubuntu.com", "deny name-not-allowed"},
		{"an own rule for a cluster", "https 10.224.0.4 > 20.1.2.3:443 api.stripe.com", "allow name-rule payments/stripe"},
		{"not for the other", "https 10.225.0.4 > 20.1.2.3:443 api.stripe.com", "deny name-not-allowed"},
		{"an own rule for a prefix", "tcp 10.225.1.4 > 20.9.1.1:999", "allow address-rule corp/anywhere"},
		{"a name in another alphabet", "tcp 10.225.1.4 > 20.8.1.1:22", "allow name-rule corp/anywhere"},
	} {
		c, err := egress.ParseConn(tt.conn)
		if err != nil {
			t.Fatal(err)
		}
		c.Bound = []egress.Name{c.Name}
		if strings.HasSuffix(tt.conn, ":22") {
			c.Bound = []egress.Name{egress.MustParseName("git.xn--bcher-kva.example")}
		}
		got := p.Decide(c).String()
		if strings.HasPrefix(tt.want, "allow name-rule soon:keyvault") {
			got, _, _ = strings.Cut(got, "/")
			tt.want, _, _ = strings.Cut(tt.want, "/")
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.why, got, tt.want)
		}
	}
	prod, soon := g.Clusters[0], g.Clusters[1]
	if prod.Mode != Enforce || soon.Mode != Observe || prod.DNS != DNSShows || soon.DNS != DNSElsewhere || !prod.ByAddress || soon.ByAddress || g.Masquerade ||
		prod.APIServer.String() != "aks-ml-3k2j1h0g.hcp.eastus2.azmk8s.io" || len(g.Upstream) != 2 || g.Upstream[0].Port() != 53 ||
		len(g.Also) != 2 || g.Management.String() != defaultManagement || g.State != defaultState {
		t.Errorf("settings: %+v", g)
	}
	if g.Cluster(prod.From[0].Addr()) != &g.Clusters[0] || g.Cluster(egress.GuardedRanges()[0].Addr()) != nil {
		t.Error("a client is found in the wrong cluster")
	}
}

func TestReadRefuses(t *testing.T) {
	cluster := head + "clusters:\n  - name: prod\n    from: [10.224.0.0/16]\n    aks: example-network-isolated.cli.json\n"
	for _, tt := range []struct{ why, text, want string }{
		{"nothing", "", "gateway.yaml: nothing in it"},
		{"no YAML", "a: [", "gateway.yaml: line 1: did not find expected node content"},
		{"another version", "apiVersion: v1\nkind: Gateway\n", `gateway.yaml: line 1: apiVersion "v1": want tidegate.io/v1`},
		{"another kind", "apiVersion: tidegate.io/v1\nkind: Pod\n", `gateway.yaml: line 2: kind "Pod": want Gateway`},
		{"an unknown key", head + "cluster: []\n", `line 3: unknown key "cluster"`},
		{"an unknown key below", strings.Replace(cluster, "from:", "form:", 1), `line 5: unknown key "form"`},
		{"an unknown key of aks", strings.Replace(cluster, "aks: example-network-isolated.cli.json", "aks: {cloud: public, regoin: x}", 1), `line 6: unknown key "regoin"; want one of file, cloud, region`},
		{"a doubled key", cluster + "    name: other\n", `line 7: key "name" was given in line 4 already`},
		{"a doubled key of aks", strings.Replace(cluster, "aks: example-network-isolated.cli.json", "aks: {cloud: public, cloud: china}", 1), `key "cloud" was given in line 6 already`},
		{"a second document", cluster + "---\na: b\n", "second document"},
		{"no clusters", head, "clusters: none"},
		{"a cluster without clients", strings.Replace(cluster, "from: [10.224.0.0/16]", "mode: enforce", 1), "line 4: cluster prod: from: none"},
		{"a cluster without facts", strings.Replace(cluster, "aks: example-network-isolated.cli.json", "mode: enforce", 1), "line 4: cluster prod: aks: missing"},
		{"a file that is not there", strings.Replace(cluster, "isolated.cli.json", "isolate.json", 1), "line 6: open"},
		{"a file of something else", strings.Replace(cluster, "example-network-isolated.cli.json", "README.md", 1), "line 6: README.md:"},
		{"facts and a file", strings.Replace(cluster, "aks: example-network-isolated.cli.json", "aks: {cloud: public, region: eastus, file: a.json}", 1), "line 6: aks: either file, or cloud and region"},
		{"a cloud without a region", strings.Replace(cluster, "aks: example-network-isolated.cli.json", "aks: {cloud: public}", 1), "line 6: aks: cloud and region"},
		{"an unknown cloud", strings.Replace(cluster, "aks: example-network-isolated.cli.json", "aks: {cloud: mars, region: eastus}", 1), `line 6: cloud "mars"`},
		{"an unknown region", strings.Replace(cluster, "aks: example-network-isolated.cli.json", "aks: {cloud: public, region: atlantis}", 1), "line 6: region"},
		{"an unknown feature", strings.Replace(cluster, "aks: example-network-isolated.cli.json", "aks: {cloud: public, region: eastus, with: [ai]}", 1), "line 6: feature"},
		{"no prefix", strings.Replace(cluster, "10.224.0.0/16", "10.224.0.0/33", 1), `line 5: "10.224.0.0/33" is neither`},
		{"bits behind the prefix", strings.Replace(cluster, "10.224.0.0/16", "10.224.0.1/16", 1), "line 5: prefix 10.224.0.1/16 has bits set behind its length; write 10.224.0.0/16"},
		{"a mode", cluster + "    mode: learn\n", `line 7: mode "learn": want enforce or observe`},
		{"the way of its DNS", cluster + "    dns: shows\n", `line 7: dns "shows": want gateway or elsewhere`},
		{"how the API server is dialled", cluster + "    apiServer: yes\n", `line 7: apiServer "yes"`},
		{"two clusters of a name", cluster + "  - name: prod\n    from: [10.225.0.0/16]\n    aks: {cloud: public, region: eastus}\n", "there are two"},
		{"overlapping clusters", cluster + "  - name: dev\n    from: [10.224.1.0/24]\n    aks: {cloud: public, region: eastus}\n", "overlap"},
		{"a rule without an id", cluster + "rules:\n  - to: [\"https://a.example.com:443\"]\n", "the 1st rule has no id"},
		{"a rule without a destination", cluster + "rules:\n  - id: a\n", "line 8: rule a: to: none"},
		{"two rules of an id", cluster + "rules:\n  - {id: a, to: [\"https://a.example.com:443\"]}\n  - {id: a, to: [\"https://a.example.com:443\"]}\n", "line 9: rule a: there is one of this id already"},
		{"a rule from nowhere", cluster + "rules:\n  - {id: a, from: [prd], to: [\"https://a.example.com:443\"]}\n", `line 8: from "prd": neither a cluster of this file nor a prefix`},
		{"an endpoint", cluster + "rules:\n  - {id: a, to: [\"a.example.com\"]}\n", `line 8: endpoint "a.example.com": want proto://host:port`},
		{"a look-alike pattern", cluster + "rules:\n  - {id: a, to: [\"https://*example.com:443\"]}\n", `write "*." before "example"`},
		{"a public suffix", cluster + "rules:\n  - {id: a, to: [\"https://*.co.uk:443\"]}\n", "anybody can register a name under co.uk"},
		{"a tag without its file", cluster + "rules:\n  - {id: a, to: [\"tcp://@AzureMonitor:443\"]}\n", "service tag AzureMonitor has not been replaced by its prefixes; name Microsoft's file of them under serviceTags"},
		{"an upstream by name", cluster + "dns:\n  upstream: [dns.example.com]\n", `line 8: "dns.example.com": want an address`},
		{"a list for a word", cluster + "state: [a]\n", "line 7: want one value"},
		{"a word for a list", cluster + "rules: none\n", "line 7:"},
	} {
		g, err := Read("gateway.yaml", []byte(tt.text), open)
		if err == nil || !strings.HasPrefix(err.Error(), "gateway.yaml: ") || !strings.Contains(err.Error(), tt.want) || g != nil {
			t.Errorf("%s: %v, want %q", tt.why, err, tt.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	text := head + `clusters:
  - name: prod
    from: [10.224.0.0/16]
    aks: example-network-isolated.cli.json
rules:
  - {id: exact, to: ["https://a.example.com:443"]}
  - {id: around, to: ["tcp://20.0.0.0/8:1-65535"]}
  - {id: inside, to: ["tcp://10.9.0.0/16:443"]}
  - {id: anybody, to: ["https://*.blob.core.windows.net:443"]}
  - {id: narrow, to: ["https://*.account.blob.core.windows.net:443"]}
  - {id: wide, to: ["https://*.example.com:443"]}
  - {id: twin, to: ["https://*.example.com:443"]}
`
	g, err := Read("gateway.yaml", []byte(text), open)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range g.Warnings() {
		got = append(got, w.String())
	}
	want := []string{
		"rule exact: rule wide permits all of it already",
		"rule around: tcp://20.0.0.0/8:1-65535 covers port 443 of name rules: what goes to these addresses is not judged by name",
		"rule anybody: any customer can create a name under blob.core.windows.net; name the ones that are needed",
		"rule narrow: rule anybody permits all of it already",
		"rule twin: rule wide permits all of it already",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("warnings:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// FuzzRead looks for a panic, and for a file that is read and does not compile.
func FuzzRead(f *testing.F) {
	f.Add(good)
	f.Add(head + "clusters: [{name: a, from: [10.0.0.0/8], aks: {cloud: public, region: eastus}}]\n")
	none := func(string) (io.ReadCloser, error) { return nil, os.ErrNotExist }
	f.Fuzz(func(t *testing.T, text string) {
		g, err := Read("f", []byte(text), none)
		if err != nil {
			return
		}
		if _, err := g.Policy(); err != nil {
			t.Fatal(err)
		}
		g.Warnings()
	})
}
