package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
)

func TestLearnedAddressesOpenForTheirPortsOnly(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		rs := b.load(nil, rule(t, "git", nil, "tcp://git.example:9418", "udp://git.example:9418"))
		b.echo(b.web, 9418)
		b.echo(b.web, 9419)
		for _, a := range webAddrs {
			if err := b.reach("tcp", at(a, 9418)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s before its answer: %v", a, err)
			}
			must(t, b.table.Open(learn(rs, binding("prod", "git.example", a, time.Minute))))
			must(t, b.reach("tcp", at(a, 9418)))
			must(t, b.reach("udp", at(a, 9418)))
			if err := b.reach("tcp", at(a, 9419)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s on another port: %v", a, err)
			}
		}
	})
}

func TestALiveConnectionOutlivesItsBinding(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	rs := b.load(nil, rule(t, "git", nil, "tcp://git.example:9418"))
	b.echo(b.web, 9418)
	must(t, b.table.Open(learn(rs, binding("prod", "git.example", webAddrs[0], 200*time.Millisecond))))
	c, err := b.dial("tcp", at(webAddrs[0], 9418))
	must(t, err)
	must(t, talk(c, "one"))
	waitFor(t, "the binding expires", func() bool { return b.reach("tcp", at(webAddrs[0], 9418)) != nil })
	must(t, talk(c, "two"))
}

func TestOpeningAgainStartsTheTimeoutAgain(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	rs := b.load(nil, rule(t, "git", nil, "tcp://git.example:9418"), rule(t, "other", nil, "tcp://other.example:9418"))
	a := webAddrs[0]
	for _, step := range []struct {
		name string
		left time.Duration
		mark uint32
	}{
		{"git.example", time.Minute, 1},
		{"git.example", time.Hour, 1},
		{"git.example", time.Minute, 1},
		{"other.example", time.Hour, 2},
	} {
		must(t, b.table.Open(learn(rs, binding("prod", step.name, a, step.left))))
		es, err := b.table.Elements()
		must(t, err)
		if len(es) != 1 || es[0].Timeout > step.left || es[0].Timeout < step.left-10*time.Second || es[0].Mark != NewMark(Allowed, step.mark) {
			t.Errorf("after %+v: %+v", step, es)
		}
	}
}

// Those who open at the same time share transactions: one that cannot be done, or an address that two want, is nobody else's
// trouble.
func TestManyOpenAtOnce(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	rs := b.load(nil, rule(t, "git", nil, "tcp://git.example:9418"), rule(t, "other", nil, "tcp://other.example:9418"))
	const callers, each = 16, 20
	shared := learn(rs, binding("prod", "git.example", "20.40.9.9", time.Hour))
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := range each {
				name := []string{"git.example", "other.example"}[c%2]
				own := learn(rs, binding("prod", name, fmt.Sprintf("20.40.%d.%d", 10+c, i), time.Hour), binding("prod", name, "20.40.9.8", time.Hour))
				if err := b.table.Open(append(own, shared...)); err != nil {
					t.Errorf("caller %d: %v", c, err)
				}
				wrong := Element{Set: "none", Addr: shared[0].Addr, Timeout: time.Hour}
				if err := b.table.Open([]Element{wrong}); !errors.Is(err, unix.ENOENT) {
					t.Errorf("a set that is not there: %v", err)
				}
			}
		})
	}
	all.Wait()
	es, err := b.table.Elements()
	must(t, err)
	if want := callers*each + 2; len(es) != want {
		t.Errorf("%d are open, want %d", len(es), want)
	}
}

