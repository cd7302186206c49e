package dnsproxy

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"

	"tidegate.io/tidegate/egress"
)

// closure is, read as generously as can be, every name that the question leads
// to in m, and every address of those names.
func closure(m *dns.Msg, name string) (names map[string]bool, addrs map[netip.Addr]bool) {
	names, addrs = map[string]bool{dns.CanonicalName(name): true}, map[netip.Addr]bool{}
	for range m.Answer { // as often as the longest chain
		for _, rr := range m.Answer {
			if c, ok := rr.(*dns.CNAME); ok && names[dns.CanonicalName(c.Hdr.Name)] {
				names[dns.CanonicalName(c.Target)] = true
			}
		}
	}
	for _, rr := range m.Answer {
		if !names[dns.CanonicalName(rr.Header().Name)] {
			continue
		}
		switch rr := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(rr.A.To4())
			addrs[a] = true
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(rr.AAAA)
			addrs[a.Unmap()] = true
		}
	}
	return names, addrs
}

// FuzzUpstream takes any bytes as what an upstream says after the question.
// What is learned is within the closure of the question, and what is answered
// is well-formed, is within it too, and means the same when packed again.
func FuzzUpstream(f *testing.F) {
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT, dns.TypeCNAME, dns.TypeSRV}
	for i, say := range []string{
		aliceA, links(3), "a.ok.example. 60 IN AAAA ::ffff:10.0.0.1\na.ok.example. 60 IN AAAA 2603::1",
		"a.ok.example. 60 IN HTTPS 1 . alpn=h3,h2 ech=AEn+DQBF ipv4hint=20.6.6.6", "NXDOMAIN\n-- authority\nok.example. 1800 IN SOA ns.ok.example. h.ok.example. 1 2 3 4 1800",
		"a.ok.example. 60 IN CNAME b.ok.example.\nb.ok.example. 60 IN CNAME a.ok.example.",
		"a.ok.example. 60 IN A 20.1.2.3\na.ok.example. 60 IN RRSIG A 13 3 60 20300101000000 20200101000000 1 ok.example. c2lnbmF0dXJl",
		"a.ok.example. 60 IN SRV 1 2 443 b.ok.example.", "a.ok.example. 60 IN TXT \"a\" \"b\"", addresses(100),
	} {
		b := pack(f, replyTo(queryFor(f, alice), message(f, say)))
		f.Add(b[3], b[6:headerLen], b[headerLen+18:], uint8(i), uint16(512+50*i))
	}
	f.Fuzz(func(t *testing.T, flags byte, counts, rest []byte, kind uint8, size uint16) {
		q := dns.Question{Name: "a.ok.example.", Qtype: types[int(kind)%len(types)], Qclass: dns.ClassINET}
		asked := new(dns.Msg).SetQuestion(q.Name, q.Qtype)
		asked.SetEdns0(max(size, 512), kind&8 != 0)
		question := pack(t, asked)
		said := slices.Concat(question[:2], []byte{0x80, flags, 0, 1}, append(counts, make([]byte, 6)...)[:6], question[headerLen:headerLen+18], rest)

		s, _ := newServer(netip.MustParseAddrPort(first))
		s.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
		m, before := new(dns.Msg), new(dns.Msg)
		if m.Unpack(said) != nil || before.Unpack(said) != nil {
			return
		}
		c, err := accept(m, q, kind&8 != 0)
		if err != nil {
			return
		}
		n := egress.MustParseName("a.ok.example")
		c.strip(n, nil)
		e, err := newEntry("", n, c, time.Unix(0, 0))
		if err != nil {
			return
		}
		names, addrs := closure(before, q.Name)
		for _, a := range e.open {
			if !addrs[a] || egress.Guarded(a) {
				t.Errorf("learned %s", a)
			}
		}
		if len(e.inside) > 0 {
			t.Errorf("private addresses %v", e.inside)
		}
		var read query
		read.read(question)
		for _, limit := range []int{512, int(max(size, 512)), dns.MaxMsgSize} {
			out := e.append(nil, &read, limit, time.Unix(10, 0), false)
			if len(out) > limit {
				t.Errorf("%d bytes, limit %d", len(out), limit)
			}
			checkAnswer(t, out, asked, names)
		}
	})
}

