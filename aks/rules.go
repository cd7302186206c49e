package aks

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Options say how the catalogue is read. The zero Options is the newest
// edition, what works rather than what is stated, and everything recommended.
type Options struct {
	Edition       Date // zero: the newest
	AsStated      bool // the article to the letter
	NoRecommended bool // leave out what is not required
	Wildcards     bool // a region that is not known becomes a *, in names only

	// GatewayAddresses are the addresses that the cluster's traffic comes from
	// behind its firewall, for the lint of authorizedIPRanges.
	GatewayAddresses []netip.Addr

	Catalogue *Catalogue // nil: Embedded
}

// Rule is an egress rule with where it comes from: one row of the article for
// one cloud.
type Rule struct {
	egress.Rule
	Section string   // of the article, see SectionTitle
	Rows    []string // ids of the article's rows; none where the article has none
	State   State    // Needed, or Proxied
	Stated  []string // the article's own words for To, one for one, where To cannot hold them
	Because []string // what switches it on: fields of the cluster's JSON, or the user's words; none for core rows
}

// Result is what a cluster needs.
type Result struct {
	Edition  Date
	AsStated bool
	Rules    []Rule
	Notes    []Note
	Private  []Check // what has to be reachable inside the network in the place of rules
	Seen     []Seen  // what will be seen and opens nothing

	// Endpoints are how an isolated cluster reaches services of Azure, in the place
	// of rules; others have none.
	Endpoints []PrivateEndpoint

	// APIServer is the name by which nodes know the API server; zero if unknown.
	APIServer egress.Name

	// MayResolve are names that the cluster asks DNS for though no rule opens them,
	// since they lead to private addresses.
	MayResolve []egress.Pattern
}

// Egress returns the rules of the firewall: those whose traffic passes it.
func (r *Result) Egress() []egress.Rule {
	var out []egress.Rule
	for _, rule := range r.Rules {
		if rule.State == Needed {
			out = append(out, rule.Rule)
		}
	}
	return out
}

// Rules joins the facts and the catalogue. It fails when a rule is needed and a
// fact for it is not known ([UnfilledError]), never by leaving a rule out. A
// network isolated cluster has no public rule, but private checks.
func (c Cluster) Rules(o Options) (Result, error) {
	if o.Catalogue == nil {
		o.Catalogue = Embedded()
	}
	if o.Edition.IsZero() {
		o.Edition = Newest
	}
	if c.Cloud == 0 {
		return Result{}, errors.New("a cluster in no cloud: use Read or Plan")
	}
	if err := checkVaults(c.KeyVaults); err != nil {
		return Result{}, err
	}
	res := Result{Edition: o.Edition, AsStated: o.AsStated, Seen: o.Catalogue.Seen, APIServer: c.APIServer(), Private: c.checks()}
	b := builder{cluster: &c, options: o}
	for i := range o.Catalogue.Rows {
		b.row(&o.Catalogue.Rows[i])
	}
	b.proxyRules()
	res.MayResolve = c.mayResolve()
	if c.Has(Isolated) {
		res.MayResolve = append(res.MayResolve, b.behindPrivateEndpoints()...)
		res.Endpoints = c.PrivateEndpoints()
		b = builder{}
	}
	res.Rules = b.rules
	res.Notes = slices.Concat(c.notes, c.situation(o), b.notes, shared(b.rules), wide(b.rules), c.lint(o.GatewayAddresses), compare(c.Listed, b.rules))
	return res, errors.Join(b.errs...)
}

// builder gathers the rules of one cluster.
type builder struct {
	cluster *Cluster
	options Options
	rules   []Rule
	notes   []Note
	errs    []error
}

func (b *builder) note(level Level, code, about, text string) {
	b.notes = append(b.notes, Note{level, code, about, text})
}

// behindPrivateEndpoints are the names that an isolated cluster reaches by
// private endpoints, where others have rules.
func (b *builder) behindPrivateEndpoints() []egress.Pattern {
	var out []egress.Pattern
	for _, r := range b.rules {
		for _, e := range r.To {
			if p, ok := e.Host.(egress.Pattern); ok && (r.Section == "keyvault" || r.Section == "monitor") {
				out = append(out, p)
			}
		}
	}
	return out
}

