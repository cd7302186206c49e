package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/flowlog"
	"tidegate.io/tidegate/kernel"
	"tidegate.io/tidegate/web"
)

// silentFor is how long a queue may go without a look before the gateway says
// that it is not ready.
const silentFor = 5 * time.Second

// manage serves the management address and the control socket.
func (b *box) manage(ctx context.Context, management, control net.Listener) error {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{b})
	server := &web.Server{
		Ready: b.ready, Metrics: metrics, Flows: b.flows, Reload: b.reload,
		Status: func(ctx context.Context) any { return b.status(ctx) },
	}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return server.Serve(ctx, management) })
	both.Go(func() error { return server.ServeControl(ctx, control) })
	return both.Wait()
}

// ready lists what has to hold for new connections to be decided.
func (b *box) ready() []web.Check {
	checks := []web.Check{{Name: "policy"}}
	for _, q := range b.queues {
		c := web.Check{Name: fmt.Sprintf("queue %d", q.number)}
		if quiet := time.Since(time.Unix(0, q.looked.Load())); quiet > silentFor {
			c.Err = fmt.Errorf("nobody has looked for %s", quiet.Round(time.Second))
		}
		checks = append(checks, c)
	}
	up := web.Check{Name: "dns upstream", Err: errors.New("none answers")}
	for _, u := range b.dns.Stats().Upstreams {
		if u.Up {
			up.Err = nil
		}
	}
	return append(checks, up)
}

// status gathers what `gateway status` shows. What cannot be read is left out.
func (b *box) status(ctx context.Context) gatewayStatus {
	now := b.now.Load()
	s := gatewayStatus{
		APIVersion: apiVersion, Kind: "GatewayStatus", Version: readBuild().Version, Started: b.started,
		Policy:  policyStatus{ID: now.policy.ID(), Loaded: now.loaded, Rules: len(now.conf.Rules), Notes: now.conf.Notes},
		Reloads: reloadStatus{Applied: b.changes.applied.Load(), Failed: b.changes.failed.Load()},
		Running: int(max(0, b.running.Load())), HTTP: b.http.Conns(), ResetsLost: b.resetsLost.Load(), Mended: b.changes.mended.Load(),
		Counts: b.counts.byReason(), Refused: map[string]uint64{},
	}
	if last := b.changes.last.Load(); last != nil {
		s.Reloads.Error = *last
	}
	for _, w := range now.conf.Warnings() {
		s.Policy.Warnings = append(s.Policy.Warnings, w.String())
	}
	for _, c := range now.conf.Clusters {
		s.Clusters = append(s.Clusters, clusterStatus{
			Name: c.Name, Mode: c.Mode.String(), Strict: b.bindings.Strict(time.Now(), c.Name),
			APIServer: c.APIServer, APIServerAddrs: b.apiAddrs.of(c.Name),
		})
	}
	var kernelLost uint64
	if b.enforcing() {
		kernelLost = b.denials.Lost() + b.tracker.Lost()
		if counters, err := b.table.Counters(); err == nil {
			maps.DeleteFunc(counters, func(_ string, n uint64) bool { return n == 0 })
			s.Refused = counters
		}
		s.Conntrack.Entries, s.Conntrack.Most, _ = kernel.Entries() // left out
	}
	for _, q := range b.queues {
		s.Queues = append(s.Queues, q.status(ctx))
	}
	known, dns, flows := b.bindings.Stats(), b.dns.Stats(), b.flows.Stats()
	s.Bindings = bindingStatus{known.Names, known.Addrs, known.Evicted}
	s.DNS = dnsStatus{
		Answers: dns.Answers, Hits: dns.Hits, Misses: dns.Misses, Stale: dns.Stale, Denied: dns.Denied, Stripped: dns.Stripped,
		LearnLate: dns.LearnLate, LearnFailed: dns.LearnFailed,
	}
	for _, u := range dns.Upstreams {
		s.DNS.Upstreams = append(s.DNS.Upstreams, upstreamStatus{u.Addr, u.Up, u.Queries, u.Errors})
	}
	s.Flows = flowStatus{
		flows.Written, flows.Lost, flows.Suppressed, flows.Unwritten,
		kernelLost,
	}
	return s
}

