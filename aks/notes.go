package aks

import (
	"fmt"
	"slices"
	"strings"

	"tidegate.io/tidegate/egress"
)

// differs notes where the rule is not what the article says, and what the
// article contradicts itself in.
func (b *builder) differs(r *Row, l *Line, to []egress.Endpoint) {
	if s := l.Stated; s != nil && s.Why != "" && len(l.Any) == 0 {
		d := r.destinations(b.cluster.Cloud, l, true)[0]
		if b.options.AsStated && len(s.To) > 0 {
			b.note(Warning, "as-stated", r.ID, fmt.Sprintf("The article writes %s, and so does this rule. %s", d.Text, s.Why))
		} else {
			b.note(Info, "differs", r.ID, fmt.Sprintf("The article writes %s; the rule says %s. %s", d.Text, to[0], s.Why))
		}
	}
	for _, n := range r.Notes {
		if n.Level == Warning && (n.Cloud == 0 || n.Cloud == b.cluster.Cloud) {
			b.note(Warning, "article", r.ID, n.Text)
		}
	}
}

// dropped says what happens without a recommended row. For a channel that
// installs from these hosts it is more than a recommendation.
func (b *builder) dropped(r *Row) {
	b.note(Info, "not-recommended", r.ID, "Left out: "+r.Breaks)
	switch channel := b.cluster.OSUpgrades; {
	case strings.EqualFold(channel, "SecurityPatch") && r.ID == "ubuntu/snapshot":
		b.note(Warning, "os-upgrades", r.ID, "nodeOSUpgradeChannel is SecurityPatch, which installs from this host, and it is left out: nodes get no security patches.")
	case strings.EqualFold(channel, "Unmanaged") && r.ID == "ubuntu/archive":
		b.note(Warning, "os-upgrades", r.ID, "nodeOSUpgradeChannel is Unmanaged, by which nodes update themselves from these hosts, and they are left out: nodes get no updates.")
	}
}

// shared notes the destinations that several rules name. Both rules stay, for
// each has a reason of its own and goes when its feature goes.
func shared(rules []Rule) []Note {
	by := map[egress.Endpoint][]string{}
	var order []egress.Endpoint
	for _, r := range rules {
		for _, e := range r.To {
			if len(by[e]) == 0 {
				order = append(order, e)
			}
			by[e] = append(by[e], r.ID)
		}
	}
	var notes []Note
	for _, e := range order {
		if ids := by[e]; len(ids) > 1 {
			notes = append(notes, Note{Info, "shared", "", fmt.Sprintf("%s is needed by %s; each stays a rule of its own.", e, strings.Join(ids, " and "))})
		}
	}
	return notes
}

// situation notes what follows from the facts as they stand when the rules are
// made: flags may have changed what the JSON said.
func (c *Cluster) situation(o Options) []Note {
	var notes []Note
	add := func(level Level, code, about, text string) { notes = append(notes, Note{level, code, about, text}) }
	if len(c.Unknown) > 0 {
		var names []string
		for _, f := range c.Unknown {
			names = append(names, string(f))
		}
		add(Warning, "unknown-nodes", "", "Node auto-provisioning decides the kinds of nodes inside the cluster, so whether there will be "+strings.Join(names, ", ")+" nodes cannot be known; switch on what its NodePools allow.")
	}
	if c.Has(Isolated) {
		return slices.Concat(notes, c.isolatedNotes())
	}
	if c.CachedArtifacts {
		add(Info, "cached-artifacts", "", "Nodes boot from the registry "+c.Registry+" and outboundType is "+c.OutboundType+": pulls go there, may still leave the network, and the core rows stay.")
	}
	if slices.Contains(c.Features[Ubuntu], assumed) {
		add(Info, "assumed-ubuntu", "", "Without a cluster's file its nodes are taken to run Ubuntu; switch ubuntu off if they do not.")
	}
	if c.FQDN.IsZero() && !c.Has(Private) && !c.Has(VNet) && !o.AsStated {
		add(Info, "apiserver-unknown", "core/apiserver", "The API server's name is not known yet, so the rule permits every API server of the region; make the rules again once the cluster exists.")
	}
	notes = append(notes, c.accessNotes()...)
	if o.Edition.Before(packagesAKS) && !o.AsStated {
		add(Warning, "old-edition", "", "This edition lacks packages.aks.azure.com, without which nodes of today start slowly and depend on a retired mirror.")
	}
	if len(c.Proxy.Endpoints) > 0 {
		add(Info, "http-proxy", "", "Nodes and pods use an HTTP proxy: rules marked proxied belong into the proxy's list, and the firewall needs the others.")
	}
	return slices.Concat(notes, c.extensionNotes())
}

// accessNotes say what follows from how pods reach the API server.
func (c *Cluster) accessNotes() []Note {
	n := Note{Info, "api-access", "core/apiserver-address", ""}
	switch {
	case c.Has(Private) || c.Has(VNet):
		if c.Has(APIByAddress) {
			n.Text = "The API server's address lies inside the network: no rule is needed for it."
		}
	case c.Has(APIByAddress):
	case c.APIAccess == ByName:
		n.Text = "Pods that use the API server have to carry the annotation kubernetes.azure.com/set-kube-service-host-fqdn in their template; no rule opens its address."
	case c.APIAccess == NoAccess:
		n.Text = "No pod of yours is meant to use the API server: neither a rule for its address nor the annotation is asked for."
	default:
		n.Text = "Whether pods dial the API server by its address cannot be known from here. Those that do need the annotation kubernetes.azure.com/set-kube-service-host-fqdn, or a rule for the address."
	}
	if n.Text == "" {
		return nil
	}
	return []Note{n}
}

// packagesAKS is the day on which the article took up packages.aks.azure.com.
var packagesAKS = Date{"2025-02-05"}
