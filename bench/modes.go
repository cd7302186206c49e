//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tidegate.io/tidegate/bench/load"
	"tidegate.io/tidegate/lab"
)

// A mode is one way to treat what clients send, made in the gateway's namespace of a world.
type mode struct {
	name, title string
	setUp       func(*world) error
}

// modes are all of them, in the order of tables. The first is what others are compared with.
func modes() []mode {
	return []mode{
		{name: "plain", title: "plain forwarding", setUp: plain},
		{name: "snat", title: "conntrack + SNAT", setUp: sourceNAT},
		{name: "tidegate", title: "Tidegate", setUp: tidegate},
		{name: "haproxy", title: "HAProxy", setUp: haproxy},
		{name: "nginx", title: "nginx stream", setUp: nginx},
		{name: "sniproxy", title: "sniproxy", setUp: sniproxy},
		{name: "squid", title: "Squid", setUp: squid},
	}
}

// forward makes the gateway's namespace a router. Entries of ended connections go soon, in every mode alike: the table's
// size is the machine's and the rate here a hundred times that of a cluster.
func (w *world) forward() error {
	_ = w.gateway.Sysctl("net/netfilter/nf_conntrack_tcp_timeout_time_wait", "2") // as soon as conntrack is there
	return errors.Join(w.gateway.Sysctl("net/ipv6/conf/all/forwarding", "1"), w.gateway.Sysctl("net/ipv4/ip_forward", "1"))
}

func plain(w *world) error { return w.forward() }

func sourceNAT(w *world) error {
	if err := w.run(`
table inet bench {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    meta l4proto ipv6-icmp accept
    ct state new iifname "inside" meta l4proto { tcp, udp } accept
  }
  chain leave {
    type nat hook postrouting priority srcnat;
    oifname "outside" masquerade
  }
}`, "nft", "-f", "-"); err != nil {
		return err
	}
	return w.forward()
}

// A setting is what differs between gateways here.
type setting struct {
	policy policy
	http   bool   // its names are permitted on port 80 too
	flows  string // where the flow log is written; empty for nowhere
	more   string // further rules
}

func (b *bench) usual() setting { return setting{policy: b.policy, http: true, flows: "flows.jsonl"} }

// tidegate is the product as it comes: a cluster with all that AKS needs, the names of the policy as own rules, the log of
// every flow on.
func tidegate(w *world) error { return w.runGateway(w.bench.usual()) }

// tidegateWith is a mode of its own for a gateway with another setting.
func tidegateWith(name, title string, s setting) mode {
	return mode{"tidegate-" + name, title, func(w *world) error { return w.runGateway(s) }}
}

// runGateway starts the gateway, waits until it is ready, and asks DNS for the hot names as clients do.
func (w *world) runGateway(s setting) error {
	if err := os.WriteFile(filepath.Join(w.dir, "cluster.json"), lab.Example, 0o600); err != nil {
		return err
	}
	if err := w.writeGatewayFile(s); err != nil {
		return err
	}
	if err := w.forward(); err != nil {
		return err
	}
	var err error
	if w.keeper, err = lab.NewKeeper(); err != nil {
		return err
	}
	w.closers = append(w.closers, func() { _ = w.keeper.Close() })
	began := time.Now()
	p, err := w.start(w.bench.binary, "gateway", "run", "--config", "gateway.yaml")
	if err != nil {
		return err
	}
	if err := p.await(func() error { return w.fetch("/readyz", nil) }); err != nil {
		return err
	}
	w.loaded, w.gatewayRuns = time.Since(began), true
	return errors.Join(w.ask(s.policy.hot(hotNames)), w.ask6(s.policy.hot(hotNames)))
}

const management = "127.0.0.1:9253"

