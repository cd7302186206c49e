package dnsproxy

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

const denialText = "-- authority\n. 10 IN SOA . . 1 10 10 10 10"

// TestAnsweredHere are the questions that no upstream hears of.
func TestAnsweredHere(t *testing.T) {
	for _, tt := range []struct {
		name, ask    string
		with         func(*Server)
		want, denied string
	}{
		{"a name outside the policy does not exist", "bank.example A", nil, "NXDOMAIN\n" + denialText, "bank.example name-not-resolvable"},
		{"or is refused", "bank.example A", func(s *Server) { s.Refuse = true }, "REFUSED", "bank.example name-not-resolvable"},
		{"a tunnel's labels do not leave", "mfrggzdfmztwq2lk.t.evil.example TXT", nil, "NXDOMAIN\n" + denialText, "mfrggzdfmztwq2lk.t.evil.example name-not-resolvable"},
		{"a look-alike is another name", "a.notok.example A", nil, "NXDOMAIN\n" + denialText, "a.notok.example name-not-resolvable"},
		{"case does not matter", "A.OK.example.evil.EXAMPLE A", nil, "NXDOMAIN\n" + denialText, "a.ok.example.evil.example name-not-resolvable"},
		{"an address is no name", "10.0.0.1 A", nil, "NXDOMAIN\n" + denialText, " name-not-resolvable"},
		{"a name that no rule can hold is denied", `a\.b.ok.example A`, nil, "NXDOMAIN\n" + denialText, " name-not-resolvable"},
		{"a name with odd bytes is denied", `a\000.ok.example A`, nil, "NXDOMAIN\n" + denialText, " name-not-resolvable"},
		{"the root is denied", ". NS", nil, "NXDOMAIN\n" + denialText, " name-not-resolvable"},
		{"a service's name is noise", "kubernetes.default.svc.cluster.local A", nil, "NXDOMAIN\n" + denialText, ""},
		{"an expanded name is noise", "a.ok.example.default.svc.cluster.local AAAA", nil, "NXDOMAIN\n" + denialText, ""},
		{"a node's search domain is noise", "a.ok.example.x1y2.ax.internal.cloudapp.net A", nil, "NXDOMAIN\n" + denialText, ""},
		{"a configured search domain is noise", "a.ok.example.corp.example A", func(s *Server) { s.Search = []egress.Name{egress.MustParseName("corp.example")} }, "NXDOMAIN\n" + denialText, ""},
		{"a short name is noise", "kubernetes A", nil, "NXDOMAIN\n" + denialText, ""},
		{"noise does not exist, even where denied names are refused", "wpad A", func(s *Server) { s.Refuse = true }, "NXDOMAIN\n" + denialText, ""},
		{"the name of an address is noise", "4.3.2.1.in-addr.arpa PTR", nil, "NXDOMAIN\n" + denialText, ""},
		{"browsers keep to this resolver", "use-application-dns.net A", permitAll, "NXDOMAIN\n" + denialText, ""},
		{"no better resolver is known", "_dns.resolver.arpa SVCB", permitAll, denialText, ""},
		{"ANY is refused", "a.ok.example ANY", nil, "REFUSED", ""},
		{"a zone transfer is refused", "a.ok.example AXFR", nil, "REFUSED", ""},
		{"NULL, which only tunnels use, is refused", "a.ok.example NULL", nil, "REFUSED", ""},
		{"an unknown client is refused", "a.ok.example A", func(s *Server) { s.Client = func(netip.Addr) (string, bool) { return "", false } }, "REFUSED", ""},
		{"the zero Server refuses", "a.ok.example A", func(s *Server) { s.Client = nil }, "REFUSED", ""},
		{"nothing is permitted by nil", "a.ok.example A", func(s *Server) { s.MayResolve = nil }, "NXDOMAIN\n" + denialText, "a.ok.example name-not-resolvable"},
		{"AAAA has no data where IPv6 does not leave", "a.ok.example AAAA", func(s *Server) { s.NoAAAA = true }, denialText, ""},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(tt.name+" over "+network, func(t *testing.T) {
				var asked atomic.Int32
				s, notes := newServer(upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg { asked.Add(1); return new(dns.Msg) }))
				if tt.with != nil {
					tt.with(s)
				}
				got := ask(t, network, run(t, s), queryFor(t, tt.ask))
				if diff := cmp.Diff(lines(tt.want), text(got)); diff != "" {
					t.Errorf("answer (-want +got):\n%s", diff)
				}
				if _, denied := notes.take(); strings.Join(denied, "\n") != tt.denied {
					t.Errorf("denied %q, want %q", denied, tt.denied)
				}
				if n := asked.Load(); n != 0 {
					t.Errorf("%d queries left", n)
				}
			})
		}
	}
}

func permitAll(s *Server) { s.MayResolve = func(netip.Addr, egress.Name) bool { return true } }

