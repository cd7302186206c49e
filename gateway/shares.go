package gateway

import (
	"container/heap"
	"time"
)

const (
	// maxShared bounds the bindings of one scope that are of names which no rule spells out: with a wildcard, whoever owns
	// the domain below it can make as many as they like.
	maxShared = 1 << 17

	// maxShare bounds those below one wildcard: an eighth, so that seven floods leave room for others.
	maxShare = maxShared / 8
)

// shares are the names that may be evicted, by their zones. A name keeps its place for as long as its answer may be used:
// where there is no room, one takes it whose answer is over, and where there is none of these the new name gets none. So a
// pod that invents names below one wildcard is refused more of them, and takes nobody's away. Only a zone that has more
// than others, in a scope that is full, gives them room before that.
type shares struct {
	by      map[string]*share
	largest byHeld
	held    int // bindings
}

// share is one zone's names.
type share struct {
	zone string
	held int   // bindings
	rank int   // in shares.largest
	next byEnd // the names without live connections
}

// place is where a name is in the shares.
type place struct {
	share *share
	at    int // in share.next; -1 while it has live connections
}

// room makes room for one binding more of a name in zone; it reports false when there is none. evict is told the names that
// go.
func (s *shares) room(zone string, now time.Time, evict func(*named)) bool {
	own := s.by[zone]
	for own != nil && own.held >= maxShare || s.held >= maxShared {
		from, fair := own, false
		if own == nil || own.held < maxShare {
			from = s.largest[0]
			fair = own == nil || own.held+1 < from.held
		}
		if len(from.next) == 0 || !fair && now.Before(from.next[0].used) {
			return false
		}
		evict(from.next[0])
		own = s.by[zone]
	}
	return true
}

// put puts a name into its zone's share, if it is not there.
func (s *shares) put(n *named, zone string) {
	if n.place.share != nil && n.place.share.zone == zone {
		return
	}
	s.leave(n)
	at := s.by[zone]
	if at == nil {
		at = &share{zone: zone}
		s.by[zone] = at
		heap.Push(&s.largest, at)
	}
	n.place = place{at, -1}
	s.count(n, len(n.leases))
	s.renew(n)
}

// count counts bindings that a name has got, or lost.
func (s *shares) count(n *named, by int) {
	if at := n.place.share; at != nil {
		at.held += by
		s.held += by
		heap.Fix(&s.largest, at.rank)
	}
}

// renew notes that a name's answer is longer in use, or that it has got, or lost, live connections.
func (s *shares) renew(n *named) {
	at := n.place.share
	switch {
	case at == nil:
	case n.inUse > 0 && n.place.at >= 0:
		heap.Remove(&at.next, n.place.at)
		n.place.at = -1
	case n.inUse == 0 && n.place.at >= 0:
		heap.Fix(&at.next, n.place.at)
	case n.inUse == 0:
		heap.Push(&at.next, n)
	}
}

// leave takes a name out, if it is in.
func (s *shares) leave(n *named) {
	at := n.place.share
	if at == nil {
		return
	}
	s.count(n, -len(n.leases))
	if n.place.at >= 0 {
		heap.Remove(&at.next, n.place.at)
	}
	if n.place = (place{}); at.held == 0 {
		heap.Remove(&s.largest, at.rank)
		delete(s.by, at.zone)
	}
}

// byHeld is a heap of shares, the largest first.
type byHeld []*share

func (h byHeld) Len() int           { return len(h) }
func (h byHeld) Less(i, j int) bool { return h[i].held > h[j].held }
func (h byHeld) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].rank, h[j].rank = i, j
}

func (h *byHeld) Push(x any) {
	s := x.(*share)
	s.rank = len(*h)
	*h = append(*h, s)
}

func (h *byHeld) Pop() any { return pop((*[]*share)(h)) }

// byEnd is a heap of names, the one first whose answers were in use for the shortest time.
type byEnd []*named

func (h byEnd) Len() int           { return len(h) }
func (h byEnd) Less(i, j int) bool { return h[i].used.Before(h[j].used) }
func (h byEnd) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place.at, h[j].place.at = i, j
}

func (h *byEnd) Push(x any) {
	n := x.(*named)
	n.place.at = len(*h)
	*h = append(*h, n)
}

func (h *byEnd) Pop() any { return pop((*[]*named)(h)) }

// pop takes the last off a heap's slice.
func pop[T any](h *[]*T) *T {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return x
}
