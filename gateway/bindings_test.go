package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// answer reads "scope name address ttl".
func answer(t testing.TB, s string) egress.Binding {
	t.Helper()
	w := strings.Fields(s)
	ttl, err := time.ParseDuration(w[3])
	if err != nil {
		t.Fatal(err)
	}
	return egress.Binding{Scope: w[0], Name: egress.MustParseName(w[1]), Addr: netip.MustParseAddr(w[2]), Expires: start.Add(ttl)}
}

func learned(t testing.TB, answers ...string) *Bindings {
	b := &Bindings{}
	for _, s := range answers {
		b.Learn(start, []egress.Binding{answer(t, s)})
	}
	return b
}

func namesAt(b *Bindings, now time.Time, scope, addr string) string {
	var out []string
	for _, n := range b.Names(now, scope, netip.MustParseAddr(addr)) {
		out = append(out, n.String())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestBindings(t *testing.T) {
	b := learned(t, "prod a.example.com 20.0.0.1 60s", "prod b.example.com 20.0.0.1 1h", "prod a.example.com 20.0.0.2 60s", "dev a.example.com ::ffff:20.0.0.3 0s")
	for _, tt := range []struct {
		why   string
		after time.Duration
		scope string
		addr  string
		want  string
	}{
		{"an address has all its names", 0, "prod", "20.0.0.1", "a.example.com b.example.com"},
		{"a name has all its addresses", 0, "prod", "20.0.0.2", "a.example.com"},
		{"one scope does not learn from another", 0, "dev", "20.0.0.1", ""},
		{"an address inside IPv6 is the IPv4 one", 0, "dev", "20.0.0.3", "a.example.com"},
		{"in either direction", 0, "dev", "::ffff:20.0.0.3", "a.example.com"},
		{"a scope that is not known has none", 0, "other", "20.0.0.1", ""},
		{"an answer counts for its grace", time.Minute + Grace - 1, "prod", "20.0.0.1", "a.example.com b.example.com"},
		{"and no longer", time.Minute + Grace, "prod", "20.0.0.1", "b.example.com"},
		{"until none is left", time.Hour + Grace, "prod", "20.0.0.1", ""},
	} {
		if got := namesAt(b, start.Add(tt.after), tt.scope, tt.addr); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.why, got, tt.want)
		}
	}
	b.Sweep(start.Add(24 * time.Hour))
	if st := b.Stats(); st != (BindingsStats{}) {
		t.Errorf("after all is over there is still %+v", st)
	}
}

func TestBindingsNewerAnswer(t *testing.T) {
	b := learned(t, "prod a.example.com 20.0.0.1 2h", "prod a.example.com 20.0.0.1 60s")
	if got := namesAt(b, start.Add(2*time.Hour+Grace-1), "prod", "20.0.0.1"); got != "a.example.com" {
		t.Errorf("a shorter answer shortened an older one: %q", got)
	}
	b = learned(t, "prod a.example.com 20.0.0.1 876000h")
	if got := namesAt(b, start.Add(maxTTL+Grace), "prod", "20.0.0.1"); got != "" {
		t.Errorf("a TTL of a hundred years is believed: %q", got)
	}
}

func TestBindingsInUse(t *testing.T) {
	b := learned(t, "prod a.example.com 20.0.0.1 60s")
	name, addr, late := egress.MustParseName("a.example.com"), netip.MustParseAddr("20.0.0.1"), start.Add(30*time.Hour)
	b.Use("prod", name, addr)
	for range 5 {
		b.Age()
		b.Use("prod", name, addr)
		b.Sweep(late)
	}
	for range usedLooks {
		b.Age()
	}
	b.Sweep(late)
	if got := namesAt(b, late, "prod", "20.0.0.1"); got != "a.example.com" {
		t.Fatalf("it was in use a moment ago, and is gone: %q", got)
	}
	b.Age()
	if got := namesAt(b, late, "prod", "20.0.0.1"); got != "" {
		t.Errorf("not in use any more, it stays: %q", got)
	}
	b.Use("prod", name, addr) // of what is not there
	b.Use("none", name, addr)
}

// learnAt has a name learned for the i-th address.
func learnAt(b *Bindings, now time.Time, name string, i int, ttl time.Duration) error {
	return b.Learn(now, []egress.Binding{{Scope: "prod", Name: egress.MustParseName(name), Addr: addrNumber(i), Expires: now.Add(ttl)}})
}

func addrNumber(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
}

