package audit

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Needs is what a policy is held against.
type Needs struct {
	Rules     []egress.Rule
	APIServer egress.Name    // zero: not known
	From      []netip.Prefix // the cluster's clients; none: their addresses are not known, and sources are not compared

	// Tagged reports whether the FQDN tag AzureKubernetesService stands for a rule;
	// nil: for none.
	Tagged func(id string) bool
	// Prefixes returns what a service tag stands for; nil: not known.
	Prefixes func(tag string) []netip.Prefix
}

const aksTag = "AzureKubernetesService"

func (n *Needs) prefixes(tag string) []netip.Prefix {
	if n.Prefixes == nil || tag == "" {
		return nil
	}
	return n.Prefixes(tag)
}

// Kind is what a finding is about. The words stay the same, for programs.
type Kind string

// The kinds, in the order of a report.
const (
	Missing       Kind = "missing"        // a need that nothing permits
	Denied        Kind = "denied"         // a need that a rule denies before another permits it
	PartlyDenied  Kind = "partly-denied"  // some of a need is denied
	TLSInspection Kind = "tls-inspection" // of the API server's name
	NoDNSProxy    Kind = "no-dns-proxy"   // names in network rules, whose addresses the firewall does not know
	Masked        Kind = "masked"         // a network rule comes before application rules, which are not asked then
	Unreachable   Kind = "unreachable"    // an earlier rule matches all that this one does
	Wide          Kind = "wide"           // more is open than is needed
	Retired       Kind = "retired"        // a rule for what is no longer there
	Unclear       Kind = "unclear"        // what is open cannot be said
)

// Level is how much a finding matters. The zero Level is Info.
type Level uint8

// The levels.
const (
	Info Level = iota
	Warning
	Error
)

// String returns the word.
func (l Level) String() string { return [...]string{"info", "warning", "error"}[l] }

// MarshalText is String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is one thing that is wrong with a policy.
type Finding struct {
	Kind     Kind            `json:"kind"`
	Level    Level           `json:"level"`
	Need     string          `json:"need,omitempty"` // the id of the rule that is not met
	Endpoint egress.Endpoint `json:"endpoint,omitzero"`
	At       string          `json:"at,omitempty"`   // the firewall's rule
	Text     string          `json:"text,omitempty"` // its destination as written
	Why      string          `json:"why"`
	Breaks   string          `json:"breaks,omitempty"` // what the need is for
	Fix      string          `json:"fix,omitempty"`    // in the policy's own format

	rank int // among wide ones
}

// Cover is a need that is met, and by what.
type Cover struct {
	Need     string          `json:"need,omitempty"`
	Endpoint egress.Endpoint `json:"endpoint,omitzero"`
	At       string          `json:"at"`
	Text     string          `json:"text"`
}

// Report is a policy held against needs.
type Report struct {
	Format   Format
	Findings []Finding // the most serious first
	Covered  []Cover
	Others   []Cover  // whole names and the like that are open and serve no need, such as those of your workloads; Need and Endpoint are zero
	Unread   []string // what was not understood
}

// Lacks reports whether anything required is missing or denied.
func (r *Report) Lacks() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Level == Error && (f.Kind == Missing || f.Kind == Denied)
	})
}

// Clean reports whether there is nothing to do.
func (r *Report) Clean() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level > Info })
}

var kindOrder = []Kind{Missing, Denied, PartlyDenied, TLSInspection, NoDNSProxy, Masked, Unreachable, Wide, Unclear, Retired}

// Judge holds the policy against the needs.
func (p *Policy) Judge(n Needs) Report {
	j := judge{Policy: p, needs: &n, report: Report{Format: p.Format, Unread: p.Unread}, used: make([]bool, len(p.grants)), dead: make([]bool, len(p.grants))}
	for i := range n.Rules {
		for _, e := range n.Rules[i].To {
			j.need(&n.Rules[i], e)
		}
	}
	j.report.Findings = append(j.report.Findings, p.unclear...)
	j.inspection()
	j.dnsProxies()
	j.order()
	j.breadth()
	j.retired()
	j.report.Unread = append(slices.Clone(j.report.Unread), p.unknownLineage()...)
	slices.SortStableFunc(j.report.Findings, func(a, b Finding) int {
		return cmp.Or(slices.Index(kindOrder, a.Kind)-slices.Index(kindOrder, b.Kind), int(b.Level)-int(a.Level), b.rank-a.rank)
	})
	return j.report
}

