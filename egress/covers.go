package egress

import "strings"

// Covers reports whether every name that q matches is matched by p too.
func (p Pattern) Covers(q Pattern) bool {
	if p.s == "" || q.s == "" {
		return q.s == ""
	}
	wide, narrow := p.s, q.s
	for {
		wi, ni := strings.LastIndexByte(wide, '.'), strings.LastIndexByte(narrow, '.')
		w, n := wide[wi+1:], narrow[ni+1:]
		switch {
		case wi < 0 && w == "*":
			return true // one or more labels, and narrow has at least one left
		case ni < 0 && n == "*":
			return false // any number of labels, and wide takes a fixed number
		case !labelCovers(w, n):
			return false
		case wi < 0 || ni < 0:
			return wi < 0 && ni < 0
		}
		wide, narrow = wide[:wi], narrow[:ni]
	}
}

func labelCovers(wide, narrow string) bool {
	star := strings.IndexByte(narrow, '*')
	if wide == "*" || star < 0 {
		return wide == "*" || matchLabel(wide, narrow)
	}
	before, after, starred := strings.Cut(wide, "*")
	return starred && strings.HasPrefix(narrow[:star], before) && strings.HasSuffix(narrow[star+1:], after)
}

// Covers reports whether whatever f permits is permitted by e too, so that f is
// not needed beside it. A TCP or UDP endpoint by address covers what leads to
// its addresses, but no name, for a name's addresses are not known here; only
// one for all addresses of a family covers names, as far as that family goes.
// Tags cover themselves only.
func (e Endpoint) Covers(f Endpoint) bool {
	if e.Ports.First > f.Ports.First || e.Ports.Last < f.Ports.Last {
		return false
	}
	switch wide := e.Host.(type) {
	case Pattern:
		narrow, ok := f.Host.(Pattern)
		return ok && wide.Covers(narrow) && (e.Proto == f.Proto || e.Proto == TCP && f.Proto.Named())
	case Net:
		if e.Proto != f.Proto.Transport() {
			return false
		}
		narrow, ok := f.Host.(Net)
		return wide.Bits() == 0 && !ok || ok && wide.Bits() <= narrow.Bits() && wide.Contains(narrow.Addr())
	case Tag:
		return e.Host == f.Host && e.Proto == f.Proto
	}
	return false
}
