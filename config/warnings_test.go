package config

import (
	"slices"
	"testing"

	"tidegate.io/tidegate/egress"
)

// Every rule that permits what another does has to be among the other's neighbours.
func TestNeighboursAreAllThatMayCover(t *testing.T) {
	texts := []string{
		"https://*.b.d:443", "https://a.b.d:443", "https://*.a.b.d:443", "https://x*.a.b.d:443", "https://xy.a.b.d:443", "https://*.*.b.d:443",
		"https://c.*.b.d:443", "https://*.c.a.b.d:443", "tcp://20.0.0.0/8:443", "tcp://20.1.0.0/16:443", "tcp://a.b.d:443", "tcp://*.b.d:1-65535", "https://z.ab.d:443",
	}
	var rules []egress.Rule
	for _, text := range texts {
		e, err := egress.ParseEndpoint(text)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, egress.Rule{ID: text, To: []egress.Endpoint{e}})
	}
	near, covered := newNeighbours(rules), 0
	for _, r := range rules {
		for j, wide := range rules {
			if !masks(wide, r) {
				continue
			}
			covered++
			if !slices.Contains(near.of(r), j) {
				t.Errorf("%s covers %s and is no neighbour", wide.ID, r.ID)
			}
		}
	}
	if covered <= len(rules) {
		t.Error("nothing covers another")
	}
}
