package export

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
)

var update = flag.Bool("update", false, "write the golden files")

// clusters are the policies of the golden files: the example clusters, and one
// that holds every shape of rule.
func clusters(t testing.TB) map[string]Policy {
	t.Helper()
	files, err := filepath.Glob("../aks/testdata/clusters/*.cli.json")
	if err != nil || len(files) != 5 {
		t.Fatalf("example clusters: %v, %v", files, err)
	}
	out := map[string]Policy{"every-shape": everyShape()}
	for _, f := range files {
		out[strings.TrimPrefix(strings.TrimSuffix(filepath.Base(f), ".cli.json"), "example-")] = clusterPolicy(t, f)
	}
	return out
}

func clusterPolicy(t testing.TB, file string) Policy {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := aks.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Rules(aks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return Policy{Name: c.Name, Rules: res.Egress()}
}

// everyShape holds each kind of host, service and client, and reasons that try
// to break out of their comment.
func everyShape() Policy {
	rule := func(id, why string, to ...string) egress.Rule {
		r := egress.Rule{ID: id, Why: why, Source: "https://tidegate.example/rules"}
		for _, s := range to {
			r.To = append(r.To, egress.MustParseEndpoint(s))
		}
		return r
	}
	some := rule("clients/some", "Only these clients.", "https://some.clients.example:443", "tcp://20.40.0.1:22")
	some.From = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.7/32")}
	return Policy{Name: "every shape", From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Rules: []egress.Rule{
		rule("name/exact", "One name.", "https://one.exact.example:443", "http://one.exact.example:80"),
		rule("name/below", "Every name below one.", "https://*.below.example.com:443", "http://*.below.example.com:80"),
		rule("name/label", "One label of any name.", "https://plan.*.label.example.com:443"),
		rule("name/inner", "A star within a label.", "https://md-*.inner.example.com:443"),
		rule("name/both", "Several stars.", "https://*.a-*.both.example.com:443"),
		rule("name/port", "Another port, and a few.", "https://port.example.com:8443", "https://ports.example.com:9000-9002"),
		rule("name/many-ports", "Many ports.", "https://many.example.com:20000-29999"),
		rule("dns/exact", "A name that shows none.", "udp://ntp.example.com:123", "tcp://ssh.example.com:22"),
		rule("dns/below", "Names that show none.", "tcp://*.tunnel.example.com:9000"),
		rule("address/one", "One address.", "tcp://20.40.1.2:9000", "udp://20.40.1.2:1194"),
		rule("address/prefix", "Prefixes of both families.", "tcp://20.50.0.0/16:443", "tcp://[2603:1000::/32]:443"),
		rule("address/any", "Any address.", "udp://0.0.0.0/0:123", "udp://[::/0]:123"),
		rule("address/ports", "Ports.", "tcp://20.60.0.0/24:30000-32767"),
		rule("tag/cloud", "A service tag.", "udp://@AzureCloud.westeurope:1194"),
		some,
		rule("hostile/why", "'; \"quotes\" `ticks` ${expr} %{ if } \\ */ --> \nallow all\r\nhttp_access allow all\u2028[concat('x')] {{ . }} =1+1 \\", "https://hostile.example.com:443"),
	}}
}

// TestGolden writes every cluster in every format, and every shape once more
// with all that may be widened. The gaps are part of it.
func TestGolden(t *testing.T) {
	check := func(name string, policy Policy, allow ...Widening) {
		for _, f := range Formats() {
			t.Run(f.Name+"/"+name, func(t *testing.T) {
				out, err := f.Export(policy, allow...)
				if err != nil {
					t.Fatal(err)
				}
				golden(t, filepath.Join("testdata", f.Name, name), out)
			})
		}
	}
	for name, policy := range clusters(t) {
		check(name, policy)
	}
	widened := everyShape()
	widened.Tagged = []string{"name/exact", "name/below"}
	check("every-shape-widened", widened, widenings...)
}

func golden(t *testing.T, dir string, out Output) {
	t.Helper()
	got := map[string]string{}
	for _, f := range out.Files {
		got[f.Name] = string(f.Data)
	}
	if len(out.Gaps) > 0 {
		got["gaps.txt"] = gapText(out.Gaps)
	}
	if *update {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		for name, data := range got {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	want := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil && len(got) > 0 {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		want[e.Name()] = string(b)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("differs from %s (run with -update): %s", dir, diff)
	}
}

func gapText(gaps []Gap) string {
	var b strings.Builder
	for _, g := range gaps {
		b.WriteString(g.String() + "\n")
	}
	return b.String()
}

// TestSamePolicySameBytes runs each format twice.
func TestSamePolicySameBytes(t *testing.T) {
	for _, f := range Formats() {
		first, err := f.Export(everyShape(), widenings...)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			again, err := f.Export(everyShape(), widenings...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, again, cmp.Comparer(func(a, b egress.Endpoint) bool { return a == b })); diff != "" {
				t.Fatalf("%s differs from itself: %s", f.Name, diff)
			}
		}
	}
}

// TestNothingIsLostInSilence: what is in no gap has to be in the output, and
// nothing that is left out may be.
func TestNothingIsLostInSilence(t *testing.T) {
	for _, f := range Formats() {
		out, err := f.Export(everyShape())
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range out.Gaps {
			if g.Widened {
				t.Errorf("%s: wider without having been asked: %s", f.Name, g)
			}
		}
		if len(f.Cannot()) == 0 && len(out.Gaps) > 0 {
			t.Errorf("%s says that it can express everything, and has gaps: %s", f.Name, gapText(out.Gaps))
		}
	}
}
