package isolated

import (
	"fmt"
	"strings"

	"tidegate.io/tidegate/aks"
)

// steps are in the order in which nothing is cut off before its replacement is
// in use: the nodes are imaged anew before the way out is closed, since those
// that booted before pull from outside until then.
func (p *Plan) steps(c *aks.Cluster) []Step {
	at := &p.place
	var out []Step
	if p.Managed {
		out = p.managedRegistry(c)
	} else {
		out = p.ownRegistry(c)
	}
	update := fmt.Sprintf("az aks update --resource-group %s --name %s --bootstrap-artifact-source Cache", quote(at.group), quote(at.cluster))
	if !p.Managed {
		update += " --bootstrap-container-registry-resource-id " + quote(at.registryID)
	}
	cluster := Step{"bootstrap-source", "Have nodes boot from the registry", ToDo, "New nodes pull from it; those that are there do not yet.", []string{update}}
	if c.CachedArtifacts {
		cluster.State = Done
	}
	reimage := Step{
		"reimage", "Image every node anew", ToDo, "A node learns where to pull from only when it boots. Without this, closing the way out cuts off the nodes that are there.",
		[]string{fmt.Sprintf("az aks upgrade --resource-group %s --name %s --node-image-only --yes", quote(at.group), quote(at.cluster))},
	}
	isolate := Step{
		"outbound", "Close the way out", ToDo, "Only now: nothing that nodes need is outside any more.",
		[]string{fmt.Sprintf("az aks update --resource-group %s --name %s --outbound-type %s", quote(at.group), quote(at.cluster), at.outbound)},
	}
	if c.Has(aks.Isolated) {
		isolate.State = Done
	}
	if p.Isolated {
		reimage.State = Unseen
	}
	show := fmt.Sprintf("az aks show --resource-group %s --name %s -o json", quote(at.group), quote(at.cluster))
	verify := Step{
		"verify", "Check from inside the network", Unseen, "On a node, or on a machine in the same network: names, the registry, each artefact, and that nothing public is reachable.",
		[]string{show + " | tidegate isolated check --cluster -"},
	}
	return append(out, cluster, reimage, isolate, verify)
}

func (p *Plan) managedRegistry(c *aks.Cluster) []Step {
	s := Step{
		"registry", "A registry of AKS's own", Managed,
		"AKS makes the registry, its cache rule, private endpoint, DNS records and role with the step below, and keeps them so. None of them may be changed or deleted.", []string{},
	}
	if c.CachedArtifacts {
		s.Why = fmt.Sprintf("AKS made %s in the resource group %s, with its cache rule, private endpoint, DNS records and role, and keeps them so. None of them may be changed or deleted.", p.place.registry, p.place.registryG)
	}
	return []Step{s}
}

// ownRegistry are the steps that a registry of one's own takes before a cluster
// may use it.
func (p *Plan) ownRegistry(c *aks.Cluster) []Step {
	at := &p.place
	state := ToDo
	if c.CachedArtifacts {
		state = Unseen
	}
	group, registry := "--resource-group "+quote(at.registryG), quote(at.registry)
	steps := []Step{
		{"registry", "A registry of tier Premium, closed to the public", state, "Only Premium has private endpoints. Azure's own services may still reach out from it, which is how the cache rule fetches.", []string{
			fmt.Sprintf("az acr create %s --name %s --location %s --sku Premium --public-network-enabled false", group, registry, quote(at.region)),
		}},
		{"cache-rule", "The cache rule, with exactly these names", state, fmt.Sprintf("What the registry lacks it fetches from %s. Nodes ask below %s/, so the names are not to be changed.", Upstream, Prefix), []string{
			fmt.Sprintf("az acr cache create %s --registry %s --name %s --source-repo %s --target-repo %s", group, registry, p.Rule.Name, quote(p.Rule.Source), quote(p.Rule.Target)),
		}},
		{"private-endpoint", "A private endpoint, group registry", state, "An address for the registry in the nodes' network, and one for its data endpoint.", []string{
			fmt.Sprintf("az network private-endpoint create %s --name %s --location %s --subnet %s --private-connection-resource-id %s --group-id registry --connection-name %s",
				group, quote(endpointName(at)), quote(at.region), quote(at.subnet), quote(at.registryID), quote(endpointName(at))),
		}},
		{"dns", "The private DNS zone, linked to the nodes' network, with two records", state,
			fmt.Sprintf("%s and %s have to lead to the private endpoint. The zone group makes both records in %s, and keeps them.", p.Records[0].FQDN, p.Records[1].FQDN, at.zone), []string{
				fmt.Sprintf("az network private-dns zone create %s --name %s", group, at.zone),
				fmt.Sprintf("az network private-dns link vnet create %s --zone-name %s --name %s --virtual-network %s --registration-enabled false", group, at.zone, quote(at.cluster), quote(at.network)),
				fmt.Sprintf("az network private-endpoint dns-zone-group create %s --endpoint-name %s --name default --private-dns-zone %s --zone-name registry", group, quote(endpointName(at)), at.zone),
			}},
		p.pullRole(group, state),
	}
	return steps
}

// pullRole asks for the identity where the file does not have it.
func (p *Plan) pullRole(group string, state State) Step {
	at := &p.place
	s := Step{ID: "role", Title: "The role AcrPull for the kubelet's identity", State: state, Why: "Nodes sign in as it. Where the registry permits anonymous pulls they do not need to."}
	identity := quote(at.kubelet)
	if at.kubelet == "" {
		s.Commands = append(s.Commands, fmt.Sprintf("KUBELET=$(az aks show --resource-group %s --name %s --query identityProfile.kubeletidentity.objectId -o tsv)", quote(at.group), quote(at.cluster)))
		identity = `"$KUBELET"`
	}
	s.Commands = append(s.Commands, fmt.Sprintf("az role assignment create --role AcrPull --scope %s --assignee-object-id %s --assignee-principal-type ServicePrincipal", quote(at.registryID), identity))
	return s
}

func endpointName(at *place) string { return at.registry + "-endpoint" }

// quote makes s one word of sh. A single quote ends the quoting, so that is
// where a name from a file could become a command.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/-_.:", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
