package gateway

import (
	"fmt"
	"testing"
	"time"
)

// A pod that makes names up below a wildcard must not make others lose theirs: their next connections would be denied
// until they ask again, which a client with a long cache does not do for an hour.
func TestAFloodOfNamesTakesNobodysAway(t *testing.T) {
	b := &Bindings{}
	b.Keep(policyOf(t, "exact https://mcr.microsoft.com:443", "hcp https://*.hcp.westeurope.azmk8s.io:443", "blob https://*.blob.core.windows.net:443"))
	const others = 50
	kept := map[int]string{}
	keep := func(i int, name string) {
		t.Helper()
		if err := learnAt(b, start, name, i, time.Hour); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		kept[i] = name
	}
	for i := range others {
		keep(1+i, fmt.Sprintf("c%d.hcp.westeurope.azmk8s.io", i))
		keep(1+others+i, fmt.Sprintf("unlisted%d.example", i))
		keep(1+2*others+i, fmt.Sprintf("mine%d.blob.core.windows.net", i))
	}
	refused := 0
	for i := range 2 * maxShare {
		if err := learnAt(b, start, fmt.Sprintf("x%d.y%d.blob.core.windows.net", i, i), 1<<12+i, time.Hour); err != nil {
			refused++
		}
	}
	if want := maxShare + others; refused != want {
		t.Errorf("%d of %d were refused, want %d", refused, 2*maxShare, want)
	}
	keep(0, "mcr.microsoft.com")
	keep(1+3*others, "late.hcp.westeurope.azmk8s.io")
	for i, name := range kept {
		if got := namesAt(b, start.Add(time.Hour-1), "prod", addrNumber(i).String()); got != name {
			t.Fatalf("%q is left of %q", got, name)
		}
	}
	if st := b.Stats(); st.Evicted != 0 {
		t.Errorf("%+v", st)
	}
	// Once answers are over, a new name takes the place of one of them, and their grace with it.
	late := start.Add(2 * time.Hour)
	if err := learnAt(b, late, "new.blob.core.windows.net", 9999, time.Hour); err != nil {
		t.Error(err)
	}
	if st := b.Stats(); st.Evicted != 1 {
		t.Errorf("%+v", st)
	}
}

// A scope can be full of several zones' names. Then the one that has most gives to the one that has less.
func TestAFullScope(t *testing.T) {
	b := &Bindings{}
	rules := []string{"small https://*.small.all.example:443"}
	const zones = maxShared / maxShare
	for z := range zones {
		rules = append(rules, fmt.Sprintf("z%d https://*.z%d.all.example:443", z, z))
	}
	b.Keep(policyOf(t, rules...))
	for i := range maxShared {
		if err := learnAt(b, start, fmt.Sprintf("n%d.z%d.all.example", i, i%zones), i, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := learnAt(b, start, "more.z0.all.example", maxShared, time.Hour); err == nil {
		t.Error("one zone has more than its share")
	}
	if err := learnAt(b, start, "a.small.all.example", maxShared+1, time.Hour); err != nil {
		t.Errorf("a small zone gets nothing: %v", err)
	}
	if st := b.Stats(); st.Names != maxShared || st.Evicted != 1 {
		t.Errorf("%+v", st)
	}
	// What is in use by a connection stays, whatever its answer says.
	in := b.scopes["prod"].shares.by["small.all.example"].next[0]
	b.Use("prod", in.name, addrNumber(maxShared+1))
	if n := len(b.scopes["prod"].shares.by["small.all.example"].next); n != 0 {
		t.Errorf("%d names with connections are about to go", n)
	}
	for range usedLooks + 1 {
		b.Age()
	}
	if n := len(b.scopes["prod"].shares.by["small.all.example"].next); n != 1 {
		t.Errorf("%d names without connections are about to go", n)
	}
	// Another policy puts the names into other zones; what has too much gets no more.
	b.Keep(policyOf(t, "all https://*.all.example:443"))
	if err := learnAt(b, start, "z.other.all.example", 9, time.Hour); err == nil {
		t.Error("a zone that has all of a full scope gets more")
	}
	if n := len(b.scopes["prod"].shares.by); n != 1 {
		t.Errorf("%d shares", n)
	}
}
