//go:build linux

package lab

import (
	"bytes"
	"context"
	"fmt"

	"tidegate.io/tidegate/egress"
)

// A tactic is one way to get around a gateway, or one legal oddity that a gateway must not stumble over: what a client
// does on the wire, once as an attacker and once as who has nothing to hide. It is multiplied by the axes that change
// what the wire carries.
type tactic struct {
	name   string // reads on after "a client"
	source string // the standard, the tool or the report that it is from
	axes   axes
	evil   play // what must not reach its server; nil makes the tactic a legal oddity
	twin   play // the same without the lie, which must
	fits   func(shape) bool
	needs  string // of the server's machine; where it lacks that, the attack fails by itself
	quiet  bool   // it may be stopped without a word: the client itself has ended what was permitted
}

// A play is a tactic carried out once.
type play func(ctx context.Context, t *Try, s shape) error

// A shape is one point of the axes.
type shape struct {
	v6   bool
	kind helloKind
	name string // a permitted name, at whose server the evil one is served as well
}

// axes are what a tactic is multiplied by.
type axes uint8

const (
	byFamily    axes = 1 << iota // IPv4 and IPv6
	byHello                      // TLS 1.2, 1.3, and 1.3 with a post-quantum key
	rotating3                    // the kinds of hello in turn instead
	byWebServer                  // the web servers of Go and nginx
)

// A Kind is one family of tactics, in its own file.
type Kind struct {
	Name    string
	Word    string // for the command line
	tactics func() []tactic
}

// Kinds are the families of tactics, in the order of their tables.
func Kinds() []Kind {
	return []Kind{
		{"decoys the server ignores", "decoys", decoys},
		{"segments in odd forms", "segments", segmentTactics},
		{"overlaps and retransmissions", "overlaps", overlapTactics},
		{"IP headers and fragments", "headers", headerTactics},
		{"TLS records", "records", recordTactics},
		{"server names", "names", nameTactics},
		{"second hellos and ECH", "hellos", helloTactics},
		{"addresses of others", "addresses", addressTactics},
		{"HTTP", "http", requestTactics},
		{"DNS", "dns", dnsTactics},
		{"datagrams and tunnels", "datagrams", datagramTactics},
		{"connections half way", "midstream", midstreamTactics},
	}
}

// An Evasion is a tactic in one shape.
type Evasion struct {
	Kind   string
	Name   string // reads on after "a client"
	Source string
	Needs  string // what the server's machine must have, or the attack fails by itself; "" is nothing special
	Evil   *Case  // nil of a legal oddity
	Twin   Case
}

// Evasions multiplies the tactics of some kinds by their axes, for one kind of cable. A quick run takes one shape of each
// tactic, another one for each and for each kind of cable.
func Evasions(kinds []Kind, gso, quick bool) []Evasion {
	var all []Evasion
	turn := 0
	for _, k := range kinds {
		for i, t := range k.tactics() {
			shapes := t.shapes(&turn)
			if quick {
				n := i + i/3 // so that what comes in threes meets all shapes too
				if gso {
					n += (len(shapes) + 1) / 2
				}
				shapes = shapes[n%len(shapes):][:1]
			}
			for _, s := range shapes {
				all = append(all, t.evasion(k.Name, s))
			}
		}
	}
	return all
}

// shapes are all of the tactic's. turn counts on from tactic to tactic, so that every server meets every family and kind.
func (t *tactic) shapes(turn *int) []shape {
	var shapes []shape
	for _, v6 := range []bool{false, true} {
		for kind := range numHelloKinds {
			*turn++
			s := shape{v6: v6, kind: kind, name: frontDoors[(*turn+*turn/int(numHelloKinds))%len(frontDoors)]}
			switch {
			case v6 && t.axes&byFamily == 0, kind > 1 && t.axes&byHello == 0, kind > 0 && t.axes&(byHello|byWebServer) == 0:
				continue
			case t.axes&byWebServer != 0:
				s.name, s.kind = frontDoors[2*int(kind)], tls13
			case t.axes&rotating3 != 0:
				s.kind = helloKind(*turn/int(numHelloKinds)) % numHelloKinds
			}
			if t.fits == nil || t.fits(s) {
				shapes = append(shapes, s)
			}
		}
	}
	return shapes
}

func (t *tactic) evasion(kind string, s shape) Evasion {
	name := t.name
	if t.axes&(byHello|rotating3) != 0 {
		name = fmt.Sprintf("%s, with %s, to %s", name, s.kind, serverOf(s.name))
	}
	if t.axes&byWebServer != 0 {
		name = fmt.Sprintf("%s, to %s", name, serverOf(s.name))
	}
	if t.axes&byFamily != 0 {
		name = fmt.Sprintf("%s, over %s", name, family(s.v6))
	}
	bind := func(p play) func(context.Context, *Try) error {
		return func(ctx context.Context, t *Try) error { return p(ctx, t, s) }
	}
	e := Evasion{Kind: kind, Name: name, Source: t.source, Needs: t.needs}
	e.Twin = Case{Group: kind, Name: name, Run: bind(t.twin)}
	if t.evil != nil {
		e.Evil = &Case{Group: kind, Name: name, Deny: anyDenial, Quiet: true, Run: bind(t.evil)}
	}
	return e
}

// anyDenial marks a case as one that must not pass. For what reason the gateway finds it out is counted, not judged: many
// of these lies can be seen in more than one place.
var anyDenial = []egress.Reason{egress.NameNotAllowed}

// evilName is a name of the attacker's that is exactly as long as a permitted one, with the try's token where it has
// room.
func (t *Try) evilName(permitted string) string {
	const dots = 1
	room := len(permitted) - len(evilSuffix) - dots
	label := []byte(t.Token)
	for len(label) < room {
		label = append(label, 'x')
	}
	return string(label[len(label)-room:]) + "." + evilSuffix
}

// hellos are two hellos, alike to the byte but for the name, and where the name begins in them.
func (t *Try) hellos(s shape) (good, evil []byte, at int) {
	h := sni(s.name)
	h.kind = s.kind
	good = h.record()
	evil = bytes.Replace(good, []byte(s.name), []byte(t.evilName(s.name)), 1)
	return good, evil, bytes.Index(good, []byte(s.name))
}
