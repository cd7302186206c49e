package dnsproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// internet is upstreams without sockets, for tests in which time is simulated:
// an address, and what it says. A nil message is silence.
type internet map[string]func(q *dns.Msg) *dns.Msg

const (
	first  = "192.0.2.1:53"
	second = "192.0.2.2:53"
)

func (in internet) dial(_ context.Context, network, address string) (net.Conn, error) {
	say := in[address]
	if say == nil {
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		buf := make([]byte, 4096)
		n, err := theirs.Read(buf)
		if err != nil {
			return
		}
		if network == "tcp" {
			buf = buf[2:]
			n -= 2
		}
		q := new(dns.Msg)
		if q.Unpack(buf[:n]) != nil {
			return
		}
		if m := say(q); m != nil {
			b, _ := replyTo(q, m).Pack()
			if network == "tcp" {
				b = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
			}
			theirs.Write(b)
		}
		io.Copy(io.Discard, theirs)
	}()
	return ours, nil
}

// bubble runs f with a server that asks in, in simulated time.
func bubble(t *testing.T, in internet, f func(t *testing.T, s *Server, n *notes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, n := newServer(netip.MustParseAddrPort(first), netip.MustParseAddrPort(second))
		if in[second] == nil {
			s.Upstreams = s.Upstreams[:1]
		}
		s.Dial = in.dial
		f(t, s, n)
		s.work.Wait()
		time.Sleep(askLimit) // upstreams that were called off still sleep
	})
}

// asked is what one query got, and how long it took.
func asked(t *testing.T, s *Server, question string) (*dns.Msg, time.Duration) {
	t.Helper()
	return askedBy(t, s, benchClient().addr.Addr(), question)
}

func askedBy(t *testing.T, s *Server, from netip.Addr, question string) (*dns.Msg, time.Duration) {
	t.Helper()
	s.setup()
	start := time.Now()
	var q query
	c := client{addr: netip.AddrPortFrom(from, 40000), proto: egress.UDP}
	out, p := s.quick(nil, pack(t, queryFor(t, question)), &q, &c)
	if p != nil {
		out = finish(t, s, &q, &c, p)
	}
	took := time.Since(start)
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		t.Fatal(err)
	}
	return m, took
}

// finish is what s answers, once it does; nil if it does not.
func finish(t testing.TB, s *Server, q *query, c *client, p *pending) []byte {
	sent := make(chan []byte, 1)
	go func() {
		defer close(sent)
		s.answer(t.Context(), q, c, p, func(b []byte) { sent <- b })
	}()
	return <-sent
}

func wantAnswer(t *testing.T, when string, s *Server, question, want string, took time.Duration) {
	t.Helper()
	m, got := asked(t, s, question)
	if text(m) != want || got != took {
		t.Errorf("%s: %q after %v, want %q after %v", when, text(m), got, want, took)
	}
}

// always says the same, after a while.
func always(t *testing.T, after time.Duration, text string) func(*dns.Msg) *dns.Msg {
	return func(*dns.Msg) *dns.Msg {
		time.Sleep(after)
		return message(t, text)
	}
}

func silent(*dns.Msg) *dns.Msg { return nil }

const (
	aliceA = "a.ok.example. 60 IN A 20.1.2.3"
	alice  = "a.ok.example A"
)

func TestTTLCountsDown(t *testing.T) {
	bubble(t, internet{first: always(t, 0, aliceA)}, func(t *testing.T, s *Server, n *notes) {
		wantAnswer(t, "at first", s, alice, aliceA, 0)
		time.Sleep(20 * time.Second)
		wantAnswer(t, "after 20 s", s, alice, "a.ok.example. 40 IN A 20.1.2.3", 0)
		time.Sleep(40 * time.Second)
		wantAnswer(t, "when expired", s, alice, aliceA, 0)
		if st := s.Stats(); st.Hits != 1 || st.Misses != 2 {
			t.Errorf("%d hits, %d misses", st.Hits, st.Misses)
		}
	})
}

