package egress

import (
	"encoding/binary"
	"hash/maphash"
)

// index finds the list of uses of a key: a hash table with linear probing. Beside
// Go's maps it touches one place in memory for a look-up instead of three, which is
// what a million names cost, and holds no pointers for the garbage collector to
// follow. The zero index is empty.
type index struct {
	seed  maphash.Seed
	slots []slot // a power of two of them, at most half full
	shift uint8  // how much of a hash does not choose the slot
	n     int
	long  []byte // the keys that do not fit into their slot, one behind the other
}

// inlined is how long a key may be to stand in its slot. Two slots share a cache line.
const inlined = 23

// slot is empty when n is 0.
type slot struct {
	hash uint32
	list int32
	n    uint8         // the key's length, at most maxName
	key  [inlined]byte // one that is longer than this begins with its place in long
}

// put returns the place for the list of key, which is 0 when the key is new. The key
// must not be empty, and the place is lost with the next put.
func (x *index) put(key string) *int32 {
	if 2*x.n >= len(x.slots) {
		x.grow()
	}
	h := x.hash(key)
	at := x.search(h, key)
	s := &x.slots[at]
	if s.n == 0 {
		x.n++
		s.hash, s.n = h, uint8(len(key))
		if len(key) > inlined {
			binary.NativeEndian.PutUint32(s.key[:], uint32(len(x.long)))
			x.long = append(x.long, key...)
		} else {
			copy(s.key[:], key)
		}
	}
	return &s.list
}

func (x *index) grow() {
	old := x.slots
	if old == nil {
		x.seed, x.shift = maphash.MakeSeed(), 32
	}
	x.slots = make([]slot, max(2, 2*len(old)))
	x.shift--
	for _, s := range old {
		if s.n == 0 {
			continue
		}
		at := x.first(s.hash)
		for x.slots[at].n != 0 {
			at = x.next(at)
		}
		x.slots[at] = s
	}
}

func (x *index) hash(key string) uint32 { return uint32(maphash.String(x.seed, key) >> 32) }
func (x *index) first(hash uint32) int  { return int(hash >> x.shift) }
func (x *index) next(at int) int        { return (at + 1) & (len(x.slots) - 1) }

// search returns the slot of key, or the empty one where it would be.
func (x *index) search(hash uint32, key string) int {
	for at := x.first(hash); ; at = x.next(at) {
		if s := &x.slots[at]; s.n == 0 || s.hash == hash && string(x.key(s)) == key {
			return at
		}
	}
}

// find returns the list of key, or 0. The key must not be empty.
func (x *index) find(key string) int32 {
	if len(x.slots) == 0 {
		return 0
	}
	return x.slots[x.search(x.hash(key), key)].list
}

// key returns the key of a slot that is not empty.
func (x *index) key(s *slot) []byte {
	if s.n <= inlined {
		return s.key[:s.n]
	}
	place := binary.NativeEndian.Uint32(s.key[:])
	return x.long[place : place+uint32(s.n)]
}

// each calls f for all keys, in no order.
func (x *index) each(f func(key string, list int32)) {
	for i := range x.slots {
		if s := &x.slots[i]; s.n != 0 {
			f(string(x.key(s)), s.list)
		}
	}
}
