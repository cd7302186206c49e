package kernel

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

// intact asks in the namespace itself, as Apply does.
func (b *bench) intact() (intact bool, err error) {
	must(b.t, b.gateway.Do(func() error { intact, err = b.table.Intact(); return nil }))
	return intact, err
}

func TestRulesThatOthersRemoveAreMissed(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	b.table.noOwner = true // as on older kernels
	tunnel := rule(t, "tunnel", nil, "tcp://20.40.0.0/24:9000", "tcp://db.example:22")
	rs := b.load(nil, tunnel)
	b.echo(b.web, 9001)
	var w *Watch
	must(t, b.gateway.Do(func() (err error) { w, err = OpenWatch(); return err }))
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan bool, 1), make(chan error, 1)
	go func() {
		done <- w.Run(ctx, func() {
			select {
			case told <- true:
			default:
			}
		})
	}()
	defer func() { cancel(); must(t, <-done) }()
	for _, row := range []struct {
		name   string
		do     []string
		intact bool
	}{
		{"nothing", nil, true},
		{"another's table", []string{"add", "table", "ip", "other"}, true},
		{"one chain's rules", []string{"flush", "chain", "inet", "tidegate", "denied"}, false},
		{"all rules", []string{"flush", "table", "inet", "tidegate"}, false},
		{"the table", []string{"delete", "table", "inet", "tidegate"}, false},
		{"everything", []string{"flush", "ruleset"}, false},
	} {
		select {
		case <-told: // of what Apply did
		default:
		}
		if row.do != nil {
			nft(t, b.gateway, "", row.do...)
		}
		intact, err := b.intact()
		must(t, err)
		if intact != row.intact {
			t.Errorf("%s: intact %t", row.name, intact)
		}
		if !row.intact {
			select {
			case <-told:
			case <-time.After(patience):
				t.Errorf("%s: nobody was told", row.name)
			}
		}
		if row.name == "everything" {
			b.gateHolds()
		}
		apply(t, b.gateway, b.table, rs, nil)
		if b.reach("tcp", at(webAddrs[0], 9001)) == nil {
			t.Errorf("%s: put back, the rules refuse nothing", row.name)
		}
		if intact, err := b.intact(); !intact || err != nil {
			t.Errorf("%s: put back, intact %t, %v", row.name, intact, err)
		}
	}
	must(t, b.table.Open([]Element{{Set: "open.prod.tcp.22.v4", Addr: rs.Sets[0].Ranges[0].First, Mark: NewMark(Allowed, 1), Timeout: patience}}))
	if intact, err := b.intact(); !intact || err != nil {
		t.Errorf("after an address was opened: intact %t, %v", intact, err)
	}
}

// gateHolds tries to pass without rules: nothing does while the gate stands, and everything without it.
func (b *bench) gateHolds() {
	b.t.Helper()
	for _, a := range webAddrs {
		if c, err := b.within(500*time.Millisecond, "tcp", at(a, 9001)); err == nil {
			c.Close()
			b.t.Errorf("without rules %s is reached", a)
		}
	}
	must(b.t, b.gateway.Do(func() error { return gate(nil).apply() }))
	for _, a := range webAddrs {
		c, err := b.within(patience, "tcp", at(a, 9001))
		if err != nil {
			b.t.Errorf("control: without rules and without the gate %s is not reached: %v", a, err)
			continue
		}
		c.Close()
	}
}

// within dials for a while only.
func (b *bench) within(d time.Duration, network, addr string) (c net.Conn, err error) {
	must(b.t, b.client.Do(func() error { c, err = net.DialTimeout(network, addr, d); return nil }))
	return c, err
}

// TestOthersCannotRemoveRules: where the kernel can, the table is the process's own, and stays when it ends.
func TestOthersCannotRemoveRules(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	rs := b.load(nil, rule(t, "tunnel", nil, "tcp://20.40.0.0/24:9000"))
	b.echo(b.web, 9000)
	if b.table.noOwner {
		if version := release(t); !version.before(6, 9) {
			t.Errorf("Linux %v lets no process own a table that outlives it", version)
		}
		return // another test has shown what holds then
	}
	nft(t, b.gateway, "", "flush", "ruleset")
	if intact, err := b.intact(); !intact || err != nil {
		t.Errorf("after another's flush: intact %t, %v", intact, err)
	}
	must(t, b.table.Close())
	must(t, b.reach("tcp", at(webAddrs[0], 9000)))
	if b.reach("tcp", at(webAddrs[0], 9001)) == nil {
		t.Error("with the process the rules have gone")
	}
	next := openTable(t, b.gateway)
	apply(t, b.gateway, next, rs, nil)
	if next.noOwner {
		t.Error("the next process does not own the table")
	}
	nft(t, b.gateway, "", "flush", "ruleset")
	must(t, b.reach("tcp", at(webAddrs[0], 9000)))
}

// policyRules are those of the gateway, of both families.
func (b *bench) policyRules() (all []netlink.Rule) {
	must(b.t, b.gateway.Do(func() error {
		for _, family := range ipFamilies {
			have, err := ourRules(family)
			if err != nil {
				return err
			}
			all = append(all, have...)
		}
		return nil
	}))
	return all
}

