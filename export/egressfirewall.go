package export

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ovnNames are the names that the API server takes.
var ovnNames = spelling{regexp.MustCompile(`^[a-z0-9.-]+$`), "names with an underscore"}

// writeEgressFirewall is OVN-Kubernetes': rules in order, one object to a
// namespace, and its name is always default.
func writeEgressFirewall(j *job) []File {
	var rules []*yaml.Node
	add := func(g *grant, key, value string) {
		port := object("protocol", strings.ToUpper(g.proto.Transport().String()), "port", g.ports.First)
		rules = append(rules, headed(object("type", "Allow", "to", object(key, value), "ports", array([]*yaml.Node{port})), reason(g.rule)))
	}
	for _, g := range j.grants() {
		for _, n := range g.names {
			add(&g, "dnsName", n.String())
		}
		for _, p := range g.nets {
			add(&g, "cidrSelector", p.String())
		}
	}
	for i, all := range []string{"0.0.0.0/0", "::/0"} {
		deny := object("type", "Deny", "to", object("cidrSelector", all))
		if i == 0 {
			deny = headed(deny, "What no rule permits.")
		}
		rules = append(rules, deny)
	}
	doc := kube("k8s.ovn.org/v1", "EgressFirewall", j.Namespace, "default", object("egress", array(rules)))
	return one("egressfirewall.yaml", encodeYAML(headed(doc, j.title())))
}
