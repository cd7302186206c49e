package export

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/egress"
)

// writeIstio registers what the rules name, and closes everything else of the
// namespace with a Sidecar. Envoy looks names up itself; the resolution NONE,
// which would open any address on the port, is used for addresses alone.
func writeIstio(j *job) []File {
	sidecar := kube("networking.istio.io/v1", "Sidecar", j.Namespace, "default", object("outboundTrafficPolicy", object("mode", "REGISTRY_ONLY")))
	docs := []*yaml.Node{headed(sidecar, j.title())}
	n := kubeNames()
	for _, g := range j.grants() {
		exact, wild := split(g.names)
		for _, part := range []struct {
			resolution string
			hosts      []egress.Pattern
		}{{"DNS", exact}, {"DYNAMIC_DNS", wild}} {
			if len(part.hosts) > 0 {
				docs = append(docs, j.istioEntry(n, &g, part.resolution, texts(part.hosts), nil))
			}
		}
		if g.addr() {
			host := n.clean(strings.ToLower(g.rule.ID), maxKubeName) + ".tidegate.internal" // looked up by nobody
			docs = append(docs, j.istioEntry(n, &g, "NONE", []string{host}, cidrs(g.nets)))
		}
	}
	return one("istio.yaml", encodeYAML(docs...))
}

var istioProtos = map[egress.Proto]string{egress.TCP: "TCP", egress.HTTP: "HTTP", egress.HTTPS: "TLS"}

func (j *job) istioEntry(n *namer, g *grant, resolution string, hosts, addresses []string) *yaml.Node {
	port := object("number", g.ports.First, "name", strings.ToLower(istioProtos[g.proto])+"-"+strconv.Itoa(int(g.ports.First)), "protocol", istioProtos[g.proto])
	name := n.name(strings.ToLower(g.rule.ID), g.proto.String(), g.ports.String())
	return headed(kube("networking.istio.io/v1", "ServiceEntry", j.Namespace, name, object(
		"hosts", array(hosts), "addresses", array(addresses), "location", "MESH_EXTERNAL", "exportTo", array([]string{"."}),
		"ports", array([]*yaml.Node{port}), "resolution", resolution,
	)), reason(g.rule))
}
