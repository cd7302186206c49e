package export

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// writeNetworkPolicy is Kubernetes' own, which knows addresses only.
func writeNetworkPolicy(j *job) []File {
	dns := []*yaml.Node{object("protocol", "UDP", "port", 53), object("protocol", "TCP", "port", 53)}
	kubeDNS := object(
		"namespaceSelector", object("matchLabels", object("kubernetes.io/metadata.name", "kube-system")),
		"podSelector", object("matchLabels", object("k8s-app", "kube-dns")),
	)
	rules := []*yaml.Node{
		headed(object("to", array([]*yaml.Node{object("namespaceSelector", empty())})), "Inside the cluster is not this policy's business."),
		headed(object("to", array([]*yaml.Node{kubeDNS}), "ports", array(dns)), "DNS."),
	}
	for _, g := range j.grants() {
		var to []*yaml.Node
		for _, p := range g.nets {
			to = append(to, object("ipBlock", object("cidr", p.String())))
		}
		rules = append(rules, headed(object("to", array(to), "ports", array([]*yaml.Node{kubePort(g.service)})), reason(g.rule)))
	}
	doc := kube("networking.k8s.io/v1", "NetworkPolicy", j.Namespace, strings.ToLower(kubeNames().name("tidegate", j.Name)),
		object("podSelector", empty(), "policyTypes", array([]string{"Egress"}), "egress", array(rules)))
	return one("networkpolicy.yaml", encodeYAML(headed(doc, j.title())))
}

func kubePort(s service) *yaml.Node {
	var end any
	if s.ports.First != s.ports.Last {
		end = s.ports.Last
	}
	return object("protocol", strings.ToUpper(s.proto.Transport().String()), "port", s.ports.First, "endPort", end)
}
