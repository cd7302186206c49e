package aks

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// notOpened are features that need no way out of an isolated cluster: its nodes
// boot and are renewed from the registry, and Windows is not supported there.
var notOpened = []Feature{Always, Linux, Ubuntu, Windows, "old-nodes", Private, VNet, Isolated, LegacyTunnel}

// needsHosts reports whether some row of the catalogue is for a feature.
func needsHosts(f Feature) bool {
	return !slices.Contains(notOpened, f) && !slices.Contains(viaFlag, f) &&
		slices.ContainsFunc(Embedded().Rows, func(r Row) bool { return slices.Contains(r.When, f) })
}

// Openable returns the features that can be opened for an isolated cluster, in
// the table's order.
func Openable() []Feature {
	var out []Feature
	for _, f := range features {
		if needsHosts(f.name) {
			out = append(out, f.name)
		}
	}
	return out
}

// Openings returns the features that are on and reach hosts outside for which no
// private endpoint is known.
func (c *Cluster) Openings() []Feature {
	return slices.DeleteFunc(c.On(), func(f Feature) bool { return !needsHosts(f) || hasPrivateEndpoint(f) })
}

// Opening is what features would add to a cluster that nothing leaves, as a
// difference to nothing at all.
type Opening struct {
	Features []Feature
	Added    []Rule            // what a firewall would have to permit
	Instead  []PrivateEndpoint // what takes the place of some of it, and opens nothing
	Notes    []Note
}

// Open returns what the features would open. Microsoft's registry is never in
// it: images come from the registry that the cluster boots from.
func (c Cluster) Open(o Options, fs ...Feature) (Opening, error) {
	out := Opening{Features: fs}
	before, after := c.Without(Isolated), c.Without(Isolated)
	for _, f := range fs {
		if !needsHosts(f) {
			return out, fmt.Errorf("feature %q: it opens nothing; want one of %s", f, openableWords())
		}
		before = before.Without(f)
	}
	for _, f := range fs {
		after = after.With(f, "opened")
	}
	was, err := before.Rules(o)
	if err != nil {
		return out, err
	}
	is, err := after.Rules(o)
	if err != nil {
		return out, err
	}
	for _, r := range is.Rules {
		if slices.ContainsFunc(was.Rules, func(w Rule) bool { return w.ID == r.ID }) {
			continue
		}
		all := len(r.To)
		r.To = slices.DeleteFunc(slices.Clone(r.To), servesImages)
		if len(r.To) < all {
			out.Notes = append(out.Notes, Note{Info, "from-registry", r.ID, "Images come from the registry that the cluster boots from, so Microsoft's registry stays closed."})
		}
		if len(r.To) > 0 {
			r.Stated = nil // written one for one with To
			out.Added = append(out.Added, r)
		}
	}
	for _, e := range after.PrivateEndpoints() {
		if e.Feature != "" && slices.Contains(fs, e.Feature) {
			out.Instead = append(out.Instead, e)
		}
	}
	return out, nil
}

func openableWords() string {
	var words []string
	for _, f := range Openable() {
		words = append(words, string(f))
	}
	return strings.Join(words, ", ")
}

// imageHosts are where Microsoft's registry is, in every cloud. Wildcards are
// asked about by one of their names.
var imageHosts = []string{"mcr.microsoft.com", "eastus.data.mcr.microsoft.com", "mcr-0001.mcr-msedge.net", "mcr.azure.cn", "eastus.data.mcr.azure.cn", "gcr.azk8s.cn", "mcr.azk8s.cn"}

// servesImages reports whether an endpoint is, or has in it, a host of
// Microsoft's registry.
func servesImages(e egress.Endpoint) bool {
	p, ok := e.Host.(egress.Pattern)
	return ok && slices.ContainsFunc(imageHosts, func(s string) bool { return p.Match(egress.MustParseName(s)) })
}

// NeverOpened reports whether an isolated cluster has a host from the registry
// that it boots from instead: what nodes boot from and are renewed from.
func NeverOpened(e egress.Endpoint) bool {
	p, ok := e.Host.(egress.Pattern)
	return servesImages(e) || ok && slices.ContainsFunc(nodeHosts, func(s string) bool { return p.Match(egress.MustParseName(s)) })
}

// nodeHosts are where other nodes have their packages from.
var nodeHosts = []string{"packages.aks.azure.com", "acs-mirror.azureedge.net", "packages.microsoft.com", "azure.archive.ubuntu.com", "security.ubuntu.com", "snapshot.ubuntu.com"}

// Breadth is how much an endpoint opens.
type Breadth struct {
	Rank        int    `json:"rank"` // 0 one name or address, up to 4, everything
	What        string `json:"what"` // in words
	MultiTenant bool   `json:"multiTenant"`
}

// BreadthOf says how many names or addresses a host opens, and whether strangers
// can be behind it: that is where data can be carried out to.
func BreadthOf(h egress.Host) Breadth {
	switch h := h.(type) {
	case egress.Net:
		n := h.Addr().BitLen() - h.Bits()
		switch {
		case n == 0:
			return Breadth{0, "one address", false}
		case h.Bits() == 0:
			return Breadth{4, "every address", true}
		case n < bits.UintSize-1:
			return Breadth{2, fmt.Sprintf("%d addresses", 1<<n), true}
		}
		return Breadth{2, fmt.Sprintf("2^%d addresses", n), true}
	case egress.Tag:
		return Breadth{3, "every address of a service tag, those of other customers too", true}
	case egress.Pattern:
		fixed := h.Fixed().String()
		switch _, exact := h.Exact(); {
		case exact:
			return Breadth{0, "one name", false}
		case egress.MultiTenant(h.Fixed()):
			return Breadth{3, "any number of names, and any customer of Azure can make one below " + fixed, true}
		}
		return Breadth{1, "any number of names, all of one service, below " + fixed, false}
	}
	return Breadth{4, "an unknown host", true}
}
