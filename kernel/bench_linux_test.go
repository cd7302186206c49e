package kernel

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

func TestReadingAndAnsweringAllocatesNothing(t *testing.T) {
	packet := message(nil, typeQueuePacket, 0, 2, 0, attr(attr(nil, nfqaPacketHeader, []byte{0, 0, 0, 7, 8, 0, 2, 0}), nfqaPayload, make([]byte, 1500)))
	q := &Queue{num: 100, out: make([]byte, 0, maxUnsent), batch: make([]Packet, 0, batchLen)}
	if n := testing.AllocsPerRun(100, func() {
		q.batch = appendPackets(q.batch[:0], packet)
		for _, p := range q.batch {
			q.Verdict(p.ID, true, NewMark(Allowed, 1))
		}
		q.out = q.out[:0]
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// cpu is what the process has used, in nanoseconds.
func cpu(b *testing.B) int64 {
	var r unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &r))
	return r.Utime.Nano() + r.Stime.Nano()
}

// BenchmarkQueue sends SYNs through the gateway: to a port that an address rule
// permits, which is plain forwarding, and to one that is queued and accepted. The
// sender's own time is in both.
func BenchmarkQueue(b *testing.B) {
	netnstest.Need(b)
	for _, row := range []struct {
		name string
		port uint16
	}{{"forwarded", 9000}, {"queued", 443}} {
		b.Run(row.name, func(b *testing.B) {
			bn := newBench(b, false)
			bn.load(func(s *Settings) { s.Masquerade = false }, rule(b, "any", nil, "tcp://0.0.0.0/0:9000"), rule(b, "web", nil, "https://a.example:443"))
			var seen atomic.Int64
			bn.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
				for _, p := range batch {
					q.Verdict(p.ID, true, 0)
				}
				seen.Add(int64(len(batch)))
			})
			var out *Resetter
			must(b, bn.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
			defer out.Close()
			src, dst := netip.MustParseAddr(clientAddrs[0]), netip.AddrPortFrom(netip.MustParseAddr("20.50.0.1"), row.port) // not there: no answers
			packets := make([][]byte, 20000)
			for i := range packets {
				packets[i] = tcpPacket(netip.AddrPortFrom(src, uint16(1024+i)), dst, 1, 0, flagSYN, nil, nil)
			}
			start := cpu(b)
			b.ResetTimer()
			for i := range b.N {
				_ = out.Send(packets[i%len(packets)])
				for row.port == 443 && int64(i)-seen.Load() > 1000 {
				}
			}
			b.ReportMetric(float64(cpu(b)-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkOpen opens addresses, by so many callers a processor at once.
func BenchmarkOpen(b *testing.B) {
	netnstest.Need(b)
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			bn := newBench(b, false)
			rs := bn.load(nil, rule(b, "git", nil, "tcp://git.example:9418"))
			var next atomic.Uint32
			begin := cpu(b)
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n := next.Add(1) % (maxLearned / 2)
					addr := netip.AddrFrom4([4]byte{20, byte(n >> 16), byte(n >> 8), byte(n)})
					if err := bn.table.Open(learn(rs, binding("prod", "git.example", addr.String(), time.Hour))); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(cpu(b)-begin)/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkEach lists the connections of a gateway that has 10,000.
func BenchmarkEach(b *testing.B) {
	netnstest.Need(b)
	const many = 10_000
	bn := newBench(b, false)
	bn.load(func(s *Settings) { s.Masquerade = false }, rule(b, "any", nil, "tcp://0.0.0.0/0:9000"))
	var out *Resetter
	must(b, bn.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
	defer out.Close()
	dst := netip.MustParseAddrPort("20.50.0.1:9000") // not there: no answers
	for i := range many {
		_ = out.Send(tcpPacket(netip.AddrPortFrom(netip.MustParseAddr(clientAddrs[0]), uint16(1024+i)), dst, 1, 0, flagSYN, nil, nil))
	}
	var tracker *Tracker
	must(b, bn.gateway.Do(func() (err error) { tracker, err = OpenTracker(); return err }))
	defer tracker.Close()
	flows, err := tracker.flows()
	if must(b, err); len(flows) < many*9/10 {
		b.Fatalf("%d connections", len(flows))
	}
	for b.Loop() {
		must(b, tracker.Each(func(Flow) {}))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(flows)), "ns/connection")
}
