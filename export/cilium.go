package export

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/egress"
)

func writeCiliumClusterwide(j *job) []File {
	return writeCilium(j, "CiliumClusterwideNetworkPolicy", "")
}

func writeCiliumNamespaced(j *job) []File {
	return writeCilium(j, "CiliumNetworkPolicy", j.Namespace)
}

// writeCilium permits what is inside the cluster, DNS, and the rules. Cilium
// learns a name's addresses from the DNS answers that pass it, for which the
// rule of DNS has to be there.
func writeCilium(j *job, kind, namespace string) []File {
	rules := []*yaml.Node{
		headed(object("toEntities", array([]string{"cluster"})), "Inside the cluster is not this policy's business."),
		headed(ciliumDNS(), "DNS passes Cilium, which learns from its answers."),
	}
	for _, g := range j.grants() {
		rules = append(rules, headed(ciliumRule(&g), reason(g.rule)))
	}
	doc := kube("cilium.io/v2", kind, namespace, strings.ToLower(kubeNames().name("tidegate", j.Name)),
		object("endpointSelector", empty(), "egress", array(rules)))
	return one("cilium.yaml", encodeYAML(headed(doc, j.title())))
}

func ciliumDNS() *yaml.Node {
	ports := []*yaml.Node{object("port", "53", "protocol", "UDP"), object("port", "53", "protocol", "TCP")}
	return object(
		"toEndpoints", array([]*yaml.Node{object("matchLabels", object("k8s:io.kubernetes.pod.namespace", "kube-system", "k8s:k8s-app", "kube-dns"))}),
		"toPorts", array([]*yaml.Node{object("ports", array(ports), "rules", object("dns", array([]*yaml.Node{object("matchPattern", "*")})))}),
	)
}

func ciliumRule(g *grant) *yaml.Node {
	var names, nets []*yaml.Node
	for _, n := range g.names {
		if _, exact := n.Exact(); exact {
			names = append(names, object("matchName", n))
		} else {
			names = append(names, object("matchPattern", ciliumPattern(n)))
		}
	}
	for _, n := range g.nets {
		nets = append(nets, object("cidr", n.String()))
	}
	var end any
	if g.ports.Last != g.ports.First {
		end = g.ports.Last
	}
	port := object("port", egress.Ports{First: g.ports.First, Last: g.ports.First}.String(), "endPort", end, "protocol", strings.ToUpper(g.proto.Transport().String()))
	return object("toFQDNs", array(names), "toCIDRSet", array(nets), "toPorts", array([]*yaml.Node{object("ports", array([]*yaml.Node{port}))}))
}

// ciliumPattern spells a pattern: one * stays in its label there, and two at
// the beginning are one or more labels. Versions before 1.19 take two for one,
// and so open less.
func ciliumPattern(p egress.Pattern) string {
	if shapeOf(p).holds(shapeBelow) {
		return "*" + p.String()
	}
	return p.String()
}