func TestLearnedBeforeAnswered(t *testing.T) {
	bubble(t, internet{first: always(t, 0, "a.ok.example. 3600 IN A 20.1.2.3")}, func(t *testing.T, s *Server, n *notes) {
		var delay atomic.Int64
		var fail atomic.Bool
		var calls atomic.Int32
		s.Learn = func(_ context.Context, b []egress.Binding) error {
			time.Sleep(time.Duration(delay.Load()))
			calls.Add(1)
			if left := time.Until(b[0].Expires); left > time.Hour || left < 50*time.Minute {
				t.Errorf("expires in %v", left)
			}
			if fail.Load() {
				return errors.New("not programmed")
			}
			return nil
		}
		learns := func(when string, want int32, took time.Duration) {
			t.Helper()
			calls.Store(0)
			if _, got := asked(t, s, alice); got != took || calls.Load() != want {
				t.Errorf("%s: learned %d times before the answer, after %v; want %d, %v", when, calls.Load(), got, want, took)
			}
		}
		delay.Store(int64(30 * time.Millisecond))
		learns("at first", 1, 30*time.Millisecond)
		learns("again", 0, 0)
		time.Sleep(learnAgain)
		learns("after a minute", 1, 30*time.Millisecond)
		s.Relearn()
		learns("after Relearn", 1, 30*time.Millisecond)
		s.Relearn()
		fail.Store(true)
		learns("failing", 1, 30*time.Millisecond)
		fail.Store(false)
		learns("after a failure", 1, 30*time.Millisecond)
		s.Relearn()
		delay.Store(int64(time.Second))
		learns("too slow", 0, learnWait)
		time.Sleep(time.Second)
		learns("when it was done late", 0, 0)
		if st := s.Stats(); st.LearnLate != 1 || st.LearnFailed != 1 || st.Learned != 6 {
			t.Errorf("%d learned, %d late, %d failed", st.Learned, st.LearnLate, st.LearnFailed)
		}
	})
}

// An answer whose addresses would be refused is not given, to anybody who asks meanwhile.
func TestNoRoomForAnAnswer(t *testing.T) {
	bubble(t, internet{first: always(t, 0, aliceA)}, func(t *testing.T, s *Server, n *notes) {
		full := true
		s.Learn = func(context.Context, []egress.Binding) error {
			time.Sleep(time.Millisecond)
			if full {
				return fmt.Errorf("a flood: %w", ErrNoRoom)
			}
			return nil
		}
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { wantAnswer(t, "full", s, alice, "SERVFAIL", time.Millisecond) })
		}
		all.Wait()
		full = false
		wantAnswer(t, "with room again", s, alice, aliceA, time.Millisecond)
		if st := s.Stats(); st.Overloaded != 2 || st.LearnFailed != 1 {
			t.Errorf("%d were overloaded, %d learnt nothing", st.Overloaded, st.LearnFailed)
		}
	})
}

func TestScopesLearnApart(t *testing.T) {
	bubble(t, internet{first: always(t, 0, aliceA)}, func(t *testing.T, s *Server, n *notes) {
		s.Client = func(a netip.Addr) (string, bool) { return map[byte]string{1: "prod", 2: "test"}[a.As4()[3]], true }
		for range 3 {
			askedBy(t, s, netip.MustParseAddr("10.0.0.1"), alice)
			askedBy(t, s, netip.MustParseAddr("10.0.0.2"), alice)
		}
		learned, _ := n.take()
		if len(learned) != 2 || learned[0] != "prod a.ok.example 20.1.2.3" || learned[1] != "test a.ok.example 20.1.2.3" {
			t.Errorf("learned %q", learned)
		}
		if st := s.Stats(); st.Misses != 1 {
			t.Errorf("%d misses: the cache is for all scopes", st.Misses)
		}
	})
}

