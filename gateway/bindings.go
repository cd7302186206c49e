package gateway

import (
	"iter"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tidegate.io/tidegate/egress"
)

const (
	// Grace is how long an address permits new connections after its answer has expired:
	// AKS LocalDNS caches an answer for up to an hour, and serves it stale for another.
	Grace = 2 * time.Hour

	// maxTTL bounds what a DNS server may ask for (RFC 8767, section 4, caps at days).
	maxTTL = 24 * time.Hour

	// maxAddrs bounds the addresses of one name, and so what one name can open: a thousand of each family. A large service
	// gives that many in turn, and an address that is forgotten before its client's SYN is sent again is denied.
	maxAddrs = 2000

	// maxNames bounds the names of one scope that no rule spells out: with a wildcard, whoever
	// owns the domain below it can make as many as they like.
	maxNames = 10_000

	// maxScopes is more clusters than one gateway serves.
	maxScopes = 1024

	// missedFor is how long a scope is not strict once an address turned out to be right that
	// its DNS had not told us.
	missedFor = 24 * time.Hour
)

// Bindings knows which names DNS gave for an address, for each scope. The zero Bindings is
// empty and ready for use, from many goroutines at once.
type Bindings struct {
	mu      sync.RWMutex
	scopes  map[string]*scope
	exact   map[egress.Name]bool
	wild    zones
	evicted uint64
}

// scope is one cluster's bindings.
type scope struct {
	names  map[egress.Name]*named
	addrs  map[netip.Addr]*bound
	shares shares // of names that no rule spells out
	path   Path
	seen   bool
	missed time.Time
}

// named is a name with its addresses.
type named struct {
	name  egress.Name
	addrs map[netip.Addr]lease
	place place // in the shares; zero when it is exempt from eviction
}

// lease is how long a name has an address.
type lease struct {
	expires time.Time // of the answer, without the grace
	uses    uint8     // looks at the live connections for which it is still in use
}

// usedLooks is how many looks at the live connections a binding outlives that none of them uses: a connection
// can be too young for one.
const usedLooks = 2

func (l lease) over(now time.Time) bool { return l.uses == 0 && !now.Before(l.expires.Add(Grace)) }

// bound is an address with its names. What names holds never changes, so that readers may keep
// it; a longer slice may share it.
type bound struct {
	names []egress.Name
	check time.Time // when the first of them may be over
}

// Learn takes answers in. After it, a connection to one of the addresses finds its name.
func (b *Bindings) Learn(now time.Time, answers []egress.Binding) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range answers {
		if s := b.scope(a.Scope); s != nil && !a.Name.IsZero() && a.Addr.IsValid() {
			b.learn(s, now, a)
		}
	}
}

func (b *Bindings) scope(name string) *scope {
	s := b.scopes[name]
	if s == nil && len(b.scopes) < maxScopes {
		s = &scope{names: map[egress.Name]*named{}, addrs: map[netip.Addr]*bound{}, shares: shares{by: map[string]*share{}}}
		if b.scopes == nil {
			b.scopes = map[string]*scope{}
		}
		b.scopes[name] = s
	}
	return s
}

func (b *Bindings) learn(s *scope, now time.Time, a egress.Binding) {
	addr := a.Addr.Unmap().WithZone("")
	n := s.names[a.Name]
	if n == nil {
		n = &named{name: a.Name, addrs: map[netip.Addr]lease{}}
		s.names[a.Name] = n
	}
	b.place(s, n)
	l, had := n.addrs[addr]
	if !had && len(n.addrs) >= maxAddrs && !b.forgetOldest(s, n) {
		return
	}
	if latest := now.Add(maxTTL); a.Expires.After(latest) {
		a.Expires = latest
	}
	if a.Expires.After(l.expires) {
		l.expires = a.Expires
	}
	n.addrs[addr] = l
	at := s.addrs[addr]
	if at == nil {
		at = &bound{check: l.expires.Add(Grace)}
		s.addrs[addr] = at
	}
	if !had {
		at.names = append(at.names, n.name)
	}
	if over := l.expires.Add(Grace); over.Before(at.check) {
		at.check = over
	}
}

