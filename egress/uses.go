package egress

// use is one endpoint of one rule, as it is found by name or by address, and the
// beginning of a list of uses.
type use struct {
	rule    int32
	pattern int32 // in Policy.patterns, where one has to be matched: neither exact nor plain
	next    int32 // in Policy.uses; 0 at the end
	ports   Ports
	proto   Proto
}

// uses builds lists of uses from their ends. Lists that are alike are one, so that
// a million names of one rule share theirs and a look-up touches little memory.
type uses struct {
	all   []use // 0 stands for the empty list
	known map[use]int32
	last  int32 // most often the same again
}

func newUses() uses { return uses{all: make([]use, 1), known: map[use]int32{}} }

// before returns the list that begins with u and goes on with another.
func (us *uses) before(u use, list int32) int32 {
	if u.next = list; us.last != 0 && us.all[us.last] == u {
		return us.last
	}
	at, known := us.known[u]
	if !known {
		at = int32(len(us.all))
		us.all = append(us.all, u)
		us.known[u] = at
	}
	us.last = at
	return at
}
