package dnsproxy

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

func TestUpstreamDown(t *testing.T) {
	var down atomic.Bool
	in := internet{first: func(q *dns.Msg) *dns.Msg {
		if down.Load() {
			return nil
		}
		return message(t, dns.CanonicalName(q.Question[0].Name)+" 60 IN A 20.1.2.3")
	}}
	bubble(t, in, func(t *testing.T, s *Server, n *notes) {
		const other, otherA = "b.ok.example A", "b.ok.example. 60 IN A 20.1.2.3"
		const stale = "a.ok.example. 30 IN A 20.1.2.3"
		s.Stale = func(n egress.Name) bool { return n.String() == "a.ok.example" }
		wantAnswer(t, "up", s, alice, aliceA, 0)
		wantAnswer(t, "up", s, other, otherA, 0)
		down.Store(true)
		time.Sleep(time.Minute)
		n.take()
		wantAnswer(t, "expired", s, alice, stale, askLimit)
		if learned, _ := n.take(); len(learned) != 1 {
			t.Error("a stale answer was not learned")
		}
		wantAnswer(t, "again at once", s, alice, stale, 0)
		wantAnswer(t, "a name that must not be stale", s, other, "SERVFAIL", askLimit)
		wantAnswer(t, "again at once", s, other, "SERVFAIL", 0)
		time.Sleep(maxStale - time.Minute)
		wantAnswer(t, "for an hour", s, alice, stale, askLimit)
		time.Sleep(time.Minute)
		wantAnswer(t, "not longer", s, alice, "SERVFAIL", askLimit)
		down.Store(false)
		wantAnswer(t, "a failure is remembered for a moment", s, alice, "SERVFAIL", 0)
		time.Sleep(failTTL)
		wantAnswer(t, "up again", s, alice, aliceA, 0)
		if st := s.Stats(); st.Stale != 3 {
			t.Errorf("%d stale", st.Stale)
		}
	})
}

func TestUpstreams(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   internet
		want string
		took time.Duration
	}{
		{"a slow one is overtaken", internet{first: always(t, 800*time.Millisecond, aliceA), second: always(t, 0, aliceA)}, aliceA, maxHedge},
		{"a silent one is overtaken", internet{first: silent, second: always(t, 10*time.Millisecond, aliceA)}, aliceA, maxHedge + 10*time.Millisecond},
		{"one that refuses is passed by at once", internet{first: always(t, 0, "REFUSED"), second: always(t, 0, aliceA)}, aliceA, 0},
		{"one that fails is passed by at once", internet{first: always(t, 0, "SERVFAIL"), second: always(t, 0, aliceA)}, aliceA, 0},
		{"one that is not there is passed by at once", internet{second: always(t, 0, aliceA)}, aliceA, 0},
		{"a name that does not exist is an answer", internet{first: always(t, 0, "NXDOMAIN"), second: always(t, 0, aliceA)}, "NXDOMAIN", 0},
		{"one that is slow is waited for, if it is the only one", internet{first: always(t, 1900*time.Millisecond, aliceA)}, aliceA, 1900 * time.Millisecond},
		{"all silent is a failure in time", internet{first: silent, second: silent}, "SERVFAIL", askLimit},
		{"all refusing is a failure at once", internet{first: always(t, 0, "REFUSED"), second: always(t, 0, "SERVFAIL")}, "SERVFAIL", 0},
		{"nobody there is a failure at once", internet{}, "SERVFAIL", 0},
		{"one from before EDNS is asked without", internet{first: func(q *dns.Msg) *dns.Msg {
			if q.IsEdns0() != nil {
				return message(t, "FORMERR")
			}
			return message(t, aliceA)
		}}, aliceA, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, tt.in, func(t *testing.T, s *Server, n *notes) {
				wantAnswer(t, "got", s, alice, tt.want, tt.took)
			})
		})
	}
}

