package export

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/lab"
)

// TestInPlace lets each stand judge what a node needs and what must not leave.
// Whatever comes out otherwise is excused by a gap of the export or by a limit
// of the format, and an excuse that nothing needs is a lie.
func TestInPlace(t *testing.T) {
	for _, s := range stands() {
		for _, gso := range []bool{true, false} {
			if s.start != nil && !gso {
				continue // a proxy sees what the kernel has put together
			}
			t.Run(fmt.Sprintf("%s/gso=%t", s.format, gso), func(t *testing.T) {
				b := putInPlace(t, s, gso)
				results, err := b.Run(context.WithoutCancel(t.Context()), slices.Concat(lab.Bootstrap(b.Zone, b.policy), lab.NearMisses(b.Zone, b.policy), lab.Attacks(b.Zone, b.policy)), nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				b.judge(t, s, results)
			})
		}
	}
}

// TestNFTablesKeepsAddresses: what a name was known to have is known after the rules are loaded again, and use renews it,
// for the answers of a resolver do not.
func TestNFTablesKeepsAddresses(t *testing.T) {
	i := slices.IndexFunc(stands(), func(s stand) bool { return s.format == "nftables" })
	b := putInPlace(t, stands()[i], true)
	ctx := t.Context()
	addrs, err := b.Node(1).Lookup(ctx, "registry.example.org", false)
	if err != nil {
		t.Fatal(err)
	}
	const set = "inet tidegate own_port_https_8443_v4"
	b.load(t, fmt.Sprintf("delete element %s { %s }\nadd element %[1]s { %[2]s timeout 1d expires 1h }", set, addrs[0]))
	b.load(t, b.rules)
	c, err := b.Node(1).Dial(ctx, "tcp", netip.AddrPortFrom(addrs[0], 8443))
	if err != nil {
		t.Fatalf("after the rules were loaded again: %v", err)
	}
	_ = c.Close()
	var said []byte
	err = b.DoGateway(func() (err error) {
		said, err = exec.Command(program(t, "nft"), "list", "set", "inet", "tidegate", "own_port_https_8443_v4").CombinedOutput()
		return err
	})
	renewed := bytes.Contains(said, []byte(addrs[0].String()+" expires 23h59m")) || bytes.Contains(said, []byte(addrs[0].String()+" expires 1d"))
	if err != nil || !renewed {
		t.Errorf("a connection does not renew the address: %v\n%s", err, said)
	}
}

// judge sorts the results.
func (b *bench) judge(t *testing.T, s stand, results []lab.Result) {
	used := map[string]int{}
	passed, stopped := 0, 0
	for _, r := range results {
		right := b.harmless(&r)
		if len(r.Deny) == 0 {
			right = r.Err == nil && r.Reached
		}
		why := b.excuse(s, &r)
		switch {
		case right && len(r.Deny) == 0:
			passed++
		case right:
			stopped++
		case why == "":
			t.Errorf("%s: a node %s: %v, at %s", r.Group, r.Name, r.Err, places(r.Seen))
		default:
			used[why]++
			continue
		}
		if why != "" && len(r.Deny) == 0 {
			if strings.Contains(why, " may be ") { // such a limit is seen now and then
				used[why]++
				continue
			}
			t.Errorf("%s: a node %s, although %s", r.Group, r.Name, why)
		}
	}
	for why, n := range used {
		t.Logf("%3d %s", n, why)
	}
	for _, x := range s.excuses {
		if used[x.limit] == 0 {
			t.Errorf("the limit %q is not seen", x.limit)
		}
	}
	for _, g := range b.gaps {
		if used[g.String()] == 0 {
			t.Errorf("the gap %q is not seen", g)
		}
	}
	t.Logf("%d needs passed, %d near misses were stopped", passed, stopped)
}

// An excuse ties what a stand does wrong to the limit that its format admits.
type excuse struct {
	limit string
	of    func(b *bench, r *lab.Result) bool
}

// excuse is the gap or limit that covers a result; "" is none.
func (b *bench) excuse(s stand, r *lab.Result) string {
	if len(r.Deny) == 0 {
		for _, g := range b.gaps {
			if g.Rule == r.Group && g.Endpoint.String() == r.About {
				return g.String()
			}
			// The cases that are not of one rule.
			if p, ok := g.Endpoint.Host.(egress.Pattern); ok && r.Group == "updates" && g.Endpoint.Proto == egress.HTTP && strings.Contains(r.Name, " "+p.String()+" ") {
				return g.String()
			}
		}
	}
	for _, x := range s.excuses {
		if x.of(b, r) {
			return x.limit
		}
	}
	return ""
}

// harmless reports whether nothing arrived but where and as a rule permits it:
// a proxy that looks names up itself leads a client that dials another address
// to the name's own.
func (b *bench) harmless(r *lab.Result) bool {
	for _, seen := range r.Seen {
		if !b.permitted(&seen) {
			return false
		}
	}
	return !r.Reached || len(r.Seen) > 0
}

func (b *bench) permitted(s *lab.Seen) bool {
	c := egress.Conn{Proto: egress.HTTPS, Src: netip.MustParseAddrPort("10.224.1.4:40000"), Dst: s.Local}
	var shown []string // a proxy puts the requests of several clients on one connection
	switch s.Proto {
	case "tls":
		return b.allows(c, s.Local.Addr(), s.Name)
	case "http":
		c.Proto = egress.HTTP
	default:
		return false
	}
	for _, m := range hostLine.FindAllSubmatch(s.Data, -1) {
		shown = append(shown, string(m[1]))
	}
	return len(shown) > 0 && !slices.ContainsFunc(shown, func(name string) bool { return !b.allows(c, s.Local.Addr(), name) })
}

func (b *bench) allows(c egress.Conn, at netip.Addr, name string) bool {
	var err error
	if c.Name, err = egress.ParseName(name); err != nil {
		return false
	}
	if slices.Contains(b.Zone.Addrs(c.Name.String()), at) {
		c.Bound = []egress.Name{c.Name}
	}
	return b.policy.Decide(c).Action == egress.Allow
}

// allOpen reports whether r arrived, and only at addresses that are open.
func (b *bench) allOpen(r *lab.Result) bool {
	return len(r.Seen) > 0 && !slices.ContainsFunc(r.Seen, func(s lab.Seen) bool { return !b.open(&s) })
}

// open reports whether the address at which something was seen is one that a
// permitted name has, or a rule by address.
func (b *bench) open(s *lab.Seen) bool {
	asked := b.Record.Find(func(q *lab.Seen) bool {
		return q.Proto == "dns" && slices.Contains(b.Zone.Addrs(q.Name), s.Local.Addr())
	})
	transport := egress.TCP
	if s.Proto == "udp" {
		transport = egress.UDP
	}
	for _, r := range b.policy.Rules() {
		for _, e := range r.To {
			p, named := e.Host.(egress.Pattern)
			if !named || e.Proto.Transport() != transport || !e.Ports.Has(s.Local.Port()) {
				continue
			}
			if slices.ContainsFunc(asked, func(q lab.Seen) bool { n, err := egress.ParseName(q.Name); return err == nil && p.Match(n) }) {
				return true
			}
		}
	}
	return false
}

var hostLine = regexp.MustCompile(`(?mi)^host:[ \t]*([^\r\n:]*)(?::80)?\r?$`)

func places(seen []lab.Seen) string {
	var out []string
	for _, s := range seen {
		out = append(out, fmt.Sprintf("%s %s %q", s.Proto, s.Local, s.Name))
	}
	return strings.Join(out, ", ")
}

// The excuses.
var (
	excuseOnlyIPv4 = excuse{onlyIPv4, func(_ *bench, r *lab.Result) bool {
		return len(r.Deny) == 0 && strings.Contains(r.Name, "over IPv6") && !strings.HasPrefix(r.Name, "resolves ")
	}}
	excuseNoName = excuse{noName, func(_ *bench, r *lab.Result) bool {
		return r.Group == "API server" && strings.HasPrefix(r.Name, "speaks ") && !strings.Contains(r.Name, "showing "+labAPIServer)
	}}
	excuseSecondHello = excuse{secondHello, func(_ *bench, r *lab.Result) bool { return r.Group == "second hellos" }}
	excuseOddHellos   = excuse{oddHellos, func(b *bench, r *lab.Result) bool {
		return (r.Group == "server names" || r.Group == "malformed hellos") && b.allOpen(r)
	}}
	excuseFollows = excuse{follows, func(_ *bench, r *lab.Result) bool { return r.Group == "guarded addresses" }}
	excuseNotDNS  = excuse{notDNS, func(_ *bench, r *lab.Result) bool { return r.Group == "DNS names" }}
	// Everything that arrives is at an address which an allowed name has.
	excuseLearned = excuse{learned, func(b *bench, r *lab.Result) bool { return len(r.Deny) > 0 && b.allOpen(r) }}
)

func excuseHellos(limit string, which ...string) excuse {
	return excuse{limit, func(_ *bench, r *lab.Result) bool {
		return r.Group == "legal but odd" && slices.ContainsFunc(which, func(w string) bool { return strings.Contains(r.Name, w) })
	}}
}
