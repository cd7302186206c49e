package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

// allowedBy is a connection by name and the verdict of a rule that allows it.
func allowedBy(rule, name string) (egress.Conn, egress.Verdict) {
	c := egress.Conn{Proto: egress.HTTPS, Name: egress.MustParseName(name)}
	return c, egress.Verdict{Action: egress.Allow, Reason: egress.ByNameRule, Rule: &egress.Rule{ID: rule}}
}

// file is where lines are written; a full one takes half of a line.
type file struct {
	bytes.Buffer
	full bool
}

func (f *file) Write(b []byte) (int, error) {
	if f.full {
		n, _ := f.Buffer.Write(b[:len(b)/2])
		return n, errors.New("no space left")
	}
	return f.Buffer.Write(b)
}

// renew begins the file anew.
func (f *file) renew(lines []byte) (io.Writer, error) {
	f.Reset()
	if _, err := f.Write(lines); err != nil {
		return nil, err
	}
	return f, nil
}

// names returns empty Names that are kept in a file.
func namesIn(t *testing.T, f *file) *Names {
	t.Helper()
	n := &Names{}
	if err := n.Open(f.renew); err != nil {
		t.Fatal(err)
	}
	return n
}

func reread(t *testing.T, f *file) *Names {
	t.Helper()
	n, err := ReadNames(bytes.NewReader(f.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNamesSurviveARestart(t *testing.T) {
	var f file
	n := namesIn(t, &f)
	a, byA := allowedBy("wild", "a.example.com")
	b, byB := allowedBy("wild", "b.example.com")
	first, second := n.Of(a, byA, false), n.Of(b, byB, false)
	if first < FirstName || second < FirstName || first == second || n.Of(a, byA, false) != first {
		t.Fatalf("numbers %d and %d", first, second)
	}
	api := egress.Conn{Proto: egress.HTTPS, API: true, Literal: true}
	third := n.Of(api, egress.Verdict{Action: egress.Allow, Reason: egress.ByAPIServerAddress, Rule: &egress.Rule{ID: "api"}}, false)
	f.WriteString(`{"number":8388700,"rule":"wi`) // the power failed
	again := reread(t, &f)
	for number, want := range map[uint32]Decided{
		first:  {"wild", a.Name, egress.HTTPS, egress.ByNameRule, false, false},
		second: {"wild", b.Name, egress.HTTPS, egress.ByNameRule, false, false},
		third:  {"api", egress.Name{}, egress.HTTPS, egress.ByAPIServerAddress, true, true},
	} {
		if got, ok := again.Decided(number); !ok || got != want {
			t.Errorf("%d is %+v, %t; want %+v", number, got, ok, want)
		}
	}
	if got := again.Of(a, byA, false); got != first {
		t.Errorf("the same name has the number %d, had %d", got, first)
	}
	if err := again.Open(f.renew); err != nil {
		t.Fatal(err)
	}
	c, byC := allowedBy("wild", "c.example.com")
	if got := again.Of(c, byC, false); got <= third+100 {
		t.Errorf("a new name has the number %d, and a live connection may have it", got)
	}
	if reread(t, &f).Len() != 4 {
		t.Errorf("the file is %q", f.String())
	}
}

func TestWhatNoNameAllowsHasNoNumber(t *testing.T) {
	n := namesIn(t, &file{})
	for _, tt := range []struct {
		why    string
		change func(*egress.Conn, *egress.Verdict)
	}{
		{"a denial", func(_ *egress.Conn, v *egress.Verdict) { v.Action = egress.Deny }},
		{"an address rule, whatever name was shown", func(_ *egress.Conn, v *egress.Verdict) { v.Reason = egress.ByAddressRule }},
		{"a TCP rule for a name that the address has", func(c *egress.Conn, _ *egress.Verdict) { c.Proto = egress.TCP }},
		{"no name was shown", func(c *egress.Conn, _ *egress.Verdict) { c.Name = egress.Name{} }},
		{"no rule", func(_ *egress.Conn, v *egress.Verdict) { v.Rule = nil }},
	} {
		c, v := allowedBy("r", "a.example.com")
		tt.change(&c, &v)
		if got := n.Of(c, v, true); got != 0 {
			t.Errorf("%s: %d", tt.why, got)
		}
	}
}

func TestInventedNamesLeaveRoomForOthers(t *testing.T) {
	n := namesIn(t, &file{})
	fill := func(rule string, names int) (numbers int) {
		for i := range names {
			if c, v := allowedBy(rule, fmt.Sprintf("n%d.%s.example", i, rule)); n.Of(c, v, false) != 0 {
				numbers++
			}
		}
		return numbers
	}
	if got := fill("r0", maxInventedRule+10); got != maxInventedRule {
		t.Errorf("one rule's names have %d numbers, want %d", got, maxInventedRule)
	}
	for i := range 2 * maxInvented / maxInventedRule {
		fill(fmt.Sprint("r", i), maxInventedRule)
	}
	if n.Len() != maxInvented {
		t.Errorf("%d have a number, want %d", n.Len(), maxInvented)
	}
	c, v := allowedBy("exact", "a.example.com")
	if n.Of(c, v, true) == 0 {
		t.Error("a name that a rule spells out has none")
	}
}

func TestNamesAreForgottenWhenNothingLivesThatNeedsThem(t *testing.T) {
	var f file
	n := namesIn(t, &f)
	a, byA := allowedBy("wild", "a.example.com")
	b, byB := allowedBy("wild", "b.example.com")
	kept, gone := n.Of(a, byA, false), n.Of(b, byB, false)
	for look := range idleLooks + 1 {
		if _, ok := n.Decided(gone); !ok {
			t.Fatalf("forgotten at look %d, when its connection may be too young to be listed", look)
		}
		if err := n.Forget(map[uint32]bool{kept: true}, f.renew); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*Names{n, reread(t, &f)} {
		_, has := n.Decided(kept)
		if _, had := n.Decided(gone); !has || had || n.Len() != 1 || n.all != 1 {
			t.Errorf("the one in use is there: %t; the other: %t; %d are", has, had, n.Len())
		}
	}
	if again := n.Of(b, byB, false); again == gone || again == kept {
		t.Errorf("%d is given again at once", again)
	}
}

func TestANameThatCannotBeWrittenDownHasNoNumber(t *testing.T) {
	var f file
	n := namesIn(t, &f)
	a, byA := allowedBy("wild", "a.example.com")
	b, byB := allowedBy("wild", "b.example.com")
	first := n.Of(a, byA, false)
	f.full = true
	if got := n.Of(b, byB, false); got != 0 {
		t.Errorf("%d", got)
	}
	f.full = false
	if got := n.Of(b, byB, false); got != 0 {
		t.Errorf("%d is written behind half a line", got)
	}
	if n.Of(a, byA, false) != first {
		t.Error("one that has a number lost it")
	}
	if err := n.Forget(map[uint32]bool{first: true}, f.renew); err != nil {
		t.Fatal(err)
	}
	if n.Of(b, byB, false) == 0 || reread(t, &f).Len() != 2 {
		t.Errorf("the file is begun anew: %q", f.String())
	}
	var none Names
	if none.Of(a, byA, true) != 0 {
		t.Error("without a file there is a number")
	}
}

func TestANumberOfWhichNothingIsKnownIsNotGivenAgain(t *testing.T) {
	n := namesIn(t, &file{})
	n.Reserve(map[uint32]bool{0: true, 7: true, FirstName: true, FirstName + 1: true})
	a, byA := allowedBy("wild", "a.example.com")
	if got := n.Of(a, byA, false); got != FirstName+2 {
		t.Errorf("%d", got)
	}
	if d, ok := n.Decided(FirstName); ok {
		t.Errorf("%+v is made up", d)
	}
}

func TestNamesWrap(t *testing.T) {
	n := namesIn(t, &file{})
	n.Reserve(map[uint32]bool{FirstName: true, lastName: true})
	a, byA := allowedBy("wild", "a.example.com")
	if got := n.Of(a, byA, false); got != FirstName+1 {
		t.Errorf("%d", got)
	}
}

func TestNamesRefuse(t *testing.T) {
	const good = `{"number":8388608,"rule":"r","name":"a.example","proto":"https","reason":"name-rule"}` + "\n"
	for _, tt := range []struct{ in, hint string }{
		{"{\n", "unexpected end"},
		{strings.Replace(good, "8388608", "8388607", 1), "not complete"},
		{strings.Replace(good, "8388608", "16777216", 1), "not complete"},
		{strings.Replace(good, "https", "tcp", 1), "not complete"},
		{strings.Replace(good, `"r"`, `""`, 1), "not complete"},
		{strings.Replace(good, `"name":"a.example",`, "", 1), "not complete"},
		{strings.Replace(good, "a.example", "a..example", 1), "name"},
		{strings.Replace(good, "name-rule", "luck", 1), "reason"},
		{good + strings.Replace(good, "a.example", "b.example", 1), "twice"},
		{good + strings.Replace(good, "8388608", "8388609", 1), "twice"},
	} {
		if _, err := ReadNames(strings.NewReader(tt.in)); err == nil || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("%s: %v, want %q", tt.in, err, tt.hint)
		}
	}
	if _, err := ReadNames(strings.NewReader(good)); err != nil {
		t.Error(err)
	}
}

// What a number stands for must be enough for the same policy to permit its connection again: a reload that changes nothing
// cuts nothing.
func TestANamedConnectionIsJudgedByItsName(t *testing.T) {
	n := namesIn(t, &file{})
	c, err := egress.ParseConn("https 10.224.0.4:1 > 20.1.2.3:443 a.example.com")
	if err != nil {
		t.Fatal(err)
	}
	c.Bound = []egress.Name{c.Name}
	p := policyOf(t, "wild https://*.example.com:443")
	number := n.Of(c, p.Decide(c), false)
	d, ok := n.Decided(number)
	if !ok {
		t.Fatal("it has no number")
	}
	ends := egress.Conn{Proto: egress.TCP, Src: c.Src, Dst: c.Dst}
	never := func(uint32) bool { return false }
	l := Live{d.Conn(ends), number}
	if !l.Permitted(p, never) {
		t.Errorf("%v is not permitted any more", l)
	}
	if l.Permitted(policyOf(t, "wild https://*.example.org:443"), never) {
		t.Error("permitted by a policy that denies it")
	}
}

// FuzzReadNames holds what is read against what is read again once it has been written.
func FuzzReadNames(f *testing.F) {
	f.Add([]byte(`{"number":8388608,"rule":"r","name":"a.example","proto":"https","reason":"name-rule","invented":true}` + "\n"))
	f.Add([]byte(`{"number":8388609,"rule":"r","proto":"http","reason":"api-server-address","api":true,"literal":true}` + "\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ReadNames(bytes.NewReader(b))
		if err != nil {
			return
		}
		var out file
		if err := n.Open(out.renew); err != nil {
			t.Fatal(err)
		}
		again := reread(t, &out)
		if again.Len() != n.Len() || again.all != n.all {
			t.Fatalf("%d and %d of them invented; read again, %d and %d\n%q", n.Len(), n.all, again.Len(), again.all, out.String())
		}
		for number, e := range n.decided {
			if d, ok := again.Decided(number); !ok || d != e.decided {
				t.Errorf("%d: %+v; read again, %+v", number, e.decided, d)
			}
		}
	})
}
