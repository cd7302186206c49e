package egress

import (
	"encoding/binary"
	"hash/maphash"
)

// index finds the list of uses of a key: a hash table with linear probing that is
// built once. Beside Go's maps it touches one place in memory for a look-up
// instead of three, which is what a million names cost.
type index struct {
	seed  maphash.Seed
	slots []slot   // a power of two of them, at most half full; nil is empty
	long  []string // keys that do not fit into their slot
}

// inlined is how long a key may be to stand in its slot. Two slots share a cache line.
const inlined = 23

// slot is empty when n is 0.
type slot struct {
	hash uint32 // the upper half: what did not choose the slot
	list int32
	n    uint8 // the key's length; longer than inlined: key begins with its place in long
	key  [inlined]byte
}

func newIndex(lists map[string]int32) index {
	if len(lists) == 0 {
		return index{}
	}
	size := 2
	for size < 2*len(lists) {
		size *= 2
	}
	x := index{seed: maphash.MakeSeed(), slots: make([]slot, size)}
	for key, list := range lists {
		h := maphash.String(x.seed, key)
		at := x.first(h)
		for x.slots[at].n != 0 {
			at = x.next(at)
		}
		s := &x.slots[at]
		s.hash, s.list, s.n = uint32(h>>32), list, uint8(min(len(key), inlined+1))
		if copy(s.key[:], key) < len(key) {
			binary.NativeEndian.PutUint32(s.key[:], uint32(len(x.long)))
			x.long = append(x.long, key)
		}
	}
	return x
}

func (x *index) first(hash uint64) int { return int(hash & uint64(len(x.slots)-1)) }
func (x *index) next(at int) int       { return (at + 1) & (len(x.slots) - 1) }

// find returns the list of key, or 0. The key must not be empty.
func (x *index) find(key string) int32 {
	if len(x.slots) == 0 {
		return 0
	}
	h := maphash.String(x.seed, key)
	for at := x.first(h); ; at = x.next(at) {
		s := &x.slots[at]
		if s.n == 0 {
			return 0
		}
		if s.hash == uint32(h>>32) && x.holds(s, key) {
			return s.list
		}
	}
}

func (x *index) holds(s *slot, key string) bool {
	if s.n <= inlined {
		return string(s.key[:s.n]) == key
	}
	return x.long[binary.NativeEndian.Uint32(s.key[:])] == key
}
