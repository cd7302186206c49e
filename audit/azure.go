package audit

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Azure's resources come in several spellings: az flattens the resource
// manager's "properties", templates nest resources, and the classic firewall
// splits its collections by kind. One struct reads them all, and readers ask for
// what is there. Field names match without regard to case.

type azureResource struct {
	ID         string
	Type       string
	Name       string
	Properties *azureFields
	azureFields
	Resources []azureResource
}

type azureFields struct {
	Priority        int
	RuleCollections []azureCollection
	DNSSettings     *struct{ EnableProxy bool }
	BasePolicy      *struct{ ID string }
	IPAddresses     []string

	// The classic firewall.
	ApplicationRuleCollections []azureCollection
	NetworkRuleCollections     []azureCollection

	// A network security group, or one rule of it.
	SecurityRules        *[]nsgRule
	DefaultSecurityRules []nsgRule
	nsgFields
}

type azureCollection struct {
	Name               string
	RuleCollectionType string
	azureCollectionFields
	Properties *azureCollectionFields
}

type azureCollectionFields struct {
	Priority int
	Action   *struct{ Type string }
	Rules    []azureRule
}

type azureRule struct {
	RuleType        string
	Name            string
	SourceAddresses []string
	SourceIPGroups  []string

	Protocols     azureProtocols
	TargetFQDNs   []string
	TargetURLs    []string
	FQDNTags      []string
	WebCategories []string
	TerminateTLS  bool

	IPProtocols          []string
	DestinationAddresses []string
	DestinationIPGroups  []string
	DestinationFQDNs     []string
	DestinationPorts     []string
}

// azureProtocols are objects in an application rule, and words in a network
// rule of the classic firewall.
type azureProtocols []azureProtocol

type azureProtocol struct {
	ProtocolType string
	Port         int
	word         string
}

func (ps *azureProtocols) UnmarshalJSON(b []byte) error {
	var words []string
	if json.Unmarshal(b, &words) == nil {
		for _, w := range words {
			*ps = append(*ps, azureProtocol{word: w})
		}
		return nil
	}
	type plain azureProtocols
	return json.Unmarshal(b, (*plain)(ps))
}

// readJSON tells the formats of JSON apart.
func (p *Policy) readJSON(b []byte) error {
	var head struct {
		Kind          string
		Items         json.RawMessage
		Value         []json.RawMessage
		FormatVersion string `json:"format_version"`
	}
	var all []azureResource
	read := func(v any) error {
		if err := json.Unmarshal(b, v); err != nil {
			return fmt.Errorf("JSON: %w", err)
		}
		return nil
	}
	if b[0] == '[' {
		if err := read(&all); err != nil {
			return err
		}
		return p.readAzure(all)
	}
	if err := read(&head); err != nil {
		return err
	}
	switch {
	case head.FormatVersion != "":
		return p.readTerraform(b)
	case len(head.Items) > 0 && (head.Kind == "EndpointList" || head.Kind == "Rules"):
		return p.readItems(head.Items)
	case head.Kind != "":
		return p.readCilium(b) // Kubernetes' JSON
	case head.Value != nil:
		var page struct{ Value []azureResource }
		if err := read(&page); err != nil {
			return err
		}
		return p.readAzure(page.Value)
	}
	all = make([]azureResource, 1)
	if err := read(&all[0]); err != nil {
		return err
	}
	return p.readAzure(all)
}

func (p *Policy) readAzure(all []azureResource) error {
	a := azureReader{Policy: p, groups: map[string][]netip.Prefix{}}
	a.collectGroups(all, 0)
	return a.resources(all, 0)
}

// maxNesting bounds templates within templates.
const maxNesting = 8

type azureReader struct {
	*Policy
	groups map[string][]netip.Prefix // IP groups of the same file, by lower-case name
	loose  []nsgRule                 // of a security group, as resources of their own
	owner  string                    // the policy of the rule collection group that is read
}

func (r *azureResource) fields() *azureFields {
	if r.Properties != nil {
		return r.Properties
	}
	return &r.azureFields
}

func (a *azureReader) collectGroups(rs []azureResource, depth int) {
	for i := range rs {
		if depth < maxNesting {
			a.collectGroups(rs[i].Resources, depth+1)
		}
		if f := rs[i].fields(); f.IPAddresses != nil {
			a.group(rs[i].Name, f.IPAddresses)
		}
	}
}