func (f *followed) status(ctx context.Context) queueStatus {
	s := queueStatus{Number: f.number}
	if q, err := f.queue.Stats(); err == nil {
		s.Packets, s.Waiting, s.Dropped = q.Packets, q.Waiting, q.Full+q.Unread
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if followed, err := f.size(ctx); err == nil {
		s.Connections, s.Bytes, s.Sources = followed.Connections, followed.Bytes, followed.Sources
	}
	return s
}

// openFlowLog makes the log of flows; without a file its lines go to stdout.
func openFlowLog(path string, stdout io.Writer, failed func(error)) *flowlog.Log {
	return &flowlog.Log{
		Failed: failed,
		Open: func() (io.WriteCloser, error) {
			if path == "" {
				return unclosed{stdout}, nil
			}
			return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		},
	}
}

// unclosed is a writer that is not ours to close.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }

// collector turns the status into metrics. No label's value comes from traffic.
type collector struct{ b *box }

// Describe describes nothing: which reasons there are is told by the values.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), silentFor)
	defer cancel()
	s := c.b.status(ctx)
	m := metrics{out}
	m.gauge("policy_info", "The policy in force.", 1, "policy", s.Policy.ID)
	m.gauge("policy_rules", "Rules of the policy in force.", float64(s.Policy.Rules))
	m.gauge("policy_loaded_timestamp_seconds", "When the policy came into force.", float64(s.Policy.Loaded.Unix()))
	m.counter("reloads_total", "Configurations that came into force, the first included.", s.Reloads.Applied, "result", "applied")
	m.counter("reloads_total", "Configurations that came into force, the first included.", s.Reloads.Failed, "result", "failed")
	m.gauge("config_last_reload_successful", "Whether the last reload succeeded.", truth(s.Reloads.Error == ""))
	for reason, n := range s.Counts {
		action, word, _ := strings.Cut(reason, " ")
		m.counter("decisions_total", "Connections, requests and look-ups decided by the process.", n, "action", action, "reason", word)
	}
	for reason, n := range s.Refused {
		word, observed := strings.CutPrefix(reason, "observed.")
		m.counter("refused_packets_total", "Packets refused by the kernel's rules, or only observed to be.", n, "reason", word, "observed", fmt.Sprint(observed))
	}
	m.gauge("connections_running", "Connections that run and were allowed by their names.", float64(s.Running))
	m.gauge("http_connections", "Client connections of the HTTP proxy.", float64(s.HTTP))
	m.counter("resets_lost_total", "Resets that could not be sent at once.", s.ResetsLost)
	m.counter("rules_mended_total", "Times that others had removed rules from the kernel, which were put back.", s.Mended)
	m.gauge("conntrack_entries", "Connections that the kernel tracks.", float64(s.Conntrack.Entries))
	m.gauge("conntrack_entries_limit", "Connections that the kernel has room for.", float64(s.Conntrack.Most))
	for _, q := range s.Queues {
		number := fmt.Sprint(q.Number)
		m.counter("queue_packets_total", "Packets of undecided connections.", q.Packets, "queue", number)
		m.counter("queue_dropped_packets_total", "Packets lost because the queue or its reader was full.", q.Dropped, "queue", number)
		m.gauge("queue_waiting_packets", "Packets that wait for their verdict.", float64(q.Waiting), "queue", number)
		m.gauge("followed_connections", "Undecided connections.", float64(q.Connections), "queue", number)
		m.gauge("followed_bytes", "Memory of undecided connections' first bytes.", float64(q.Bytes), "queue", number)
	}
	m.gauge("bindings", "Addresses bound to names.", float64(s.Bindings.Addrs))
	m.counter("bindings_evicted_total", "Bindings forgotten for lack of room.", s.Bindings.Evicted)
	m.dns(&s.DNS)
	m.counter("flow_records_total", "Flow records, by what became of them.", s.Flows.Written, "result", "written")
	m.counter("flow_records_total", "Flow records, by what became of them.", s.Flows.Lost, "result", "lost")
	m.counter("flow_records_total", "Flow records, by what became of them.", s.Flows.Suppressed, "result", "suppressed")
	m.counter("flow_records_total", "Flow records, by what became of them.", s.Flows.Unwritten, "result", "unwritten")
	m.counter("kernel_reports_lost_total", "Times that the kernel's reports of denials and ends came too fast.", s.Flows.KernelLost)
}

type metrics struct{ out chan<- prometheus.Metric }

func (m metrics) dns(s *dnsStatus) {
	for rcode, n := range s.Answers {
		m.counter("dns_answers_total", "Answers to clients.", n, "rcode", rcode)
	}
	const cached = "Questions by where their answer came from."
	m.counter("dns_cache_total", cached, s.Hits, "result", "hit")
	m.counter("dns_cache_total", cached, s.Misses, "result", "miss")
	m.counter("dns_cache_total", cached, s.Stale, "result", "stale")
	m.counter("dns_denied_total", "Questions for names that may not be resolved.", s.Denied)
	m.counter("dns_stripped_addresses_total", "Guarded addresses taken out of answers.", s.Stripped)
	m.counter("dns_learn_late_total", "Answers that left before they were learned.", s.LearnLate)
	m.counter("dns_learn_failures_total", "Answers that could not be learned.", s.LearnFailed)
	for _, u := range s.Upstreams {
		addr := u.Addr.String()
		m.gauge("dns_upstream_up", "Whether an upstream answers.", truth(u.Up), "upstream", addr)
		m.counter("dns_upstream_queries_total", "Questions to an upstream.", u.Queries, "upstream", addr)
		m.counter("dns_upstream_errors_total", "Questions without a usable answer.", u.Errors, "upstream", addr)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m metrics) gauge(name, help string, v float64, labels ...string) {
	m.send(prometheus.GaugeValue, name, help, v, labels)
}

func (m metrics) counter(name, help string, v uint64, labels ...string) {
	m.send(prometheus.CounterValue, name, help, float64(v), labels)
}

// send takes labels as name, value, name, value.
func (m metrics) send(t prometheus.ValueType, name, help string, v float64, labels []string) {
	var names, values []string
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	desc := prometheus.NewDesc("tidegate_"+name, help, names, nil)
	m.out <- prometheus.MustNewConstMetric(desc, t, v, values...)
}

func (a *apiAddresses) set(cluster string, addrs []netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by == nil {
		a.by = map[string][]netip.Addr{}
	}
	a.by[cluster] = addrs
}

func (a *apiAddresses) of(cluster string) []netip.Addr {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.by[cluster]
}

func (c *counts) add(v egress.Verdict) {
	if int(v.Action) < len(c.n) && int(v.Reason) < len(c.n[0]) {
		c.n[v.Action][v.Reason].Add(1)
	}
}

// byReason returns what is not 0, by "action reason".
func (c *counts) byReason() map[string]uint64 {
	out := map[string]uint64{}
	for a := range c.n {
		for r := range c.n[a] {
			if n := c.n[a][r].Load(); n > 0 {
				out[egress.Action(a).String()+" "+egress.Reason(r).String()] = n
			}
		}
	}
	return out
}
