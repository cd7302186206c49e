package audit

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/export"
)

// clusterNeeds are the needs of the example clusters, and of their own a tunnel by address and a time server by name.
func clusterNeeds(t *testing.T) map[string][]egress.Rule {
	t.Helper()
	files, err := filepath.Glob("../aks/testdata/clusters/*.cli.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("example clusters: %v, %v", files, err)
	}
	out := map[string][]egress.Rule{}
	for _, f := range files {
		b, err := os.ReadFile(f)
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
		out[filepath.Base(f)] = append(res.Egress(),
			egress.Rule{ID: "own/tunnel", Need: egress.Required, To: []egress.Endpoint{egress.MustParseEndpoint("tcp://20.103.4.0/24:9000")}},
			egress.Rule{ID: "own/ranges", Need: egress.Required, To: []egress.Endpoint{egress.MustParseEndpoint("tcp://20.110.0.0/25:9000"), egress.MustParseEndpoint("tcp://20.111.0.0/26:443")}},
			egress.Rule{ID: "own/time", Need: egress.Required, To: []egress.Endpoint{egress.MustParseEndpoint("udp://20.103.5.6:123")}})
	}
	return out
}

// A mutation plants a defect into one endpoint of the policy; ok is false where it does not apply. found reports whether
// the report says so, and of nothing else that is required.
type mutation struct {
	what  string
	plant func(e egress.Endpoint) (mutated []egress.Endpoint, ok bool)
	found func(r *Report, e egress.Endpoint) bool
}

func lacking(r *Report, e egress.Endpoint) bool {
	said := slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Endpoint == e && f.Kind == Missing })
	others := slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Endpoint != e && f.Kind == Missing })
	return said && !others
}

func tooWide(r *Report, _ egress.Endpoint) bool { return hasKind(*r, Wide) && !r.Lacks() }

func mutations() []mutation {
	with := func(e egress.Endpoint, host string) ([]egress.Endpoint, bool) {
		p, err := egress.ParsePattern(host)
		e.Host = p
		return []egress.Endpoint{e}, err == nil
	}
	named := func(f func(e egress.Endpoint, name string) ([]egress.Endpoint, bool)) func(egress.Endpoint) ([]egress.Endpoint, bool) {
		return func(e egress.Endpoint) ([]egress.Endpoint, bool) {
			p, ok := e.Host.(egress.Pattern)
			if !ok {
				return nil, false
			}
			return f(e, p.String())
		}
	}
	addressed := func(bits int) func(egress.Endpoint) ([]egress.Endpoint, bool) {
		return func(e egress.Endpoint) ([]egress.Endpoint, bool) {
			n, ok := e.Host.(egress.Net)
			if !ok || n.Bits()+bits > 32 {
				return nil, false
			}
			p, err := n.Addr().Prefix(n.Bits() + bits)
			e.Host = egress.Net{Prefix: p}
			return []egress.Endpoint{e}, err == nil
		}
	}
	return []mutation{
		{"left out", func(egress.Endpoint) ([]egress.Endpoint, bool) { return nil, true }, lacking},
		{"on another port", func(e egress.Endpoint) ([]egress.Endpoint, bool) {
			e.Ports = egress.Ports{First: 4443, Last: 4443}
			return []egress.Endpoint{e}, true
		}, lacking},
		{"a typing mistake in its name", named(func(e egress.Endpoint, name string) ([]egress.Endpoint, bool) {
			return with(e, name[:len(name)-1]+"x")
		}), lacking},
		{"the apex in the place of what is below", named(func(e egress.Endpoint, name string) ([]egress.Endpoint, bool) {
			rest, ok := strings.CutPrefix(name, "*.")
			if !ok {
				return nil, false
			}
			return with(e, rest)
		}), lacking},
		{"one name in the place of what is below", named(func(e egress.Endpoint, name string) ([]egress.Endpoint, bool) {
			rest, ok := strings.CutPrefix(name, "*.")
			if !ok {
				return nil, false
			}
			return with(e, "eastus."+rest)
		}), lacking},
		{"everything below its parent", named(func(e egress.Endpoint, name string) ([]egress.Endpoint, bool) {
			name = strings.TrimPrefix(name, "*.")
			_, parent, ok := strings.Cut(name, ".")
			if !ok || !strings.Contains(parent, ".") {
				return nil, false
			}
			return with(e, "*."+parent)
		}), tooWide},
		{"a storage wildcard beside it", named(func(e egress.Endpoint, _ string) ([]egress.Endpoint, bool) {
			more, ok := with(e, "*.blob.core.windows.net")
			return append(more, e), ok
		}), tooWide},
		{"half of its addresses", addressed(1), lacking},
		{"a prefix of millions of addresses", addressed(-16), tooWide},
	}
}