func (a *azureReader) group(name string, addrs []string) {
	var ps []netip.Prefix
	for _, s := range addrs {
		more, ok := azurePrefixes(s)
		if !ok {
			a.unread("IP group "+name, "address %q", s)
		}
		ps = append(ps, more...)
	}
	a.groups[lower(lastName(name))] = ps
}

// lastName is the name at the end of a resource id or of a template's expression.
func lastName(s string) string {
	s = strings.TrimRight(s, "')]")
	return s[strings.LastIndexAny(s, "/'(")+1:]
}

func (a *azureReader) resources(rs []azureResource, depth int) error {
	for i := range rs {
		r := &rs[i]
		if depth < maxNesting {
			if err := a.resources(r.Resources, depth+1); err != nil {
				return err
			}
		}
		f := r.fields()
		if f.DNSSettings != nil {
			a.dnsProxy = &f.DNSSettings.EnableProxy
		} else if strings.EqualFold(r.Type, "Microsoft.Network/firewallPolicies") {
			a.dnsProxy = new(bool) // off, unless it is said
		}
		if f.BasePolicy != nil {
			a.inherits(r.Name, f.BasePolicy.ID)
		}
		var err error
		switch {
		case f.RuleCollections != nil:
			err = a.ruleGroup(r, f)
		case f.ApplicationRuleCollections != nil || f.NetworkRuleCollections != nil:
			err = a.classic(f)
		case f.SecurityRules != nil:
			err = a.securityGroup(r.Name, f)
		case strings.EqualFold(r.Type, "Microsoft.Network/networkSecurityGroups/securityRules"):
			a.loose = append(a.loose, nsgRule{Name: lastName(r.Name), Priority: f.Priority, nsgFields: f.nsgFields})
		}
		if err != nil {
			return err
		}
	}
	if a.Format == "" && depth == 0 {
		a.Format = AzureFirewall
	}
	if depth == 0 {
		return a.looseRules()
	}
	return nil
}

func (a *azureReader) ruleGroup(r *azureResource, f *azureFields) error {
	a.Format = AzureFirewall
	a.owner = a.groupOf(policyOf(r.Name, r.ID))
	for i := range f.RuleCollections {
		c := &f.RuleCollections[i]
		if strings.Contains(strings.ToLower(c.RuleCollectionType), "nat") {
			continue // inbound
		}
		if err := a.collection(lastName(r.Name), []int{f.Priority}, c, ""); err != nil {
			return err
		}
	}
	return nil
}

func (a *azureReader) classic(f *azureFields) error {
	a.Format = AzureFirewall
	for i := range f.NetworkRuleCollections {
		if err := a.collection("", nil, &f.NetworkRuleCollections[i], "NetworkRule"); err != nil {
			return err
		}
	}
	for i := range f.ApplicationRuleCollections {
		if err := a.collection("", nil, &f.ApplicationRuleCollections[i], "ApplicationRule"); err != nil {
			return err
		}
	}
	return nil
}

