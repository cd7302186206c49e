package dnsproxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// TestNoAnswerOvertakes: whoever has an answer, by UDP or TCP, new or cached,
// finds its addresses programmed, however many ask at once.
func TestNoAnswerOvertakes(t *testing.T) {
	const clients, questions, names = 16, 300, 40
	var serial, mu sync.Mutex
	var made uint32
	var overtook uint64
	known := map[string]bool{}
	up := upstreamSaying(t, func(q *dns.Msg, _ bool) *dns.Msg { // another address each time, for no time or for long
		serial.Lock()
		defer serial.Unlock()
		made++
		return &dns.Msg{Answer: []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: made % 2 * 60},
			A:   net.IPv4(20, byte(made>>16), byte(made>>8), byte(made)),
		}}}
	})
	s, _ := newServer(up)
	s.Learn = func(_ context.Context, bs []egress.Binding) error {
		time.Sleep(100 * time.Microsecond) // as long as a kernel takes
		mu.Lock()
		defer mu.Unlock()
		for _, b := range bs {
			known[b.Name.String()+". "+b.Addr.String()] = true
		}
		return nil
	}
	server := run(t, s)
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			conn, err := dns.Dial([]string{"udp", "tcp"}[c%2], server)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for i := range questions {
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				if conn.WriteMsg(queryFor(t, fmt.Sprintf("n%d.ok.example A", (c+i)%names))) != nil {
					t.Error("not asked")
				}
				m, err := conn.ReadMsg()
				if err != nil || len(m.Answer) != 1 {
					t.Errorf("answer %v, %v", m, err)
					return
				}
				a, _ := netip.AddrFromSlice(m.Answer[0].(*dns.A).A.To4())
				mu.Lock()
				if !known[m.Question[0].Name+" "+a.String()] {
					overtook++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	// On a machine so slow that Learn takes longer than an answer waits, each
	// such answer is counted.
	if st := s.Stats(); st.Hits == 0 || st.Misses == 0 || overtook > st.LearnLate {
		t.Errorf("%d hits, %d misses, %d answers were too early, %d counted as such", st.Hits, st.Misses, overtook, st.LearnLate)
	}
}
