package egress

import (
	"fmt"
	"strings"
	"testing"
)

// TestIndex holds the table against a map, with keys around the length that fits
// into a slot and keys that differ only behind it.
func TestIndex(t *testing.T) {
	lists := map[string]int32{}
	for i := range 5000 {
		lists[fmt.Sprint(i)] = int32(i + 1)
		lists[strings.Repeat("a", i%40)+fmt.Sprint(".", i)] = int32(i + 7)
		lists[strings.Repeat("long", 20)+fmt.Sprint(i)] = int32(i + 9)
	}
	lists[strings.Repeat("n", maxName)] = 3
	var x index
	if x.find("a") != 0 {
		t.Error("an empty index finds something")
	}
	for key, list := range lists {
		if at := x.put(key); *at != 0 {
			t.Fatalf("put(%q) is not new", key)
		} else {
			*at = list - 1
		}
		*x.put(key)++
	}
	for key, want := range lists {
		if got := x.find(key); got != want {
			t.Fatalf("find(%q) = %d, want %d", key, got, want)
		}
		for _, other := range []string{key + "x", key[1:], "x" + key} {
			if got := x.find(other); other != "" && got != lists[other] {
				t.Fatalf("find(%q) = %d, want %d", other, got, lists[other])
			}
		}
	}
}
