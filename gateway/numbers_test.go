package gateway

import (
	"encoding/json"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

func TestNumbers(t *testing.T) {
	var n Numbers
	if n.Of(nil) != 0 || n.Number("a") != 0 || n.Holds(1) || n.Rule(1) != "" {
		t.Error("without a policy there are numbers")
	}
	first := policyOf(t, "a https://a.example.com:443", "b https://b.example.com:443")
	assign := func(p *egress.Policy) *egress.Policy {
		t.Helper()
		if err := n.Assign(p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	assign(first)
	a, b := n.Number("a"), n.Number("b")
	if a == 0 || b == 0 || a == b || n.Of(&first.Rules()[0]) != a || n.Rule(b) != "b" || !n.Holds(a) {
		t.Fatalf("a %d, b %d", a, b)
	}
	second := assign(policyOf(t, "b https://b.example.com:443", "a https://a.example.com:443 https://more.example.com:443"))
	if n.Number("b") != b || n.Number("a") == a || n.Number("a") == b {
		t.Errorf("b was %d and is %d; a was %d, has changed and is %d", b, n.Number("b"), a, n.Number("a"))
	}
	if n.Holds(a) || !n.Holds(b) || n.Rule(a) != "a" {
		t.Error("the number of the old content still holds, or is forgotten")
	}
	if n.Of(&first.Rules()[0]) != a || n.Of(&second.Rules()[1]) != n.Number("a") {
		t.Error("a rule of the policy before has lost its number")
	}
	saved, err := json.Marshal(&n)
	if err != nil {
		t.Fatal(err)
	}
	changed := n.Number("a")

	var back Numbers
	if err := json.Unmarshal(saved, &back); err != nil {
		t.Fatal(err)
	}
	n = Numbers{}
	if err := back.Assign(policyOf(t, "a https://a.example.com:443", "b https://b.example.com:443", "c https://c.example.com:443")); err != nil {
		t.Fatal(err)
	}
	if back.Number("a") != a || back.Number("b") != b || back.Number("c") == changed || back.Holds(changed) {
		t.Errorf("after a restart a is %d, b %d, c %d", back.Number("a"), back.Number("b"), back.Number("c"))
	}
}

func TestNumbersDependOnWhatDecides(t *testing.T) {
	rule := func(change func(*egress.Rule)) string {
		e1, _ := egress.ParseEndpoint("https://a.example.com:443")
		e2, _ := egress.ParseEndpoint("https://b.example.com:443")
		r := egress.Rule{ID: "x", To: []egress.Endpoint{e1, e2}}
		change(&r)
		return contentOf(&r)
	}
	plain := rule(func(*egress.Rule) {})
	if rule(func(r *egress.Rule) { r.Why = "reworded"; r.To[0], r.To[1] = r.To[1], r.To[0] }) != plain {
		t.Error("another wording, or order, is another rule")
	}
	if rule(func(r *egress.Rule) { r.To = r.To[:1] }) == plain || rule(func(r *egress.Rule) { r.ID = "y" }) == plain {
		t.Error("another content is the same rule")
	}
}

func TestNumbersWrap(t *testing.T) {
	var n Numbers
	if err := json.Unmarshal([]byte(`{"next":8388606,"rules":[{"number":1,"rule":"old","content":"x"}]}`), &n); err != nil {
		t.Fatal(err)
	}
	if err := n.Assign(policyOf(t, "a https://a.example.com:443", "b https://b.example.com:443")); err != nil {
		t.Fatal(err)
	}
	if a, b := n.Number("a"), n.Number("b"); a != MaxNumber || b != 2 {
		t.Errorf("a %d, b %d", a, b)
	}
}

func TestNumbersOfAVersionWithoutNamesAreRead(t *testing.T) {
	var n Numbers
	if err := json.Unmarshal([]byte(`{"next":3,"rules":[{"number":8388700,"rule":"lost","content":"lost 8388700"}]}`), &n); err != nil {
		t.Error(err)
	}
}

func TestNumbersRefuse(t *testing.T) {
	for _, tt := range []struct{ in, hint string }{
		{`{`, "unexpected end"},
		{`{"rules":[{"number":0,"rule":"a","content":"x"}]}`, "not complete"},
		{`{"rules":[{"number":8388608,"rule":"a","content":"x"}]}`, "not complete"},
		{`{"rules":[{"number":1,"rule":"a","content":"x"},{"number":1,"rule":"b","content":"y"}]}`, "both have number 1"},
		{`{"rules":[{"number":1,"rule":"a","content":"x"},{"number":2,"rule":"a","content":"x"}]}`, "two numbers"},
		{`{"next":8388608}`, "over"},
	} {
		var n Numbers
		if err := json.Unmarshal([]byte(tt.in), &n); err == nil || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("%s: %v, want %q", tt.in, err, tt.hint)
		}
	}
}

// A connection of before must not live on under a rule that happens to get the number
// of the one that allowed it.
func TestNumbersThatAreLostAreNotGivenAgain(t *testing.T) {
	var before Numbers
	if err := before.Assign(policyOf(t, "a https://a.example.com:443", "b https://b.example.com:443")); err != nil {
		t.Fatal(err)
	}
	live := map[uint32]bool{before.Number("a"): true, before.Number("b"): true, 0: true}
	older, err := json.Marshal(&before)
	if err != nil {
		t.Fatal(err)
	}
	if err := before.Assign(policyOf(t, "c https://c.example.com:443")); err != nil {
		t.Fatal(err)
	}
	live[before.Number("c")] = true
	for _, tt := range []struct {
		why, file string
		lost      []uint32
	}{
		{"all", `{}`, []uint32{1, 2, 3}},
		{"those since the file was written", string(older), []uint32{3}},
	} {
		var n Numbers
		if err := json.Unmarshal([]byte(tt.file), &n); err != nil {
			t.Fatal(err)
		}
		n.Reserve(live)
		saved, err := json.Marshal(&n) // it must hold if the process dies again
		if err != nil {
			t.Fatal(err)
		}
		n = Numbers{}
		if err := json.Unmarshal(saved, &n); err != nil {
			t.Fatal(err)
		}
		p := policyOf(t, "x https://x.example.com:443", "y https://y.example.com:443", "z https://z.example.com:443")
		if err := n.Assign(p); err != nil {
			t.Fatal(err)
		}
		for _, number := range tt.lost {
			if n.Holds(number) {
				t.Errorf("lost is %s: %d is the number of a rule again", tt.why, number)
			}
		}
		if n.Holds(0) || !n.Holds(n.Number("x")) {
			t.Errorf("lost is %s: x has the number %d", tt.why, n.Number("x"))
		}
	}
}

// TestReserveAfterAPolicyThatIsKnown: where no number is given, what is live may be found later.
func TestReserveAfterAPolicyThatIsKnown(t *testing.T) {
	const stray = 7
	known := policyOf(t, "a https://a.example.com:443")
	other := policyOf(t, "a https://a.example.com:443", "b https://b.example.com:443")
	var n Numbers
	if n.Knows(known) {
		t.Error("a policy is known before it had numbers")
	}
	if err := n.Assign(known); err != nil {
		t.Fatal(err)
	}
	if !n.Knows(known) || n.Knows(other) {
		t.Errorf("known: %v; with one rule more: %v", n.Knows(known), n.Knows(other))
	}
	n.Reserve(map[uint32]bool{n.Number("a"): true, stray: true})
	if n.Rule(stray) != lost || n.Holds(stray) || n.Rule(n.Number("a")) != "a" {
		t.Errorf("the stray number is of rule %q, a's of %q", n.Rule(stray), n.Rule(n.Number("a")))
	}
	n.next = stray - 1
	if err := n.Assign(other); err != nil {
		t.Fatal(err)
	}
	if n.Number("b") == stray {
		t.Error("a new rule has the stray number")
	}
}

func TestWhichLiveConnectionsGoOn(t *testing.T) {
	const unchanged, changed = 1, 2
	holds := func(n uint32) bool { return n == unchanged }
	p := policyOf(t, "core/mcr https://mcr.microsoft.com:443", "house/db tcp://20.7.0.0/16:443", "house/ntp udp://20.8.0.1/32:123")
	for _, tt := range []struct {
		why, conn, bound string
		rule             uint32
		permitted        bool
	}{
		{"a name that is still allowed", "https 10.224.0.4:1 > 20.1.2.3:443 mcr.microsoft.com", "mcr.microsoft.com", changed, true},
		{"a name that is not any more", "https 10.224.0.4:1 > 20.1.2.3:443 gone.example.com", "gone.example.com", unchanged, false},
		{"an address that is still allowed", "tcp 10.224.0.4:1 > 20.7.0.1:443", "", changed, true},
		{"an address that is not any more", "tcp 10.224.0.4:1 > 20.6.0.1:443", "", changed, false},
		{"a forgotten name whose rule is the same", "tcp 10.224.0.4:1 > 20.1.2.3:443", "", unchanged, true},
		{"a forgotten name whose rule has changed", "tcp 10.224.0.4:1 > 20.1.2.3:443", "", changed, false},
		{"a forgotten name without a rule", "tcp 10.224.0.4:1 > 20.1.2.3:443", "", 0, false},
		{"UDP that is still allowed", "udp 10.224.0.4:1 > 20.8.0.1:123", "", 0, true},
		{"UDP that is not any more", "udp 10.224.0.4:1 > 20.8.0.2:123", "", 0, false},
		{"a source that is no client any more", "tcp 192.0.2.1:1 > 20.7.0.1:443", "", unchanged, false},
	} {
		c, err := egress.ParseConn(tt.conn)
		if err != nil {
			t.Fatal(err)
		}
		if tt.bound != "" {
			c.Bound = []egress.Name{egress.MustParseName(tt.bound)}
		}
		l := Live{c, tt.rule}
		if got := l.Permitted(p, holds); got != tt.permitted {
			t.Errorf("%s: permitted %v", tt.why, got)
		}
	}
}

func TestARuleOfAnOlderPolicyKeepsItsNumber(t *testing.T) {
	var n Numbers
	compile := func(to string) *egress.Policy {
		p, err := egress.Compile([]egress.Rule{{ID: "a", To: []egress.Endpoint{egress.MustParseEndpoint(to)}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	old := compile("https://a.example.com:443")
	for _, p := range []*egress.Policy{old, compile("https://b.example.com:443"), compile("https://c.example.com:443")} {
		if err := n.Assign(p); err != nil {
			t.Fatal(err)
		}
	}
	if number := n.Of(&old.Rules()[0]); number != 1 || n.Holds(number) || n.Rule(number) != "a" {
		t.Errorf("number %d, in force %v, rule %q", number, n.Holds(number), n.Rule(number))
	}
	if n.Of(nil) != 0 {
		t.Error("no rule has a number")
	}
}
