package dnsproxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// hotNames is how many names the benchmarks ask for in turn.
const hotNames = 5000

func hotName(i int) string { return fmt.Sprintf("n%d.ok.example.", i%hotNames) }

func hotAnswer(q *dns.Msg, _ bool) *dns.Msg {
	m := new(dns.Msg)
	for i := range byte(2) {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600}, A: net.IPv4(20, 1, 2, i)})
	}
	return m
}

func hotQueries(b *testing.B) [][]byte {
	b.Helper()
	queries := make([][]byte, hotNames)
	for i := range queries {
		m := new(dns.Msg).SetQuestion(hotName(i), dns.TypeA)
		m.SetEdns0(1232, false)
		p, err := m.Pack()
		if err != nil {
			b.Fatal(err)
		}
		queries[i] = p
	}
	return queries
}

func hotServer(b *testing.B, queries [][]byte) *Server {
	b.Helper()
	s, _ := newServer(upstreamSaying(b, hotAnswer))
	s.Learn = func(context.Context, []egress.Binding) error { return nil }
	s.setup()
	var q query
	c := benchClient()
	for _, msg := range queries {
		if out, p := s.quick(nil, msg, &q, &c); out == nil {
			s.answer(b.Context(), &q, &c, p, func([]byte) {})
		}
	}
	return s
}

func benchClient() client {
	return client{addr: netip.MustParseAddrPort("10.224.0.4:40000"), proto: egress.UDP}
}

// BenchmarkCached is a cached answer, without sockets.
func BenchmarkCached(b *testing.B) {
	queries := hotQueries(b)
	s := hotServer(b, queries)
	b.Run("packed", func(b *testing.B) {
		var q query
		c, out := benchClient(), make([]byte, 0, maxUDP)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if got, _ := s.quick(out, queries[i%hotNames], &q, &c); got == nil {
				b.Fatal("not cached")
			}
		}
	})
	b.Run("library", func(b *testing.B) { // the same with messages unpacked and packed by the library
		cached := map[string]*dns.Msg{}
		for i := range hotNames {
			m := new(dns.Msg).SetQuestion(hotName(i), dns.TypeA)
			cached[hotName(i)] = replyTo(m, hotAnswer(m, false))
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			q := new(dns.Msg)
			if err := q.Unpack(queries[i%hotNames]); err != nil {
				b.Fatal(err)
			}
			m := cached[q.Question[0].Name].Copy()
			m.SetReply(q)
			m.SetEdns0(maxUDP, false)
			m.Compress = true
			if _, err := m.Pack(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDenied is a name that may not be resolved.
func BenchmarkDenied(b *testing.B) {
	s, _ := newServer()
	s.Denied = nil
	s.setup()
	msg, err := new(dns.Msg).SetQuestion("secret.tunnel.evil.example.", dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	var q query
	c, out := benchClient(), make([]byte, 0, maxUDP)
	b.ReportAllocs()
	for b.Loop() {
		if got, _ := s.quick(out, msg, &q, &c); got == nil {
			b.Fatal("not answered")
		}
	}
}

// BenchmarkMiss is a question to an upstream on loopback, and the same asked
// directly.
func BenchmarkMiss(b *testing.B) {
	up := upstreamSaying(b, func(q *dns.Msg, _ bool) *dns.Msg {
		m := hotAnswer(q, false)
		m.Answer[0].Header().Ttl = 0
		return m
	})
	s, _ := newServer(up)
	s.Learn = func(context.Context, []egress.Binding) error { return nil }
	for _, tt := range []struct{ name, server string }{{"through", run(b, s)}, {"direct", up.String()}} {
		b.Run(tt.name, func(b *testing.B) {
			conn, err := dns.Dial("udp", tt.server)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			q := new(dns.Msg).SetQuestion(hotName(1), dns.TypeA)
			for b.Loop() {
				if err := conn.WriteMsg(q); err != nil {
					b.Fatal(err)
				}
				if _, err := conn.ReadMsg(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkServed is cached answers over loopback, 16 outstanding, asked by
// another process, so that the CPU reported is the server's alone; and the same
// for a server of the library.
func BenchmarkServed(b *testing.B) {
	queries := hotQueries(b)
	b.Run("packed", func(b *testing.B) {
		blast(b, run(b, hotServer(b, queries)))
	})
	b.Run("library", func(b *testing.B) {
		cached := map[string]*dns.Msg{}
		for i := range hotNames {
			m := new(dns.Msg).SetQuestion(hotName(i), dns.TypeA)
			cached[hotName(i)] = replyTo(m, hotAnswer(m, false))
		}
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		srv := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := cached[q.Question[0].Name].Copy()
			m.SetReply(q)
			m.SetEdns0(maxUDP, false)
			w.WriteMsg(m)
		})}
		go srv.ActivateAndServe()
		defer srv.Shutdown()
		blast(b, conn.LocalAddr().String())
	})
}

// blast has b.N queries sent to server.
func blast(b *testing.B, server string) {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkClient$", fmt.Sprintf("-test.benchtime=%dx", b.N))
	cmd.Env = append(os.Environ(), "DNSPROXY_BENCH_SERVER="+server)
	before, start := cpu(), time.Now()
	b.ResetTimer()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("client: %v\n%s", err, out)
	}
	spent := cpu() - before
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "answers/s")
	b.ReportMetric(float64(b.N)/spent.Seconds(), "answers/cpu-s")
}

// BenchmarkClient is the other process of BenchmarkServed.
func BenchmarkClient(b *testing.B) {
	server := os.Getenv("DNSPROXY_BENCH_SERVER")
	if server == "" {
		b.Skip("not called by BenchmarkServed")
	}
	const outstanding = 16
	queries := hotQueries(b)
	var next atomic.Int64
	done := make(chan error, outstanding)
	for range outstanding {
		go func() { done <- blastOne(server, queries, &next, int64(b.N)) }()
	}
	for range outstanding {
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

func blastOne(server string, queries [][]byte, next *atomic.Int64, n int64) error {
	conn, err := net.Dial("udp", server)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, 4096)
	for i := next.Add(1); i <= n; i = next.Add(1) {
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write(queries[i%hotNames]); err != nil {
			return err
		}
		if _, err := conn.Read(buf); err != nil {
			return err
		}
	}
	return nil
}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