type judge struct {
	*Policy
	needs  *Needs
	report Report
	used   []bool // grants that a need is covered or touched by
	dead   []bool // grants that are never asked
}

func (j *judge) say(f Finding) { j.report.Findings = append(j.report.Findings, f) }

// need finds what decides about one endpoint.
func (j *judge) need(r *egress.Rule, e egress.Endpoint) {
	var near []string
	partly, last := -1, -1 // denials: of a part, and of everything at the end
	for i := range j.grants {
		g := &j.grants[i]
		covers := g.covers(e, j.needs) || j.byTag(g, r, e)
		switch {
		case !covers && !g.touches(e, j.needs):
			if g.nearly(e, j.needs) {
				near = append(near, fmt.Sprintf("%s permits %s, but for %s", g.at, clip(g.text), g.service()))
			}
		case !g.admits(j.needs.From) && g.deny:
			partly = i
		case !g.admits(j.needs.From):
			j.used[i] = true
			near = append(near, fmt.Sprintf("%s permits it, but not to all of the cluster's clients", g.at))
		case g.deny && covers && g.to.anywhere() && !j.permittedAfter(i, r, e):
			last = i
		case g.deny && covers:
			if len(near) > 0 && j.together(r, e) {
				return
			}
			j.used[i] = true
			j.lacks(Denied, r, e, g, fmt.Sprintf("%s denies %s, and is asked before any rule that permits it.", g.at, clip(g.text)))
			return
		case last >= 0:
		case g.deny:
			partly = i
		case covers:
			j.used[i] = true
			j.report.Covered = append(j.report.Covered, Cover{r.ID, e, g.at, g.text})
			j.partlyDenied(partly, g, r, e)
			return
		default:
			j.used[i] = true
			near = append(near, fmt.Sprintf("%s permits only a part of it, %s", g.at, clip(g.text)))
		}
	}
	if len(near) > 0 && j.together(r, e) {
		return
	}
	j.unmet(r, e, near, last)
}

// partlyDenied says that the grant of that index, if it is not -1, denies a part
// of what g permits, unless others have permitted that part before.
func (j *judge) partlyDenied(partly int, g *grant, r *egress.Rule, e egress.Endpoint) {
	if partly < 0 {
		return
	}
	if _, whole := j.byUnion(r, e); whole {
		return
	}
	d := &j.grants[partly]
	j.say(Finding{Kind: PartlyDenied, Level: Warning, Need: r.ID, Endpoint: e, At: d.at, Text: d.text, Breaks: r.Why,
		Why: fmt.Sprintf("%s denies %s, which is part of it, before %s permits the rest.", d.at, clip(d.text), g.at)})
}

// unmet is a need that no rule permits, but perhaps by its addresses. near are
// the rules that almost do, and last denies everything, if it is not -1.
func (j *judge) unmet(r *egress.Rule, e egress.Endpoint, near []string, last int) {
	if at, text, ok := j.byServiceTag(e); ok {
		j.report.Covered = append(j.report.Covered, Cover{r.ID, e, at, text})
		return
	}
	if i := indexRetired(e); i >= 0 {
		j.say(Finding{Kind: Missing, Level: Info, Need: r.ID, Endpoint: e, Breaks: r.Why, Why: "Nothing permits it, and nothing has to: " + retired[i].why})
		return
	}
	why := "Nothing permits it."
	if len(near) > 0 {
		why = "Nothing permits all of it: " + strings.Join(near[:min(len(near), maxNear)], "; ") + "."
	}
	if last >= 0 {
		why += fmt.Sprintf(" What is left, %s denies.", j.grants[last].at)
	}
	j.lacks(Missing, r, e, nil, why)
}

// permittedAfter reports whether a rule behind the i-th permits the endpoint.
func (j *judge) permittedAfter(i int, r *egress.Rule, e egress.Endpoint) bool {
	for k := i + 1; k < len(j.grants); k++ {
		if g := &j.grants[k]; !g.deny && !g.builtin && (g.covers(e, j.needs) || j.byTag(g, r, e)) {
			return true
		}
	}
	return false
}

// maxNear bounds the near misses that one finding tells of.
const maxNear = 3

