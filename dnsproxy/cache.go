package dnsproxy

import (
	"container/list"
	"sync"
)

// Bounds of the cache. A cluster asks for some hundreds of names; wildcards let
// it ask for as many as it likes.
const (
	maxEntries = 20_000
	maxBytes   = 64 << 20
)

// cache holds the most recently used entries.
type cache struct {
	mu      sync.Mutex
	entries map[string]*list.Element // of *entry
	recent  list.List                // the most recently used first
	bytes   int
	evicted uint64
}

// get returns the entry for key, expired or not, or nil.
func (c *cache) get(key []byte) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.entries[string(key)]
	if el == nil {
		return nil
	}
	c.recent.MoveToFront(el)
	return el.Value.(*entry)
}

// put adds e in the place of its predecessor, and makes room for it.
func (c *cache) put(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		c.entries = map[string]*list.Element{}
	}
	if old := c.entries[e.key]; old != nil {
		c.remove(old)
	}
	c.entries[e.key] = c.recent.PushFront(e)
	c.bytes += e.size()
	for c.recent.Len() > maxEntries || c.bytes > maxBytes {
		c.remove(c.recent.Back())
		c.evicted++
	}
}

func (c *cache) remove(el *list.Element) {
	e := c.recent.Remove(el).(*entry)
	delete(c.entries, e.key)
	c.bytes -= e.size()
}

// flush forgets all.
func (c *cache) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries, c.bytes = nil, 0
	c.recent.Init()
}

func (c *cache) stats() (entries, bytes int, evicted uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.recent.Len(), c.bytes, c.evicted
}
