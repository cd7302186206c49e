package dnsproxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// permitOK lets names at and below ok.example be resolved.
func permitOK(_ netip.Addr, n egress.Name) bool {
	return below(n.String(), "ok.example") || n.String() == "only.exact.example"
}

func oneScope(netip.Addr) (string, bool) { return "prod", true }

// notes is what a server reported.
type notes struct {
	mu      sync.Mutex
	learned []string // "scope name address"
	denied  []string // "name reason"
}

func (n *notes) learn(_ context.Context, bs []egress.Binding) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range bs {
		n.learned = append(n.learned, fmt.Sprintf("%s %s %s", b.Scope, b.Name, b.Addr))
	}
	return nil
}

func (n *notes) deny(_ string, c egress.Conn, r egress.Reason) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.denied = append(n.denied, c.Name.String()+" "+r.String())
}

func (n *notes) take() (learned, denied []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	learned, denied = n.learned, n.denied
	n.learned, n.denied = nil, nil
	return learned, denied
}

// newServer is a server for ok.example with notes, not yet running.
func newServer(upstreams ...netip.AddrPort) (*Server, *notes) {
	n := new(notes)
	return &Server{Upstreams: upstreams, Client: oneScope, MayResolve: permitOK, Learn: n.learn, Denied: n.deny}, n
}

// run serves s on loopback over UDP and TCP, at the same address.
func run(t testing.TB, s *Server) string {
	t.Helper()
	udp, tcp := listen(t)
	s.UDP, s.TCP = append(s.UDP, udp), append(s.TCP, tcp)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return udp.LocalAddr().String()
}

func listen(t testing.TB) (*net.UDPConn, net.Listener) {
	t.Helper()
	for range 20 {
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		if tcp, err := net.Listen("tcp", udp.LocalAddr().String()); err == nil {
			return udp, tcp
		}
		udp.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// rawUpstream answers each query with the messages that say returns.
func rawUpstream(t testing.TB, say func(query []byte, tcp bool) [][]byte) netip.AddrPort {
	t.Helper()
	udp, tcp := listen(t)
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	go func() {
		for {
			buf := make([]byte, 4096)
			n, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			go func() {
				for _, b := range say(buf[:n], false) {
					udp.WriteToUDPAddrPort(b, from)
				}
			}()
		}
	}()
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			go serveRawTCP(conn, say)
		}
	}()
	return udp.LocalAddr().(*net.UDPAddr).AddrPort()
}

func serveRawTCP(conn net.Conn, say func([]byte, bool) [][]byte) {
	defer conn.Close()
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return
	}
	for _, b := range say(buf, true) {
		conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	}
}

// upstreamSaying answers each query with the message that say returns, as its
// reply; none if nil.
func upstreamSaying(t testing.TB, say func(q *dns.Msg, tcp bool) *dns.Msg) netip.AddrPort {
	t.Helper()
	return rawUpstream(t, func(query []byte, tcp bool) [][]byte {
		q := new(dns.Msg)
		if err := q.Unpack(query); err != nil {
			return nil
		}
		m := say(q, tcp)
		if m == nil {
			return nil
		}
		b, err := replyTo(q, m).Pack()
		if err != nil {
			return nil
		}
		return [][]byte{b}
	})
}

func replyTo(q, m *dns.Msg) *dns.Msg {
	m.Id, m.Response, m.RecursionAvailable, m.Question = q.Id, true, true, q.Question
	return m
}

// message reads records in the text of zone files, with lines that are an
// RCODE, "TC", "-- authority" or "-- additional" between them.
func message(t testing.TB, text string) *dns.Msg {
	t.Helper()
	m := &dns.Msg{Compress: true}
	section := &m.Answer
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		rcode, isRcode := dns.StringToRcode[line]
		switch {
		case line == "":
		case isRcode:
			m.Rcode = rcode
		case line == "TC":
			m.Truncated = true
		case line == "-- authority":
			section = &m.Ns
		case line == "-- additional":
			section = &m.Extra
		default:
			rr, err := dns.NewRR(line)
			if err != nil || rr == nil {
				t.Fatalf("record %q: %v", line, err)
			}
			*section = append(*section, rr)
		}
	}
	return m
}

// text is the opposite of message.
func text(m *dns.Msg) string {
	if m == nil {
		return "none"
	}
	var lines []string
	if m.Rcode != dns.RcodeSuccess {
		lines = append(lines, rcodeText(m.Rcode))
	}
	if m.Truncated {
		lines = append(lines, "TC")
	}
	for _, rr := range m.Answer {
		lines = append(lines, strings.Join(strings.Fields(rr.String()), " "))
	}
	for i, rr := range m.Ns {
		if i == 0 {
			lines = append(lines, "-- authority")
		}
		lines = append(lines, strings.Join(strings.Fields(rr.String()), " "))
	}
	return strings.Join(lines, "\n")
}

// lines normalises a table's text for comparison with text's.
func lines(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		if f := strings.Fields(line); len(f) > 0 {
			out = append(out, strings.Join(f, " "))
		}
	}
	return strings.Join(out, "\n")
}

// ask sends one query over network and returns the answer, or nil if none
// comes in time.
func ask(t testing.TB, network, server string, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 4 * time.Second}
	m, _, err := c.Exchange(q, server)
	if err != nil {
		t.Logf("%s %v: %v", network, q.Question, err)
		return nil
	}
	return m
}

// queryFor reads "name type", as in "www.ok.example A".
func queryFor(t testing.TB, s string) *dns.Msg {
	t.Helper()
	name, rrtype, _ := strings.Cut(s, " ")
	qtype, ok := dns.StringToType[rrtype]
	if !ok {
		t.Fatalf("query %q: unknown type", s)
	}
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return slices.Compact(s)
}