// TestLearnHangs: a Learn that never ends delays answers and collects nothing.
func TestLearnHangs(t *testing.T) {
	bubble(t, internet{first: always(t, 0, aliceA)}, func(t *testing.T, s *Server, n *notes) {
		var calls atomic.Int32
		s.Learn = func(ctx context.Context, _ []egress.Binding) error {
			calls.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}
		for range 10 {
			if m, took := asked(t, s, alice); m.Rcode != dns.RcodeSuccess || took != learnWait {
				t.Errorf("%s after %v", text(m), took)
			}
		}
		if calls.Load() != 1 {
			t.Errorf("%d calls at once", calls.Load())
		}
	})
}

func TestOneQuestionForAll(t *testing.T) {
	var queries atomic.Int32
	in := internet{first: func(*dns.Msg) *dns.Msg {
		queries.Add(1)
		time.Sleep(10 * time.Millisecond)
		return message(t, aliceA)
	}}
	bubble(t, in, func(t *testing.T, s *Server, n *notes) {
		s.setup()
		for range 200 {
			s.work.Go(func() {
				if m, _ := asked(t, s, alice); text(m) != aliceA {
					t.Errorf("got %s", text(m))
				}
			})
		}
		s.work.Wait()
		if learned, _ := n.take(); queries.Load() != 1 || len(learned) != 1 {
			t.Errorf("%d queries left, %d learned", queries.Load(), len(learned))
		}
	})
}

func TestClientsShareIsBounded(t *testing.T) {
	bubble(t, internet{first: silent}, func(t *testing.T, s *Server, n *notes) {
		s.setup()
		greedy, modest := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		for range maxClientPending {
			s.work.Go(func() { askedBy(t, s, greedy, alice) })
		}
		synctest.Wait()
		if m, took := askedBy(t, s, greedy, alice); m.Rcode != dns.RcodeServerFailure || took != 0 {
			t.Errorf("greedy: %s after %v", text(m), took)
		}
		if _, took := askedBy(t, s, modest, alice); took != askLimit {
			t.Errorf("modest: after %v", took)
		}
		s.work.Wait()
		synctest.Wait() // who has been answered is not waiting any more, a moment later
		if s.waits.all != 0 || len(s.waits.client) != 0 || len(s.flights.running) != 0 {
			t.Error("something is left behind")
		}
	})
}

func TestLookup(t *testing.T) {
	in := internet{first: func(q *dns.Msg) *dns.Msg {
		switch q.Question[0].Qtype {
		case dns.TypeA:
			return message(t, "api.example. 300 IN CNAME x.api.example.\nx.api.example. 200 IN A 20.1.2.3\nx.api.example. 200 IN A 10.0.0.1")
		default:
			return message(t, "api.example. 300 IN CNAME x.api.example.\nx.api.example. 100 IN AAAA 2603:1030::5")
		}
	}}
	bubble(t, in, func(t *testing.T, s *Server, n *notes) {
		s.Internal = func(n egress.Name, a netip.Addr) bool { return n.String() == "api.example" }
		addrs, ttl, err := s.Lookup(t.Context(), egress.MustParseName("api.example"))
		if err != nil || len(addrs) != 3 || ttl != 100*time.Second {
			t.Errorf("%v %v %v", addrs, ttl, err)
		}
		if learned, _ := n.take(); learned != nil {
			t.Errorf("learned %q", learned)
		}
	})
	bubble(t, internet{first: always(t, 0, "NXDOMAIN")}, func(t *testing.T, s *Server, n *notes) {
		var e *net.DNSError
		if _, _, err := s.Lookup(t.Context(), egress.MustParseName("gone.example")); !errors.As(err, &e) || !e.IsNotFound {
			t.Errorf("error %v", err)
		}
	})
	bubble(t, internet{first: silent}, func(t *testing.T, s *Server, n *notes) {
		var e *net.DNSError
		if _, _, err := s.Lookup(t.Context(), egress.MustParseName("slow.example")); !errors.As(err, &e) || !e.Temporary() {
			t.Errorf("error %v", err)
		}
	})
}
