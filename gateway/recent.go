package gateway

import "time"

const (
	// maxRecent bounds a generation of ended connections: a packet can wait in the queue
	// behind no more than its length.
	maxRecent = 16384

	// recentFor is longer than any packet waits in the queue.
	recentFor = 10 * time.Second
)

// recent remembers what became of connections, for packets that were queued behind the
// verdict: probes for a lost tail, retransmissions. The older of two generations is forgotten
// as a whole, so that no more is kept than was decided lately.
type recent struct {
	young, old map[key]remembered
	turn       time.Time // when young becomes old
}

type remembered struct {
	mark  uint32
	until time.Time
}

func (r *recent) init() { r.young, r.old = map[key]remembered{}, map[key]remembered{} }

func (r *recent) keep(k key, mark uint32, now time.Time) {
	if len(r.young) >= maxRecent || !now.Before(r.turn) {
		clear(r.old)
		r.young, r.old = r.old, r.young
		r.turn = now.Add(recentFor)
	}
	r.young[k] = remembered{mark, now.Add(recentFor)}
}

func (r *recent) forget(k key) {
	delete(r.young, k)
	delete(r.old, k)
}

func (r *recent) find(k key, now time.Time) (mark uint32, ok bool) {
	m, ok := r.young[k]
	if !ok {
		m, ok = r.old[k]
	}
	return m.mark, ok && now.Before(m.until)
}

// each calls f for those that are not over, the older generation first.
func (r *recent) each(now time.Time, f func(k key, mark uint32)) {
	for _, generation := range []map[key]remembered{r.old, r.young} {
		for k, m := range generation {
			if now.Before(m.until) {
				f(k, m.mark)
			}
		}
	}
}
