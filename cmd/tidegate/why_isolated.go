package main

import (
	"slices"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/config"
)

// isolatedOf is the network isolated cluster that the texts are of: the one given, or the only one of a gateway; nil if
// it is not isolated or not known to be.
func isolatedOf(given *aks.Cluster, g *config.Gateway) *aks.Cluster {
	switch {
	case given != nil:
	case g != nil && len(g.Clusters) == 1:
		given = &g.Clusters[0].Facts
	default:
		return nil
	}
	if !given.Has(aks.Isolated) {
		return nil
	}
	return given
}

// adviseIsolated says what to do where nothing may leave, and takes out what is never opened: to permit Microsoft's
// registry would undo the isolation and not help, since nodes do not ask there.
func (i *whyItem) adviseIsolated(c *aks.Cluster) {
	registry := false
	var rest []whyEndpoint
	for _, k := range i.Reaching {
		host := k.Endpoint.Host.String()
		switch {
		case c.Registry != "" && (host == c.RegistryName(c.Registry) || host == c.RegistryDataName(c.Registry)):
			registry = true
		case host == c.APIServer().String():
			i.say("%s is inside the network: look at its private DNS zone and at network security groups.", host)
		case aks.NeverOpened(k.Endpoint):
			registry = true
			k.Rules, k.Need, k.Permitted, k.Denied = nil, "", "", nil
			k.Isolated = true
		case len(k.When) > 0:
			i.adviseFeature(c, k)
		case len(k.Rules) > 0:
			i.say("%s: an isolated cluster boots and runs without it; nothing has to be opened for that.", k.Endpoint)
		default:
			i.say("%s is needed by no cluster itself. If the workload is to reach it, that is an opening: a private endpoint if the service has one, else a rule for this one name.", k.Endpoint)
		}
		rest = append(rest, k)
	}
	i.Reaching = rest
	if registry {
		i.adviseRegistry(c)
	}
	i.say("Run tidegate isolated check on a node: it tells which of these it is.")
}

func (i *whyItem) adviseFeature(c *aks.Cluster, k whyEndpoint) {
	with := *c
	for _, w := range k.When {
		with = with.With(aks.Feature(w), "needed by what failed") // though its file may be older than the add-on
	}
	for _, e := range with.PrivateEndpoints() {
		if e.Feature != "" && slices.Contains(k.When, string(e.Feature)) {
			i.say("%s: reach %s by a private endpoint (group %s), not by a rule; tidegate isolated plan has its DNS zones.", k.Endpoint, e.Service, e.Group)
			return
		}
	}
	i.say("%s is needed with %s, for which no private endpoint is known: tidegate isolated open %s shows what opening it would mean.", k.Endpoint, k.When[0], k.When[0])
}

// adviseRegistry is in the order in which these are usually wrong.
func (i *whyItem) adviseRegistry(c *aks.Cluster) {
	if c.Registry == "" {
		i.say("The cluster is network isolated and its file names no registry to boot from (bootstrapProfile): tidegate isolated plan says how to give it one.")
		return
	}
	i.say("The cluster is network isolated: its nodes ask %s, and that is where to look. Opening Microsoft's hosts would not help.", c.RegistryName(c.Registry))
	i.say("%s and %s must lead to private addresses (zone %s, linked to the nodes' network).", c.RegistryName(c.Registry), c.RegistryDataName(c.Registry), c.RegistryZone())
	i.say("Its cache rule must be from mcr.microsoft.com/* to aks-managed-repository/*, and the kubelet's identity needs AcrPull.")
	i.say("A node that booted before the cluster was isolated still asks outside: az aks upgrade --node-image-only.")
}
