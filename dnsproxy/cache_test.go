package dnsproxy

import (
	"strconv"
	"testing"
)

// TestCacheIsBounded in entries and in bytes, and keeps what is used.
func TestCacheIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name        string
		bytes, most int
	}{
		{"small answers", 100, maxEntries},
		{"answers of 60 kB, as a hostile upstream sends them", 60_000, maxBytes / 60_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c cache
			packed := make([]byte, tt.bytes)
			c.put(&entry{key: "hot", packed: packed})
			for i := range tt.most + 1000 {
				c.put(&entry{key: strconv.Itoa(i), packed: packed})
				if c.get([]byte("hot")) == nil {
					t.Fatalf("forgot what is used, after %d others", i)
				}
			}
			entries, bytes, evicted := c.stats()
			if entries > tt.most || bytes > maxBytes || evicted < 1000 || entries != len(c.entries) {
				t.Errorf("%d entries, %d bytes, %d evicted", entries, bytes, evicted)
			}
			if c.get([]byte("0")) != nil {
				t.Error("kept what is not used")
			}
			c.flush()
			if entries, bytes, _ := c.stats(); entries != 0 || bytes != 0 || c.get([]byte("hot")) != nil {
				t.Errorf("flushed: %d entries, %d bytes", entries, bytes)
			}
		})
	}
}

func TestCacheReplaces(t *testing.T) {
	var c cache
	first, second := &entry{key: "a", packed: make([]byte, 10)}, &entry{key: "a"}
	c.put(first)
	c.put(second)
	if entries, bytes, evicted := c.stats(); c.get([]byte("a")) != second || entries != 1 || bytes != second.size() || evicted != 0 {
		t.Errorf("%d entries, %d bytes, %d evicted", entries, bytes, evicted)
	}
}
