package main

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/gateway"
	"tidegate.io/tidegate/kernel"
)

const (
	// maxLookups bounds the look-ups under way for one queue: only names of rules
	// are looked up, each once at a time.
	maxLookups = 64
)

// followed is a queue with its follower. All but the answers belong to one goroutine.
type followed struct {
	number   uint16
	queue    *kernel.Queue
	follower *gateway.Follower
	reset    func(packet []byte)
	answers  chan resolved
	asking   int
	refused  []egress.Name // look-ups that were too many
	lookups  sync.WaitGroup
	stats    chan chan gateway.Stats
	looked   atomic.Int64    // when the queue was last looked at, in Unix nanoseconds
	saved    *gateway.Saved  // what another process has left; nil for nothing
	quit     context.Context // done when the look-ups are to end
}

// resolved is the answer to a follower's look-up.
type resolved struct {
	name  egress.Name
	addrs []netip.Addr
	err   error
}

var errTooManyLookups = errors.New("too many look-ups under way")

func (b *box) follow(q *kernel.Queue, number uint16) *followed {
	f := &followed{number: number, queue: q, answers: make(chan resolved, maxLookups), stats: make(chan chan gateway.Stats), reset: b.reset, saved: b.saved(number)}
	f.follower = gateway.New(gateway.Config{
		Policy:   func() *egress.Policy { return b.now.Load().policy },
		Bindings: &b.bindings,
		API:      b.apis.Current,
		Observe:  b.observes,
		Lookup:   func(n egress.Name) { b.lookup(f, n) },
		Verdict:  func(id uint32, accept bool, mark uint32) { q.Verdict(id, accept, kernel.Mark(mark)) },
		Reset:    q.Behind,
		Decided:  b.decided,
		Allowed: func(c egress.Conn, v egress.Verdict) uint32 {
			return uint32(kernel.NewMark(kernel.Allowed, b.number(c, v)))
		},
		Passed: func(c egress.Conn, v egress.Verdict) uint32 {
			return uint32(kernel.NewMark(kernel.Passed, b.number(c, v)))
		},
		Cut: uint32(kernel.NewMark(kernel.Cut, 0)),
	})
	return f
}

func (b *box) observes(cluster string) bool {
	for _, c := range b.now.Load().conf.Clusters {
		if c.Name == cluster {
			return c.Mode == config.Observe
		}
	}
	return false
}

// reset tells one end that its connection is over. One that is lost is made up
// for by the mark, at the end's next packet.
func (b *box) reset(packet []byte) {
	if err := b.resets.Send(packet); err != nil {
		b.resetsLost.Add(1)
	}
}

// lookup asks DNS on behalf of f's follower. What it finds is learned for every
// cluster whose own DNS does not pass here.
func (b *box) lookup(f *followed, n egress.Name) {
	if f.asking >= maxLookups {
		f.refused = append(f.refused, n) // the follower must not be called back from here
		return
	}
	f.asking++
	f.lookups.Go(func() {
		ctx, cancel := context.WithTimeout(f.quit, lookupTimeout)
		defer cancel()
		addrs, ttl, err := b.dns.Lookup(ctx, n)
		if err == nil {
			b.note(b.learn(ctx, b.unseen(n, addrs, time.Now().Add(ttl))))
		}
		f.answers <- resolved{n, addrs, err}
		f.queue.Wake()
	})
}

// note logs that an answer of our own is not in the kernel's sets. Whoever asked has
// the answer all the same.
func (b *box) note(err error) {
	if err != nil {
		b.log.Error("open learned addresses", "err", err)
	}
}

// unseen returns the bindings of a look-up of ours, for the clusters that have
// to rely on it.
func (b *box) unseen(n egress.Name, addrs []netip.Addr, expires time.Time) []egress.Binding {
	var bs []egress.Binding
	for _, c := range b.now.Load().conf.Clusters {
		if b.bindings.Strict(time.Now(), c.Name) {
			continue
		}
		for _, a := range addrs {
			if !egress.Guarded(a) {
				bs = append(bs, egress.Binding{Scope: c.Name, Name: n, Addr: a, Expires: expires})
			}
		}
	}
	return bs
}

func (f *followed) run(ctx context.Context) error {
	defer f.lookups.Wait()
	f.quit = ctx
	if f.saved != nil {
		f.follower.Restore(time.Now(), f.saved)
		f.saved = nil
	}
	return f.queue.Run(ctx, kernel.Handler{
		Packets: func(batch []kernel.Packet) {
			at := time.Now()
			for i := range batch {
				f.follower.Packet(at, batch[i].ID, batch[i].Payload)
			}
		},
		Tick:   f.tick,
		Behind: f.reset,
	})
}

func (f *followed) tick(at time.Time) {
	f.looked.Store(at.UnixNano())
	for _, n := range f.refused {
		f.follower.Resolved(at, n, nil, errTooManyLookups)
	}
	f.refused = f.refused[:0]
	for {
		select {
		case a := <-f.answers:
			f.asking--
			f.follower.Resolved(at, a.name, a.addrs, a.err)
		case to := <-f.stats:
			to <- f.follower.Stats()
		default:
			f.follower.Tick(at)
			return
		}
	}
}

// size asks the follower's goroutine how much it follows.
func (f *followed) size(ctx context.Context) (gateway.Stats, error) {
	to := make(chan gateway.Stats, 1)
	select {
	case f.stats <- to:
		return <-to, nil
	case <-ctx.Done():
		return gateway.Stats{}, ctx.Err()
	}
}