// checkAnswer holds an answer against two libraries and the names it may speak of.
func checkAnswer(t *testing.T, out []byte, asked *dns.Msg, names map[string]bool) {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		t.Fatalf("answer %x: %v", out, err)
	}
	var p dnsmessage.Parser
	if _, err := p.Start(out); err != nil {
		t.Fatalf("answer %x: %v", out, err)
	}
	for _, skip := range []func() error{p.SkipAllQuestions, p.SkipAllAnswers, p.SkipAllAuthorities, p.SkipAllAdditionals} {
		if err := skip(); err != nil {
			t.Fatalf("answer %x: %v", out, err)
		}
	}
	again := new(dns.Msg)
	if err := again.Unpack(pack(t, m)); err != nil || again.String() != m.String() {
		t.Errorf("packed again it differs: %v\n%v\n%v", err, m, again)
	}
	if m.Id != asked.Id || !m.Response || len(m.Question) != 1 || m.Question[0] != asked.Question[0] {
		t.Errorf("answers another question: %v", m)
	}
	for _, rr := range m.Answer {
		h := rr.Header()
		if !names[dns.CanonicalName(h.Name)] || h.Class != dns.ClassINET || h.Ttl > maxTTL {
			t.Errorf("speaks of %s", rr)
		}
		if svcb, ok := rr.(*dns.HTTPS); ok && (strings.Contains(svcb.String(), "hint=") || strings.Contains(svcb.String(), " ech=")) {
			t.Errorf("leads around us: %s", rr)
		}
	}
	if len(m.Extra) > 1 {
		t.Errorf("additional records %v", m.Extra)
	}
}

// FuzzQuery takes any bytes as a client's message. Its answer is well-formed,
// to this question, or there is none; what is taken for a query is one to the
// library too, with the same meaning; and only permitted names leave.
func FuzzQuery(f *testing.F) {
	for _, ask := range []string{alice, "bank.example A", "A.oK.example HTTPS", ". NS", `a\.b.ok.example A`, "use-application-dns.net A", "kubernetes A", "1.0.0.10.in-addr.arpa PTR"} {
		q := queryFor(f, ask)
		f.Add(pack(f, q))
		q.SetEdns0(4096, true)
		q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"})
		f.Add(pack(f, q))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		s, _ := newServer(netip.MustParseAddrPort(first))
		s.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			return internet{first: func(q *dns.Msg) *dns.Msg {
				if n, err := egress.ParseName(q.Question[0].Name); err != nil || !permitOK(netip.Addr{}, n) {
					t.Errorf("asked of the outside: %v", q)
				}
				return &dns.Msg{Answer: []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}, A: net.IPv4(20, 1, 2, 3)}}}
			}}.dial(ctx, network, address)
		}
		checkQuery(t, msg)
		for range 2 { // once from the upstream, once from the cache
			out := exchange(t, s, msg)
			if out == nil {
				continue
			}
			m := new(dns.Msg)
			if err := m.Unpack(out); err != nil {
				t.Fatalf("answer %x: %v", out, err)
			}
			if !m.Response || !bytes.Equal(out[:2], msg[:2]) || len(m.Question) == 1 && !bytes.Equal(out[headerLen:headerLen+2], msg[headerLen:headerLen+2]) {
				t.Errorf("%x is answered by %x", msg, out)
			}
		}
	})
}

func checkQuery(t *testing.T, msg []byte) {
	t.Helper()
	var q query
	if rcode, ok := q.read(msg); !ok || rcode != dns.RcodeSuccess {
		return
	}
	m := new(dns.Msg)
	if err := m.Unpack(msg); err != nil {
		if !q.edns { // some options it reads, where we drop them
			t.Fatalf("query %x: %v", msg, err)
		}
		return
	}
	opt := m.IsEdns0()
	if len(m.Question) != 1 || m.Question[0].Qtype != q.qtype || m.Question[0].Qclass != q.class || m.CheckingDisabled != q.cd ||
		m.RecursionDesired != q.rd || (opt != nil) != q.edns || opt != nil && (opt.Do() != q.do || max(int(opt.UDPSize()), 512) != q.size) {
		t.Errorf("%x is read as %+v, by the library as %v", msg, q, m)
	}
	if n, ok := q.name(); ok && dns.CanonicalName(m.Question[0].Name) != n.String()+"." {
		t.Errorf("%x asks for %q, by the library for %q", msg, n, m.Question[0].Name)
	}
}

// FuzzMatch takes any bytes as a message and holds match to what the library
// reads in it.
func FuzzMatch(f *testing.F) {
	good, err := question{name: egress.MustParseName("a.ok.example"), qtype: dns.TypeA}.pack(true, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(honest(f, good, aliceA))
	f.Add(honest(f, good, "TC"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if match(good, msg) != answers {
			return
		}
		q, m := new(dns.Msg), new(dns.Msg)
		if q.Unpack(good) != nil || m.Unpack(msg) != nil {
			return
		}
		if m.Id != q.Id || !m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 || m.Question[0] != q.Question[0] {
			t.Errorf("%v answers %v", m, q)
		}
	})
}
