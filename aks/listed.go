package aks

import (
	"fmt"
	"io"
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
	for _, r := range rules {
		for _, have := range r.To {
			if holds(have, e) {
				return true
			}
		}
	}
	return false
}

func listedAs(e egress.Endpoint, listed []Listed) bool {
	for _, l := range listed {
		if holds(l.Endpoint, e) {
			return true
		}
	}
	return false
}

// holds reports whether wide permits all of narrow, as far as equal text or one
// exact name shows it.
func holds(wide, narrow egress.Endpoint) bool {
	if wide == narrow {
		return true
	}
	w, ok := wide.Host.(egress.Pattern)
	n, exact := exactName(narrow)
	return ok && exact && wide.Proto == narrow.Proto && wide.Ports == narrow.Ports && w.Match(n)
}

func exactName(e egress.Endpoint) (egress.Name, bool) {
	p, ok := e.Host.(egress.Pattern)
	if !ok {
		return egress.Name{}, false
	}
	return p.Exact()
}
