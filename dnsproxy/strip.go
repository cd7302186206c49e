package dnsproxy

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// strip takes out of c what would lead a client around the gateway: guarded
// addresses that internal does not vouch for, and the parts of HTTPS records
// that bring addresses, keys or protocols of their own. It sorts the addresses
// that stay.
func (c *chain) strip(n egress.Name, internal func(egress.Name, netip.Addr) bool) {
	altered := map[uint16]bool{}
	c.answer = slices.DeleteFunc(c.answer, func(rr dns.RR) bool {
		drop := false
		switch rr := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(rr.A.To4())
			drop = !c.addAddr(n, a, internal)
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(rr.AAAA)
			drop = !c.addAddr(n, a.Unmap(), internal)
		case *dns.HTTPS:
			drop = !c.stripService(&rr.SVCB)
			altered[dns.TypeHTTPS] = true
		case *dns.SVCB:
			drop = !c.stripService(rr)
			altered[dns.TypeSVCB] = true
		}
		return drop
	})
	if len(c.stripped) > 0 {
		altered[c.question.Qtype] = true
		c.why = edeStripped
		c.ttl = min(c.ttl, maxNegativeTTL*time.Second) // so that a changed configuration helps soon
	}
	c.answer = slices.DeleteFunc(c.answer, func(rr dns.RR) bool { // they no longer sign what is left
		sig, ok := rr.(*dns.RRSIG)
		return ok && altered[sig.TypeCovered]
	})
}

func (c *chain) addAddr(n egress.Name, a netip.Addr, internal func(egress.Name, netip.Addr) bool) bool {
	switch {
	case !egress.Guarded(a):
		c.open = append(c.open, a)
	case internal != nil && internal(n, a):
		c.inside = append(c.inside, a)
	default:
		c.stripped = append(c.stripped, a)
		return false
	}
	return true
}

// stripService takes out of a service record (RFC 9460) what a client would
// follow past the gateway: ech hides the name, address hints are bound to
// nothing, HTTP/3 is QUIC, and dohpath is another resolver. It reports false
// for a record that is nothing without them, or that leads to another name
// than was asked: the client then does without, as RFC 9460, section 3 says.
func (c *chain) stripService(rr *dns.SVCB) bool {
	rr.Target = dns.CanonicalName(rr.Target)
	if rr.Target != "." && !slices.Contains(c.links, rr.Target) {
		return false
	}
	whole := true
	noDefault := slices.ContainsFunc(rr.Value, func(v dns.SVCBKeyValue) bool { return v.Key() == dns.SVCB_NO_DEFAULT_ALPN })
	gone := map[dns.SVCBKey]bool{}
	rr.Value = slices.DeleteFunc(rr.Value, func(v dns.SVCBKeyValue) bool {
		drop := false
		switch v := v.(type) {
		case *dns.SVCBECHConfig, *dns.SVCBIPv4Hint, *dns.SVCBIPv6Hint, *dns.SVCBDoHPath, *dns.SVCBOhttp:
			drop = true
		case *dns.SVCBAlpn:
			v.Alpn = slices.DeleteFunc(v.Alpn, func(p string) bool { return strings.HasPrefix(p, "h3") || p == "doq" })
			drop = len(v.Alpn) == 0
			if drop && noDefault {
				whole = false
			}
		}
		if drop {
			gone[v.Key()] = true
		}
		return drop
	})
	rr.Value = slices.DeleteFunc(rr.Value, func(v dns.SVCBKeyValue) bool {
		m, ok := v.(*dns.SVCBMandatory)
		if !ok {
			return false
		}
		m.Code = slices.DeleteFunc(m.Code, func(k dns.SVCBKey) bool { return gone[k] })
		return len(m.Code) == 0
	})
	return whole
}
