package dnsproxy

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// client is who asks, and how.
type client struct {
	addr  netip.AddrPort
	proto egress.Proto // UDP or TCP
	scope string
}

// limit is the largest answer that goes to c.
func (c *client) limit(q *query) int {
	if c.proto == egress.TCP {
		return dns.MaxMsgSize
	}
	return min(q.size, maxUDP)
}

// Replies that say no.
var (
	replyRefused  = reply{rcode: dns.RcodeRefused}
	replyStranger = reply{rcode: dns.RcodeRefused, why: edeStranger}
	replyBusy     = reply{rcode: dns.RcodeServerFailure, why: edeNotReady}
	replyFull     = reply{rcode: dns.RcodeServerFailure, why: edeFull}
	replyNoData   = reply{soa: true}
	replyNoName   = reply{rcode: dns.RcodeNameError, soa: true}
	replyDenied   = reply{rcode: dns.RcodeNameError, soa: true, why: edeBlocked}
	replyRefusal  = reply{rcode: dns.RcodeRefused, why: edeBlocked}
)

// pending is a question that takes longer than a reader may wait.
type pending struct {
	name    egress.Name
	started time.Time
}

// quick reads a message into q and appends its answer to out if that needs
// nobody: a cached one that c's scope knows, or a denial. Otherwise it returns
// what answer has to finish, and has counted it among those that wait. Both are
// nil for what gets no answer.
func (s *Server) quick(out, msg []byte, q *query, c *client) ([]byte, *pending) {
	rcode, ok := q.read(msg)
	if !ok {
		s.counts.dropped.Add(1)
		return nil, nil
	}
	started := s.now()
	say := func(r reply) ([]byte, *pending) {
		s.counts.done(r.rcode, s.now().Sub(started))
		return r.append(out, q), nil
	}
	if rcode != dns.RcodeSuccess {
		return say(reply{rcode: rcode})
	}
	if c.scope, ok = s.scope(c.addr.Addr()); !ok {
		s.counts.strangers.Add(1)
		return say(replyStranger)
	}
	if q.class != dns.ClassINET || !askable(q.qtype) {
		return say(replyRefused)
	}
	e := s.cache.get(q.cacheKey())
	var n egress.Name
	named := true
	if e != nil {
		n = e.name
	} else if n, named = q.name(); named {
		if r, special := specialNames[n]; special {
			return say(r)
		}
	}
	switch {
	case !named || !s.mayResolve(c.addr.Addr(), n):
		return say(s.deny(c, n))
	case s.NoAAAA && q.qtype == dns.TypeAAAA:
		return say(replyNoData)
	case e != nil && e.fresh(started) && s.knows(e, c.scope, started):
		s.counts.hits.Add(1)
		s.counts.done(e.rcode, s.now().Sub(started))
		return e.append(out, q, c.limit(q), started, false), nil
	case !s.waits.enter(c.addr.Addr()):
		s.counts.overloaded.Add(1)
		return say(replyBusy)
	}
	return nil, &pending{n, started}
}

// answer finishes what quick could not. It returns nil when the server ends.
func (s *Server) answer(ctx context.Context, q *query, c *client, p *pending) []byte {
	defer s.waits.leave(c.addr.Addr())
	f := s.resolve(ctx, q, p.name)
	if f.entry == nil {
		return nil
	}
	expires := f.expires
	if f.stale {
		s.counts.stale.Add(1)
		expires = s.now().Add(staleTTL*time.Second + learnAgain)
	}
	usable := s.teach(ctx, f.entry, c.scope, expires)
	now := s.now()
	if !usable {
		s.counts.overloaded.Add(1)
		s.counts.done(replyFull.rcode, now.Sub(p.started))
		return replyFull.append(nil, q)
	}
	s.counts.done(f.rcode, now.Sub(p.started))
	return f.append(make([]byte, 0, maxUDP), q, c.limit(q), now, f.stale)
}

func (s *Server) scope(a netip.Addr) (string, bool) {
	if s.Client == nil {
		return "", false
	}
	return s.Client(a)
}

func (s *Server) mayResolve(a netip.Addr, n egress.Name) bool {
	return s.MayResolve != nil && s.MayResolve(a, n)
}

// deny says no to a name, and reports it unless it is noise.
func (s *Server) deny(c *client, n egress.Name) reply {
	if s.noise(n) {
		s.counts.noise.Add(1)
		return replyNoName
	}
	s.counts.denied.Add(1)
	if s.Denied != nil {
		s.Denied(c.scope, egress.Conn{Proto: c.proto, Src: c.addr, Dst: netip.AddrPortFrom(netip.Addr{}, 53), Name: n}, egress.NameNotResolvable)
	}
	if s.Refuse {
		return replyRefusal
	}
	return replyDenied
}

// askable reports whether a type may be asked at all: not the zone transfers,
// ANY and other types that are no data (RFC 6895, section 3.1), nor NULL, which
// only tunnels use.
func askable(t uint16) bool {
	switch t {
	case dns.TypeNone, dns.TypeNULL, dns.TypeOPT:
		return false
	}
	return t < 128 || t > 255
}

// specialNames are answered here whatever the policy says. Both would have
// clients leave for a resolver that hides their questions: browsers ask the
// first whether they may, and the second for a better one (RFC 9462, section 4).
var specialNames = map[egress.Name]reply{
	egress.MustParseName("use-application-dns.net"): replyNoName,
	egress.MustParseName("_dns.resolver.arpa"):      replyNoData,
	egress.MustParseName("resolver.arpa"):           replyNoData,
}

// noisy are the domains that search lists and ndots:5 append to every name, and
// those that belong to no outside: a denial below them says nothing.
var noisy = []string{
	"cluster.local", "svc", "local", "localhost", "internal", "lan", "home.arpa",
	"internal.cloudapp.net", "reddog.microsoft.com", // what Azure gives to nodes
	"in-addr.arpa", "ip6.arpa",
}

// noise reports whether a denied name is one that nobody meant to ask of the
// outside.
func (s *Server) noise(n egress.Name) bool {
	text := n.String()
	if !strings.Contains(text, ".") {
		return text != "" // a service's short name
	}
	for _, d := range noisy {
		if below(text, d) {
			return true
		}
	}
	for _, d := range s.Search {
		if below(text, d.String()) {
			return true
		}
	}
	return false
}

func below(name, domain string) bool {
	rest, ok := strings.CutSuffix(name, domain)
	return ok && domain != "" && (rest == "" || rest[len(rest)-1] == '.')
}
