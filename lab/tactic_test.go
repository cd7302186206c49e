//go:build linux

package lab

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
)

// tacticTable is the part of docs/security.md that says what is tried.
func tacticTable() string {
	var b strings.Builder
	attacks, odd := 0, 0
	for _, k := range Kinds() {
		fmt.Fprintf(&b, "\n**%s** (`--only %s`)\n\n| a client … | known from | attacks | legal |\n|---|---|---:|---:|\n", k.Name, k.Word)
		for _, t := range k.tactics() {
			const cables = 2 // with offloads and without
			turn := 0
			n := cables * len(t.shapes(&turn))
			evil := 0
			if t.evil != nil {
				evil = n
			} else {
				odd += n
			}
			attacks += evil
			fmt.Fprintf(&b, "| %s | %s | %d | %d |\n", t.name, t.source, evil, n)
		}
	}
	return fmt.Sprintf("%d attacks, each with its honest twin, and %d legal oddities:\n", attacks, odd) + b.String()
}

func TestTheSecurityPageListsEveryTactic(t *testing.T) {
	const page, begin, end = "../docs/security.md", "<!-- tactics: go test ./lab -run SecurityPage -update -->\n", "<!-- end -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	want := before + begin + tacticTable() + end + after
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s does not list what is tried; run go test ./lab -run SecurityPage -update", page)
	}
}

func TestTacticsAreSound(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		for _, c := range k.tactics() {
			if seen[k.Word+c.name] {
				t.Errorf("%s: %q is there twice", k.Word, c.name)
			}
			seen[k.Word+c.name] = true
			if c.twin == nil || c.source == "" || strings.ContainsAny(c.name, "|\n") {
				t.Errorf("%s: %q lacks a twin or a source", k.Word, c.name)
			}
			turn := 0
			if len(c.shapes(&turn)) == 0 {
				t.Errorf("%s: %q fits no shape", k.Word, c.name)
			}
		}
	}
}

func TestEvilHellosDifferInTheNameAlone(t *testing.T) {
	try := &Try{Token: newToken()}
	for kind := range numHelloKinds {
		for _, name := range append(frontDoors, "mcr.microsoft.com") {
			good, evil, at := try.hellos(shape{kind: kind, name: name})
			n := len(name)
			if len(good) != len(evil) || !bytes.Equal(good[:at], evil[:at]) || !bytes.Equal(good[at+n:], evil[at+n:]) || bytes.Equal(good, evil) {
				t.Errorf("%s, %s: the hellos differ elsewhere", name, kind)
			}
			if !bytes.HasSuffix(evil[:at+n], []byte("."+evilSuffix)) {
				t.Errorf("%s, %s: the evil name is %q", name, kind, evil[at:at+n])
			}
		}
	}
}

// TestOpenSSLTakesAnotherNameInASecondHello is why the gateway holds on to a connection until its server is past that: the
// claim is checked against OpenSSL's own words.
func TestOpenSSLTakesAnotherNameInASecondHello(t *testing.T) {
	netnstest.Need(t)
	l, err := Start(t.Context(), Config{Dir: t.TempDir(), Peers: true, Clusters: []egress.Cluster{{Name: "test", From: NodeRanges}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if len(l.Missing()) > 0 {
		t.Fatalf("not installed, see scripts/setup: %v", l.Missing())
	}
	s := shape{name: frontDoors[1]}
	var name string
	c := Case{Run: func(ctx context.Context, try *Try) error {
		name = try.evilName(s.name)
		return try.askedAgain(ctx, s, secondHello{}, evilSecond(try, s))
	}}
	if r := l.try(t.Context(), c, l.Node(1), nil); r.Err != nil || !r.Reached {
		t.Fatalf("reached %v: %v", r.Reached, r.Err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, want := range []string{s.name, name} {
		if l.Record.Wait(ctx, func(s *Seen) bool { return s.Proto == "openssl" && s.Name == want }) == nil {
			t.Errorf("OpenSSL does not say that it was shown %s", want)
		}
	}
}
