package export

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Policy is what is written, in plain values.
type Policy struct {
	Name      string         // the cluster's, for comments and the names of objects; empty is "aks"
	Rules     []egress.Rule  // of unique ids
	From      []netip.Prefix // the clients of rules that name none; empty is every client
	Resolvers []netip.Addr   // whom a proxy or DNS server asks; empty is Azure's own
	Namespace string         // of Kubernetes objects that have one; empty is "default"

	// Tagged are the ids of the rules that Azure Firewall's FQDN tag
	// AzureKubernetesService is documented to stand for.
	Tagged []string
}

// Widening is a way to open more than a rule says, where the target cannot say
// it. None is done unless it is asked for by name.
type Widening string

// The widenings.
const (
	WidenWildcard   Widening = "wildcard"    // a * within a name becomes every name below what is right of it
	WidenAnyAddress Widening = "any-address" // a name becomes every address, on the same ports
	WidenAnyClient  Widening = "any-client"  // a rule of some clients becomes one of all
	WidenTag        Widening = "fqdn-tag"    // Azure Firewall's AzureKubernetesService in the place of the rules it stands for
)

var widenings = []Widening{WidenWildcard, WidenAnyAddress, WidenAnyClient, WidenTag}

// ParseWidening reads the name of a widening.
func ParseWidening(s string) (Widening, error) {
	if w := Widening(s); slices.Contains(widenings, w) {
		return w, nil
	}
	return "", fmt.Errorf("widening %q: want %s", s, join(widenings, ", "))
}

// Gap is what a target cannot say as the rule says it.
type Gap struct {
	Rule     string          `json:"rule,omitempty"`     // its id; empty where several rules are meant
	Endpoint egress.Endpoint `json:"endpoint,omitzero"`  // what of the rule
	Why      string          `json:"why"`                // a sentence
	Widening Widening        `json:"widening,omitempty"` // what would write it, wider than it is; empty is nothing
	Widened  bool            `json:"widened"`            // true: written, and wider; false: left out
}

// String returns the gap in one line.
func (g Gap) String() string {
	var b strings.Builder
	for _, s := range []string{g.Rule, g.Endpoint.String()} {
		if s != "" {
			b.WriteString(s + ": ")
		}
	}
	switch {
	case g.Widened:
		b.WriteString("opened wider: ")
	default:
		b.WriteString("left out: ")
	}
	b.WriteString(g.Why)
	if g.Widening != "" && !g.Widened {
		fmt.Fprintf(&b, " (--allow-widening %s writes it)", g.Widening)
	}
	return b.String()
}

// File is one file of an output.
type File struct {
	Name string // without a folder
	Data []byte
}

// Output is a written policy. Most formats have one file.
type Output struct {
	Files []File
	Gaps  []Gap // in the order of the rules
}

// Export writes the policy. It fails when the policy itself is not one: a rule
// without an id, or two of the same.
func (f *Format) Export(p Policy, allow ...Widening) (Output, error) {
	if p.Name == "" {
		p.Name = "aks"
	}
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	if len(p.Resolvers) == 0 {
		p.Resolvers = []netip.Addr{azureDNS}
	}
	seen := map[string]bool{}
	for _, r := range p.Rules {
		if r.ID == "" || seen[r.ID] {
			return Output{}, fmt.Errorf("export to %s: rule id %q: want one, and only once", f.Name, r.ID)
		}
		seen[r.ID] = true
	}
	j := &job{Policy: p, format: f, allow: allow}
	files := f.write(j)
	order := map[string]int{} // 0 for gaps of several rules
	for i, r := range p.Rules {
		order[r.ID] = i + 1
	}
	slices.SortStableFunc(j.gaps, func(a, b Gap) int { return order[a.Rule] - order[b.Rule] })
	return Output{files, j.gaps}, nil
}

// azureDNS is the resolver that every virtual network has.
var azureDNS = netip.AddrFrom4([4]byte{168, 63, 129, 16})

// job is one export under way.
type job struct {
	Policy
	format *Format
	allow  []Widening
	gaps   []Gap
}

// gap says that e of r is left out.
func (j *job) gap(r *egress.Rule, e egress.Endpoint, why string, args ...any) {
	j.gaps = append(j.gaps, Gap{Rule: r.ID, Endpoint: e, Why: fmt.Sprintf(why, args...)})
}

// widen reports whether w was asked for, and says what is wider or left out.
func (j *job) widen(r *egress.Rule, e egress.Endpoint, w Widening, why string, args ...any) bool {
	ok := slices.Contains(j.allow, w)
	j.gaps = append(j.gaps, Gap{r.ID, e, fmt.Sprintf(why, args...), w, ok})
	return ok
}

// title is what the comment at the head of a file says.
func (j *job) title() string {
	return fmt.Sprintf("Outbound rules of the AKS cluster %s, written by tidegate export --to %s.", j.Name, j.format.Name)
}

// one is an output of one file.
func one(name string, data []byte) []File { return []File{{name, data}} }

func join[T ~string](list []T, sep string) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = string(s)
	}
	return strings.Join(words, sep)
}
