package config

import (
	"fmt"
	"io"
	"net/netip"

	"go.yaml.in/yaml/v3"

	"tidegate.io/tidegate/aks"
	"tidegate.io/tidegate/egress"
)

// Mode says what happens to what the policy denies.
type Mode uint8

// The modes of a cluster.
const (
	Enforce Mode = iota // it is refused
	Observe             // it is let through, and the log says what would have been refused
)

var modeNames = [...]string{"enforce", "observe"}

// DNS says which way a cluster's questions go.
type DNS uint8

// The ways.
const (
	DNSShows     DNS = iota // through the gateway as soon as one comes
	DNSGateway              // through the gateway, all of them
	DNSElsewhere            // not through the gateway
)

var dnsNames = [...]string{"shows", "gateway", "elsewhere"}

// String returns the word of the file.
func (d DNS) String() string { return dnsNames[d] }

// String returns the word of the file.
func (m Mode) String() string { return modeNames[m] }

// Gateway is the file's content with everything it points to.
type Gateway struct {
	Clusters   []Cluster
	Rules      []egress.Rule    // all rules: what the clusters need, then the file's own; From is filled
	Upstream   []netip.AddrPort // DNS servers that are asked, in order of preference
	Also       []egress.Pattern // may be resolved by every client, and opens nothing
	Listen     []netip.AddrPort // where DNS listens besides what is redirected to it
	Proxy      netip.AddrPort   // the explicit HTTP proxy; zero for none
	Masquerade bool             // clients leave with the gateway's address
	Management netip.AddrPort   // health, metrics and status; loopback unless the file says otherwise
	State      string           // the directory of what has to survive a restart
	FlowLog    string           // the file of flow records; empty for standard output
	Notes      []string         // what could not be known, and was assumed

	needs  int            // how many of Rules come from the catalogue; the others are the file's own
	policy *egress.Policy // of Rules and Clusters
}

// Cluster is one cluster behind the gateway.
type Cluster struct {
	egress.Cluster
	Internal   []netip.Prefix // destinations that are never ours: node, pod, service and VNet ranges
	Mode       Mode
	DNS        DNS
	Resolvable []egress.Pattern // names of its own that may be resolved and open nothing, such as a private API server's
	Benign     []egress.Pattern // names that will be seen, and whose denial does no harm
	Facts      aks.Cluster      // what its rules come from
}

// Policy compiles the rules. What Read returns has done so already.
func (g *Gateway) Policy() (*egress.Policy, error) {
	if g.policy != nil {
		return g.policy, nil
	}
	clusters := make([]egress.Cluster, len(g.Clusters))
	for i, c := range g.Clusters {
		clusters[i] = c.Cluster
	}
	return egress.Compile(g.Rules, clusters)
}

// InForce returns the same configuration with a policy of its own, to be kept: all else
// that the policy was made from is dropped.
func (g *Gateway) InForce(policy *egress.Policy) *Gateway {
	kept := *g
	kept.policy, kept.Rules = policy, policy.Rules()
	return &kept
}

// Cluster returns the cluster of a client, or nil.
func (g *Gateway) Cluster(client netip.Addr) *Cluster {
	for i := range g.Clusters {
		for _, p := range g.Clusters[i].From {
			if p.Contains(client) {
				return &g.Clusters[i]
			}
		}
	}
	return nil
}

// Open opens what the file points to by name, relative to the file. The caller
// of Open closes what it gets.
type Open func(name string) (io.ReadCloser, error)

// Read reads the gateway's file and everything that it points to. name is used
// in errors only, which all begin with it and name a line where there is one.
func Read(name string, text []byte, open Open) (*Gateway, error) {
	f, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	r := reader{file: f, open: open}
	g, err := r.gateway()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return g, nil
}

// StateDir reads only where the gateway's state is, so that a running gateway can
// be spoken to whatever else has become of its file.
func StateDir(name string, text []byte) (string, error) {
	var f struct {
		State word `yaml:"state"`
	}
	if err := yaml.Unmarshal(text, &f); err != nil {
		return "", fmt.Errorf("%s: %s", name, plain(err))
	}
	if f.State.line == 0 {
		return defaultState, nil
	}
	return f.State.text, nil
}
