package config

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"tidegate.io/tidegate/egress"
)

// What the file leaves out.
const (
	dnsPort           = 53
	defaultManagement = "127.0.0.1:9253"
	defaultState      = "/var/lib/tidegate"
	defaultUpstream   = "168.63.129.16" // Azure's own resolver, reachable from every VM
)

// maxClusters bounds the clusters of one file: more than one gateway's clients
// can be, and few enough to look through one by one.
const maxClusters = 64

// reader turns the text into values.
type reader struct {
	file file
	open Open
	out  Gateway
	ids  map[string]bool // of the rules in out
}

func (r *reader) gateway() (*Gateway, error) {
	for _, step := range []func() error{r.settings, r.dns, r.clusters, r.rules, r.tags} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	var err error
	if r.out.policy, err = r.out.Policy(); err != nil {
		if r.file.ServiceTags.line == 0 && strings.Contains(err.Error(), "service tag") {
			err = fmt.Errorf("%w; name Microsoft's file of them under serviceTags", err)
		}
		return nil, err
	}
	return &r.out, nil
}

func (r *reader) settings() (err error) {
	f, out := &r.file, &r.out
	out.Masquerade = f.Masquerade == nil || *f.Masquerade
	if out.Management, err = optional(f.Management, netip.MustParseAddrPort(defaultManagement), addressAt(netip.MustParseAddrPort(defaultManagement).Port())); err != nil {
		return err
	}
	if out.Proxy, err = optional(f.Proxy.Listen, netip.AddrPort{}, netip.ParseAddrPort); err != nil {
		return err
	}
	out.State = defaultState
	if f.State.line != 0 {
		out.State = f.State.text
	}
	out.FlowLog = f.Log.Flows.text
	return nil
}

func (r *reader) dns() (err error) {
	d := &r.file.DNS
	if r.out.Upstream, err = values(d.Upstream, addressAt(dnsPort)); err != nil {
		return err
	}
	if len(r.out.Upstream) == 0 {
		r.out.Upstream = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(defaultUpstream), dnsPort)}
	}
	if r.out.Listen, err = values(d.Listen, addressAt(dnsPort)); err != nil {
		return err
	}
	zones, err := values(d.Also, parseZone)
	for _, z := range zones {
		r.out.Also = append(r.out.Also, z...)
	}
	return err
}

func (r *reader) clusters() error {
	if len(r.file.Clusters) == 0 {
		return errors.New("clusters: none; the gateway would have no clients")
	}
	if len(r.file.Clusters) > maxClusters {
		return fmt.Errorf("clusters: %d, more than %d", len(r.file.Clusters), maxClusters)
	}
	for _, fc := range r.file.Clusters {
		if err := r.cluster(fc); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) cluster(fc fileCluster) (err error) {
	var c Cluster
	c.Name, c.ByAddress = fc.Name.text, true
	if c.Name == "" {
		return lineError{max(fc.Name.line, fc.AKS.line, 1), "a cluster without a name"}
	}
	if c.From, err = values(fc.From, parsePrefix); err != nil {
		return err
	}
	if len(c.From) == 0 {
		return lineError{fc.Name.line, fmt.Sprintf("cluster %s: from: none; say where its nodes are", c.Name)}
	}
	if c.Internal, err = values(fc.Internal, parsePrefix); err != nil {
		return err
	}
	if c.Mode, err = optional(fc.Mode, Enforce, parseMode); err != nil {
		return err
	}
	if c.DNS, err = optional(fc.DNS, DNSShows, parseDNS); err != nil {
		return err
	}
	if c.ByAddress, err = optional(fc.APIServer, true, parseByAddress); err != nil {
		return err
	}
	if err := r.needs(&c, fc.AKS); err != nil {
		return err
	}
	r.out.Clusters = append(r.out.Clusters, c)
	return nil
}

func (r *reader) rules() error {
	r.out.needs = len(r.out.Rules)
	r.ids = make(map[string]bool, len(r.out.Rules)+len(r.file.Rules))
	for i := range r.out.Rules {
		r.ids[r.out.Rules[i].ID] = true
	}
	to := destinations(r.file.Rules)
	for i, fr := range r.file.Rules {
		rule, err := r.rule(i, fr, to[i])
		if err != nil {
			return err
		}
		r.out.Rules = append(r.out.Rules, rule)
	}
	return nil
}

// destination is what a rule's to says, or why it cannot be read.
type destination struct {
	to  []egress.Endpoint
	err error
}

// destinations reads where the rules lead to, which is most of the work of a large file, on
// all processors.
func destinations(rules []fileRule) []destination {
	read := make([]destination, len(rules))
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(len(rules), runtime.NumCPU()) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(rules)); i = next.Add(1) - 1 {
				read[i].to, read[i].err = values(rules[i].To, parseEndpoint)
			}
		})
	}
	all.Wait()
	return read
}

func (r *reader) rule(i int, fr fileRule, d destination) (rule egress.Rule, err error) {
	if fr.ID.text == "" {
		return rule, fmt.Errorf("rules: the %s rule has no id", ordinal(i+1))
	}
	// They are kept, and the file's text is not.
	rule = egress.Rule{ID: strings.Clone(fr.ID.text), Why: strings.Clone(fr.Why.text), Source: strings.Clone(fr.Source.text)}
	if r.ids[rule.ID] {
		return rule, lineError{fr.ID.line, fmt.Sprintf("rule %s: there is one of this id already", rule.ID)}
	}
	r.ids[rule.ID] = true
	if rule.Source == "" {
		rule.Source = fmt.Sprintf("line %d of the gateway's file", fr.ID.line)
	}
	if rule.Need, err = optional(fr.Need, egress.Required, egress.ParseNeed); err != nil {
		return rule, err
	}
	if len(fr.To) == 0 {
		return rule, lineError{fr.ID.line, fmt.Sprintf("rule %s: to: none", rule.ID)}
	}
	if rule.To = d.to; d.err != nil {
		return rule, d.err
	}
	for _, w := range fr.From {
		from, err := value(w, r.clients)
		if err != nil {
			return rule, err
		}
		rule.From = append(rule.From, from...)
	}
	return rule, nil
}

// clients reads a cluster's name, or a prefix.
func (r *reader) clients(s string) ([]netip.Prefix, error) {
	for _, c := range r.out.Clusters {
		if c.Name == s {
			return c.From, nil
		}
	}
	p, err := parsePrefix(s)
	if err != nil {
		return nil, fmt.Errorf("from %q: neither a cluster of this file nor a prefix", s)
	}
	return []netip.Prefix{p}, nil
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprint(n) + suffix
}
