package kernel

import (
	"sync"
	"testing"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

// TestExpectedSYNsPassUnseen: after one that the process has expected, the next of the same client to
// the same address and port does not come, and its answer says which it was; until other rules come.
func TestExpectedSYNsPassUnseen(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, false)
	web := rule(t, "web", nil, "https://a.example:443")
	b.load(nil, web)
	b.echo(b.web, 443)
	var mu sync.Mutex
	var seen, opened int
	b.run(100, QueueOptions{}, func(q *Queue, batch []Packet) {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range batch {
			switch s := parseSegment(p.Payload); {
			case s.syn && !s.ack:
				seen++
				q.Verdict(p.ID, true, Expected)
			case p.Mark.State() == Opening:
				if !s.syn || !s.ack || (s.acked-1)&MaxRule != p.Mark.Rule() {
					t.Errorf("%+v has the mark %s", s, p.Mark)
				}
				opened++
				q.Verdict(p.ID, true, NewMark(Held, 0))
			case len(s.data) > 0:
				q.Verdict(p.ID, true, NewMark(Allowed, 1))
			default:
				q.Verdict(p.ID, true, 0)
			}
		}
	})
	want := func(when string, wantSeen, wantOpened int) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if seen != wantSeen || opened != wantOpened {
			t.Errorf("%s: %d SYNs have come, want %d; %d answers to others, want %d", when, seen, wantSeen, opened, wantOpened)
		}
	}
	for i, a := range webAddrs {
		seen, opened = 0, 0
		for range 3 {
			must(t, b.reach("tcp", at(a, 443)))
		}
		want(a, 1, 2)
		b.load(nil, web)
		must(t, b.reach("tcp", at(webAddrs[i], 443)))
		want(a+", with other rules", 2, 2)
	}
}
