package dnsproxy

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestSizes: what does not fit is cut between records and marked.
func TestSizes(t *testing.T) {
	for _, tt := range []struct {
		name      string
		size      int // in the query's OPT; 0 is none
		network   string
		records   int
		truncated bool
		atLeast   int
		most      int
	}{
		{"a small answer fits", 0, "udp", 4, false, 4, 512},
		{"without EDNS 512 bytes fit", 0, "udp", 100, true, 29, 512},
		{"an OPT that says less than 512 means 512", 100, "udp", 100, true, 28, 512},
		{"as much as the client takes fits", 900, "udp", 100, true, 50, 900},
		{"never more than 1,232", 65000, "udp", 100, true, 70, 1232},
		{"up to that it is whole", 4096, "udp", 70, false, 70, 1232},
		{"over TCP it is whole", 0, "tcp", 1000, false, 1000, 65535},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newServer(rawUpstream(t, func(q []byte, _ bool) [][]byte { return [][]byte{honest(t, q, addresses(tt.records))} }))
			if tt.records > 200 {
				s.Upstreams[0] = rawUpstream(t, func(q []byte, tcp bool) [][]byte {
					if !tcp {
						return [][]byte{honest(t, q, "TC")}
					}
					return [][]byte{honest(t, q, addresses(tt.records))}
				})
			}
			server := run(t, s)
			for range 2 {
				q := queryFor(t, alice)
				if tt.size > 0 {
					q.SetEdns0(uint16(tt.size), false)
				}
				m := ask(t, tt.network, server, q)
				if m.Truncated != tt.truncated || len(m.Answer) < tt.atLeast || (m.IsEdns0() != nil) != (tt.size > 0) {
					t.Errorf("%d records, truncated %t, OPT %v", len(m.Answer), m.Truncated, m.IsEdns0())
				}
				m.Compress = true
				if got := len(pack(t, m)); got > tt.most {
					t.Errorf("%d bytes", got)
				}
			}
		})
	}
}

// TestUpstreamHears: a query that leaves is ours, and holds nothing of the client's but the
// question, DO and CD.
func TestUpstreamHears(t *testing.T) {
	heard := make(chan *dns.Msg, maxTries)
	s, _ := newServer(upstreamSaying(t, func(q *dns.Msg, _ bool) *dns.Msg { heard <- q; return message(t, aliceA) }))
	q := queryFor(t, alice).SetEdns0(4096, true)
	q.CheckingDisabled, q.RecursionDesired = true, false
	opt := q.IsEdns0()
	opt.Option = append(opt.Option,
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(10, 1, 2, 0)},
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"},
		&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("tunnel")})
	ask(t, "udp", run(t, s), q)
	got := <-heard
	o := got.IsEdns0()
	if o == nil || len(o.Option) != 0 || !o.Do() || o.UDPSize() != maxUDP || !got.CheckingDisabled || !got.RecursionDesired ||
		len(got.Extra) != 1 || len(got.Question) != 1 || got.Id == q.Id {
		t.Errorf("heard %v", got)
	}
}

// TestSignatures pass to a client that asks for them, for the records that
// are answered, and only then.
func TestSignatures(t *testing.T) {
	const sig = " 60 IN RRSIG A 13 3 60 20300101000000 20200101000000 1 ok.example. c2lnbmF0dXJl"
	s, _ := newServer(upstreamSaying(t, func(q *dns.Msg, _ bool) *dns.Msg {
		return message(t, aliceA+"\na.ok.example."+sig+"\nb.ok.example."+sig)
	}))
	server := run(t, s)
	if got := ask(t, "udp", server, queryFor(t, alice).SetEdns0(1232, true)); len(got.Answer) != 2 {
		t.Errorf("with DO: %s", text(got))
	}
	if got := ask(t, "udp", server, queryFor(t, alice)); text(got) != aliceA || got.AuthenticatedData {
		t.Errorf("without: %s", text(got))
	}
}

// TestSpelling: the name comes back as the client wrote it, also from the cache.
func TestSpelling(t *testing.T) {
	s, _ := newServer(upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg { return message(t, aliceA) }))
	server := run(t, s)
	for _, name := range []string{"a.ok.example.", "A.oK.eXaMpLe.", "a.OK.example."} {
		m := ask(t, "udp", server, queryFor(t, name+" A"))
		if m.Question[0].Name != name || m.Answer[0].Header().Name != name {
			t.Errorf("asked for %s: %s", name, text(m))
		}
	}
}

