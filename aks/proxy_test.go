package aks

import (
	"testing"
)

func TestHTTPProxy(t *testing.T) {
	c := mustRead(t, clusterJSON(`"httpProxyConfig": {"httpProxy": "http://u:p@proxy.corp.example:3128/", "httpsProxy": "https://10.9.8.7/", "noProxy": ["mcr.microsoft.com", ".opinsights.azure.com", "10.0.0.0/8"]},
		"addonProfiles": {"omsagent": {"enabled": true}}`))
	res := rulesOf(t, c, Options{})
	if got := to(res, "proxy/http"); got != "tcp://proxy.corp.example:3128 tcp://10.9.8.7:443" {
		t.Errorf("the proxy's rule opens %s", got)
	}
	states := map[string]State{"core/apiserver": Needed, "core/mcr": Needed, "core/arm": Proxied, "monitor/logs": Needed, "monitor/telemetry": Proxied, "proxy/http": Needed}
	for _, r := range res.Rules {
		if want, ok := states[r.ID]; ok && r.State != want {
			t.Errorf("%s is %s, want %s", r.ID, r.State, want)
		}
	}
	if len(res.Egress()) >= len(res.Rules) || !hasNote(res, "http-proxy") {
		t.Error("what goes to the proxy stays among the firewall's rules")
	}
	off := mustRead(t, clusterJSON(`"httpProxyConfig": {"enabled": false, "httpProxy": "http://p:1"}`))
	if len(off.Proxy.Endpoints) != 0 {
		t.Error("a proxy that is switched off is used")
	}
}
