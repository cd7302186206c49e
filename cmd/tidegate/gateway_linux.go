package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/dnsproxy"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/flowlog"
	"tidegate.io/tidegate/gateway"
	"tidegate.io/tidegate/httpproxy"
	"tidegate.io/tidegate/kernel"
)

// Numbers and ports on the gateway itself. They are fixed, so that the rules
// which a dead process left in the kernel lead to the next one.
const (
	dnsPort         = 15053
	askedPort       = 15054 // of the same server, past conntrack
	transparentPort = 15080
	firstQueue      = 15300
	observeQueue    = 15299
	logGroup        = 15300
	maxQueues       = 8 // one a core, and no more than serve one machine's traffic
)

func gatewayRunCommand(path *string) *cobra.Command {
	var how runMode
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Enforce until stopped",
		Long: `Applies the gateway's file and enforces it until it is stopped. It needs the rights
CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE.

The rules stay in the kernel when the process stops or dies: connections that are
decided go on, nothing else gets out, and the next start takes over. With --flush a
stop removes them, and forwarding with them. SIGHUP reloads the file: all of it, or
nothing if there is an error in it.

With --proxy-only it serves the explicit proxy of the file (proxy.listen) and the
addresses under dns.listen, and leaves the kernel alone: that needs no rights, and holds
those who use it.

With --replace it takes over from the gateway that runs: another version of the program
comes into service without a connection that fails. It gets the sockets, the kernel's
queues with the packets that wait in them, and the connections that are not decided yet.
A file that cannot be read, or a machine that lacks something, is found out before it
asks; and when it dies on the way, the one that ran goes on.`,
		Example: "  tidegate gateway run --config /etc/tidegate/gateway.yaml\n  tidegate gateway run --replace    # a new version, while the old one runs",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			g, err := readGateway(*path)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if err := runGateway(cmd.Context(), *path, g, log, cmd.OutOrStdout(), how); err != nil {
				return undecided(err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&how.flush, "flush", false, "remove the rules, and forwarding, at a stop")
	cmd.Flags().BoolVar(&how.replace, "replace", false, "take over from the gateway that runs with this file, which then ends; start, if there is none")
	cmd.Flags().BoolVar(&how.proxyOnly, "proxy-only", false, "serve the explicit proxy, and leave the kernel alone")
	cmd.MarkFlagsMutuallyExclusive("flush", "proxy-only")
	return cmd
}

// runMode is how a gateway is run.
type runMode struct{ flush, proxyOnly, replace bool }

// inForce is one configuration with all that follows from it. It does not change.
type inForce struct {
	conf   *config.Gateway
	policy *egress.Policy
	rules  *kernel.Ruleset
	loaded time.Time
}

// box is the running gateway: its parts, and what joins them.
type box struct {
	*estate
	path    string
	log     *slog.Logger
	started time.Time

	now     atomic.Pointer[inForce]
	changes changes
	release *time.Timer // of memory that a change has left

	state    *stateDir
	numbers  *gateway.Numbers
	bindings gateway.Bindings
	apis     gateway.APIServers
	names    *gateway.Names
	running  atomic.Int64 // connections with a number of those; counted anew at each look
	own      ownAddrs

	features kernel.Features
	table    *kernel.Table
	resets   *kernel.Resetter
	tracker  *kernel.Tracker
	denials  *kernel.Log
	removals *kernel.Watch
	removed  chan struct{} // somebody may have removed rules
	queues   []*followed

	dns   *dnsproxy.Server
	http  *httpproxy.Server
	flows *flowlog.Log

	resetsLost atomic.Uint64
	full       int // of the guard: how many of fullness are passed
	counts     counts
	apiAddrs   apiAddresses
}

// counts counts what the process decided, by action and reason.
type counts struct {
	n [3][64]atomic.Uint64
}

// apiAddresses remembers the API servers' addresses, for the status.
type apiAddresses struct {
	mu sync.Mutex
	by map[string][]netip.Addr
}

// changes guards what a reload replaces. Whoever opens an address holds it for
// reading, so that no address is opened by rules that are on their way out.
type changes struct {
	sync.RWMutex
	one     sync.Mutex // held by whoever changes what the kernel holds, or lists it
	failed  atomic.Uint64
	applied atomic.Uint64
	mended  atomic.Uint64          // times that somebody else had removed rules
	last    atomic.Pointer[string] // the last failure; nil after a success
}

func runGateway(ctx context.Context, path string, g *config.Gateway, log *slog.Logger, stdout io.Writer, how runMode) (err error) {
	if how.proxyOnly && !g.Proxy.IsValid() {
		return fmt.Errorf("%s: --proxy-only needs proxy.listen", path)
	}
	from := &estate{}
	if how.replace {
		if from, err = inherit(ctx, g, how); err != nil {
			return err
		}
	}
	from.addKept()
	for {
		b := &box{estate: from, path: path, log: log, started: time.Now()}
		err := b.run(ctx, g, stdout, how)
		if !errors.Is(err, errTakenBack) {
			return err
		}
		log.Error("nobody has taken over; this gateway goes on", "err", err)
		g, from = b.now.Load().conf, b.left
	}
}

// run is the box's whole life.
func (b *box) run(ctx context.Context, g *config.Gateway, stdout io.Writer, how runMode) (err error) {
	var open closers
	defer func() { err = errors.Join(err, open.close()) }()
	defer b.drop() // what of it was of no use
	if err := b.assemble(g, stdout, &open); err != nil {
		return err
	}
	if !how.proxyOnly {
		if err := b.reach(&open); err != nil {
			return err
		}
	}
	sockets, err := b.listen(g, &open)
	if err != nil {
		return err
	}
	if err := b.apply(g); err != nil {
		return err
	}
	b.taken()
	b.log.Info("enforcing", "policy", b.now.Load().policy.ID(), "rules", len(g.Rules), "clusters", len(g.Clusters))
	err = b.serve(ctx, sockets)
	switch {
	case errors.Is(err, errHandedOver):
		return nil
	case errors.Is(err, errTakenBack):
	case b.enforcing():
		err = errors.Join(err, b.leaveTable(how.flush))
	}
	return err
}

// closers are closed in reverse order.
type closers []io.Closer

func (c *closers) add(x io.Closer) { *c = append(*c, x) }

func (c closers) close() error {
	var errs []error
	for i := range c {
		if err := c[len(c)-1-i].Close(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// enforcing reports whether the kernel carries the policy out; else only the proxy does.
func (b *box) enforcing() bool { return b.table != nil }

// assemble restores what survived the last process. Nothing comes into force yet.
func (b *box) assemble(g *config.Gateway, stdout io.Writer, open *closers) (err error) {
	if b.state, err = openState(g.State, b.take(lockFile)); err != nil {
		return err
	}
	open.add(b.state)
	b.leave(lockFile, b.state.lock)
	if b.numbers, err = b.state.numbers(); err != nil {
		b.log.Warn("rule numbers are lost; connections of before the restart end", "err", err)
		b.numbers = &gateway.Numbers{}
	}
	policy, err := g.Policy()
	if err != nil {
		return err
	}
	b.bindings.Keep(policy) // before there are some: those of its own names are not evicted
	restored, err := b.state.restore(&b.bindings, time.Now())
	if err != nil {
		b.log.Warn("bindings journal", "err", err, "restored", restored)
	}
	b.flows = openFlowLog(g.FlowLog, stdout, func(err error) { b.log.Error("flow log", "err", err) })
	b.dns, b.http = b.nameServer(), b.proxy()
	b.apis = gateway.APIServers{Lookup: b.lookupAPI, Changed: b.apiChanged, Failed: b.apiFailed}
	return nil
}

// reach opens what reaches into the kernel.
func (b *box) reach(open *closers) error {
	if err := b.openKernel(open); err != nil {
		return err
	}
	if err := b.openNames(); err != nil {
		return err
	}
	return b.openQueues(open)
}

// openNames restores the numbers of names. Where the file is not there, as at the first start,
// those that live connections carry must not be given again.
func (b *box) openNames() error {
	names, err := b.state.names()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			b.log.Warn("names of connections are lost; those of before the restart end", "err", err)
		}
		numbers, err := b.carried()
		if err != nil {
			return err
		}
		names = &gateway.Names{}
		names.Reserve(numbers)
	}
	if err := names.Open(b.state.renewNames); err != nil {
		b.log.Error("names of connections cannot be kept; a change of their rules ends them", "err", err)
	}
	b.names = names
	return nil
}

func (b *box) openKernel(open *closers) (err error) {
	if b.probed != nil {
		b.features = *b.probed
	} else if b.features, err = kernel.Probe(); err != nil {
		return err
	}
	if f := b.take(tableName); f != nil {
		b.table, err = kernel.AdoptTable(f)
	} else {
		b.table, err = kernel.OpenTable()
	}
	if err != nil {
		return err
	}
	open.add(b.table)
	if err := b.keepTable(); err != nil {
		return err
	}
	if b.resets, err = kernel.OpenResetter(); err != nil {
		return err
	}
	open.add(b.resets)
	if b.tracker, err = kernel.OpenTracker(); err != nil {
		return err
	}
	open.add(b.tracker)
	if f := b.take(logName); f != nil {
		b.denials, err = kernel.AdoptLog(logGroup, f)
	} else {
		b.denials, err = kernel.OpenLog(logGroup)
	}
	if err != nil {
		return err
	}
	open.add(b.denials)
	if b.removals, err = kernel.OpenWatch(); err != nil {
		return err
	}
	open.add(b.removals)
	b.removed = make(chan struct{}, 1)
	return nil
}

func (b *box) openQueues(open *closers) error {
	// A queue holds its processor while the kernel forwards (Queue.Run), so each gets one.
	runtime.GOMAXPROCS(runtime.NumCPU() + queueCount())
	for i := range queueCount() {
		if err := b.openQueue(uint16(firstQueue+i), kernel.QueueOptions{}, open); err != nil {
			return err
		}
	}
	return b.openQueue(observeQueue, kernel.QueueOptions{FailOpen: true}, open)
}

func queueCount() int { return min(runtime.NumCPU(), maxQueues) }

func (b *box) openQueue(number uint16, o kernel.QueueOptions, open *closers) (err error) {
	var q *kernel.Queue
	if f := b.take(queueName(number)); f != nil {
		q, err = kernel.AdoptQueue(number, f)
	} else {
		q, err = kernel.OpenQueue(number, o)
	}
	if err != nil {
		return err
	}
	open.add(q)
	b.queues = append(b.queues, b.follow(q, number))
	return nil
}

// sockets are what clients and operators connect to.
type sockets struct {
	transparent []net.Listener
	explicit    net.Listener // nil for none
	management  net.Listener
	control     net.Listener
	takeover    *net.UnixListener
}

func (b *box) listen(g *config.Gateway, open *closers) (s sockets, err error) {
	addrs := g.Listen
	if b.enforcing() {
		addrs = append([]netip.AddrPort{netip.AddrPortFrom(netip.IPv6Unspecified(), dnsPort)}, addrs...)
		if err := b.listenAsked(open); err != nil {
			return s, err
		}
	}
	for _, a := range addrs {
		if err := b.listenUDP("dns "+a.String(), "udp", a, open); err != nil {
			return s, err
		}
		tcp, err := b.listenTCP("dns "+a.String(), listener("tcp", a.String()))
		if err != nil {
			return s, err
		}
		b.dns.TCP = append(b.dns.TCP, tcp)
		open.add(tcp)
	}
	if b.enforcing() {
		if s.transparent, err = b.listenTransparent(open); err != nil {
			return s, err
		}
	}
	if g.Proxy.IsValid() {
		if s.explicit, err = b.listenTCP("proxy", listener("tcp", g.Proxy.String())); err != nil {
			return s, err
		}
		open.add(s.explicit)
	}
	if s.management, err = b.listenTCP("management", listener("tcp", g.Management.String())); err != nil {
		return s, err
	}
	open.add(s.management)
	if s.control, err = b.state.listen(controlFile); err != nil {
		return s, err
	}
	open.add(s.control)
	if s.takeover, err = b.state.listen(takeoverFile); err != nil {
		return s, err
	}
	open.add(s.takeover)
	return s, nil
}

// listenAsked opens the sockets of questions that are sent to the gateway itself, one for each family: a socket of both costs
// each IPv4 datagram more.
func (b *box) listenAsked(open *closers) error {
	for network, any := range map[string]netip.Addr{"udp4": netip.IPv4Unspecified(), "udp6": netip.IPv6Unspecified()} {
		err := b.listenUDP("dns asked "+network, network, netip.AddrPortFrom(any, askedPort), open)
		if err != nil && (network != "udp6" || !errors.Is(err, syscall.EAFNOSUPPORT)) {
			return err
		}
	}
	return nil
}

// listenTransparent opens the sockets to which the kernel diverts HTTP.
func (b *box) listenTransparent(open *closers) (ls []net.Listener, err error) {
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := b.listenTCP("transparent "+network, listener(network, fmt.Sprintf(":%d", transparentPort)))
		if err != nil && network == "tcp6" && errors.Is(err, syscall.EAFNOSUPPORT) {
			continue
		} else if err != nil {
			return nil, err
		}
		ls = append(ls, diverted{l})
		open.add(l)
	}
	return ls, nil
}

// serve runs every part until ctx is done, one of them fails, or another process takes over.
func (b *box) serve(ctx context.Context, s sockets) error {
	parts, ctx := errgroup.WithContext(ctx)
	run := func(f func(context.Context) error) { parts.Go(func() error { return f(ctx) }) }
	// What another process goes on with ends first, and the rest when its clients are done.
	deciding, stop := context.WithCancel(ctx)
	defer stop()
	var ended sync.WaitGroup
	decide := func(f func(context.Context) error) {
		ended.Add(1)
		parts.Go(func() error { defer ended.Done(); return f(deciding) })
	}
	for _, q := range b.queues {
		decide(q.run)
	}
	run(b.dns.Run)
	for _, l := range s.transparent {
		run(func(ctx context.Context) error { return b.http.ServeTransparent(ctx, l) })
	}
	if s.explicit != nil {
		run(func(ctx context.Context) error { return b.http.ServeProxy(ctx, s.explicit) })
	}
	decide(b.apis.Run)
	run(b.flows.Run)
	if b.enforcing() {
		b.changes.one.Lock() // before a reload can have it
		decide(func(context.Context) error {
			err := b.revoke() // what the last process permitted
			b.changes.one.Unlock()
			if err == nil {
				b.tidyUp()
			}
			return err
		})
		decide(func(ctx context.Context) error { return b.tracker.Run(ctx, b.ended) })
		decide(func(ctx context.Context) error { return b.denials.Run(ctx, b.refused) })
		decide(b.guard)
		decide(b.watch)
	}
	decide(b.tidy)
	decide(b.hangups)
	decide(func(ctx context.Context) error { return b.manage(ctx, s.management, s.control) })
	run(func(ctx context.Context) error {
		return b.handOver(ctx, s.takeover, func() { stop(); ended.Wait() })
	})
	return parts.Wait()
}

// hangups reloads, and opens the rotated flow log anew, on SIGHUP.
func (b *box) hangups(ctx context.Context) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	defer signal.Stop(c)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c:
			b.flows.Reopen()
			_ = b.reload(ctx) // it has logged its failure, and keeps what is in force
		}
	}
}

// tidyEvery is how often what is over is forgotten and the journal is written anew.
const tidyEvery = 10 * time.Minute

func (b *box) tidy(ctx context.Context) error {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.tidyUp()
			if err := b.state.compact(&b.bindings, time.Now()); err != nil {
				b.log.Error("bindings journal", "err", err)
			}
		}
	}
}

// tidyUp forgets what no live connection needs any more.
func (b *box) tidyUp() {
	if b.enforcing() {
		if err := b.look(); err != nil {
			b.log.Error("tidy", "err", err)
		}
	}
	b.bindings.Sweep(time.Now())
}