// TestReplySource: on a wildcard socket an answer leaves from the address that
// was asked, or a client with a connected socket never sees it.
func TestReplySource(t *testing.T) {
	for _, tt := range []struct{ network, listen, dial string }{
		{"udp4", "0.0.0.0:0", "127.0.0.7"},
		{"udp", "[::]:0", "127.0.0.7"},
		{"udp", "[::]:0", "::1"},
		{"udp6", "[::]:0", "::1"},
	} {
		t.Run(tt.network+" "+tt.dial, func(t *testing.T) {
			conn, err := net.ListenPacket(tt.network, tt.listen)
			if err != nil {
				t.Fatal(err)
			}
			s, _ := newServer(upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg { return message(t, aliceA) }))
			s.UDP = append(s.UDP, conn.(*net.UDPConn))
			run(t, s)
			port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
			server := netip.AddrPortFrom(netip.MustParseAddr(tt.dial), port).String()
			for _, when := range []string{"later", "at once"} {
				if got := text(ask(t, "udp", server, queryFor(t, alice))); got != aliceA {
					t.Errorf("%s: %q", when, got)
				}
			}
		})
	}
}

// TestPipelined: questions of one TCP connection do not wait for each other.
func TestPipelined(t *testing.T) {
	slow := make(chan struct{})
	s, _ := newServer(upstreamSaying(t, func(q *dns.Msg, _ bool) *dns.Msg {
		if strings.HasPrefix(dns.CanonicalName(q.Question[0].Name), "slow.") {
			<-slow
		}
		return message(t, dns.CanonicalName(q.Question[0].Name)+" 60 IN A 20.1.2.3")
	}))
	conn, err := dns.Dial("tcp", run(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	for _, name := range []string{"slow.ok.example", "b.ok.example", "c.ok.example"} {
		if err := conn.WriteMsg(queryFor(t, name+" A")); err != nil {
			t.Fatal(err)
		}
	}
	var order []string
	for range 3 {
		m, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		if order = append(order, m.Question[0].Name); len(order) == 2 {
			close(slow)
		}
	}
	if order[2] != "slow.ok.example." {
		t.Errorf("order %v", order)
	}
}

// TestConnectionsAreBounded for each client.
func TestConnectionsAreBounded(t *testing.T) {
	s, _ := newServer()
	server := run(t, s)
	for range maxClientConns {
		c, err := net.Dial("tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many was kept: read %d bytes, %v", n, err)
	}
}

// TestUpstreamsReplaced: new ones are asked, and none is a failure.
func TestUpstreamsReplaced(t *testing.T) {
	s, _ := newServer()
	server := run(t, s)
	if got := text(ask(t, "udp", server, queryFor(t, alice))); got != "SERVFAIL" {
		t.Errorf("without upstreams: %q", got)
	}
	s.SetUpstreams([]netip.AddrPort{upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg { return message(t, aliceA) })})
	s.Flush()
	if got := text(ask(t, "udp", server, queryFor(t, alice))); got != aliceA {
		t.Errorf("got %q", got)
	}
}

// TestSocketFails: Run says so, and does not hang.
func TestSocketFails(t *testing.T) {
	udp, tcp := listen(t)
	s := &Server{UDP: []*net.UDPConn{udp}, TCP: []net.Listener{tcp}}
	udp.Close()
	if err := s.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
	if _, err := net.Dial("tcp", tcp.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

// TestDig: what people type.
func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Fatal("dig is needed: apt-get install bind9-dnsutils")
	}
	s, _ := newServer(upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg {
		return message(t, "a.ok.example. 60 IN CNAME b.cdn.example.\nb.cdn.example. 60 IN A 20.1.2.3")
	}))
	host, port, _ := net.SplitHostPort(run(t, s))
	for _, tt := range []struct{ args, want string }{
		{"+short a.ok.example", "b.cdn.example.\n20.1.2.3\n"},
		{"+short +tcp a.ok.example", "b.cdn.example.\n20.1.2.3\n"},
		{"+short +noedns +ignore a.ok.example", "b.cdn.example.\n20.1.2.3\n"},
		{"+short +subnet=10.1.2.0/24 +nsid +cookie=0102030405060708 a.ok.example", "b.cdn.example.\n20.1.2.3\n"},
		{"bank.example", "; EDE: 17 (Filtered): (no rule permits this name)"},
		{"bank.example", "status: NXDOMAIN"},
		{"-t ANY +notcp a.ok.example", "status: REFUSED"},
		{"-t AXFR a.ok.example", "; Transfer failed."},
		{"-c CH -t TXT version.bind", "status: REFUSED"},
		{"+edns=1 +noednsneg a.ok.example", "status: BADVERS"},
		{"+opcode=status +noedns a.ok.example", "status: NOTIMP"},
	} {
		args := append([]string{"@" + host, "-p", port, "+tries=1", "+time=5"}, strings.Fields(tt.args)...)
		out, _ := exec.Command(dig, args...).CombinedOutput() // dig's exit code says less than its output
		if !bytes.Contains(out, []byte(tt.want)) || bytes.Contains(out, []byte("WARNING")) || bytes.Contains(out, []byte("malformed")) {
			t.Errorf("dig %s: want %q in\n%s", tt.args, tt.want, out)
		}
	}
	if st := s.Stats(); st.Misses != 1 {
		t.Errorf("%d questions left", st.Misses)
	}
}
