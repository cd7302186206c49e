package aks

import (
	"fmt"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// Check is something that must be reachable inside the network, by a private
// address, because no rule leads to it.
type Check struct {
	Name egress.Pattern `json:"name"`
	Port uint16         `json:"port"`
	Zone string         `json:"zone,omitempty"` // the private DNS zone that usually holds it
	Why  string         `json:"why"`
}

// checks are the private names that a cluster depends on: the API server's, and
// the registry that an isolated cluster boots from, with its data endpoint.
func (c *Cluster) checks() []Check {
	var out []Check
	add := func(name, zone, why string) {
		p, err := egress.ParsePattern(name)
		if err == nil {
			out = append(out, Check{p, 443, zone, why})
		}
	}
	if n := c.APIServer(); !n.IsZero() && (c.Has(Private) || c.Has(Isolated) && !c.Has(VNet)) {
		zone := ""
		if n == c.PrivateFQDN {
			_, zone, _ = strings.Cut(n.String(), ".")
			if i := strings.Index(n.String(), ".privatelink."); i >= 0 {
				zone = n.String()[i+1:]
			}
		}
		add(n.String(), zone, "The API server: nodes reach it inside the network, by this name.")
	}
	in := clouds[c.Cloud]
	if c.Registry != "" && c.CachedArtifacts {
		add(c.Registry+"."+in.registries, in.registryZone, "The registry that nodes boot from; it fetches from Microsoft's registry itself.")
		add(c.Registry+"."+c.Region+".data."+in.registries, in.registryZone, "The data endpoint of the registry that nodes boot from.")
	}
	if c.Has(Isolated) && c.Has(KeyVault) {
		for _, v := range c.vaultNames() {
			add(v+"."+in.vaults, in.vaultZone, "Key vaults, by a private endpoint.")
		}
	}
	return out
}

// mayResolve are the names that DNS has to answer though no rule opens them.
func (c *Cluster) mayResolve() []egress.Pattern {
	var out []egress.Pattern
	add := func(name string) {
		if p, err := egress.ParsePattern(name); err == nil && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if c.Has(Private) || c.Has(VNet) || c.Has(Isolated) {
		add(c.FQDN.String())
		add(c.PrivateFQDN.String())
	}
	for _, check := range c.checks() {
		add(check.Name.String())
		add("*." + check.Zone)
	}
	return out
}

func (c *Cluster) vaultNames() []string {
	if len(c.KeyVaults) == 0 {
		return []string{"*"}
	}
	return c.KeyVaults
}

// isolatedNotes are what an isolated cluster gets in the place of rules.
func (c *Cluster) isolatedNotes() []Note {
	notes := []Note{{Info, "isolated", "", "The cluster is network isolated: it needs no public rule. What it does need is listed as private checks; add ways out one by one, as scenarios ask for them."}}
	if !c.CachedArtifacts {
		notes = append(notes, Note{Warning, "isolated-direct", "", "The cluster has no way out and bootstrapProfile.artifactSource is not Cache: nodes cannot fetch their images."})
	}
	about := map[Feature]string{KeyVault: "keyvault/vaults", Monitor: "monitor/logs"}
	for _, e := range c.PrivateEndpoints()[1:] { // the first is the registry, which is among the private checks
		notes = append(notes, Note{Info, "private-endpoint", about[e.Feature], fmt.Sprintf("Reach %s by a private endpoint (group %s), %s. %s", e.Service, e.Group, e.inZones(), e.Why)})
	}
	for _, f := range c.Openings() {
		notes = append(notes, Note{Warning, "opening", "", fmt.Sprintf("%s is on (%s) and reaches hosts for which no private endpoint is known: it does not work until they are opened, as a scenario of its own.", f, strings.Join(c.Features[f], ", "))})
	}
	return notes
}