// row adds the row's rule, if its features are on.
func (b *builder) row(r *Row) {
	for _, l := range r.Lines(b.cluster.Cloud, b.options.Edition) {
		because, wanted := b.wanted(r, &l)
		if !wanted || b.options.AsStated && l.Row == "" {
			continue
		}
		if b.options.NoRecommended && r.Need != egress.Required {
			b.dropped(r)
			continue
		}
		to, err := b.endpoints(&l)
		if err != nil {
			var unfilled *UnfilledError
			if errors.As(err, &unfilled) {
				unfilled.Rule = r.ID
			}
			b.errs = append(b.errs, err)
			continue
		}
		if len(to) == 0 {
			continue
		}
		rule := Rule{Section: r.Section, State: Needed, Because: because}
		rule.Rule = egress.Rule{ID: r.ID, Need: r.Need, To: to, Why: r.Why, Source: r.source(&l)}
		if l.Row != "" {
			rule.Rows = []string{l.Row}
		}
		if l.Stated != nil && b.options.AsStated && len(l.Any) == 0 {
			rule.Stated = l.Stated.Text
		}
		b.rules = append(b.rules, rule)
		b.differs(r, &l, to)
	}
}

// wanted asks the row's features, or those of the article to the letter, and
// returns what says that they are on.
func (b *builder) wanted(r *Row, l *Line) (because []string, wanted bool) {
	when, unless := r.When, r.Unless
	if s := l.Stated; s != nil && b.options.AsStated {
		if s.When != nil {
			when = s.When
		}
		if s.Unless != nil {
			unless = s.Unless
		}
	}
	for _, f := range when {
		if !b.cluster.Has(f) {
			return nil, false
		}
		because = append(because, b.cluster.Features[f]...)
	}
	return because, !slices.ContainsFunc(unless, b.cluster.Has)
}

// endpoints fills the line's templates. Of alternatives the last that the
// facts fill is taken, which is the narrowest.
func (b *builder) endpoints(l *Line) ([]egress.Endpoint, error) {
	ts, alternatives := l.templates()
	if s := l.Stated; s != nil && b.options.AsStated {
		switch {
		case s.Take > 0:
			ts = ts[s.Take-1 : s.Take]
		case len(s.To) > 0:
			ts = s.To
		}
	}
	var all []egress.Endpoint
	var err error
	for _, t := range slices.Backward(ts) {
		to, failed := t.fill(b.values)
		switch {
		case failed != nil:
			err = errors.Join(err, failed)
			if !alternatives {
				return nil, failed
			}
		case alternatives:
			return to, nil
		}
		all = slices.Concat(to, all)
	}
	return all, err
}

// values fills placeholders from the facts. To the letter, names stay as wide
// as the article writes them.
func (b *builder) values(name string) ([]string, bool) {
	c := b.cluster
	var vs []string
	switch name {
	case "location", "region", "cluster-region-name":
		vs = one(c.Region)
		if c.Region == "" && b.options.Wildcards {
			vs = []string{"*"}
		}
	case "Region":
		vs = one(TagRegion(c.Region))
	case "RegionCIDRs":
	case "apiserver":
		if !b.options.AsStated {
			vs = one(c.FQDN.String())
		}
	case "APIServerPublicIP":
		vs = hosts(c.APIServerAddrs)
	case "CustomDNSIP":
		vs = hosts(c.DNSServers)
	case "keyvault":
		if !b.options.AsStated {
			vs = c.KeyVaults
		}
	case "any":
		vs = []string{"0.0.0.0/0"}
		if c.IPv6 {
			vs = append(vs, "[::/0]")
		}
	default:
		return nil, false
	}
	return vs, true
}

func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// checkVaults keeps wildcards and foreign hosts out of what becomes a label.
func checkVaults(names []string) error {
	for _, s := range names {
		if _, err := egress.ParseName("x." + s); err != nil || strings.Contains(s, ".") {
			return fmt.Errorf("key vault %q: want the name of a vault, such as kv-prod", s)
		}
	}
	return nil
}

// hosts writes addresses as an endpoint holds them.
func hosts(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		s := a.Unmap().String()
		if a.Unmap().Is6() {
			s = "[" + s + "]"
		}
		out = append(out, s)
	}
	return out
}
