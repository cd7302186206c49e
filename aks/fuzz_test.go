package aks

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"tidegate.io/tidegate/egress"
)

// seeds adds files as they are.
func seeds(f *testing.F, pattern string) {
	f.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		f.Fatalf("%s: no seeds: %v", pattern, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// FuzzReadServiceTags: what is read resolves to rules that compile, and every
// prefix is one that the file holds.
func FuzzReadServiceTags(f *testing.F) {
	seeds(f, "testdata/servicetags/*.json")
	f.Add([]byte(`{"cloud": "Public", "values": [{"name": "AzureMonitor", "properties": {"addressPrefixes": ["20.1.2.3/8", "::/0"]}}]}`))
	tag, err := egress.ParseTag("AzureMonitor")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tags, err := ReadServiceTags(bytes.NewReader(b))
		if err != nil {
			return
		}
		rules, err := tags.Resolve([]egress.Rule{{ID: "x", To: []egress.Endpoint{{Proto: egress.TCP, Host: tag, Ports: egress.Ports{First: 443, Last: 443}}}}})
		if err != nil {
			return
		}
		if _, err := egress.Compile(rules, nil); err != nil {
			t.Fatal(err)
		}
		for _, e := range rules[0].To {
			if n := e.Host.(egress.Net); n.Prefix != n.Masked() {
				t.Fatalf("%s has bits behind its length", n)
			}
		}
	})
}

// FuzzReadLists: the lists beside a cluster never panic, and what Azure lists
// survives its text form.
func FuzzReadLists(f *testing.F) {
	seeds(f, clustersDir+"/example-k8s-*.json")
	seeds(f, clustersDir+"/example-outbound*.json")
	f.Add([]byte(`{"securityRules": [{"access": "Deny", "priority": 1, "sourceAddressPrefix": "*", "destinationAddressPrefixes": ["10.0.0.0/8"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if es, err := ReadExtensions(bytes.NewReader(b)); err == nil {
			c := Cluster{Cloud: Public}.WithExtensions(es)
			c.extensionNotes()
		}
		if listed, err := ReadListed(bytes.NewReader(b)); err == nil {
			for _, l := range listed {
				if again, err := egress.ParseEndpoint(l.Endpoint.String()); err != nil || again != l.Endpoint {
					t.Fatalf("%s is read again as %s: %v", l.Endpoint, again, err)
				}
			}
		}
		_, _ = LintNSG(bytes.NewReader(b))
	})
}

// FuzzReadCatalogue: no YAML makes reading, listing or checking panic, and what
// passes the check becomes rules without a placeholder.
func FuzzReadCatalogue(f *testing.F) {
	seeds(f, "catalogue/*.yaml")
	f.Add([]byte("section: gpu\n<<: {rows: [{id: a/b}]}\n"))
	f.Add([]byte("section: gpu\nrows:\n- id: a/b\n  all: [{any: [\"udp://{any}:1\", \"udp://{RegionCIDRs}:1\"], stated: {take: 2, text: [a, b, c]}}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ReadCatalogue(fstest.MapFS{"x.yaml": {Data: b}})
		if err != nil {
			return
		}
		c.List(Oldest, true)
		c.Diff(Oldest, Newest)
		for _, p := range c.Lint() {
			if p.Level == Warning && p.File == "x.yaml" {
				return
			}
		}
		cluster, err := Plan(Public, "westeurope")
		if err != nil {
			t.Fatal(err)
		}
		for _, asStated := range []bool{false, true} {
			res, err := cluster.Rules(Options{Catalogue: c, AsStated: asStated})
			if err != nil {
				continue
			}
			for _, r := range res.Rules {
				for _, e := range r.To {
					if strings.ContainsAny(e.String(), "{}") {
						t.Fatalf("a placeholder is left in %s", e)
					}
				}
			}
		}
	})
}

// FuzzParseQuery: what is asked about by name is asked about again by the name
// that was read, with the same answer.
func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{"mcr.microsoft.com", "https://MCR.microsoft.com./v2", "udp://@AzureMonitor:443", "*.a.b", "1.2.3.4:53", "[::1]:53", "WIN1", "https://[::1]", "a@b"} {
		f.Add(s)
	}
	c := Embedded()
	f.Fuzz(func(t *testing.T, s string) {
		q, err := c.ParseQuery(s)
		if err != nil {
			return
		}
		found := c.Find(q)
		c.FindSeen(q)
		if q.Name.IsZero() || q.Port != 0 {
			return
		}
		again, err := c.ParseQuery(q.Name.String())
		if err != nil || len(c.Find(again)) != len(found) {
			t.Fatalf("%q is %d rows, and %q %d: %v", s, len(found), q.Name, len(c.Find(again)), err)
		}
	})
}
