package dnsproxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// TestBelieved holds what the upstream says against what the client is told and
// what is learned.
func TestBelieved(t *testing.T) {
	for _, tt := range []struct{ name, ask, say, want, learned string }{
		{"an address is answered and learned", "a.ok.example A",
			"a.ok.example. 60 IN A 20.1.2.3",
			"a.ok.example. 60 IN A 20.1.2.3", "prod a.ok.example 20.1.2.3"},
		{"AAAA is learned alike", "a.ok.example AAAA",
			"a.ok.example. 60 IN AAAA 2603:1030::5",
			"a.ok.example. 60 IN AAAA 2603:1030::5", "prod a.ok.example 2603:1030::5"},
		{"all addresses are learned, in the upstream's order", "a.ok.example A",
			"a.ok.example. 60 IN A 20.1.2.9\na.ok.example. 60 IN A 20.1.2.3\na.ok.example. 60 IN A 20.1.2.3",
			"a.ok.example. 60 IN A 20.1.2.9\na.ok.example. 60 IN A 20.1.2.3", "prod a.ok.example 20.1.2.9\nprod a.ok.example 20.1.2.3"},
		{"a chain binds to the name that was asked, in any order of records", "a.ok.example A",
			"e.cdn.example. 30 IN A 20.1.2.3\nm.cdn.example. 40 IN CNAME e.cdn.example.\na.ok.example. 50 IN CNAME M.CDN.example.",
			"a.ok.example. 50 IN CNAME m.cdn.example.\nm.cdn.example. 40 IN CNAME e.cdn.example.\ne.cdn.example. 30 IN A 20.1.2.3", "prod a.ok.example 20.1.2.3"},
		{"records of other names are ignored", "a.ok.example A",
			"a.ok.example. 60 IN A 20.1.2.3\nb.ok.example. 60 IN A 20.6.6.6\nbank.example. 60 IN A 20.6.6.7",
			"a.ok.example. 60 IN A 20.1.2.3", "prod a.ok.example 20.1.2.3"},
		{"authority and additional are ignored", "a.ok.example A",
			"a.ok.example. 60 IN A 20.1.2.3\n-- authority\nok.example. 60 IN NS ns.ok.example.\n-- additional\nns.ok.example. 60 IN A 20.6.6.6\na.ok.example. 60 IN A 20.6.6.7",
			"a.ok.example. 60 IN A 20.1.2.3", "prod a.ok.example 20.1.2.3"},
		{"another class is ignored", "a.ok.example A",
			"a.ok.example. 60 CH A 20.6.6.6", "", ""},
		{"another type is ignored", "a.ok.example A",
			"a.ok.example. 60 IN AAAA 2603:1030::5\na.ok.example. 60 IN TXT \"x\"", "", ""},
		{"a second alias of a name is ignored", "a.ok.example A",
			"a.ok.example. 60 IN CNAME b.cdn.example.\na.ok.example. 60 IN CNAME c.cdn.example.\nb.cdn.example. 60 IN A 20.1.2.3\nc.cdn.example. 60 IN A 20.6.6.6",
			"a.ok.example. 60 IN CNAME b.cdn.example.\nb.cdn.example. 60 IN A 20.1.2.3", "prod a.ok.example 20.1.2.3"},
		{"a circle of aliases fails", "a.ok.example A",
			"a.ok.example. 60 IN CNAME b.ok.example.\nb.ok.example. 60 IN CNAME a.ok.example.", "SERVFAIL", ""},
		{"an alias to itself fails", "a.ok.example A",
			"a.ok.example. 60 IN CNAME A.ok.example.", "SERVFAIL", ""},
		{"16 links pass", "a.ok.example A", links(16), lines(links(16)), "prod a.ok.example 20.1.2.3"},
		{"17 links fail", "a.ok.example A", links(17), "SERVFAIL", ""},
		{"an alias without addresses is an absence", "a.ok.example A",
			"a.ok.example. 60 IN CNAME b.cdn.example.\n-- authority\ncdn.example. 900 IN SOA ns.cdn.example. h.cdn.example. 1 2 3 4 1800",
			"a.ok.example. 60 IN CNAME b.cdn.example.\n-- authority\ncdn.example. 60 IN SOA ns.cdn.example. h.cdn.example. 1 2 3 4 60", ""},
		{"an absence lasts at most a minute", "a.ok.example A",
			"NXDOMAIN\n-- authority\nok.example. 1800 IN SOA ns.ok.example. h.ok.example. 1 2 3 4 1800",
			"NXDOMAIN\n-- authority\nok.example. 60 IN SOA ns.ok.example. h.ok.example. 1 2 3 4 60", ""},
		{"an SOA of another zone is ignored", "a.ok.example A",
			"NXDOMAIN\n-- authority\nbank.example. 1800 IN SOA ns.bank.example. h.bank.example. 1 2 3 4 1800", "NXDOMAIN", ""},
		{"a name that does not exist and has addresses is a lie", "a.ok.example A",
			"NXDOMAIN\na.ok.example. 60 IN A 20.1.2.3", "SERVFAIL", ""},
		{"REFUSED says nothing about the name", "a.ok.example A", "REFUSED\na.ok.example. 60 IN A 20.1.2.3", "SERVFAIL", ""},
		{"a TTL is a day at most", "a.ok.example A",
			"a.ok.example. 2000000000 IN A 20.1.2.3", "a.ok.example. 86400 IN A 20.1.2.3", "prod a.ok.example 20.1.2.3"},
		{"a TTL with the top bit is zero", "a.ok.example A",
			"a.ok.example. 2147483648 IN A 20.1.2.3", "a.ok.example. 0 IN A 20.1.2.3", "prod a.ok.example 20.1.2.3"},
		{"an alias may be asked for", "a.ok.example CNAME",
			"a.ok.example. 60 IN CNAME b.cdn.example.", "a.ok.example. 60 IN CNAME b.cdn.example.", ""},
		{"other types pass for permitted names", "a.ok.example MX",
			"a.ok.example. 60 IN MX 5 mail.bank.example.\n-- additional\nmail.bank.example. 60 IN A 20.6.6.6",
			"a.ok.example. 60 IN MX 5 mail.bank.example.", ""},

		{"a private address is taken out", "a.ok.example A",
			"a.ok.example. 60 IN A 20.1.2.3\na.ok.example. 60 IN A 10.0.0.1", "a.ok.example. 60 IN A 20.1.2.3", "prod a.ok.example 20.1.2.3"},
		{"the identity service is taken out", "a.ok.example A", "a.ok.example. 60 IN A 169.254.169.254", "", ""},
		{"what is left of an answer is asked again within a minute", "a.ok.example A",
			"a.ok.example. 3600 IN A 20.1.2.3\na.ok.example. 3600 IN A 10.0.0.1", "a.ok.example. 3600 IN A 20.1.2.3", "prod a.ok.example 20.1.2.3"},
		{"so is the platform's resolver", "a.ok.example A", "a.ok.example. 60 IN A 168.63.129.16", "", ""},
		{"so is a private address inside NAT64's prefix", "a.ok.example AAAA", "a.ok.example. 60 IN AAAA 64:ff9b::a9fe:a9fe", "", ""},
		{"so is a mapped one", "a.ok.example AAAA", "a.ok.example. 60 IN AAAA ::ffff:127.0.0.1", "", ""},
		{"the cluster's own name keeps its private address, unlearned", "api.ok.example A",
			"api.ok.example. 60 IN A 10.1.2.3", "api.ok.example. 60 IN A 10.1.2.3", ""},

		{"an HTTPS record loses ech, hints and h3", "a.ok.example HTTPS",
			"a.ok.example. 60 IN HTTPS 1 . mandatory=alpn,ech alpn=h3,h2 ech=AEn+DQBF ipv4hint=20.6.6.6 ipv6hint=2603::1 port=8443 key667=hi",
			`a.ok.example. 60 IN HTTPS 1 . mandatory="alpn" alpn="h2" port="8443" key667="hi"`, ""},
		{"one that is for h3 only goes", "a.ok.example HTTPS",
			"a.ok.example. 60 IN HTTPS 1 . alpn=h3,h3-29 no-default-alpn=\na.ok.example. 60 IN HTTPS 2 . alpn=h3",
			"a.ok.example. 60 IN HTTPS 2 .", ""},
		{"one that leads to another name goes", "a.ok.example HTTPS",
			"a.ok.example. 60 IN HTTPS 0 b.cdn.example.\na.ok.example. 60 IN HTTPS 2 A.ok.example. alpn=h2",
			`a.ok.example. 60 IN HTTPS 2 a.ok.example. alpn="h2"`, ""},
		{"a resolver is not offered", "_dns.ok.example SVCB",
			"_dns.ok.example. 60 IN SVCB 1 _dns.ok.example. alpn=doq,h2 dohpath=/q{?dns}", `_dns.ok.example. 60 IN SVCB 1 _dns.ok.example. alpn="h2"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg { return message(t, tt.say) })
			s, notes := newServer(up)
			s.Internal = func(n egress.Name, a netip.Addr) bool { return n.String() == "api.ok.example" }
			server := run(t, s)
			for _, again := range []string{"first", "from the cache"} {
				got := ask(t, "udp", server, queryFor(t, tt.ask))
				if diff := cmp.Diff(lines(tt.want), text(got)); diff != "" {
					t.Errorf("%s: answer (-want +got):\n%s", again, diff)
				}
			}
			learned, _ := notes.take()
			if diff := cmp.Diff(sorted(strings.Split(lines(tt.learned), "\n")), sorted(append(learned, emptyIf(len(learned) == 0)...))); diff != "" {
				t.Errorf("learned (-want +got):\n%s", diff)
			}
		})
	}
}

func emptyIf(b bool) []string {
	if b {
		return []string{""}
	}
	return nil
}

// links is a chain of n aliases from a.ok.example to 20.1.2.3.
func links(n int) string {
	var b strings.Builder
	from := "a.ok.example."
	for i := range n {
		to := "l" + string(rune('a'+i)) + ".cdn.example."
		b.WriteString(from + " 60 IN CNAME " + to + "\n")
		from = to
	}
	return b.String() + from + " 60 IN A 20.1.2.3"
}
