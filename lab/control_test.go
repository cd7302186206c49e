//go:build linux

package lab_test

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// A cluster is one of the example clusters, with what was derived by hand that it needs.
type cluster struct {
	name      string
	apiServer string
	rules     []egress.Rule
	private   []string
}

// readCluster reads expected rules from the test data of package aks.
func readCluster(t *testing.T, name, apiServer string) cluster {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "aks", "testdata", "clusters", "example-"+name+".2026-06-18.expect.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := cluster{name: name, apiServer: apiServer}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field := strings.Split(lines.Text(), "\t")
		switch {
		case strings.HasPrefix(lines.Text(), "#"):
		case strings.HasPrefix(field[0], "private"):
			host := strings.TrimSuffix(strings.TrimPrefix(field[3], "https://"), ":443")
			if !slices.Contains(c.private, host) {
				c.private = append(c.private, host)
			}
		default:
			c.rules = append(c.rules, egress.Rule{ID: field[0] + "/" + field[3], To: []egress.Endpoint{egress.MustParseEndpoint(field[3])}})
		}
	}
	return c
}

// clusters are the examples, and one with a rule of every kind that none of them has.
func clusters(t *testing.T) []cluster {
	all := cluster{name: "every-kind", apiServer: apiServer}
	for id, to := range map[string]string{
		"apiserver": "https://" + apiServer + ":443",
		"mcr":       "https://mcr.microsoft.com:443",
		"mcr-data":  "https://*.data.mcr.microsoft.com:443",
		"ntp":       "udp://ntp.ubuntu.com:123",
		"tunnel":    "tcp://20.103.4.5:9000",
		"tunnel-v6": "tcp://[2603:1000:7::5]:9000",
		"openvpn":   "udp://20.103.4.0/24:1194",
		"named-tcp": "tcp://git.example.org:22",
		"ubuntu":    "http://security.ubuntu.com:80",
		"disks":     "https://md-*.blob.storage.azure.net:443",
		"market":    "https://arcmktplaceprod.*.data.azurecr.io:443",
	} {
		all.rules = append(all.rules, egress.Rule{ID: id, To: []egress.Endpoint{egress.MustParseEndpoint(to)}})
	}
	return []cluster{
		all,
		readCluster(t, "public-gpu-monitor-policy", apiServer),
		readCluster(t, "usgov-private-keyvault-wi", "aks-gov-7h6g5f4d.0f9e8d7c-1111-4222-8333-444455556666.privatelink.usgovvirginia.cx.aks.containerservice.azure.us"),
		readCluster(t, "china-windows-cost", "aks-cn-9z8y7x6w.hcp.chinanorth3.cx.prod.service.azk8s.cn"),
		readCluster(t, "network-isolated", "aks-ni-5t6y7u8i.12ab34cd-1111-4222-8333-444455556666.privatelink.westeurope.azmk8s.io"),
	}
}

// TestEverythingArrivesWithoutAGateway is the control of all the tests with one: what does not arrive here proves nothing
// when it does not arrive there.
func TestEverythingArrivesWithoutAGateway(t *testing.T) {
	for i, c := range clusters(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := start(t, lab.Config{Rules: c.rules, Private: c.private, NoGSO: i%2 == 1, Clusters: []egress.Cluster{
				{Name: c.name, From: lab.NodeRanges, APIServer: egress.MustParseName(c.apiServer), ByAddress: true},
			}})
			control(t, l)
		})
	}
}

func control(t *testing.T, l *lab.Lab) {
	policy, err := egress.Compile(l.Rules(), l.Clusters())
	if err != nil {
		t.Fatal(err)
	}
	needs, misses, attacks := lab.Bootstrap(l.Zone, policy), lab.NearMisses(l.Zone, policy), lab.Attacks(l.Zone, policy)
	results, err := l.Run(context.WithoutCancel(t.Context()), slices.Concat(needs, misses, attacks), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.As(true) {
			t.Errorf("%s: a node %s: %v, reached %v", r.Group, r.Name, r.Err, r.Reached)
		}
	}
	const atLeast = 200
	if len(misses) < atLeast {
		t.Errorf("%d near misses, want %d", len(misses), atLeast)
	}
	t.Logf("%d needs, %d near misses, %d attacks", len(needs), len(misses), len(attacks))
}
