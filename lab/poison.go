//go:build linux

package lab

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// The attacker owns names below a permitted wildcard, and the zone's servers that answer for them. Each of these answers
// holds, somewhere, an address of his for a name that is not his.
var poisonPlaces = []string{"answer", "authority", "additional", "alias"}

func poisonName(place string) string { return "poison-" + place + wildDoor }

// poisonVictim is a permitted name that nobody else of the tactics asks for, and poisonAddr what it must not get.
const poisonVictim = "poisoned-front-door-of-another.permitted.example"

var poisonAddr = [2]netip.Addr{netip.MustParseAddr("20.66.1.1"), netip.MustParseAddr("2603:1066::1:1")}

// poison adds to an answer what the attacker's servers add.
func poison(m *dns.Msg, name string) {
	place, mine := strings.CutPrefix(strings.TrimSuffix(name, wildDoor), "poison-")
	if !mine || !strings.HasSuffix(name, wildDoor) || !slices.Contains(poisonPlaces, place) {
		return
	}
	header := func(rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: dns.Fqdn(poisonVictim), Rrtype: rrtype, Class: dns.ClassINET, Ttl: 3600}
	}
	records := []dns.RR{
		&dns.A{Hdr: header(dns.TypeA), A: poisonAddr[0].AsSlice()},
		&dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: poisonAddr[1].AsSlice()},
	}
	switch place {
	case "answer":
		m.Answer = append(records, m.Answer...)
	case "authority":
		m.Ns = append(m.Ns, records...)
	case "additional":
		m.Extra = append(m.Extra, records...)
	case "alias": // his name is an alias of the victim's, at his address
		alias := &dns.CNAME{Hdr: dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 300}, Target: dns.Fqdn(poisonVictim)}
		m.Answer = append([]dns.RR{alias}, records...)
	}
}
