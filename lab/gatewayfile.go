//go:build linux

package lab

import (
	"context"
	_ "embed" // for Example
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Example is `az aks show -o json` of a cluster with many features; everything in it is made up.
//
//go:embed example.json
var Example []byte

// Where the gateway of the lab keeps things, in its working directory, and answers questions about itself.
const (
	ClusterFile = "cluster.json"
	GatewayFile = "gateway.yaml"
	FlowLogFile = "flows.jsonl"
	stateDir    = "state"
)

// management is where the gateway tells how it is; nobody but the gateway's own box can reach it.
var management = netip.MustParseAddrPort("127.0.0.1:9253")

// GatewayConfig is the text of a gateway's file for the lab: one cluster, described by ClusterFile, and the DNS that
// the virtual network points to. more is appended, for own rules.
func GatewayConfig(cluster, more string) string {
	list := func(ps []netip.Prefix) string {
		words := make([]string, len(ps))
		for i, p := range ps {
			words[i] = fmt.Sprintf("%q", p)
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	return fmt.Sprintf(`apiVersion: tidegate.io/v1
kind: Gateway
clusters:
  - name: %s
    from: %s
    internal: %s
    aks: %s
dns:
  upstream: [%s]
  listen: [%q]
management: %s
state: %s
log:
  flows: %s
%s`, cluster, list(NodeRanges), list(InsideRanges), ClusterFile, AzureDNS, netip.AddrPortFrom(GatewayInside[0], 53), management, stateDir, FlowLogFile, more)
}

// Ready asks the gateway whether it is ready; it is for [Config].
func Ready(ctx context.Context, l *Lab) error {
	tr := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		err = l.DoGateway(func() error {
			var d net.Dialer
			c, err = d.DialContext(ctx, network, management.String())
			return err
		})
		return c, err
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+management.String()+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}
