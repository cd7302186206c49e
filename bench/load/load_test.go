//go:build linux

package load

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/wire/wiretest"
)

func TestQuantilesAreThoseOfASortedList(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var h Histogram
	var all []time.Duration
	for range 20000 {
		d := time.Duration(r.ExpFloat64() * float64(time.Millisecond))
		h.Add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[min(len(all)-1, int(q*float64(len(all))))]
		got := h.Quantile(q)
		if diff := float64(got-want) / float64(want); diff < -0.04 || diff > 0.04 {
			t.Errorf("the quantile %v is %v, want %v", q, got, want)
		}
	}
	var sum Histogram
	sum.Merge(&h)
	sum.Merge(&h)
	if sum.Len() != 2*h.Len() || sum.Quantile(0.5) != h.Quantile(0.5) || sum.Quantile(1) != h.Quantile(1) {
		t.Error("twice the same has other quantiles")
	}
}

func TestLengthOfAHello(t *testing.T) {
	for _, sizes := range [][]int{{1 << 14}, {100}, {700}} {
		b := wiretest.Records(wiretest.PostQuantum("a.example").Message(), sizes...)
		if got := requestLen(b); got != len(b) {
			t.Errorf("in records of %v: %d bytes, want %d", sizes, got, len(b))
		}
	}
}

func TestAnswersAreReadByOthers(t *testing.T) {
	q, err := Question("a.example", false)
	if err != nil {
		t.Fatal(err)
	}
	q[0], q[1] = 1, 2
	s := NameServer{Address: func(string, bool) netip.Addr { return netip.MustParseAddr("20.50.0.1") }, TTL: func(string) uint32 { return 60 }}
	out, ok := s.answer(nil, q)
	if !ok || !answers(out, 0x0102) || answers(out, 0x0103) {
		t.Fatalf("no answer: %x", out)
	}
	var m dns.Msg
	if err := m.Unpack(out); err != nil {
		t.Fatal(err)
	}
	if a, ok := m.Answer[0].(*dns.A); !ok || !a.A.Equal(net.IPv4(20, 50, 0, 1)) {
		t.Errorf("the answer is %v", m.Answer)
	}
}

// serve is two namespaces with a cable and a server in one of them.
func serve(t *testing.T) (client *netns.NS, s *Server, at netip.AddrPort) {
	netnstest.Need(t)
	client, server := netnstest.New(t), netnstest.New(t)
	end := func(n *netns.NS, a string) netns.End {
		return netns.End{NS: n, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(a)}}
	}
	if err := netns.Veth(end(client, "192.0.2.1/24"), end(server, "192.0.2.2/24")); err != nil {
		t.Fatal(err)
	}
	s, at = &Server{}, netip.MustParseAddrPort("192.0.2.2:443")
	reply := []byte("hello yourself")
	s.Reply.Store(&reply)
	if err := s.Start(1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := server.Do(func() error { return s.Listen(at) }); err != nil {
		t.Fatal(err)
	}
	return client, s, at
}

func TestLoads(t *testing.T) {
	client, s, at := serve(t)
	hello := wiretest.PostQuantum("a.example").Bytes()
	base := TCP{NS: client, Sources: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Targets: []Target{{at, hello}}, Answer: 14, Threads: 2, InFlight: 8}
	run := func(l TCP, size int64) *Count {
		t.Helper()
		s.Size.Store(size)
		r := l.Start()
		for r.Done()+r.Failed() < 200 && r.Bytes() < 10<<20 {
			time.Sleep(time.Millisecond)
		}
		c, err := r.Stop()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := run(base, 0); c.Failed != 0 || c.Done < 200 || c.Bytes != 14*c.Done || c.FirstByte.Len() != uint64(c.Done) {
		t.Errorf("closed: %d done, %d bytes, %s", c.Done, c.Bytes, c)
	}
	open := base
	open.Rate, open.InFlight = 2000, 100
	if c := run(open, 0); c.Failed != 0 || c.Done < 200 {
		t.Errorf("open: %d done, %s", c.Done, c)
	}
	kept := base
	kept.Requests = 3
	if c := run(kept, 0); c.Failed != 0 || c.Bytes != 3*14*c.Done {
		t.Errorf("three requests: %d done, %d bytes, %s", c.Done, c.Bytes, c)
	}
	endless := base
	endless.Endless, endless.Answer = true, 1<<40
	if c := run(endless, 1<<40); c.Failed != 0 || c.Bytes < 10<<20 {
		t.Errorf("endless: %d bytes, %s", c.Bytes, c)
	}
}

// What goes wrong has to be seen, or a bench would count it as fast.
func TestFailuresAreCounted(t *testing.T) {
	client, s, at := serve(t)
	hello := wiretest.Client("a.example").Bytes()
	base := TCP{NS: client, Sources: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Targets: []Target{{at, hello}}, Answer: 14, Threads: 1, InFlight: 1}
	once := func(l TCP) *Count {
		r := l.Start()
		for r.Failed() == 0 {
			time.Sleep(time.Millisecond)
		}
		c, _ := r.Stop()
		return c
	}
	refused := base
	refused.Refused = true
	if c := once(refused); c.Unwanted == 0 {
		t.Errorf("an answer to what was to be refused: %s", c)
	}
	nobody := base
	nobody.Targets = []Target{{netip.AddrPortFrom(at.Addr(), 444), hello}}
	if c := once(nobody); c.Connecting == 0 {
		t.Errorf("nobody listens: %s", c)
	}
	_ = s
}