func (a *azureReader) collection(group string, priority []int, c *azureCollection, kind string) error {
	f := &c.azureCollectionFields
	if c.Properties != nil {
		f = c.Properties
	}
	if f.Action == nil {
		return fmt.Errorf("collection %q: no action; is this the output of: az network firewall policy rule-collection-group show?", c.Name)
	}
	base := grant{policy: a.owner, deny: !strings.EqualFold(f.Action.Type, "Allow"), priority: append(priority[:len(priority):len(priority)], f.Priority)}
	for i := range f.Rules {
		r := &f.Rules[i]
		g := base
		g.at = join(group, c.Name, r.Name)
		from, ok := a.addresses(r.SourceAddresses, r.SourceIPGroups, g.at, "source")
		if !ok && !g.deny {
			continue
		}
		g.from = from
		var err error
		switch what := kind + r.RuleType; {
		case strings.EqualFold(what, "ApplicationRule"):
			err = a.applicationRule(g, r)
		case strings.EqualFold(what, "NetworkRule"):
			err = a.networkRule(g, r)
		case !strings.EqualFold(what, "NatRule"):
			a.unread(g.at, "rule of type %q", what)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addresses joins prefixes and IP groups; every address is none. It reports
// whether anything of what is written was understood.
func (a *azureReader) addresses(written, groups []string, at, what string) ([]netip.Prefix, bool) {
	var out []netip.Prefix
	for _, s := range written {
		ps, ok := azurePrefixes(s)
		if !ok {
			a.unread(at, "%s %q", what, s)
		}
		for _, p := range ps {
			if p.Bits() == 0 {
				return nil, true
			}
		}
		out = append(out, ps...)
	}
	for _, s := range groups {
		ps, known := a.groups[lower(lastName(s))]
		if !known {
			a.unread(at, "%s: IP group %s is not in the file", what, lastName(s))
		}
		out = append(out, ps...)
	}
	return out, len(out) > 0
}

func (a *azureReader) applicationRule(g grant, r *azureRule) error {
	g.tier = applicationTier
	g.inspect = r.TerminateTLS
	for _, u := range r.TargetURLs {
		a.unread(g.at, "URL %q, of which a firewall that does not inspect TLS sees the host only", u)
	}
	for _, c := range r.WebCategories {
		a.unread(g.at, "web category %q, whose sites are not published", c)
	}
	if len(r.TargetFQDNs)+len(r.FQDNTags)+len(r.TargetURLs)+len(r.WebCategories) == 0 {
		a.unread(g.at, "a rule without a destination that is known")
	}
	for _, proto := range r.Protocols {
		p, err := egress.ParseProto(strings.ToLower(proto.ProtocolType))
		if err != nil || !p.Named() || proto.Port < 1 || proto.Port > 65535 {
			a.unread(g.at, "protocol %s:%d", proto.ProtocolType, proto.Port)
			continue
		}
		g.protos = []egress.Proto{p}
		g.ports = egress.Ports{First: uint16(proto.Port), Last: uint16(proto.Port)}
		for _, s := range r.TargetFQDNs {
			g.text = s
			n, ok := azureNames(s)
			if !ok {
				a.unread(g.at, "name %q: %s", s, whyNotAzure(s))
				continue
			}
			g.to = target{names: n}
			if err := a.add(g); err != nil {
				return err
			}
		}
		for _, s := range r.FQDNTags {
			g.text, g.to = s, target{fqdnTag: s}
			if err := a.add(g); err != nil {
				return err
			}
		}
	}
	return nil
}

func whyNotAzure(s string) string {
	if i := strings.LastIndexByte(s, '*'); i > 0 {
		return "Azure takes a * on the left only"
	}
	return "not a name"
}

func (a *azureReader) networkRule(g grant, r *azureRule) error {
	g.tier = networkTier
	words := r.IPProtocols
	for _, p := range r.Protocols {
		words = append(words, p.word)
	}
	for _, w := range words {
		switch strings.ToLower(w) {
		case "tcp":
			g.protos = append(g.protos, egress.TCP)
		case "udp":
			g.protos = append(g.protos, egress.UDP)
		case "any":
			g.protos = append(g.protos, egress.TCP, egress.UDP)
		case "icmp":
		default:
			a.unread(g.at, "protocol %q", w)
		}
	}
	if len(g.protos) == 0 {
		return nil
	}
	targets := a.networkTargets(g.at, r)
	if len(r.DestinationFQDNs)+len(r.DestinationAddresses)+len(r.DestinationIPGroups) == 0 {
		a.unread(g.at, "a rule without a destination that is known")
	}
	for _, s := range r.DestinationPorts {
		ports, ok := azurePorts(s)
		if !ok {
			a.unread(g.at, "port %q", s)
			continue
		}
		g.ports = ports
		for _, t := range targets {
			g.text, g.to = t.text, t.to
			if err := a.add(g); err != nil {
				return err
			}
		}
	}
	return nil
}

type writtenTarget struct {
	text string
	to   target
	open bool // anything may follow the name
}

func (a *azureReader) networkTargets(at string, r *azureRule) []writtenTarget {
	var out []writtenTarget
	for _, s := range r.DestinationFQDNs {
		n, ok := azureNames(s)
		if !ok || !n.exact() {
			a.unread(at, "name %q: network rules take whole names only", s)
			continue
		}
		out = append(out, writtenTarget{text: s, to: target{names: n}})
	}
	for _, s := range r.DestinationAddresses {
		ts, ok := azureTargets(s)
		if !ok {
			a.unread(at, "destination %q", s)
		}
		out = append(out, ts...)
	}
	for _, s := range r.DestinationIPGroups {
		ps, known := a.groups[lower(lastName(s))]
		if !known {
			a.unread(at, "destination: IP group %s is not in the file", lastName(s))
		}
		for _, p := range ps {
			out = append(out, writtenTarget{text: lastName(s) + " (" + p.String() + ")", to: target{net: p}})
		}
	}
	return out
}

func join(words ...string) string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return strings.Join(out, "/")
}
