package aks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// maxServiceTags bounds the service tags file: the public cloud's has 4 MB and
// grows by the year.
const maxServiceTags = 64 << 20

// ServiceTags are the prefixes behind the names that Microsoft publishes weekly
// for each cloud.
type ServiceTags struct {
	Cloud    Cloud
	Change   string // the file's change number
	prefixes map[string][]netip.Prefix
}

// ReadServiceTags reads ServiceTags_<Cloud>_<date>.json as downloaded, or the
// form of the resource manager's list.
func ReadServiceTags(r io.Reader) (*ServiceTags, error) {
	b, err := readBounded(r, maxServiceTags)
	if err != nil {
		return nil, fmt.Errorf("service tags: %w", err)
	}
	var file struct {
		ChangeNumber any // a number in the file, a string in the list
		Cloud        string
		Values       []struct {
			Name       string
			Properties struct{ AddressPrefixes []string }
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("service tags: %w", jsonError(b, err))
	}
	if len(file.Values) == 0 {
		return nil, errors.New("service tags: JSON of something else; want ServiceTags_Public_<date>.json")
	}
	t := &ServiceTags{Change: fmt.Sprint(file.ChangeNumber), prefixes: make(map[string][]netip.Prefix, len(file.Values))}
	for _, c := range Clouds {
		if strings.EqualFold(file.Cloud, clouds[c].tags) {
			t.Cloud = c
		}
	}
	if t.Cloud == 0 {
		return nil, fmt.Errorf("service tags: cloud %q has no AKS", file.Cloud)
	}
	for _, v := range file.Values {
		key := strings.ToLower(v.Name)
		for _, s := range v.Properties.AddressPrefixes {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, fmt.Errorf("service tags: %s: %w", v.Name, err)
			}
			t.prefixes[key] = append(t.prefixes[key], p.Masked())
		}
	}
	return t, nil
}

// Prefixes returns what a tag stands for. A tag that is not in the file is an
// error that names it.
func (t *ServiceTags) Prefixes(tag egress.Tag) ([]netip.Prefix, error) {
	if ps := t.prefixes[strings.ToLower(tag.Name())]; len(ps) > 0 {
		return ps, nil
	}
	hint := ""
	if region, ok := strings.CutPrefix(tag.Name(), "AzureCloud."); ok && TagRegion(region) != region {
		hint = fmt.Sprintf("; it is spelled AzureCloud.%s", TagRegion(region))
	}
	return nil, fmt.Errorf("service tag %s is not in the file for the cloud %s (change %s)%s", tag.Name(), t.Cloud, t.Change, hint)
}

// Resolve returns the rules with every service tag written out as its prefixes.
// The given rules are left alone.
func (t *ServiceTags) Resolve(rules []egress.Rule) ([]egress.Rule, error) {
	out := slices.Clone(rules)
	for i := range out {
		to, err := t.endpoints(out[i].To)
		if err != nil {
			return nil, fmt.Errorf("rule %s: %w", out[i].ID, err)
		}
		out[i].To = to
	}
	return out, nil
}

func (t *ServiceTags) endpoints(to []egress.Endpoint) ([]egress.Endpoint, error) {
	var out []egress.Endpoint
	for _, e := range to {
		tag, ok := e.Host.(egress.Tag)
		if !ok {
			out = append(out, e)
			continue
		}
		ps, err := t.Prefixes(tag)
		if err != nil {
			return nil, err
		}
		for _, p := range ps {
			e.Host = egress.Net{Prefix: p}
			out = append(out, e)
		}
	}
	return out, nil
}

// Resolve writes out the service tags of the result's rules.
func (r *Result) Resolve(t *ServiceTags) error {
	for i := range r.Rules {
		to, err := t.endpoints(r.Rules[i].To)
		if err != nil {
			return fmt.Errorf("rule %s: %w", r.Rules[i].ID, err)
		}
		r.Rules[i].To = to
	}
	return nil
}
