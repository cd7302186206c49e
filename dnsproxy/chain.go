package dnsproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxLinks bounds a chain of aliases; real ones have up to eight.
	maxLinks = 16
	// maxTTL is a day: a longer promise than any operator means.
	maxTTL = 86_400
	// maxNegativeTTL is short because names come into being while nodes boot;
	// a zone's own half hour would stall them.
	maxNegativeTTL = 60
	// maxProofs bounds the DNSSEC records of a denial; NSEC3 needs three and
	// their signatures.
	maxProofs = 16
)

// chain is what is believed of an upstream's message: the aliases from the
// question on, and the records at their end.
type chain struct {
	question  dns.Question
	rcode     int
	links     []string // the question's name and each alias, canonical
	answer    []dns.RR
	authority []dns.RR
	negative  bool
	ttl       time.Duration // how long the answer may be used
	open      []netip.Addr
	inside    []netip.Addr
	stripped  []netip.Addr // guarded addresses that were taken out
	why       *extended
}

var (
	errLoop     = errors.New("aliases go in a circle or on for too long")
	errContrary = errors.New("name does not exist, and yet has records")
)

// accept believes of m what answers q: records of the class and type asked, at
// the end of the chain of CNAMEs that starts at the question's name. All else
// that a message can hold (records of other names, authority, additional) is
// how caches are poisoned, and is ignored. The caller has checked that m
// answers q at all.
func accept(m *dns.Msg, q dns.Question, do bool) (*chain, error) {
	c := &chain{question: q, rcode: m.Rcode}
	c.question.Name = dns.CanonicalName(q.Name)
	found, err := c.follow(m.Answer, do)
	switch {
	case err != nil:
		return nil, err
	case found && m.Rcode == dns.RcodeNameError:
		return nil, errContrary
	case !found:
		c.negative = true
		c.deny(m.Ns, do)
	}
	for _, rr := range c.answer {
		clampTTL(rr, maxTTL)
	}
	c.ttl = c.leastTTL()
	return c, nil
}

func (c *chain) follow(rrs []dns.RR, do bool) (found bool, err error) {
	name := c.question.Name
	for {
		c.links = append(c.links, name)
		end := recordsAt(rrs, name, c.question.Qtype, do)
		c.answer = append(c.answer, end...)
		if len(end) > 0 {
			return true, nil
		}
		alias := recordsAt(rrs, name, dns.TypeCNAME, do)
		if len(alias) == 0 {
			return false, nil
		}
		c.answer = append(c.answer, alias...)
		name = alias[0].(*dns.CNAME).Target
		if slices.Contains(c.links, name) || len(c.links) > maxLinks {
			return false, fmt.Errorf("%s: %w", c.question.Name, errLoop)
		}
	}
}

// recordsAt returns the records that name has of a type, without doubles (RFC
// 2181, section 5) and with their signatures if do; a name has one CNAME
// (section 10.1), so the first is taken. Names come back canonical.
func recordsAt(rrs []dns.RR, name string, rrtype uint16, do bool) []dns.RR {
	var got, signatures []dns.RR
	for _, rr := range rrs {
		h := rr.Header()
		if h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != name {
			continue
		}
		sig, signature := rr.(*dns.RRSIG)
		switch {
		case h.Rrtype == rrtype && (rrtype != dns.TypeCNAME || len(got) == 0):
			if !wellFormed(rr) {
				continue
			}
			h.Name = name
			if !slices.ContainsFunc(got, func(o dns.RR) bool { return dns.IsDuplicate(rr, o) }) {
				got = append(got, rr)
			}
		case do && signature && sig.TypeCovered == rrtype && len(signatures) < maxProofs:
			h.Name = name
			signatures = append(signatures, rr)
		}
	}
	if len(got) == 0 {
		return nil
	}
	return append(got, signatures...)
}

// wellFormed reports that rr holds what its type says: an update's record
// without data (RFC 2136, section 2.4) unpacks too.
func wellFormed(rr dns.RR) bool {
	switch rr := rr.(type) {
	case *dns.A:
		return rr.A.To4() != nil
	case *dns.AAAA:
		return len(rr.AAAA) == 16
	case *dns.CNAME:
		rr.Target = dns.CanonicalName(rr.Target)
		return rr.Target != ""
	}
	return rr.Header().Rdlength > 0
}

// deny keeps what lets the absence be cached, and proven if do: the SOA of a
// zone that the chain's last name is in, and that zone's NSEC records.
func (c *chain) deny(ns []dns.RR, do bool) {
	last := c.links[len(c.links)-1]
	at := slices.IndexFunc(ns, func(rr dns.RR) bool {
		soa, ok := rr.(*dns.SOA)
		return ok && rr.Header().Class == dns.ClassINET && rr.Header().Rdlength > 0 && soa.Ns != "" &&
			dns.IsSubDomain(dns.CanonicalName(rr.Header().Name), last)
	})
	if at < 0 {
		return
	}
	soa := ns[at].(*dns.SOA)
	ttl := min(soa.Minttl, maxNegativeTTL) // RFC 2308, section 5
	soa.Minttl = ttl
	c.authority = append(c.authority, soa)
	for _, rr := range ns {
		if do && len(c.authority) <= maxProofs && proof(rr) && dns.IsSubDomain(dns.CanonicalName(soa.Hdr.Name), dns.CanonicalName(rr.Header().Name)) {
			c.authority = append(c.authority, rr)
		}
	}
	for _, rr := range c.authority {
		clampTTL(rr, ttl)
	}
}

func proof(rr dns.RR) bool {
	if rr.Header().Class != dns.ClassINET || rr.Header().Rdlength == 0 {
		return false
	}
	switch rr.(type) {
	case *dns.NSEC, *dns.NSEC3, *dns.RRSIG:
		return true
	}
	return false
}

// clampTTL bounds a TTL; one with the top bit set is zero (RFC 2181, section 8).
func clampTTL(rr dns.RR, most uint32) {
	h := rr.Header()
	if h.Ttl >= 1<<31 {
		h.Ttl = 0
	}
	h.Ttl = min(h.Ttl, most)
}

// leastTTL is until the first of the records, or the absence of some, expires. An absence without SOA is not cached (RFC 2308,
// section 5).
func (c *chain) leastTTL() time.Duration {
	ttl := uint32(maxTTL)
	if c.negative {
		ttl = maxNegativeTTL
		if len(c.authority) == 0 {
			ttl = 0
		}
	}
	for _, rr := range slices.Concat(c.answer, c.authority) {
		ttl = min(ttl, rr.Header().Ttl)
	}
	return time.Duration(ttl) * time.Second
}