// place moves a name to the front of those that may be evicted, and evicts where there are too many.
func (b *Bindings) place(s *scope, n *named) {
	if b.exact[n.name] {
		s.shares.leave(n)
		return
	}
	s.shares.renew(n, b.wild.of(n.name))
	for s.shares.names > maxNames {
		victim := s.shares.victim(n)
		if victim == nil {
			return // all are in use
		}
		b.evicted++
		s.forget(victim)
	}
}

func (n *named) used() bool {
	for _, l := range n.addrs {
		if l.uses > 0 {
			return true
		}
	}
	return false
}

// forgetOldest makes room for an address; it reports false when all are in use.
func (b *Bindings) forgetOldest(s *scope, n *named) bool {
	var oldest netip.Addr
	for addr, l := range n.addrs {
		if l.uses == 0 && (!oldest.IsValid() || l.expires.Before(n.addrs[oldest].expires)) {
			oldest = addr
		}
	}
	if !oldest.IsValid() {
		return false
	}
	b.evicted++
	s.unbind(n, oldest)
	return true
}

func (s *scope) forget(n *named) {
	for addr := range n.addrs {
		s.unbind(n, addr)
	}
	s.remove(n)
}

func (s *scope) remove(n *named) {
	s.shares.leave(n)
	delete(s.names, n.name)
}

// unbind takes one address off a name. Readers may still hold the old names of the address.
func (s *scope) unbind(n *named, addr netip.Addr) {
	delete(n.addrs, addr)
	at := s.addrs[addr]
	rest := make([]egress.Name, 0, len(at.names))
	for _, m := range at.names {
		if m != n.name {
			rest = append(rest, m)
		}
	}
	if at.names = rest; len(rest) == 0 {
		delete(s.addrs, addr)
	}
}

