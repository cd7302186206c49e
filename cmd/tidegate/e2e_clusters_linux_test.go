package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

// twoClusters is a gateway's file with one cluster for each node, in clouds of their own. %s is the mode of the second.
const twoClusters = `apiVersion: tidegate.io/v1
kind: Gateway
clusters:
  - name: red
    from: ["10.224.1.0/24", "fd00:224:0:1::/64"]
    internal: ["10.225.0.0/16", "10.100.0.0/16", "fd00:100::/32"]
    aks: {cloud: public, region: westeurope}
  - name: blue
    from: ["10.224.2.0/24", "fd00:224:0:2::/64"]
    internal: ["10.225.0.0/16", "10.100.0.0/16", "fd00:100::/32"]
    aks: {cloud: china, region: chinanorth3}
    mode: %s
rules:
  - {id: red-only, from: [red], to: ["https://red.example.org:443", "tcp://red.example.org:9001", "tcp://20.103.4.5:9000", "tcp://[2603:1000:7::5]:9000", "http://red.example.org:80"]}
  - {id: blue-only, from: [blue], to: ["https://blue.example.org:443", "tcp://blue.example.org:9001", "tcp://20.103.4.6:9000", "tcp://[2603:1000:7::6]:9000", "http://blue.example.org:80"]}
  - {id: both, to: ["https://both.example.org:443"]}
dns: {upstream: [168.63.129.16], listen: ["10.100.0.4:53", "[fd00:100::4]:53"]}
management: 127.0.0.1:9253
state: state
log: {flows: flows.jsonl}
`

// members are the clusters of twoClusters, by the node that each consists of.
var members = []struct {
	name, other string
	catalogue   string    // a name that only its cloud's rules have
	addrs       [2]string // of its address rule, IPv4 and IPv6
}{
	{"red", "blue", "management.azure.com", [2]string{"20.103.4.5", "2603:1000:7::5"}},
	{"blue", "red", "management.chinacloudapi.cn", [2]string{"20.103.4.6", "2603:1000:7::6"}},
}

// TestClustersHaveRulesOfTheirOwn: what one cluster's rules permit, and what DNS has told it, opens nothing to another.
func TestClustersHaveRulesOfTheirOwn(t *testing.T) {
	bothGSO(t, func(t *testing.T, noGSO bool) {
		s := startSite(t, setting{file: fmt.Sprintf(twoClusters, "enforce"), noGSO: noGSO})
		for node, c := range members {
			for _, v6 := range families {
				s.hasItsOwn(t, node+1, v6)
			}
			if f, ok := s.decided(func(f *egress.Flow) bool {
				return f.Conn.Name.String() == c.name+".example.org" && f.Verdict.Action == egress.Allow
			}); !ok || f.Cluster != c.name {
				t.Errorf("the log has what cluster %s did under %q", c.name, f.Cluster)
			}
		}
		for node := range members {
			for _, v6 := range families {
				s.hasNotTheOthers(t, node+1, v6)
			}
		}
		s.learnsForItself(t)
	})
}

// hasItsOwn uses every rule of the node's cluster.
func (s *site) hasItsOwn(t *testing.T, node int, v6 bool) {
	t.Helper()
	c := members[node-1]
	own := c.name + ".example.org"
	for _, name := range []string{own, c.catalogue} {
		addr, err := s.resolve(node, name, v6)
		if err == nil {
			err = s.visit(node, name, addr)
		}
		if err != nil {
			t.Errorf("%s to %s: %v", c.name, name, err)
		}
	}
	if err := s.fetch(node, own, v6); err != nil {
		t.Errorf("%s: %v", c.name, err)
	}
	for _, to := range s.services(node, v6) {
		if err := s.echoes(node, to); err != nil {
			t.Errorf("%s to %s: %v", c.name, to, err)
		}
	}
}

// services are where the TCP rules of a node's cluster lead.
func (s *site) services(node int, v6 bool) []netip.AddrPort {
	c := members[node-1]
	i := map[bool]int{false: 0, true: 1}[v6]
	return []netip.AddrPort{
		netip.AddrPortFrom(netip.MustParseAddr(c.addrs[i]), 9000),
		netip.AddrPortFrom(s.where(c.name+".example.org", v6), 9001),
	}
}

// echoes opens a TCP connection and uses it.
func (s *site) echoes(node int, to netip.AddrPort) error {
	c, err := s.Node(node).Dial(within(s.t, 5*time.Second), "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	return echo(c)
}

// hasNotTheOthers tries every rule of the other cluster, at the addresses that this one was told of.
func (s *site) hasNotTheOthers(t *testing.T, node int, v6 bool) {
	t.Helper()
	c, other := members[node-1], members[2-node]
	for _, name := range []string{c.other + ".example.org", other.catalogue} {
		if addr, err := s.resolve(node, name, v6); err == nil || !strings.Contains(err.Error(), "REFUSED") && !strings.Contains(err.Error(), "NXDOMAIN") {
			t.Errorf("%s resolves %s: %s, %v", c.name, name, addr, err)
		}
		if err := s.visit(node, name, s.where(name, v6)); err == nil {
			t.Errorf("%s reaches %s", c.name, name)
		}
	}
	own := s.where(c.name+".example.org", v6)
	if err := s.visit(node, c.other+".example.org", own); err == nil {
		t.Errorf("%s reaches %s.example.org at %s", c.name, c.other, own)
	}
	if status, err := s.get(within(t, 5*time.Second), node, netip.AddrPortFrom(own, 80), "http://"+c.other+".example.org/"); err == nil && status != 403 {
		t.Errorf("%s gets %d from http://%s.example.org/", c.name, status, c.other)
	}
	for _, to := range s.services(3-node, v6) {
		if err := s.echoes(node, to); err == nil {
			t.Errorf("%s reaches %s", c.name, to)
		}
	}
}

// learnsForItself: both may reach a name, but only who was told where it is.
func (s *site) learnsForItself(t *testing.T) {
	t.Helper()
	const name = "both.example.org"
	for _, v6 := range families {
		addr := s.found(1, name, v6)
		if err := s.visit(1, name, addr); err != nil {
			t.Errorf("red to %s: %v", name, err)
		}
		if err := s.visit(2, name, addr); err == nil {
			t.Errorf("blue reaches %s, of which DNS has told red", name)
		}
		s.found(2, name, v6)
		if err := s.visit(2, name, addr); err != nil {
			t.Errorf("blue to %s, of which DNS has told it now: %v", name, err)
		}
	}
}

// TestObservedClusterBesideAnEnforcedOne: the mode is the cluster's.
func TestObservedClusterBesideAnEnforcedOne(t *testing.T) {
	s := startSite(t, setting{file: fmt.Sprintf(twoClusters, "observe")})
	const name = "unlisted.example.net"
	for _, v6 := range families {
		addr := s.where(name, v6)
		s.found(1, "red.example.org", v6)
		for node, c := range members {
			began := time.Now()
			err := s.visit(node+1, name, addr)
			if observed := c.name == "blue"; observed != (err == nil) {
				t.Errorf("%s to %s: %v", c.name, name, err)
			}
			f, ok := s.denied(func(f *egress.Flow) bool { return f.Conn.Dst.Addr() == addr && f.Time.After(began) })
			if !ok || f.Observed != (c.name == "blue") || f.Cluster != c.name {
				t.Errorf("%s to %s: the log says %v, observed %v, in cluster %s: %v", c.name, name, ok, f.Observed, f.Cluster, f.Verdict)
			}
		}
	}
}
