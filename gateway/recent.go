package gateway

import (
	"net/netip"
	"time"
)

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
	young, old map[ends]remembered
	turn       time.Time // when young becomes old
}

// ends is a key in half of its size and without pointers, so that the collector of garbage does
// not read the tables.
type ends struct {
	client, server         [16]byte
	clientPort, serverPort uint16
	v6                     bool // for an IPv6 address may contain one of IPv4
}

type remembered struct {
	mark  uint32
	until int64 // in Unix nanoseconds
}

func (r *recent) init() { r.young, r.old = map[ends]remembered{}, map[ends]remembered{} }

func (r *recent) keep(k key, mark uint32, now time.Time) {
	if len(r.young) >= maxRecent || !now.Before(r.turn) {
		clear(r.old)
		r.young, r.old = r.old, r.young
		r.turn = now.Add(recentFor)
	}
	r.young[k.ends()] = remembered{mark, now.Add(recentFor).UnixNano()}
}

func (r *recent) forget(k key) {
	e := k.ends()
	delete(r.young, e)
	delete(r.old, e)
}

func (r *recent) find(k key, now time.Time) (mark uint32, ok bool) {
	e := k.ends()
	m, ok := r.young[e]
	if !ok {
		m, ok = r.old[e]
	}
	return m.mark, ok && now.UnixNano() < m.until
}

// each calls f for those that are not over, the older generation first.
func (r *recent) each(now time.Time, f func(k key, mark uint32)) {
	for _, generation := range []map[ends]remembered{r.old, r.young} {
		for e, m := range generation {
			if now.UnixNano() < m.until {
				f(e.key(), m.mark)
			}
		}
	}
}

func (k key) ends() ends {
	return ends{k.client.Addr().As16(), k.server.Addr().As16(), k.client.Port(), k.server.Port(), k.client.Addr().Is6()}
}

func (e *ends) key() key {
	client, server := netip.AddrFrom16(e.client), netip.AddrFrom16(e.server)
	if !e.v6 {
		client, server = client.Unmap(), server.Unmap()
	}
	return key{netip.AddrPortFrom(client, e.clientPort), netip.AddrPortFrom(server, e.serverPort)}
}