func TestAReloadKeepsWhatStillHolds(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	git, ntp := rule(t, "git", nil, "tcp://git.example:9418"), rule(t, "ntp", nil, "tcp://ntp.example:9418", "udp://ntp.example:123")
	rs := b.load(nil, git, ntp)
	must(t, b.table.Open(learn(rs,
		binding("prod", "git.example", "20.40.0.1", time.Hour), binding("prod", "ntp.example", "20.40.0.2", time.Hour),
		binding("prod", "ntp.example", "2603:1020::2", time.Hour))))
	p := compilePolicy(t, []egress.Cluster{prod}, git)
	rs = plan(t, p, settings(p, inside))
	apply(t, b.gateway, b.table, rs, learn(rs,
		binding("prod", "git.example", "20.40.0.1", time.Minute), binding("prod", "ntp.example", "20.40.0.2", time.Hour),
		binding("prod", "git.example", "20.40.0.9", time.Minute)))
	es, err := b.table.Elements()
	must(t, err)
	var got []string
	for _, e := range es {
		got = append(got, fmt.Sprint(e.Set, " ", e.Addr, " ", e.Mark, " ", e.Timeout > 30*time.Minute))
	}
	slices.Sort(got)
	want := []string{"open.prod.tcp.9418.v4 20.40.0.1 allowed/1 true", "open.prod.tcp.9418.v4 20.40.0.9 allowed/1 false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestReloadsUnderTrafficLoseNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		rules := []egress.Rule{rule(t, "git", nil, "tcp://git.example:9418"), rule(t, "tunnel", nil, "tcp://20.40.0.0/24:9000")}
		rs := b.load(nil, rules...)
		opened := learn(rs, binding("prod", "git.example", webAddrs[0], time.Hour), binding("prod", "git.example", webAddrs[1], time.Hour))
		must(t, b.table.Open(opened))
		b.echo(b.web, 9418)
		b.echo(b.web, 9000)
		old, err := b.dial("tcp", at(webAddrs[0], 9000))
		must(t, err)
		var stop atomic.Bool
		failed := make(chan error, 1)
		var connections atomic.Int64
		go func() {
			for !stop.Load() {
				for _, to := range []string{at(webAddrs[0], 9000), at(webAddrs[0], 9418), at(webAddrs[1], 9418)} {
					c, err := b.dial("tcp", to)
					if err == nil {
						err = talk(c, "hello")
						c.Close()
					}
					if err == nil {
						err = talk(old, "still there")
					}
					if err != nil {
						failed <- fmt.Errorf("%s: %w", to, err)
						return
					}
					connections.Add(1)
				}
			}
			failed <- nil
		}()
		for i := range 100 {
			more := append(slices.Clone(rules), rule(t, fmt.Sprint("more-", i), nil, fmt.Sprintf("tcp://20.41.0.0/24:%d", 10000+i)))
			p := compilePolicy(t, []egress.Cluster{prod}, more...)
			apply(t, b.gateway, b.table, plan(t, p, settings(p, inside)), opened)
		}
		stop.Store(true)
		must(t, <-failed)
		if connections.Load() == 0 {
			t.Error("no connection was made meanwhile")
		}
	})
}

func TestAFailedReloadChangesNothing(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	rs := b.load(nil, rule(t, "tunnel", nil, "tcp://20.40.0.0/24:9000"))
	before := nft(t, b.gateway, "", "list", "ruleset")
	broken := *rs
	broken.Chains = append(slices.Clone(rs.Chains), Chain{Name: "broken", Rules: []Rule{{goTo("nowhere")}}})
	err := b.gateway.Do(func() error { return b.table.Apply(&broken, nil) })
	if err == nil {
		t.Fatal("no error")
	}
	t.Log(err)
	if diff := cmp.Diff(before, nft(t, b.gateway, "", "list", "ruleset")); diff != "" {
		t.Errorf("-before +after:\n%s", diff)
	}
	apply(t, b.gateway, b.table, rs, nil) // the connection still works
}

// TestLargePoliciesLoad has the size of Azure's largest service tag, and of what
// DNS may teach.
func TestLargePoliciesLoad(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	r := rule(t, "names", nil, "tcp://*.a.example:9418")
	for i := range 13000 {
		e := egress.Endpoint{Proto: egress.TCP, Ports: egress.Ports{First: 9000, Last: 9000}}
		e.Host = egress.Net{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(32 + i>>15), byte(i >> 7), byte(i << 1), 0}), 24)}
		r.To = append(r.To, e)
	}
	p := compilePolicy(t, []egress.Cluster{prod}, r)
	rs := plan(t, p, settings(p, inside))
	for _, what := range []string{"first load", "reload"} {
		start := time.Now()
		apply(t, b.gateway, b.table, rs, nil)
		t.Logf("%s of 13,000 prefixes: %s", what, time.Since(start).Round(time.Millisecond))
	}
	var es []Element
	for i := range 100_000 {
		a := netip.AddrFrom4([4]byte{52, byte(i >> 16), byte(i >> 8), byte(i)})
		es = append(es, learn(rs, binding("prod", "x.a.example", a.String(), time.Hour))...)
	}
	for _, what := range []string{"opened", "opened again"} {
		start := time.Now()
		must(t, b.table.Open(es))
		t.Logf("100,000 addresses %s: %s", what, time.Since(start).Round(time.Millisecond))
	}
	start := time.Now()
	for i := range 1000 {
		must(t, b.table.Open(es[i:i+1]))
	}
	t.Logf("one address: %s", time.Since(start)/1000)
	start = time.Now()
	apply(t, b.gateway, b.table, rs, es)
	t.Logf("reload with 100,000 addresses: %s", time.Since(start).Round(time.Millisecond))
	start = time.Now()
	got, err := b.table.Elements()
	must(t, err)
	t.Logf("read back: %s", time.Since(start).Round(time.Millisecond))
	if len(got) != len(es) {
		t.Errorf("%d addresses, want %d", len(got), len(es))
	}
}