func TestBindingsBounds(t *testing.T) {
	b := &Bindings{}
	b.Keep(policyOf(t, "core/mcr https://mcr.microsoft.com:443"))
	learn := func(name string, i int) {
		t.Helper()
		if err := learnAt(b, start, name, i, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	learn("mcr.microsoft.com", 1)
	for i := range maxAddrs + 50 {
		learn("mcr.microsoft.com", 100000+i)
	}
	if n := len(b.scopes["prod"].names[egress.MustParseName("mcr.microsoft.com")].leases); n != maxAddrs {
		t.Errorf("one name has %d addresses", n)
	}
	for i := range maxScopes + 10 {
		b.See(fmt.Sprint("scope", i))
	}
	if len(b.scopes) > maxScopes {
		t.Errorf("%d scopes", len(b.scopes))
	}
}

// An address can have more names than are shown: the one that a rule spells out is shown, and each is found by itself.
func TestAnAddressOfManyNames(t *testing.T) {
	b := &Bindings{}
	b.Keep(policyOf(t, "core/mcr https://mcr.microsoft.com:443", "wild https://*.example.com:443"))
	for i := range maxView {
		learnAt(b, start, fmt.Sprintf("n%d.example.com", i), 1, time.Minute)
	}
	learnAt(b, start, "last.example.com", 1, time.Hour)
	learnAt(b, start, "mcr.microsoft.com", 1, time.Hour)
	addr, mcr, last := addrNumber(1), egress.MustParseName("mcr.microsoft.com"), egress.MustParseName("last.example.com")
	if names := b.Names(start, "prod", addr); len(names) != maxView || !slices.Contains(names, mcr) || slices.Contains(names, last) {
		t.Fatalf("%d names are shown; that of a rule: %v, the last: %v", len(names), slices.Contains(names, mcr), slices.Contains(names, last))
	}
	for _, tt := range []struct {
		name  string
		after time.Duration
		want  int // names, the name among them
	}{
		{"last.example.com", 0, 1},
		{"n5.example.com", 0, 1},
		{"mcr.microsoft.com", 0, 1},
		{"last.example.com", time.Minute + Grace, 2},
	} {
		n := egress.MustParseName(tt.name)
		if names := b.NamesWith(start.Add(tt.after), "prod", addr, n); len(names) != tt.want || !slices.Contains(names, n) {
			t.Errorf("%s after %v: %d names, want %d with it", tt.name, tt.after, len(names), tt.want)
		}
	}
	if names := b.NamesWith(start, "prod", addr, egress.MustParseName("other.example.com")); slices.Contains(names, egress.MustParseName("other.example.com")) {
		t.Error("a name that was not learned is found")
	}
	b.Keep(policyOf(t, "last https://last.example.com:443"))
	for i := range maxView + 1 {
		learnAt(b, start, fmt.Sprintf("m%d.example.com", i), 1, time.Minute)
	}
	if names := b.Names(start, "prod", addr); !slices.Contains(names, last) {
		t.Error("what a new policy spells out is not shown")
	}
}

func TestBindingsAll(t *testing.T) {
	b := learned(t, "prod a.example.com 20.0.0.1 60s", "prod b.example.com 2603::1 4h")
	var got []string
	for x := range b.All(start.Add(Grace + time.Hour)) {
		got = append(got, fmt.Sprint(x.Scope, " ", x.Name, " ", x.Addr, " ", x.Expires.Sub(start)))
	}
	if want := []string{"prod b.example.com 2603::1 4h0m0s"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBindingsNamesDoesNotAllocate(t *testing.T) {
	b := learned(t, "prod a.example.com 20.0.0.1 60s")
	addr := netip.MustParseAddr("20.0.0.1")
	if n := testing.AllocsPerRun(100, func() { b.Names(start, "prod", addr) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestBindingsTogether is for the race detector.
func TestBindingsTogether(t *testing.T) {
	b := &Bindings{}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 300 {
				addr := netip.AddrFrom4([4]byte{20, 0, 0, byte(i % 7)})
				name := egress.MustParseName(fmt.Sprintf("n%d.example.com", i%11))
				now := start.Add(time.Duration(g*i) * time.Minute)
				b.Learn(now, []egress.Binding{{Scope: "prod", Name: name, Addr: addr, Expires: now.Add(time.Minute)}})
				for _, n := range b.Names(now, "prod", addr) {
					_ = n.String()
				}
				b.Use("prod", name, addr)
				b.Strict(now, "prod")
				b.See("prod")
				b.Age()
				b.Sweep(now)
			}
		})
	}
	all.Wait()
}

// FuzzBindings holds the table against a plain list of what was learned.
func FuzzBindings(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 200, 6, 7, 250})
	f.Fuzz(func(t *testing.T, ops []byte) {
		b := &Bindings{}
		type pair struct {
			name egress.Name
			addr netip.Addr
		}
		until := map[pair]time.Time{}
		now := start
		for ; len(ops) >= 3; ops = ops[3:] {
			p := pair{egress.MustParseName(fmt.Sprintf("n%d.example", ops[0]%5)), netip.AddrFrom4([4]byte{20, 0, 0, ops[1] % 4})}
			now = now.Add(time.Duration(ops[2]) * time.Minute)
			if ops[0] < 200 {
				expires := now.Add(time.Duration(ops[1]) * time.Minute)
				b.Learn(now, []egress.Binding{{Scope: "s", Name: p.name, Addr: p.addr, Expires: expires}})
				if old := until[p]; !now.Before(old) || expires.Add(Grace).After(old) {
					until[p] = expires.Add(Grace)
				}
			}
			var want []string
			for q, end := range until {
				if q.addr == p.addr && now.Before(end) {
					want = append(want, q.name.String())
				}
			}
			slices.Sort(want)
			if got := namesAt(b, now, "s", p.addr.String()); got != strings.Join(want, " ") {
				t.Fatalf("%s has %q, want %q", p.addr, got, want)
			}
		}
	})
}

func TestWhatIsSaidOfDNSIsNotChangedByClients(t *testing.T) {
	at := time.Unix(0, 0)
	for _, tt := range []struct {
		why               string
		path              Path
		seen, missed, now bool
	}{
		{"nothing is known", Unsaid, false, false, false},
		{"a question came", Unsaid, true, false, true},
		{"a question came, and an address another way", Unsaid, true, true, false},
		{"through, before any question", Through, false, false, true},
		{"through, whatever address comes", Through, true, true, true},
		{"elsewhere, whatever a pod asks", Elsewhere, true, false, false},
	} {
		var b Bindings
		b.Say("prod", tt.path)
		if tt.seen {
			b.See("prod")
		}
		if tt.missed {
			b.Missed(at, "prod")
		}
		if got := b.Strict(at, "prod"); got != tt.now {
			t.Errorf("%s: strict %v", tt.why, got)
		}
	}
}
