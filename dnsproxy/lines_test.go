package dnsproxy

import (
	"net"
	"testing"
	"time"
)

// dialed are lines that have been asked once.
func dialed(t *testing.T, n int, since time.Time) []*line {
	t.Helper()
	var all []*line
	for range n {
		here, there := net.Pipe()
		t.Cleanup(func() { here.Close(); there.Close() })
		all = append(all, &line{Conn: here, asked: 1, since: since})
	}
	return all
}

func isClosed(c *line) bool { return c.SetDeadline(time.Time{}) != nil }

func TestALineIsDrawnFromMany(t *testing.T) {
	var p linePool
	for i, c := range dialed(t, minLines, time.Now()) {
		if p.take() != nil {
			t.Fatalf("one of %d is taken", i)
		}
		p.give(c)
	}
	drawn := map[*line]bool{}
	for range 4 * minLines {
		c := p.take()
		if c == nil {
			t.Fatal("none is taken")
		}
		drawn[c] = true
		p.give(c)
	}
	if len(drawn) < minLines/2 {
		t.Errorf("%d draws gave %d of %d", 4*minLines, len(drawn), minLines)
	}
}

func TestALineEnds(t *testing.T) {
	var p linePool
	now := time.Now()
	worn, old := dialed(t, 1, now)[0], dialed(t, 1, now.Add(-maxLineIn))[0]
	worn.asked = maxAsked
	p.give(worn)
	p.give(old)
	if len(p.free) != 0 || !isClosed(worn) || !isClosed(old) {
		t.Errorf("%d are kept that are worn or old", len(p.free))
	}
	all := dialed(t, maxLines+1, now)
	for _, c := range all {
		p.give(c)
	}
	if len(p.free) != maxLines || !isClosed(all[maxLines]) {
		t.Errorf("%d are kept", len(p.free))
	}
	all[0].since = now.Add(-maxLineIn)
	p.hangUp(maxLineIn)
	if len(p.free) != maxLines-1 || !isClosed(all[0]) || isClosed(all[1]) {
		t.Errorf("%d are left when one is old", len(p.free))
	}
	if p.hangUp(0); len(p.free) != 0 || !isClosed(all[1]) {
		t.Errorf("%d are left at the end", len(p.free))
	}
}
