package gateway

import (
	"container/list"
	"strings"

	"tidegate.io/tidegate/egress"
)

// zones are what the wildcards of a policy end in: below it, whoever owns a domain makes names at will.
type zones map[string]bool

// add takes the labels behind a pattern's last star.
func (z zones) add(p egress.Pattern) {
	s := p.String()
	_, zone, _ := strings.Cut(s[strings.LastIndexByte(s, '*'):], ".")
	z[zone] = true
}

// of is the narrowest zone that a name is in; "" is none.
func (z zones) of(n egress.Name) string {
	for _, rest, more := strings.Cut(n.String(), "."); more; _, rest, more = strings.Cut(rest, ".") {
		if z[rest] {
			return rest
		}
	}
	return ""
}

// shares are the names that may be evicted, by their zones. What is full takes from the zone that has most: a pod that
// invents ten thousand names below one wildcard evicts those alone, and nobody's names below another one.
type shares struct {
	by    map[string]*share
	names int
}

// share is one zone's names; the last asked for is in front.
type share struct {
	zone  string
	order list.List // of *named
}

// place is where a name is in the shares.
type place struct {
	share *share
	at    *list.Element
}

// renew moves a name to the front of its zone's share.
func (s *shares) renew(n *named, zone string) {
	if n.place.share != nil && n.place.share.zone == zone {
		n.place.share.order.MoveToFront(n.place.at)
		return
	}
	s.leave(n)
	at := s.by[zone]
	if at == nil {
		at = &share{zone: zone}
		s.by[zone] = at
	}
	n.place = place{at, at.order.PushFront(n)}
	s.names++
}

// leave takes a name out, if it is in.
func (s *shares) leave(n *named) {
	at := n.place.share
	if at == nil {
		return
	}
	at.order.Remove(n.place.at)
	if s.names--; at.order.Len() == 0 {
		delete(s.by, at.zone)
	}
	n.place = place{}
}

// victim is the name to be evicted for n: of the largest share that has one without live connections, the one that was
// not asked for for longest.
func (s *shares) victim(n *named) *named {
	var best *named
	most := 0
	for _, at := range s.by {
		if at.order.Len() <= most {
			continue
		}
		for e := at.order.Back(); e != nil; e = e.Prev() {
			if v := e.Value.(*named); v != n && !v.used() {
				best, most = v, at.order.Len()
				break
			}
		}
	}
	return best
}
