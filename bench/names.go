//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"tidegate.io/tidegate/bench/load"
)

// nameServers are what T7 compares: each forwards to the same authority, and all but CoreDNS have the policy.
func nameServers() []mode {
	return []mode{
		{name: "tidegate", title: "Tidegate", setUp: tidegate},
		{name: "tidegate-redirected", title: "Tidegate, where another server is asked", setUp: redirected},
		{name: "dnsmasq", title: "dnsmasq", setUp: dnsmasq},
		{name: "unbound", title: "unbound", setUp: unbound},
		{name: "dnsdist", title: "dnsdist", setUp: dnsdist},
		{name: "coredns", title: "CoreDNS (no policy)", setUp: coredns},
	}
}

// redirected is a gateway whose clients ask the name server itself, as pods with a resolver of their own choice do. The others
// are asked directly.
func redirected(w *world) error {
	w.resolver = nameServer.Addr()
	return tidegate(w)
}

// resolve is T7: questions that are answered from the cache, and questions that nobody asked before.
func (b *bench) resolve() error {
	worlds := b.useModes(nameServers(), "tidegate", "tidegate-redirected", "dnsmasq", "unbound", "dnsdist", "coredns")
	n := b.some(2)
	var hot [][]byte
	for _, name := range b.policy.hot(1000) {
		q, err := load.Question(name, false)
		if err != nil {
			return err
		}
		hot = append(hot, q)
	}
	for _, w := range worlds {
		if err := w.ask(b.policy.hot(1000)); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	cached, err := b.rounds(n, worlds, b.slice, func(w *world) running {
		next := make([]int, runtime.NumCPU())
		return b.questions(w, workers, func(thread int) []byte {
			next[thread]++
			// Each thread writes its number into the question, so each has its own half.
			at := (next[thread]*7919)%(len(hot)/len(next))*len(next) + thread
			return hot[at]
		})
	})
	if err != nil {
		return err
	}
	b.resolveTable("answered from the cache, 1,000 names, 32 outstanding", worlds, cached)
	b.resolveGoals(cached)
	var fresh atomic.Int64
	miss, err := b.rounds(b.some(4), worlds, b.slice, func(w *world) running {
		return b.questions(w, workers, func(int) []byte { return b.unheard(&fresh) })
	})
	if err != nil {
		return err
	}
	b.resolveTable("asked for the first time, 32 outstanding", worlds, miss)
	if b.quick {
		return nil
	}
	return b.resolveOne(worlds, hot, &fresh)
}

// resolveOne shows the waiting time of a client that asks one question after the other.
func (b *bench) resolveOne(worlds []*world, hot [][]byte, fresh *atomic.Int64) error {
	n := 0
	for _, kind := range []struct {
		title string
		next  func(int) []byte
	}{
		{"answered from the cache", func(int) []byte { n++; return hot[n%len(hot)] }},
		{"asked for the first time", func(int) []byte { return b.unheard(fresh) }},
	} {
		rounds, err := b.rounds(b.some(5), worlds, b.slice, func(w *world) running {
			return b.questions(w, 1, kind.next)
		})
		if err != nil {
			return err
		}
		t := b.results.table("T7", kind.title+", one outstanding", Column{"p50", "µs"}, Column{"p99", "µs"})
		for _, w := range worlds {
			p50, p99 := each(rounds, quantile(w.name, 0.5)), each(rounds, quantile(w.name, 0.99))
			t.row(w.title, &p50, &p99)
		}
	}
	return nil
}

// onceName begins the names that are asked for once. Their answers are soon over: as many with an hour's would be more than a
// gateway lets one cluster have.
const onceName = "once-"

// unheard is a question for a name below a wildcard that was never asked for.
func (b *bench) unheard(fresh *atomic.Int64) []byte {
	n := fresh.Add(1)
	q, err := load.Question(fmt.Sprintf(onceName+"%d.%s", n, b.policy.wild[int(n)%len(b.policy.wild)]), false)
	if err != nil {
		panic(err) // the names are made above
	}
	return q
}

func (b *bench) questions(w *world, outstanding int, next func(int) []byte) running {
	return load.UDP{
		NS: w.client, Sources: clientAddrs(), To: netip.AddrPortFrom(w.resolver, 53), Next: next, DNS: true,
		Threads: min(outstanding, runtime.NumCPU()), Sockets: outstanding,
	}.Start()
}

func perServerSecond(mode string) func(round) float64 {
	return func(r round) float64 { return float64(r[mode].done) / r[mode].gateway.Seconds() }
}

func (b *bench) resolveTable(title string, worlds []*world, rounds []round) {
	t := b.results.table("T7", title, Column{"questions a CPU second of the server", ""}, Column{"Tidegate ÷ it", ""}, Column{"questions a second", ""}, Column{"p50", "µs"}, Column{"p99", "µs"})
	for _, w := range worlds {
		per := each(rounds, perServerSecond(w.name))
		rate := each(rounds, func(r round) float64 { return r[w.name].rate() })
		p50, p99 := each(rounds, quantile(w.name, 0.5)), each(rounds, quantile(w.name, 0.99))
		t.row(w.title, &per, ratio(rounds, "tidegate", w.name, perServerSecond), &rate, &p50, &p99)
	}
}

func (b *bench) resolveGoals(cached []round) {
	for _, p := range []struct {
		mode, title string
		least       float64
	}{{"dnsmasq", "dnsmasq", 1.2}, {"unbound", "unbound", 1}, {"dnsdist", "dnsdist", 1}, {"coredns", "CoreDNS", 3}} {
		if f := ratio(cached, "tidegate", p.mode, perServerSecond); f != nil {
			b.results.atLeast("P9", "cached answers a CPU second ÷ those of "+p.title, p.least, "", *f)
		}
	}
}

func (w *world) awaitNames(p *process) error {
	return p.await(func() error { return w.ask(w.bench.policy.hot(2)) })
}

func dnsmasq(w *world) error {
	var b strings.Builder
	b.WriteString("no-resolv\nno-hosts\ncache-size=10000\ndns-forward-max=1000\nlisten-address=" + gatewayInside.String() + "\nbind-interfaces\nuser=root\npid-file=\n")
	for _, n := range append(append([]string{}, w.bench.policy.exact...), w.bench.policy.wild...) {
		fmt.Fprintf(&b, "server=/%s/%s\n", n, nameServer.Addr())
	}
	return w.startNames("dnsmasq.conf", b.String(), "dnsmasq", "-k", "-C")
}

func unbound(w *world) error {
	var b strings.Builder
	b.WriteString(`server:
  interface: INSIDE
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  directory: "DIR"
  pidfile: "DIR/unbound.pid"
  use-syslog: no
  num-threads: THREADS
  so-reuseport: yes
  msg-cache-size: 64m
  rrset-cache-size: 128m
  module-config: "iterator"
  do-not-query-localhost: no
  local-zone: "." refuse
`)
	for _, n := range append(append([]string{}, w.bench.policy.exact...), w.bench.policy.wild...) {
		fmt.Fprintf(&b, "  local-zone: \"%s.\" transparent\n", n)
	}
	b.WriteString("remote-control:\n  control-enable: no\nforward-zone:\n  name: \".\"\n  forward-addr: UPSTREAM\n")
	return w.startNames("unbound.conf", strings.ReplaceAll(b.String(), "INSIDE", gatewayInside.String()), "unbound", "-d", "-c")
}

func dnsdist(w *world) error {
	var names []string
	for _, n := range append(append([]string{}, w.bench.policy.exact...), w.bench.policy.wild...) {
		names = append(names, n+".")
	}
	if _, err := writeLines(w.dir, "names.lst", names); err != nil {
		return err
	}
	return w.startNames("dnsdist.conf", strings.ReplaceAll(`
for i = 1, THREADS do addLocal("INSIDE:53", {reusePort=true}) end
setACL({"0.0.0.0/0"})
newServer({address="UPSTREAM:53", healthCheckMode="up", sockets=8})
getPool(""):setCache(newPacketCache(100000, {maxTTL=86400, numberOfShards=20}))
allowed = newSuffixMatchNode()
for line in io.lines("DIR/names.lst") do allowed:add(newDNSName(line)) end
addAction(NotRule(SuffixMatchNodeRule(allowed)), RCodeAction(DNSRCode.REFUSED))
setVerboseHealthChecks(false)
`, "INSIDE", gatewayInside.String()), "dnsdist", "--supervised", "--disable-syslog", "-C")
}

// coredns is built from its module (make bench does); it has no policy, which is in its favour.
func coredns(w *world) error {
	path := filepath.Join(filepath.Dir(w.bench.binary), "coredns")
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w (make bench builds it)", err)
	}
	return w.startNames("Corefile", ".:53 {\n  bind "+gatewayInside.String()+"\n  cache {\n    success 20000\n  }\n  forward . UPSTREAM\n}\n", path, "-conf")
}

func (w *world) startNames(file, text, program string, args ...string) error {
	conf, err := w.configure(file, text)
	if err != nil {
		return err
	}
	if err := w.forward(); err != nil {
		return err
	}
	p, err := w.start(program, append(args, conf)...)
	if err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	return w.awaitNames(p)
}
