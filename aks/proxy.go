package aks

import (
	"net/netip"
	"strings"

	"tidegate.io/tidegate/egress"
)

// proxyRules adds the cluster's HTTP proxy and marks what goes to it rather
// than to the firewall.
func (b *builder) proxyRules() {
	p := &b.cluster.Proxy
	if len(p.Endpoints) == 0 {
		return
	}
	for i := range b.rules {
		if b.rules[i].ID != "core/apiserver" && p.carries(b.rules[i].To) {
			b.rules[i].State = Proxied
		}
	}
	b.rules = append(b.rules, Rule{Section: "proxy", State: Needed, Rule: egress.Rule{
		ID: "proxy/http", To: p.Endpoints,
		Why:    "Nodes and pods send HTTP and HTTPS to this proxy (httpProxyConfig).",
		Source: "https://learn.microsoft.com/azure/aks/http-proxy",
	}})
}

// carries reports whether every endpoint is HTTP or HTTPS and not excepted by
// noProxy. (AKS itself keeps the API server's name among the exceptions.)
func (p *Proxy) carries(to []egress.Endpoint) bool {
	for _, e := range to {
		pattern, named := e.Host.(egress.Pattern)
		if !named || !e.Proto.Named() || p.bypasses(pattern.String()) {
			return false
		}
	}
	return true
}

// bypasses goes by the rules that curl and Go share: an entry is a name and
// everything below it, with or without a leading dot; there are no wildcards.
func (p *Proxy) bypasses(name string) bool {
	for _, entry := range p.Bypass {
		entry = strings.TrimPrefix(entry, ".")
		if _, err := netip.ParsePrefix(entry); err == nil || entry == "" {
			continue
		}
		if name == entry || strings.HasSuffix(name, "."+entry) {
			return true
		}
	}
	return false
}