func TestLostDatagram(t *testing.T) {
	var queries atomic.Int32
	bubble(t, internet{first: func(*dns.Msg) *dns.Msg {
		if queries.Add(1) <= 2 {
			return nil
		}
		return message(t, aliceA)
	}}, func(t *testing.T, s *Server, n *notes) {
		wantAnswer(t, "two lost", s, alice, aliceA, 3*maxHedge)
	})
}

// TestLoss: with one upstream slow and the other losing three datagrams of ten,
// 99 of 100 answers are there in 300 ms.
func TestLoss(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	answer := func(q *dns.Msg) *dns.Msg {
		return message(t, dns.CanonicalName(q.Question[0].Name)+" 0 IN A 20.1.2.3")
	}
	in := internet{first: func(q *dns.Msg) *dns.Msg { time.Sleep(800 * time.Millisecond); return answer(q) }, second: func(q *dns.Msg) *dns.Msg {
		mu.Lock()
		lost := random.IntN(10) < 3
		mu.Unlock()
		if lost {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
		return answer(q)
	}}
	bubble(t, in, func(t *testing.T, s *Server, n *notes) {
		const questions = 1000
		var took []time.Duration
		for range questions {
			m, d := asked(t, s, alice)
			if m.Rcode != dns.RcodeSuccess {
				t.Errorf("%s after %v", text(m), d)
			}
			took = append(took, d)
		}
		slices.Sort(took)
		t.Logf("p50 %v, p99 %v, longest %v", took[questions/2], took[questions*99/100], took[questions-1])
		if p99 := took[questions*99/100]; p99 > 300*time.Millisecond {
			t.Errorf("p99 %v", p99)
		}
	})
}

// TestLivesAndLies: a name whose answers are unusable does not count against
// the upstream, or a client could have it put last.
func TestLivesAndLies(t *testing.T) {
	for _, say := range []string{"SERVFAIL", "a.ok.example. 60 IN CNAME a.ok.example.", "NXDOMAIN\n" + aliceA} {
		bubble(t, internet{first: always(t, 0, say)}, func(t *testing.T, s *Server, n *notes) {
			for range 2 * maxFails {
				wantAnswer(t, say, s, alice, "SERVFAIL", 0)
				time.Sleep(failTTL)
			}
			if u := s.Stats().Upstreams[0]; !u.Up || u.Queries != 2*maxFails || u.Errors != u.Queries {
				t.Errorf("%q: %+v", say, u)
			}
		})
	}
}

// TestHealth: an upstream that is down is asked last, and is back when it
// answers a probe.
func TestHealth(t *testing.T) {
	var down atomic.Bool
	answer := func(q *dns.Msg) *dns.Msg {
		return message(t, dns.CanonicalName(q.Question[0].Name)+" 0 IN A 20.1.2.3")
	}
	in := internet{first: func(q *dns.Msg) *dns.Msg {
		if down.Load() {
			return nil
		}
		return answer(q)
	}, second: func(q *dns.Msg) *dns.Msg { time.Sleep(time.Millisecond); return answer(q) }}
	bubble(t, in, func(t *testing.T, s *Server, n *notes) {
		const zero = "a.ok.example. 0 IN A 20.1.2.3"
		ctx, cancel := context.WithCancel(t.Context())
		s.setup()
		s.work.Go(func() { s.probe(ctx) })
		wantAnswer(t, "up", s, alice, zero, 0)
		down.Store(true)
		for range maxFails {
			wantAnswer(t, "failing", s, alice, zero, minHedge+time.Millisecond)
		}
		wantAnswer(t, "down", s, alice, zero, time.Millisecond)
		if st := s.Stats(); st.Upstreams[0].Up || !st.Upstreams[1].Up {
			t.Errorf("upstreams %+v", st.Upstreams)
		}
		time.Sleep(5 * probeEvery)
		wantAnswer(t, "still down", s, alice, zero, time.Millisecond)
		down.Store(false)
		time.Sleep(probeEvery)
		wantAnswer(t, "up again", s, alice, zero, 0)
		cancel()
	})
}
