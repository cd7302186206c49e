package aks

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Listed is one endpoint of what Azure itself lists for a cluster.
type Listed struct {
	Category string
	Endpoint egress.Endpoint
}

// ReadListed reads what `az aks egress-endpoints list` or the resource
// manager's outboundNetworkDependenciesEndpoints prints.
func ReadListed(r io.Reader) ([]Listed, error) {
	type category struct {
		Category  string
		Endpoints []struct {
			DomainName      string
			EndpointDetails []struct {
				Port     int
				Protocol string
			}
		}
	}
	categories, err := readList[category](r)
	if err != nil {
		return nil, fmt.Errorf("egress endpoints: %w", err)
	}
	var out []Listed
	for i, cat := range categories {
		if cat.Category == "" {
			return nil, fmt.Errorf("egress endpoints: item %d has no category; want the output of: az aks egress-endpoints list", i+1)
		}
		for _, e := range cat.Endpoints {
			for _, d := range e.EndpointDetails {
				text := strings.ToLower(d.Protocol) + "://" + e.DomainName + ":" + strconv.Itoa(d.Port)
				to, err := egress.ParseEndpoint(text)
				if err != nil {
					return nil, fmt.Errorf("egress endpoints: %s: %w", cat.Category, err)
				}
				out = append(out, Listed{cat.Category, to})
			}
		}
	}
	return out, nil
}

// azureListed are the sections that Azure's own list covers; it says nothing of
// add-ons.
var azureListed = map[string]bool{"required-fqdn": true, "recommended": true, "gpu": true, "windows": true}

// compare notes where Azure's own list and the rules differ.
func compare(listed []Listed, rules []Rule) []Note {
	if len(listed) == 0 {
		return nil
	}
	var notes []Note
	for _, l := range listed {
		if !covered(l.Endpoint, rules) {
			notes = append(notes, Note{Info, "azure-lists", "", fmt.Sprintf("Azure lists %s for this cluster (%s), and no rule has it.", l.Endpoint, l.Category)})
		}
	}
	for _, r := range rules {
		if !azureListed[r.Section] || len(r.Rows) == 0 {
			continue
		}
		for _, e := range r.To {
			if !listedAs(e, listed) {
				notes = append(notes, Note{Info, "azure-omits", r.ID, fmt.Sprintf("Azure does not list %s for this cluster; the article does.", e)})
			}
		}
	}
	return notes
}

func covered(e egress.Endpoint, rules []Rule) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool {
		return slices.ContainsFunc(r.To, func(have egress.Endpoint) bool { return have.Covers(e) })
	})
}

func listedAs(e egress.Endpoint, listed []Listed) bool {
	return slices.ContainsFunc(listed, func(l Listed) bool { return l.Endpoint.Covers(e) })
}
