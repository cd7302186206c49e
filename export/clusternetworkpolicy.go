package export

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxPeers bounds the rules of a ClusterNetworkPolicy, and every list in one.
const maxPeers = 25

// cnpNames are the domain names that the API server takes.
var cnpNames = spelling{
	regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]*[a-z0-9])?\.)+[a-z0-9_]([a-z0-9_-]*[a-z0-9])?$`),
	"names of one label, and labels that begin with a hyphen, or end in one or in an underscore",
}

// The priorities of the objects, of 0 to 1000 in the tier Admin.
const (
	cnpFirst = 500
	cnpDeny  = 900
)

// writeClusterNetworkPolicy has as many objects as the rules need, and one
// behind them that denies the rest. Only permitting rules may hold domain
// names, which the API server itself does not check.
func writeClusterNetworkPolicy(j *job) []File {
	inside := headed(object("name", "inside", "action", "Pass", "to", array([]*yaml.Node{object("namespaces", empty())})),
		"What is inside the cluster is left to its network policies.")
	rules := []*yaml.Node{inside}
	for _, g := range j.grants() {
		for names := range slices.Chunk(g.names, maxPeers) {
			rules = append(rules, cnpRule(&g, object("domainNames", array(names))))
		}
		for nets := range slices.Chunk(g.nets, maxPeers) {
			rules = append(rules, cnpRule(&g, object("networks", array(cidrs(nets)))))
		}
	}
	var docs []*yaml.Node
	base := strings.ToLower(newNamer(maxKubeName-len("-rest"), '-').name("tidegate", j.Name))
	for part := range slices.Chunk(rules, maxPeers) {
		docs = append(docs, cnp(fmt.Sprintf("%s-%d", base, len(docs)+1), cnpFirst+len(docs), part))
	}
	rest := object("name", "rest", "action", "Deny", "to", array([]*yaml.Node{object("networks", array([]string{"0.0.0.0/0", "::/0"}))}))
	docs = append(docs, headed(cnp(base+"-rest", cnpDeny, []*yaml.Node{rest}), "What no rule permits."))
	docs[0].HeadComment = "# " + oneLine(j.title())
	return one("clusternetworkpolicy.yaml", encodeYAML(docs...))
}

func cnp(name string, priority int, rules []*yaml.Node) *yaml.Node {
	return kube("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "", name,
		object("tier", "Admin", "priority", priority, "subject", object("namespaces", empty()), "egress", array(rules)))
}

func cnpRule(g *grant, peer *yaml.Node) *yaml.Node {
	port := object("number", g.ports.First)
	if g.ports.First != g.ports.Last {
		port = object("range", object("start", g.ports.First, "end", g.ports.Last))
	}
	protocol := object(g.proto.Transport().String(), object("destinationPort", port))
	return headed(object("name", clip(g.rule.ID, 100), "action", "Accept", "to", array([]*yaml.Node{peer}), "protocols", array([]*yaml.Node{protocol})), reason(g.rule))
}

func cidrs(ps []netip.Prefix) []string {
	var out []string
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}
