package gateway

import (
	"errors"
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

	// maxView bounds the names of an address that are shown at once: of one with more (a content network's, or one that
	// somebody's names were pointed to) others are found only by themselves.
	maxView = 1024

	// settling is how long a name is in use whose answer is over at once.
	settling = 5 * time.Second

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
	policy  *egress.Policy // nil until Keep
	evicted uint64
}

// ErrFull is returned by [Bindings.Learn] when a name has got no room.
var ErrFull = errors.New("too many names below wildcards are in use")

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
	name   egress.Name
	leases []lease // in the order of their addresses
	used   time.Time
	inUse  int   // of the leases
	place  place // in the shares; zero when it is exempt from eviction
}

// lease is how long a name has an address.
type lease struct {
	addr    netip.Addr
	expires time.Time // of the answer, without the grace
	uses    uint8     // looks at the live connections for which it is still in use
	at      int32     // in the address's names
}

// usedLooks is how many looks at the live connections a binding outlives that none of them uses: a connection
// can be too young for one.
const usedLooks = 2

func (l *lease) over(now time.Time) bool { return l.uses == 0 && !now.Before(l.expires.Add(Grace)) }

// find returns where the lease of an address is, or belongs.
func (n *named) find(addr netip.Addr) (i int, found bool) {
	return slices.BinarySearchFunc(n.leases, addr, func(l lease, a netip.Addr) int { return l.addr.Compare(a) })
}

// bound is an address with its names.
type bound struct {
	names []*named
	view  []egress.Name // what readers get; never changed, but a longer slice may share it. Nil when it has to be made anew
	check time.Time     // when the first of them may be over
}

// Learn takes answers in. After it, a connection to one of the addresses finds its name; unless it returns [ErrFull].
func (b *Bindings) Learn(now time.Time, answers []egress.Binding) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	for _, a := range answers {
		if s := b.scope(a.Scope); s != nil && !a.Name.IsZero() && a.Addr.IsValid() && !b.learn(s, now, a) {
			err = ErrFull
		}
	}
	return err
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

// learn reports false when there is no room.
func (b *Bindings) learn(s *scope, now time.Time, a egress.Binding) bool {
	addr := a.Addr.Unmap().WithZone("")
	if latest := now.Add(maxTTL); a.Expires.After(latest) {
		a.Expires = latest
	}
	n := s.names[a.Name]
	if n == nil {
		n = &named{name: a.Name}
	}
	for _, t := range []time.Time{a.Expires, now.Add(settling)} {
		if t.After(n.used) {
			n.used = t
		}
	}
	s.shares.renew(n)
	i, had := n.find(addr)
	if !had {
		if !b.room(s, now, n) {
			return false
		}
		s.names[n.name] = n
		i, _ = n.find(addr) // the room may have been that of another of its own
		s.bind(n, i, addr)
	}
	l := &n.leases[i]
	if a.Expires.After(l.expires) {
		l.expires = a.Expires
	}
	at := s.addrs[addr]
	if over := l.expires.Add(Grace); over.Before(at.check) || len(at.names) == 1 {
		at.check = over
	}
	return true
}

// room makes room for one address more of n.
func (b *Bindings) room(s *scope, now time.Time, n *named) bool {
	if len(n.leases) >= maxAddrs && !b.forgetOldest(s, n) {
		return false
	}
	if b.spelled(n.name) {
		return true
	}
	zone := b.zone(n.name)
	if !s.shares.room(zone, now, func(victim *named) { b.evicted++; s.forget(victim) }) {
		return false
	}
	s.shares.put(n, zone)
	return true
}

// forgetOldest makes room for an address; it reports false when all are in use.
func (b *Bindings) forgetOldest(s *scope, n *named) bool {
	oldest := -1
	for i := range n.leases {
		if l := &n.leases[i]; l.uses == 0 && (oldest < 0 || l.expires.Before(n.leases[oldest].expires)) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	b.evicted++
	s.unbind(n, oldest)
	return true
}

// forget takes a name away.
func (s *scope) forget(n *named) {
	for i := len(n.leases) - 1; i >= 0; i-- {
		s.unbind(n, i)
	}
	s.remove(n)
}

func (s *scope) remove(n *named) {
	s.shares.leave(n)
	delete(s.names, n.name)
}

// bind gives a name an address, at i of its leases.
func (s *scope) bind(n *named, i int, addr netip.Addr) {
	at := s.addrs[addr]
	if at == nil {
		at = &bound{}
		s.addrs[addr] = at
	}
	n.leases = slices.Insert(n.leases, i, lease{addr: addr, at: int32(len(at.names))})
	s.shares.count(n, 1)
	if at.names = append(at.names, n); len(at.names) <= maxView && (at.view != nil || len(at.names) == 1) {
		at.view = append(at.view, n.name)
	}
	if n.place.share == nil {
		s.show(n, i)
	}
}

// show has a name that a rule spells out among those that the address at i shows: others must not be able to push it out.
func (s *scope) show(n *named, i int) {
	l := &n.leases[i]
	at := s.addrs[l.addr]
	if l.at < maxView {
		return
	}
	for place, other := range at.names[:maxView] {
		if other.place.share == nil {
			continue
		}
		j, _ := other.find(l.addr)
		at.names[place], at.names[l.at] = n, other
		other.leases[j].at, l.at = l.at, int32(place)
		at.view = nil
		return
	}
}

// unbind takes the address at i off a name. Readers may still hold the old names of the address.
func (s *scope) unbind(n *named, i int) {
	addr, hole := n.leases[i].addr, n.leases[i].at
	n.leases = slices.Delete(n.leases, i, i+1)
	s.shares.count(n, -1)
	at := s.addrs[addr]
	last := len(at.names) - 1
	if moved := at.names[last]; moved != n {
		j, _ := moved.find(addr)
		moved.leases[j].at = hole
		at.names[hole] = moved
	}
	at.names[last] = nil
	at.names, at.view = at.names[:last], nil
	if last == 0 {
		delete(s.addrs, addr)
	}
}

// Names returns the names that addr has for clients of a scope, or a thousand of them, those first that rules spell out. The slice must not be changed. It does
// not allocate, except when a name has gone.
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
		s.refresh(now, addr)
	}
	names, _ = b.names(now, scope, addr)
	return names
}