func (w *world) writeGatewayFile(s setting) error {
	const perRule = 500
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: tidegate.io/v1
kind: Gateway
clusters:
  - name: prod
    from: [10.224.0.0/15, "fd00:224::/64"]
    internal: [10.100.0.0/16, "fd00:100::/64"]
    aks: cluster.json
dns:
  upstream: [%s]
  listen: ["%s:53"]
management: %s
state: state
`, nameServer.Addr(), gatewayInside, management)
	if s.flows != "" {
		fmt.Fprintf(&b, "log:\n  flows: %s\n", s.flows)
	}
	fmt.Fprintf(&b, "rules:\n  - id: bench/echo\n    from: [prod]\n    why: measured\n    to: [\"udp://%s:%d\"]\n%s", serverRange, echoPort, s.more)
	to := s.policy.endpoints(s.http)
	for i := 0; i < len(to); i += perRule {
		fmt.Fprintf(&b, "  - id: bench/names-%d\n    from: [prod]\n    why: measured\n    to: [%s]\n", i/perRule, strings.Join(to[i:min(len(to), i+perRule)], ", "))
	}
	// A reload must not read half a file.
	path := filepath.Join(w.dir, "gateway.yaml")
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// endpoints are the names of the policy as the gateway's file has them.
func (p policy) endpoints(http bool) []string {
	out := make([]string, 0, 2*(len(p.exact)+len(p.wild)))
	add := func(host string) {
		out = append(out, `"https://`+host+`:443"`)
		if http {
			out = append(out, `"http://`+host+`:80"`)
		}
	}
	for _, n := range p.exact {
		add(n)
	}
	for _, n := range p.wild {
		add("*." + n)
	}
	return out
}

// intercept leads what clients send to port 443, and 80, to a transparent proxy's socket, and the next, without conntrack.
func (w *world) intercept(port int) error {
	if err := w.run(fmt.Sprintf(`
table ip bench {
  chain take {
    type filter hook prerouting priority mangle;
    iifname "inside" tcp dport 443 tproxy to :%d meta mark set 1
    iifname "inside" tcp dport 80 tproxy to :%d meta mark set 1
  }
}`, port, port+1), "nft", "-f", "-"); err != nil {
		return err
	}
	// Without early demultiplexing a socket in TIME_WAIT takes no packets that are to be forwarded.
	if err := w.gateway.Sysctl("net/ipv4/tcp_early_demux", "0"); err != nil {
		return err
	}
	if err := w.run("", "ip", "rule", "add", "fwmark", "1", "lookup", "100"); err != nil {
		return err
	}
	return w.run("", "ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100")
}

// redirect leads it to an ordinary socket instead, by translation of the destination.
func (w *world) redirect(port int) error {
	return w.run(fmt.Sprintf(`
table ip bench {
  chain turn {
    type nat hook prerouting priority dstnat;
    iifname "inside" tcp dport 443 redirect to :%d
  }
}`, port), "nft", "-f", "-")
}

// ask asks DNS for names as a client, as clients do before they connect.
func (w *world) ask(names []string) error { return w.askFor(names, false) }

// ask6 asks for the addresses of IPv6.
func (w *world) ask6(names []string) error { return w.askFor(names, true) }

func (w *world) askFor(names []string, v6 bool) error {
	return w.asking(v6, func(ask func(string) error) error {
		for _, name := range names {
			if err := ask(name); err != nil {
				return err
			}
		}
		return nil
	})
}

// asking runs f inside the client's namespace, with a function that asks its resolver for a name's address.
func (w *world) asking(v6 bool, f func(ask func(string) error) error) error {
	return w.client.Do(func() error {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: clientAddrs()[0].AsSlice()}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.resolver, 53)))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		in := make([]byte, 4096)
		return f(func(name string) error {
			q, err := load.Question(name, v6)
			if err != nil {
				return err
			}
			if err := askOnce(c, q, in); err != nil {
				return fmt.Errorf("ask for %s: %w", name, err)
			}
			return nil
		})
	})
}

func askOnce(c *net.UDPConn, question, in []byte) (err error) {
	for range 5 {
		if _, err = c.Write(question); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err = c.Read(in); err == nil {
			if in[3]&15 != 0 {
				return fmt.Errorf("the answer is rcode %d", in[3]&15)
			}
			return nil
		}
	}
	return err
}

// awaitPort waits until a process listens.
func (w *world) awaitPort(p *process, port int) error {
	return p.await(func() error {
		return w.gateway.Do(func() error {
			c, err := net.DialTimeout("tcp", netip.AddrPortFrom(gatewayInside, uint16(port)).String(), time.Second)
			if err == nil {
				_ = c.Close()
			}
			return err
		})
	})
}