func (j *judge) lacks(k Kind, r *egress.Rule, e egress.Endpoint, by *grant, why string) {
	f := Finding{Kind: k, Level: Error - min(Level(r.Need), Error), Need: r.ID, Endpoint: e, Why: why, Breaks: r.Why, Fix: j.fix(r, e)}
	if by != nil {
		f.At, f.Text = by.at, by.text
	}
	j.say(f)
}

// byTag: the FQDN tag for AKS stands for the documented names on the tag's two
// services.
func (j *judge) byTag(g *grant, r *egress.Rule, e egress.Endpoint) bool {
	return strings.EqualFold(g.to.fqdnTag, aksTag) && e.Proto.Named() && g.speaks(e.Proto) && within(e.Ports, g.ports) && j.needs.Tagged != nil && j.needs.Tagged(r.ID)
}

// nearly: the host is right, and the protocol or the port is not.
func (g *grant) nearly(e egress.Endpoint, n *Needs) bool {
	return !g.deny && !g.to.anywhere() && g.to.holds(e.Host, n)
}

// service is what the grant is for, in short.
func (g *grant) service() string {
	words := make([]string, len(g.protos))
	for i, p := range g.protos {
		words[i] = p.String()
	}
	return strings.Join(words, "+") + ":" + g.ports.String()
}

// inspection: the API server speaks with client certificates, a private CA and
// protocols of its own in the ALPN, none of which survive it.
func (j *judge) inspection() {
	if j.needs.APIServer.IsZero() {
		return
	}
	api := j.needs.APIServer
	say := func(at, text string) {
		j.say(Finding{Kind: TLSInspection, Level: Error, At: at, Text: text,
			Why: fmt.Sprintf("TLS inspection covers the API server's name, %s: Konnectivity, node bootstrap and client certificates fail behind it.", api)})
	}
	for _, g := range j.grants {
		if g.inspect && !g.deny && g.to.names.has(api.String()) && slices.Contains(j.deciding(api), g.at) {
			say(g.at, g.text)
			break
		}
	}
	for _, b := range j.bumped {
		if b.names.has(api.String()) {
			say(b.at, "")
			break
		}
	}
}

// deciding is the rule that a client's connection to the API server comes to,
// if any.
func (j *judge) deciding(api egress.Name) []string {
	e := egress.Endpoint{Proto: egress.HTTPS, Host: egress.Exactly(api), Ports: egress.Ports{First: 443, Last: 443}}
	for i := range j.grants {
		if j.grants[i].covers(e, j.needs) {
			return []string{j.grants[i].at}
		}
	}
	return nil
}

// dnsProxies: a network rule by name knows addresses from the firewall's own DNS
// proxy only.
func (j *judge) dnsProxies() {
	var at []string
	for _, g := range j.grants {
		if g.tier == networkTier && !g.deny && !g.to.names.none() && !slices.Contains(at, g.at) {
			at = append(at, g.at)
		}
	}
	if len(at) == 0 || j.dnsProxy != nil && *j.dnsProxy {
		return
	}
	switch j.Format {
	case AzureFirewall, Terraform:
		f := Finding{Kind: NoDNSProxy, Level: Warning, At: list(at), Fix: `"dnsSettings": {"enableProxy": true}`,
			Why: "Network rules by name need the firewall's DNS proxy, which is off, and clients that ask it: without it the rules match nothing reliably."}
		if j.Format == Terraform {
			f.Fix = "dns { proxy_enabled = true }"
		}
		if j.dnsProxy == nil {
			f.Level, f.Why = Info, "Network rules by name need the firewall's DNS proxy, and clients that ask it; whether it is on is not in this file, but in the policy's own."
		}
		j.say(f)
	case Cilium:
		j.say(Finding{Kind: NoDNSProxy, Level: Error, At: list(at), Fix: ciliumDNS,
			Why: "toFQDNs learns addresses from DNS that passes Cilium's proxy, and no policy here has a DNS rule: the names match nothing."})
	}
}

const ciliumDNS = `- toEndpoints:
  - matchLabels: {"k8s:io.kubernetes.pod.namespace": kube-system, k8s-app: kube-dns}
  toPorts:
  - ports: [{port: "53", protocol: ANY}]
    rules: {dns: [{matchPattern: "*"}]}`

// list joins names, of which a few are enough.
func list(names []string) string {
	if len(names) > maxNear {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNear], ", "), len(names)-maxNear)
	}
	return strings.Join(names, ", ")
}

// clip shortens what came from a file.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}
