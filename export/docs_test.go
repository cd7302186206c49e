package export

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// readers are who reads each format's output in the tests: here and in peers.
var readers = map[string]string{
	"azure-firewall":           "the types of Azure's SDK, in a round trip that loses nothing; the limits of the service",
	"azure-firewall-bicep":     "the grammar of Bicep; every value is the one of the ARM template",
	"azure-firewall-terraform": "the azurerm provider, by `tofu validate`; HCL's own formatter",
	"csv":                      "Go, which finds the same rows in all three lists",
	"json":                     "Go, which finds the same rows in all three lists",
	"yaml":                     "Go, which finds the same rows in all three lists",
	"markdown":                 "the golden files",
	"paloalto":                 "the golden files: there is no program to ask",
	"fortigate":                "the golden files: there is no program to ask",
	"cilium":                   "a Kubernetes API server with Cilium's definitions, strictly",
	"cilium-namespace":         "a Kubernetes API server with Cilium's definitions, strictly",
	"squid":                    "`squid -k parse`",
	"haproxy":                  "`haproxy -c`",
	"nginx":                    "`nginx -t`",
	"envoy":                    "Envoy's messages with their rules, also inside of typed parts; no running Envoy",
	"nftables":                 "`nft -c`",
	"dnsmasq":                  "`dnsmasq --test`",
	"unbound":                  "`unbound-checkconf`",
	"nsg":                      "the types of Azure's SDK, in a round trip that loses nothing; the limits of the service",
	"clusternetworkpolicy":     "a Kubernetes API server with the project's definition, strictly",
	"istio":                    "a Kubernetes API server with Istio's definitions, strictly",
	"ovn":                      "a Kubernetes API server with a definition written from its reference, strictly",
	"networkpolicy":            "a Kubernetes API server, strictly",
}

const docs, docsBegin, docsEnd = "../docs/export.md", "<!-- formats -->\n", "<!-- end of formats -->\n"

// TestDocs holds the table of the page against the formats; -update writes it.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(b), docsBegin)
	_, after, ok2 := strings.Cut(rest, docsEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s: the marks of the table are not there", docs)
	}
	want := before + docsBegin + formatTable(t) + docsEnd + after
	if *update {
		if err := os.WriteFile(docs, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(b) {
		t.Errorf("%s is not what the formats are: run with -update", docs)
	}
}

func formatTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| format | what it is | cannot say | read in the tests by |\n|---|---|---|---|\n")
	for _, f := range Formats() {
		reader, ok := readers[f.Name]
		if !ok {
			t.Errorf("%s: who reads it in the tests?", f.Name)
		}
		cannot := strings.ReplaceAll(strings.Join(f.Cannot(), "; "), "*", `\*`)
		if cannot == "" {
			cannot = "–"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Title, cannot, reader)
	}
	return b.String()
}