// TestMayResolveAgain: a policy that changes holds for what is cached.
func TestMayResolveAgain(t *testing.T) {
	var closed atomic.Bool
	s, _ := newServer(upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg { return message(t, "a.ok.example. 60 IN A 20.1.2.3") }))
	s.MayResolve = func(netip.Addr, egress.Name) bool { return !closed.Load() }
	server := run(t, s)
	if got := text(ask(t, "udp", server, queryFor(t, "a.ok.example A"))); got != "a.ok.example. 60 IN A 20.1.2.3" {
		t.Fatal(got)
	}
	closed.Store(true)
	if got := ask(t, "udp", server, queryFor(t, "a.ok.example A")); got.Rcode != dns.RcodeNameError {
		t.Errorf("answered %s from the cache", text(got))
	}
}

// TestDenialSays: the reason is in the client's own tools (RFC 8914).
func TestDenialSays(t *testing.T) {
	s, _ := newServer()
	q := queryFor(t, "bank.example A").SetEdns0(4096, true)
	got := ask(t, "udp", run(t, s), q)
	opt := got.IsEdns0()
	if opt == nil || opt.UDPSize() != maxUDP || !opt.Do() || len(opt.Option) != 1 {
		t.Fatalf("OPT %v", opt)
	}
	if ede, ok := opt.Option[0].(*dns.EDNS0_EDE); !ok || ede.InfoCode != dns.ExtendedErrorCodeFiltered || ede.ExtraText != edeBlocked.text {
		t.Errorf("option %v", opt.Option[0])
	}
}

// TestForm are messages that are judged by their form alone.
func TestForm(t *testing.T) {
	plain := pack(t, queryFor(t, "a.ok.example A"))
	edns := pack(t, queryFor(t, "a.ok.example A").SetEdns0(1232, false))
	set := func(b []byte, at int, v uint16) []byte {
		b = append([]byte(nil), b...)
		binary.BigEndian.PutUint16(b[at:], v)
		return b
	}
	opt := len(plain)
	for _, tt := range []struct {
		name string
		msg  []byte
		want string // RCODE, or none
	}{
		{"a query is answered", plain, "NOERROR"},
		{"so is one with EDNS", edns, "NOERROR"},
		{"an answer is not: it would loop", set(plain, 2, 0x8100), "none"},
		{"nothing is no query", nil, "none"},
		{"half a header is no query", plain[:11], "none"},
		{"an update is not for us", set(plain, 2, dns.OpcodeUpdate<<11), "NOTIMP"},
		{"a notify is not for us", set(plain, 2, dns.OpcodeNotify<<11), "NOTIMP"},
		{"no question is an error", set(plain, 4, 0), "FORMERR"},
		{"two questions are an error", append(set(plain, 4, 2), plain[headerLen:]...), "FORMERR"},
		{"a record in the answer is an error", set(plain, 6, 1), "FORMERR"},
		{"a record that is not there is an error", set(plain, 10, 1), "FORMERR"},
		{"bytes behind the end are an error", append(append([]byte(nil), plain...), 0), "FORMERR"},
		{"a name without end is an error", plain[:headerLen+5], "FORMERR"},
		{"a compressed name is an error", append(append(append([]byte(nil), plain[:headerLen]...), 0xc0, 12), 0, 1, 0, 1), "FORMERR"},
		{"two OPTs are an error", append(set(edns, 10, 2), edns[opt:]...), "FORMERR"},
		{"a signature is an error: no keys are shared with us", append(set(plain, 10, 1), 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0), "FORMERR"},
		{"an OPT with a name is an error", append(append(set(plain, 10, 1), 1, 'a'), edns[opt:]...), "FORMERR"},
		{"an option that is too long is an error", append(set(edns, opt+9, 4), 0, 3, 0, 9), "FORMERR"},
		{"a later EDNS is told our version", set(edns, opt+5, 1), "BADVERS"},
		{"another class is refused", set(plain, len(plain)-2, dns.ClassCHAOS), "REFUSED"},
		{"any class is refused", set(plain, len(plain)-2, dns.ClassANY), "REFUSED"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newServer(upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg { return message(t, "a.ok.example. 60 IN A 20.1.2.3") }))
			got := exchange(t, s, tt.msg)
			if got == nil {
				if tt.want != "none" {
					t.Errorf("no answer, want %s", tt.want)
				}
				return
			}
			m := new(dns.Msg)
			if err := m.Unpack(got); err != nil {
				t.Fatalf("answer %x: %v", got, err)
			}
			if opt := m.IsEdns0(); opt != nil {
				m.Rcode |= opt.ExtendedRcode()
			}
			if rcodeText(m.Rcode) != tt.want || m.Id != binary.BigEndian.Uint16(tt.msg) || !m.Response {
				t.Errorf("got %v, want %s", m, tt.want)
			}
		})
	}
}

// exchange has s answer msg without sockets.
func exchange(t testing.TB, s *Server, msg []byte) []byte {
	t.Helper()
	s.setup()
	var q query
	c := benchClient()
	out, p := s.quick(nil, msg, &q, &c)
	if p != nil {
		out = finish(t, s, &q, &c, p)
		s.work.Wait()
	}
	return out
}

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