// TestDefectsInRealPolicies plants defects, one at a time, into what the clusters need, written in each format that can be
// read back.
func TestDefectsInRealPolicies(t *testing.T) {
	counts := map[string]int{}
	for cluster, rules := range clusterNeeds(t) {
		for _, format := range []string{"azure-firewall", "terraform", "cilium", "squid", "nsg", "csv"} {
			needs, ok := sayable(t, format, rules)
			if !ok {
				continue
			}
			if r := auditOf(t, format, needs, needs); !r.Clean() || r.Lacks() || len(r.Unread) > 0 {
				t.Errorf("%s, %s: nothing is planted, and found: %+v, unread %q", cluster, format, r.Findings, r.Unread)
				continue
			}
			for i := range needs {
				for k := range needs[i].To {
					for _, m := range mutations() {
						counts[format] += plant(t, format, needs, i, k, m)
					}
				}
			}
		}
	}
	t.Log(counts)
	for _, format := range []string{"azure-firewall", "terraform", "cilium", "squid", "nsg", "csv"} {
		if counts[format] < 60 {
			t.Errorf("%s: %d defects, want 60", format, counts[format])
		}
	}
}

// plant puts one defect into the k-th endpoint of the i-th rule, and returns how many that were.
func plant(t *testing.T, format string, needs []egress.Rule, i, k int, m mutation) int {
	t.Helper()
	e := needs[i].To[k]
	mutated, ok := m.plant(e)
	if !ok || isRetired(namesOfHost(e)) || shared(needs, e) {
		return 0
	}
	policy := slices.Clone(needs)
	policy[i].To = append(append(slices.Clone(needs[i].To[:k]), mutated...), needs[i].To[k+1:]...)
	policy = slices.DeleteFunc(policy, func(r egress.Rule) bool { return len(r.To) == 0 })
	if _, ok := sayable(t, format, policy); !ok || len(policy) == 0 {
		return 0
	}
	r := auditOf(t, format, policy, needs)
	if !m.found(&r, e) {
		t.Errorf("%s: %s %s: %s: found %+v", format, needs[i].ID, e, m.what, r.Findings)
	}
	return 1
}

func namesOfHost(e egress.Endpoint) names {
	if p, ok := e.Host.(egress.Pattern); ok {
		return namesOf(p)
	}
	return names{}
}

// shared reports whether another need holds the endpoint or lies in it, so that it is not missed.
func shared(needs []egress.Rule, e egress.Endpoint) bool {
	n := 0
	for _, r := range needs {
		for _, other := range r.To {
			p, ok := other.Host.(egress.Pattern)
			q, ok2 := e.Host.(egress.Pattern)
			if other == e || ok && ok2 && namesOf(p).overlaps(namesOf(q)) {
				n++
			}
		}
	}
	return n > 1
}

// sayable are the rules as far as the format can say them; ok is false where that is nothing.
func sayable(t *testing.T, format string, rules []egress.Rule) ([]egress.Rule, bool) {
	t.Helper()
	_, gaps := written(t, format, rules)
	var out []egress.Rule
	for _, r := range rules {
		r.To = slices.DeleteFunc(slices.Clone(r.To), func(e egress.Endpoint) bool {
			return slices.ContainsFunc(gaps, func(g export.Gap) bool { return g.Rule == r.ID && g.Endpoint == e })
		})
		if len(r.To) > 0 {
			out = append(out, r)
		}
	}
	return out, len(out) > 0
}

func written(t *testing.T, format string, rules []egress.Rule) ([]byte, []export.Gap) {
	t.Helper()
	if format == "terraform" {
		_, gaps := written(t, "azure-firewall", rules)
		return terraformState(t, rules), gaps
	}
	f, err := export.Find(format)
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.Export(export.Policy{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Files) == 0 {
		return nil, out.Gaps
	}
	return out.Files[0].Data, out.Gaps
}

func auditOf(t *testing.T, format string, policy, needs []egress.Rule) Report {
	t.Helper()
	text, _ := written(t, format, policy)
	return read(t, string(text)).Judge(Needs{Rules: needs})
}

// terraformState is what terraform show -json prints of these rules.
func terraformState(t *testing.T, rules []egress.Rule) []byte {
	t.Helper()
	var applications, networks []any
	for _, r := range rules {
		for _, e := range r.To {
			rule := map[string]any{"name": r.ID + e.String(), "source_addresses": []string{"*"}}
			switch h := e.Host.(type) {
			case egress.Pattern:
				rule["destination_fqdns"] = []string{h.String()}
			case egress.Tag:
				rule["destination_addresses"] = []string{h.Name()}
			default:
				rule["destination_addresses"] = []string{h.String()}
			}
			if e.Proto.Named() {
				rule["protocols"] = []any{map[string]any{"type": strings.ToUpper(e.Proto.String()[:1]) + e.Proto.String()[1:], "port": e.Ports.First}}
				applications = append(applications, rule)
			} else {
				rule["protocols"], rule["destination_ports"] = []string{strings.ToUpper(e.Proto.String())}, []string{e.Ports.String()}
				networks = append(networks, rule)
			}
		}
	}
	b, err := json.Marshal(map[string]any{"format_version": "1.0", "values": map[string]any{"root_module": map[string]any{"resources": []any{
		map[string]any{"mode": "managed", "type": "azurerm_firewall_policy_rule_collection_group", "values": map[string]any{
			"name": "aks", "priority": 300,
			"application_rule_collection": []any{map[string]any{"name": "app", "priority": 200, "action": "Allow", "rule": applications}},
			"network_rule_collection":     []any{map[string]any{"name": "net", "priority": 100, "action": "Allow", "rule": networks}},
		}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