// NamesWith is Names for a connection that showed a name: where the address has more names than Names shows, that one
// alone, if it is one of them.
func (b *Bindings) NamesWith(now time.Time, scope string, addr netip.Addr, name egress.Name) []egress.Name {
	names := b.Names(now, scope, addr)
	if len(names) < maxView || !b.has(now, scope, addr.Unmap(), name) {
		return names
	}
	return []egress.Name{name}
}

func (b *Bindings) has(now time.Time, scope string, addr netip.Addr, name egress.Name) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.scopes[scope]
	if s == nil || s.names[name] == nil {
		return false
	}
	n := s.names[name]
	i, found := n.find(addr)
	return found && !n.leases[i].over(now)
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
	return at.view, at.view != nil && now.Before(at.check)
}

// refresh makes the view of an address right.
func (s *scope) refresh(now time.Time, addr netip.Addr) {
	if at := s.addrs[addr]; at != nil && !now.Before(at.check) {
		s.sweep(now, addr)
	}
	at := s.addrs[addr]
	if at == nil || at.view != nil {
		return
	}
	at.view = make([]egress.Name, min(len(at.names), maxView))
	for i := range at.view {
		at.view[i] = at.names[i].name
	}
}

// sweep forgets what is over at one address.
func (s *scope) sweep(now time.Time, addr netip.Addr) {
	at := s.addrs[addr]
	at.check = now.Add(Grace)
	for i := len(at.names) - 1; i >= 0; i-- { // from behind, where unbind fills the holes from
		n := at.names[i]
		j, _ := n.find(addr)
		if l := &n.leases[j]; !l.over(now) {
			if over := l.expires.Add(Grace); over.After(now) && over.Before(at.check) {
				at.check = over
			}
			continue
		}
		if s.unbind(n, j); len(n.leases) == 0 {
			s.remove(n)
		}
	}
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
	b.mu.Lock()
	defer b.mu.Unlock()
	b.policy = p
	for _, s := range b.scopes {
		for _, n := range s.names {
			if b.spelled(n.name) {
				s.shares.leave(n)
				for i := range n.leases {
					s.show(n, i)
				}
			} else {
				s.shares.put(n, b.zone(n.name))
			}
		}
	}
}

func (b *Bindings) spelled(n egress.Name) bool { return b.policy != nil && b.policy.Spells(n) }

// zone is the wildcard's that n is below; "" is none.
func (b *Bindings) zone(n egress.Name) string {
	if b.policy == nil {
		return ""
	}
	return b.policy.Zone(n)
}

// Use keeps a binding that a connection uses, until Age has been called a few times since. Of what
// is not bound it does nothing.
func (b *Bindings) Use(scope string, name egress.Name, addr netip.Addr) {
	addr = addr.Unmap()
	b.mu.RLock()
	_, l := b.lease(scope, name, addr)
	known := l == nil || l.uses > usedLooks
	b.mu.RUnlock()
	if known {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n, l := b.lease(scope, name, addr); l != nil {
		b.scopes[scope].use(n, l, usedLooks+1)
	}
}

// lease finds one; nil is none.
func (b *Bindings) lease(scope string, name egress.Name, addr netip.Addr) (*named, *lease) {
	s := b.scopes[scope]
	if s == nil || s.names[name] == nil {
		return nil, nil
	}
	n := s.names[name]
	i, found := n.find(addr)
	if !found {
		return nil, nil
	}
	return n, &n.leases[i]
}

// Age begins a look at the live connections: Use follows for what each of them uses.
func (b *Bindings) Age() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.scopes {
		for _, n := range s.names {
			for i := range n.leases {
				if l := &n.leases[i]; l.uses > 0 {
					s.use(n, l, l.uses-1)
				}
			}
		}
	}
}

// use sets for how many looks a lease of n is in use.
func (s *scope) use(n *named, l *lease, looks uint8) {
	before := n.inUse
	switch {
	case l.uses == 0 && looks > 0:
		n.inUse++
	case l.uses > 0 && looks == 0:
		n.inUse--
		s.addrs[l.addr].check = time.Time{} // it may have been over for long
	}
	if l.uses = looks; (before > 0) != (n.inUse > 0) {
		s.shares.renew(n)
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
				for i := range n.leases {
					l := &n.leases[i]
					if !l.over(now) && !yield(egress.Binding{Scope: scope, Name: n.name, Addr: l.addr, Expires: l.expires}) {
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