// Names returns the names that addr has for clients of a scope. The slice must not be changed.
// It does not allocate, except when a name has just expired.
func (b *Bindings) Names(now time.Time, scope string, addr netip.Addr) []egress.Name {
	addr = addr.Unmap()
	b.mu.RLock()
	names, fresh := b.names(now, scope, addr)
	b.mu.RUnlock()
	if fresh {
		return names
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.scopes[scope]; s != nil {
		s.sweep(now, addr)
	}
	names, _ = b.names(now, scope, addr)
	return names
}

func (b *Bindings) names(now time.Time, scope string, addr netip.Addr) (names []egress.Name, fresh bool) {
	s := b.scopes[scope]
	if s == nil {
		return nil, true
	}
	at := s.addrs[addr]
	if at == nil {
		return nil, true
	}
	return at.names, now.Before(at.check)
}

// sweep forgets what is over at one address.
func (s *scope) sweep(now time.Time, addr netip.Addr) {
	at := s.addrs[addr]
	if at == nil {
		return
	}
	check := now.Add(Grace)
	for _, name := range slices.Clone(at.names) {
		n := s.names[name]
		l := n.addrs[addr]
		if over := l.expires.Add(Grace); !l.over(now) {
			if over.After(now) && over.Before(check) {
				check = over
			}
			continue
		}
		s.unbind(n, addr)
		if len(n.addrs) == 0 {
			s.remove(n)
		}
	}
	at.check = check
}

// Sweep forgets everything that is over; call it every few minutes.
func (b *Bindings) Sweep(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.scopes {
		for addr, at := range s.addrs {
			if !now.Before(at.check) {
				s.sweep(now, addr)
			}
		}
	}
}

// Keep says which names are exempt from eviction, those that a rule of p spells out, and below which wildcards the others
// are.
func (b *Bindings) Keep(p *egress.Policy) {
	exact, wild := map[egress.Name]bool{}, zones{}
	for _, r := range p.Rules() {
		for _, e := range r.To {
			pattern, ok := e.Host.(egress.Pattern)
			if !ok {
				continue
			}
			if n, ok := pattern.Exact(); ok {
				exact[n] = true
			} else {
				wild.add(pattern)
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.exact, b.wild = exact, wild
	for _, s := range b.scopes {
		for _, n := range s.names {
			if exact[n.name] || n.place.share == nil || n.place.share.zone != wild.of(n.name) {
				b.place(s, n)
			}
		}
	}
}

// Use keeps a binding that a connection uses, until Age has been called a few times since. Of what is not bound it does nothing.
func (b *Bindings) Use(scope string, name egress.Name, addr netip.Addr) {
	addr = addr.Unmap()
	b.mu.RLock()
	l, bound := b.lease(scope, name, addr)
	b.mu.RUnlock()
	if !bound || l.uses > usedLooks {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if l, bound := b.lease(scope, name, addr); bound {
		l.uses = usedLooks + 1
		b.scopes[scope].names[name].addrs[addr] = l
	}
}

func (b *Bindings) lease(scope string, name egress.Name, addr netip.Addr) (l lease, bound bool) {
	s := b.scopes[scope]
	if s == nil || s.names[name] == nil {
		return l, false
	}
	l, bound = s.names[name].addrs[addr]
	return l, bound
}

// Age begins a look at the live connections: Use follows for what each of them uses.
func (b *Bindings) Age() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.scopes {
		for _, n := range s.names {
			for addr, l := range n.addrs {
				if l.uses == 0 {
					continue
				}
				l.uses--
				n.addrs[addr] = l
				if l.uses == 0 { // it may have been over for long
					s.addrs[addr].check = time.Time{}
				}
			}
		}
	}
}

// See notes that DNS questions of a scope come through the gateway.
func (b *Bindings) See(name string) {
	b.mu.RLock()
	s := b.scopes[name]
	seen := s != nil && s.seen
	b.mu.RUnlock()
	if seen {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.scope(name); s != nil {
		s.seen = true
	}
}

// Missed notes that clients of a scope know an address that they did not learn through the gateway.
func (b *Bindings) Missed(now time.Time, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.scope(name); s != nil {
		s.missed = now
	}
}

// Path is what is said of the way that a scope's DNS questions go.
type Path uint8

// The ways.
const (
	Unsaid    Path = iota // it shows: see Strict
	Through               // through the gateway, all of them
	Elsewhere             // not through the gateway
)

// Say fixes a scope's way, which then no client can change by what it asks.
func (b *Bindings) Say(name string, p Path) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.scope(name); s != nil {
		s.path = p
	}
}

// Strict reports whether the DNS of a scope passes the gateway, so that an address without a
// binding has none. Unless it was said, it begins with the first question that comes, and ends
// for a day when an address turns out to be right that came another way.
func (b *Bindings) Strict(now time.Time, scope string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.scopes[scope]
	if s == nil || s.path == Elsewhere {
		return false
	}
	return s.path == Through || s.seen && (s.missed.IsZero() || now.Sub(s.missed) >= missedFor)
}

// All returns every binding that is not over, in no order: for a new journal, and for sets in
// the kernel. Nothing else can be done with b while it is read.
func (b *Bindings) All(now time.Time) iter.Seq[egress.Binding] {
	return func(yield func(egress.Binding) bool) {
		b.mu.RLock()
		defer b.mu.RUnlock()
		for scope, s := range b.scopes {
			for _, n := range s.names {
				for addr, l := range n.addrs {
					if !l.over(now) && !yield(egress.Binding{Scope: scope, Name: n.name, Addr: addr, Expires: l.expires}) {
						return
					}
				}
			}
		}
	}
}

// BindingsStats says how much Bindings holds.
type BindingsStats struct {
	Names, Addrs int
	Evicted      uint64 // names and addresses forgotten for lack of room, ever
}

// Stats counts.
func (b *Bindings) Stats() BindingsStats {
	b.mu.RLock()
	defer b.mu.RUnlock()
	st := BindingsStats{Evicted: b.evicted}
	for _, s := range b.scopes {
		st.Names += len(s.names)
		st.Addrs += len(s.addrs)
	}
	return st
}
