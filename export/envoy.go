package export

import (
	"net/netip"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/egress"
)

const (
	envoyType = "type.googleapis.com/envoy.extensions."
	// envoyIdle is how long a quiet connection lives: watches are quiet for long.
	envoyIdle = "7200s"
)

// envoyChain is a filter chain: Envoy takes no two that match alike, so rules
// of the same service and clients share one.
type envoyChain struct {
	service
	from  []netip.Prefix
	names []egress.Pattern
	nets  []netip.Prefix
	why   []string
}

// writeEnvoy is a bootstrap configuration with one transparent listener. Names
// are looked up by Envoy itself, so that a client that shows an allowed name
// reaches that name's server only. What no chain matches is closed.
func writeEnvoy(j *job) []File {
	var chains []*yaml.Node
	for _, c := range j.envoyChains() {
		n := j.envoyNode(c)
		for i, why := range c.why {
			if i > 0 {
				n.HeadComment += "\n"
			}
			n.HeadComment += "# " + oneLine(why)
		}
		chains = append(chains, n)
	}
	if len(chains) == 0 {
		// Envoy refuses a listener without a chain. This one goes nowhere.
		chains = append(chains, headed(object("filters", array([]*yaml.Node{envoyTCP("nowhere", "nowhere")})), "There are no rules."))
	}
	listener := object(
		"name", "outbound",
		"address", object("socket_address", object("address", "0.0.0.0", "port_value", 15001)),
		"transparent", true,
		"listener_filters", array([]*yaml.Node{
			envoyFilter("envoy.filters.listener.original_dst", "filters.listener.original_dst.v3.OriginalDst"),
			envoyFilter("envoy.filters.listener.tls_inspector", "filters.listener.tls_inspector.v3.TlsInspector"),
		}),
		"listener_filters_timeout", "10s",
		"filter_chains", array(chains),
	)
	bootstrap := object("static_resources", object(
		"listeners", array([]*yaml.Node{listener}),
		"clusters", array([]*yaml.Node{
			object("name", "named", "connect_timeout", "10s", "lb_policy", "CLUSTER_PROVIDED",
				"cluster_type", envoyFilter("envoy.clusters.dynamic_forward_proxy", "clusters.dynamic_forward_proxy.v3.ClusterConfig", "dns_cache_config", j.envoyDNS())),
			object("name", "addressed", "connect_timeout", "10s", "type", "ORIGINAL_DST", "lb_policy", "CLUSTER_PROVIDED"),
			object("name", "nowhere", "connect_timeout", "1s", "type", "STATIC"),
		}),
	))
	return one("envoy.yaml", encodeYAML(headed(bootstrap, j.title())))
}

func (j *job) envoyChains() []*envoyChain {
	var out []*envoyChain
	for _, b := range byService(j.grants()) {
		for _, g := range b.grants {
			i := slices.IndexFunc(out, func(c *envoyChain) bool {
				return c.service == g.service && slices.Equal(c.from, g.from) && (c.nets != nil) == (g.nets != nil)
			})
			if i < 0 {
				out = append(out, &envoyChain{service: g.service, from: g.from})
				i = len(out) - 1
			}
			c := out[i]
			c.names = addNew(c.names, g.names...)
			c.nets = addNew(c.nets, g.nets...)
			c.why = addNew(c.why, reason(g.rule))
		}
	}
	return out
}

func (j *job) envoyNode(c *envoyChain) *yaml.Node {
	port := int(c.ports.First)
	match := []any{"destination_port", port, "source_prefix_ranges", envoyRanges(c.from), "prefix_ranges", envoyRanges(c.nets)}
	name := "tcp_" + strconv.Itoa(port)
	switch c.proto {
	case egress.HTTPS:
		match = append(match, "server_names", array(c.names), "transport_protocol", "tls")
		forward := envoyFilter("envoy.filters.network.sni_dynamic_forward_proxy", "filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
			"dns_cache_config", j.envoyDNS(), "port_value", port)
		return object("filter_chain_match", object(match...), "filters", array([]*yaml.Node{forward, envoyTCP("https_"+strconv.Itoa(port), "named")}))
	case egress.HTTP:
		match = append(match, "transport_protocol", "raw_buffer")
		return object("filter_chain_match", object(match...), "filters", array([]*yaml.Node{j.envoyHTTP(c, port)}))
	}
	return object("filter_chain_match", object(match...), "filters", array([]*yaml.Node{envoyTCP(name, "addressed")}))
}

// envoyHTTP judges each request by its host. A port in it would lead there, so it
// is part of the name unless it is the usual one.
func (j *job) envoyHTTP(c *envoyChain, port int) *yaml.Node {
	var domains []string
	for _, n := range c.names {
		d := n.String()
		if port != 80 {
			d += ":" + strconv.Itoa(port)
		}
		domains = append(domains, d)
	}
	host := object("name", "named", "domains", array(domains), "routes", array([]*yaml.Node{
		object("match", object("prefix", "/"), "route", object("cluster", "named", "timeout", "0s")),
	}))
	return envoyFilter("envoy.filters.network.http_connection_manager", "filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix", "http_"+strconv.Itoa(port),
		"codec_type", "HTTP1",
		"strip_matching_host_port", port == 80,
		"route_config", object("name", "http", "virtual_hosts", array([]*yaml.Node{host})),
		"http_filters", array([]*yaml.Node{
			envoyFilter("envoy.filters.http.dynamic_forward_proxy", "filters.http.dynamic_forward_proxy.v3.FilterConfig", "dns_cache_config", j.envoyDNS()),
			envoyFilter("envoy.filters.http.router", "filters.http.router.v3.Router"),
		}),
	)
}

func envoyTCP(prefix, cluster string) *yaml.Node {
	return envoyFilter("envoy.filters.network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix", prefix, "cluster", cluster, "idle_timeout", envoyIdle)
}

func envoyFilter(name, kind string, settings ...any) *yaml.Node {
	return object("name", name, "typed_config", object(append([]any{"@type", envoyType + kind}, settings...)...))
}

// envoyDNS describes the cache of names, which all users have to do alike.
func (j *job) envoyDNS() *yaml.Node {
	var servers []*yaml.Node
	for _, r := range j.Resolvers {
		servers = append(servers, object("socket_address", object("address", r.String(), "port_value", 53)))
	}
	return object("name", "dns", "dns_lookup_family", "V4_ONLY",
		"typed_dns_resolver_config", envoyFilter("envoy.network.dns_resolver.cares", "network.dns_resolver.cares.v3.CaresDnsResolverConfig", "resolvers", array(servers)))
}

func envoyRanges(ps []netip.Prefix) any {
	var out []*yaml.Node
	for _, p := range ps {
		out = append(out, object("address_prefix", p.Addr().String(), "prefix_len", p.Bits()))
	}
	return array(out)
}