// TestAKeptTableNeedsNoGate: while somebody has the socket, the table is nobody else's to remove, with and without a process.
// Who lets it go leaves a gate.
func TestAKeptTableNeedsNoGate(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	if b.load(nil); b.table.noOwner {
		t.Skip("this kernel lets no process own a table that outlives it")
	}
	must(t, b.table.Close())
	b.table = openTable(t, b.gateway) // the next version, which has it kept
	b.table.Kept = true
	rs := b.load(nil, rule(t, "tunnel", nil, "tcp://20.40.0.0/24:9000"))
	b.echo(b.web, 9000)
	b.echo(b.web, 9001)
	if rules := b.policyRules(); len(rules) > 0 {
		t.Errorf("policy rules that an earlier version made are left: %v", rules)
	}
	kept, err := b.table.File()
	must(t, err)
	must(t, b.table.sock.send(unreadAnswers()))
	must(t, b.table.Close())
	for range 2 {
		nft(t, b.gateway, "", "flush", "ruleset")
		must(t, b.reach("tcp", at(webAddrs[0], 9000)))
		if b.reach("tcp", at(webAddrs[0], 9001)) == nil {
			t.Error("without the process the rules have gone")
		}
		must(t, b.gateway.Do(func() (err error) { b.table, err = AdoptTable(kept); return err }))
		b.table.Kept = true
		apply(t, b.gateway, b.table, rs, nil)
		kept, err = b.table.File()
		must(t, err)
		if b.table.noOwner || len(b.policyRules()) > 0 {
			t.Errorf("the next process: no owner %t, policy rules %v", b.table.noOwner, b.policyRules())
		}
		if intact, err := b.intact(); !intact || err != nil {
			t.Errorf("the next process: intact %t, %v", intact, err)
		}
		must(t, b.table.Close())
	}
	must(t, b.gateway.Do(func() (err error) { b.table, err = AdoptTable(kept); return err }))
	b.table.Kept = true
	apply(t, b.gateway, b.table, rs, nil)
	must(t, b.gateway.Do(b.table.Gate))
	must(t, b.reach("tcp", at(webAddrs[0], 9000)))
	must(t, b.table.Close())
	nft(t, b.gateway, "", "flush", "ruleset")
	b.gateHolds()
}

// unreadAnswers asks for a long list, of which a process that dies reads nothing.
func unreadAnswers() []byte {
	return message(nil, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, unix.NFPROTO_INET, 0, nil)
}

// version is that of the kernel.
type version struct{ major, minor int }

func release(t *testing.T) (v version) {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	_, err = fmt.Sscanf(string(text), "%d.%d", &v.major, &v.minor)
	must(t, err)
	return v
}

func (v version) before(major, minor int) bool {
	return v.major < major || v.major == major && v.minor < minor
}

// TestAGateThatOthersRemoveIsMissed: without the first of its rules nothing passes, and without others too much would.
func TestAGateThatOthersRemoveIsMissed(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	rs := b.load(nil, rule(t, "web", nil, "http://a.example:80"))
	for _, do := range [][]string{
		{"rule", "del", "pref", "29795"}, {"-6", "rule", "del", "pref", "29796"}, {"rule", "del", "pref", "29798"},
		{"-6", "rule", "del", "pref", "29798"}, {"rule", "del", "pref", "29799"}, {"rule", "flush"},
	} {
		must(t, b.gateway.Do(func() error { return exec.Command("ip", do...).Run() }))
		if do[len(do)-1] == "flush" {
			must(t, b.gateway.Do(func() error { return exec.Command("ip", "rule", "add", "pref", "32766", "lookup", "main").Run() }))
		}
		if intact, err := b.intact(); intact || err != nil {
			t.Errorf("after ip %v: intact %t, %v", do, intact, err)
		}
		apply(t, b.gateway, b.table, rs, nil)
		if intact, err := b.intact(); !intact || err != nil {
			t.Errorf("ip %v, put back: intact %t, %v", do, intact, err)
		}
	}
}

// TestWhatAnEarlierVersionLeftIsRemoved: it led web requests to the proxy by a policy rule and a route.
func TestWhatAnEarlierVersionLeftIsRemoved(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	ip := func(args ...string) string {
		var out []byte
		must(t, b.gateway.Do(func() (err error) { out, err = exec.Command("ip", args...).CombinedOutput(); return err }))
		return string(out)
	}
	for _, family := range []string{"-4", "-6"} {
		ip(family, "rule", "add", "pref", "29797", "fwmark", "0x6000000/0xf000000", "lookup", "29796")
		ip(family, "route", "add", "local", "default", "dev", "lo", "table", "29796")
	}
	b.load(nil, rule(t, "web", nil, "http://a.example:80"))
	for _, family := range []string{"-4", "-6"} {
		if rules := ip(family, "rule"); strings.Contains(rules, "lookup 29796") {
			t.Errorf("rules %s:\n%s", family, rules)
		}
		if routes := ip(family, "route", "show", "table", "all"); strings.Contains(routes, "29796") {
			t.Errorf("routes %s:\n%s", family, routes)
		}
	}
}
