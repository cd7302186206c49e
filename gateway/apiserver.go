package gateway

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate.io/tidegate/egress"
)

// How the addresses of API servers are followed.
const (
	// apiAtLeast and apiAtMost bound how long an answer is believed, whatever its TTL says.
	apiAtLeast = 30 * time.Second
	apiAtMost  = 5 * time.Minute

	// apiRetry is the pause after a look-up that failed while no address is known.
	apiRetry = 2 * time.Second

	// apiOverlap is how long an address counts after it has left the answer. In maintenance both
	// serve for a while; the old one belongs to somebody else later.
	apiOverlap = 10 * time.Minute

	// apiTimeout bounds one look-up.
	apiTimeout = 5 * time.Second
)

// APIServers follows the addresses of the clusters' API servers, which clients dial without a name
// and which change when a cluster is maintained. Lookup must be set before Run.
type APIServers struct {
	// Lookup asks DNS for all addresses of a name and their lifetime. It may be called from several
	// goroutines at once.
	Lookup func(ctx context.Context, name egress.Name) (addrs []netip.Addr, ttl time.Duration, err error)

	// Changed is told when the current addresses of a cluster are others, with all of them; nil is
	// for nobody. It is called on the goroutine of Run.
	Changed func(cluster string, addrs []netip.Addr)

	// Failed is told about a look-up that failed; the addresses stay. Nil is for nobody. It is called on
	// the goroutine of Run.
	Failed func(cluster string, name egress.Name, err error)

	mu       sync.Mutex
	clusters []egress.Cluster
	wake     chan struct{}
	current  atomic.Pointer[map[string][]netip.Addr]
}

// followed is what Run knows of one cluster.
type followed struct {
	name  egress.Name
	due   time.Time
	until map[netip.Addr]time.Time // of each address; zero while it is in the answer
}

// Follow replaces the clusters to be followed; those without an API server's name are left out. It
// may be called at any time.
func (a *APIServers) Follow(clusters []egress.Cluster) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clusters = slices.Clone(clusters)
	a.init()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *APIServers) init() {
	if a.wake == nil {
		a.wake = make(chan struct{}, 1)
	}
}

// Current reports whether addr is a current address of the cluster's API server. It is quick, and may
// be called from many goroutines at once.
func (a *APIServers) Current(cluster string, addr netip.Addr) bool {
	m := a.current.Load()
	return m != nil && slices.Contains((*m)[cluster], addr.Unmap())
}

// Run follows until ctx is done, and then returns nil.
func (a *APIServers) Run(ctx context.Context) error {
	a.mu.Lock()
	a.init()
	a.mu.Unlock()
	all := map[string]*followed{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		a.choose(all)
		a.ask(ctx, all)
		next := time.Now().Add(apiAtMost)
		for _, f := range all {
			if f.due.Before(next) {
				next = f.due
			}
		}
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-timer.C:
		}
	}
}

// choose takes over what Follow said.
func (a *APIServers) choose(all map[string]*followed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	names := map[string]egress.Name{}
	for _, c := range a.clusters {
		if !c.APIServer.IsZero() {
			names[c.Name] = c.APIServer
		}
	}
	for cluster, f := range all {
		if names[cluster] != f.name {
			delete(all, cluster)
		}
	}
	for cluster, name := range names {
		if all[cluster] == nil {
			all[cluster] = &followed{name: name, until: map[netip.Addr]time.Time{}}
		}
	}
}

// found is the result of one look-up.
type found struct {
	cluster string
	addrs   []netip.Addr
	ttl     time.Duration
	err     error
}

// ask looks up what is due, all at the same time, and publishes what is current.
func (a *APIServers) ask(ctx context.Context, all map[string]*followed) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	results := make(chan found)
	asked := 0
	now := time.Now()
	for cluster, f := range all {
		if now.Before(f.due) {
			continue
		}
		asked++
		go func() {
			addrs, ttl, err := a.Lookup(ctx, f.name)
			results <- found{cluster, addrs, ttl, err}
		}()
	}
	for range asked {
		r := <-results
		all[r.cluster].take(r, time.Now())
		if r.err != nil && a.Failed != nil && ctx.Err() != context.Canceled {
			a.Failed(r.cluster, all[r.cluster].name, r.err)
		}
	}
	a.publish(all)
}

// take works one answer in. A failure, and an answer without addresses, change nothing.
func (f *followed) take(r found, now time.Time) {
	maps.DeleteFunc(f.until, func(_ netip.Addr, until time.Time) bool { return !until.IsZero() && !now.Before(until) })
	if r.err != nil || len(r.addrs) == 0 {
		f.due = now.Add(apiAtLeast)
		if len(f.until) == 0 {
			f.due = now.Add(apiRetry)
		}
		return
	}
	f.due = now.Add(min(max(r.ttl, apiAtLeast), apiAtMost))
	for addr, until := range f.until {
		if until.IsZero() {
			f.until[addr] = now.Add(apiOverlap)
		}
	}
	for _, addr := range r.addrs {
		f.until[addr.Unmap()] = time.Time{}
	}
}

func (a *APIServers) publish(all map[string]*followed) {
	old := map[string][]netip.Addr{}
	if m := a.current.Load(); m != nil {
		old = *m
	}
	current := map[string][]netip.Addr{}
	for cluster, f := range all {
		if len(f.until) > 0 {
			current[cluster] = slices.SortedFunc(maps.Keys(f.until), netip.Addr.Compare)
		}
	}
	a.current.Store(&current)
	if a.Changed == nil {
		return
	}
	for _, cluster := range slices.Sorted(maps.Keys(current)) {
		if !slices.Equal(old[cluster], current[cluster]) {
			a.Changed(cluster, current[cluster])
		}
	}
}
