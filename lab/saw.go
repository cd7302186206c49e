//go:build linux

package lab

import (
	"bytes"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of what the servers remember: an attack must not make the lab itself grow.
const (
	maxSeen     = 200_000   // entries; the oldest half is forgotten when there are more
	maxSeenData = 128 << 10 // bytes kept of one connection: the longest ClientHello tried is 60 KB
)

// A Seen is what one server got from one connection or datagram. It is a copy; the record goes on growing.
type Seen struct {
	Time   time.Time
	Proto  string         // "tls", "http", "https" (a request inside TLS), "tcp", "udp", "dns", "ip"
	Local  netip.AddrPort // the address that was dialled
	Remote netip.AddrPort
	Name   string   // SNI, Host or the name asked for
	ALPN   []string // as offered
	Whole  bool     // the first message is complete: a ClientHello, a request's head, a datagram
	Data   []byte   // what came, in order; of a TLS connection the ClientHello as sent
}

// A Record is what all the servers saw. Its zero value is ready, and it may be used by any number of goroutines.
type Record struct {
	// Watch, if not nil, is told of each entry when it is made and whenever it grows. It is set before the first one,
	// and runs under a lock: it must neither block nor keep its argument's Data.
	Watch func(*Seen)

	mu      sync.Mutex
	entries []*Seen
	changed chan struct{} // closed and replaced on every change; nil while nobody waits
}

// add stores s, whose Data must not be touched afterwards, and returns what later calls of extend take.
func (r *Record) add(s Seen) *Seen {
	s.Time = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.entries) >= maxSeen {
		r.entries = slices.Clone(r.entries[maxSeen/2:])
	}
	r.entries = append(r.entries, &s)
	r.watch(&s)
	r.wake()
	return &s
}

// extend changes an entry under the lock.
func (r *Record) extend(s *Seen, change func(*Seen)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(s)
	r.watch(s)
	r.wake()
}

func (r *Record) watch(s *Seen) {
	if r.Watch != nil {
		r.Watch(s)
	}
}

// append adds bytes that came later on the same connection.
func (r *Record) append(s *Seen, b []byte) {
	r.extend(s, func(s *Seen) {
		s.Data = append(s.Data, b[:min(len(b), maxSeenData-len(s.Data))]...)
	})
}

func (r *Record) wake() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Find returns what matches, oldest first. match runs under a lock: it must neither keep its argument nor block.
func (r *Record) Find(match func(*Seen) bool) []Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.find(match)
}

func (r *Record) find(match func(*Seen) bool) []Seen {
	var found []Seen
	for _, s := range r.entries {
		if match(s) {
			c := *s
			c.Data = bytes.Clone(s.Data)
			found = append(found, c)
		}
	}
	return found
}

// Wait is Find, but waits until something matches. It returns nil once ctx is done.
func (r *Record) Wait(ctx context.Context, match func(*Seen) bool) []Seen {
	for {
		r.mu.Lock()
		found := r.find(match)
		if len(found) > 0 {
			r.mu.Unlock()
			return found
		}
		if r.changed == nil {
			r.changed = make(chan struct{})
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// Got matches a complete message that holds token. A token at the end of a message proves all of it.
func Got(token []byte) func(*Seen) bool {
	return func(s *Seen) bool { return s.Whole && bytes.Contains(s.Data, token) }
}
