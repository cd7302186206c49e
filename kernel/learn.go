package kernel

import (
	"time"

	"tidegate.io/tidegate/egress"
)

const (
	// maxLearned bounds each set of learned addresses: ten thousand names
	// under wildcards, with some addresses each, have room.
	maxLearned = 262144

	// observedPrefix begins the reports and counters of what was let through.
	observedPrefix = "observed."
)

// learnedUse is a name of a TCP or UDP rule, and the pair of sets that hold its
// addresses.
type learnedUse struct {
	scope   string
	pattern egress.Pattern
	sets    string
	mark    Mark
}

// Learn returns what to open for a DNS answer: none when no TCP or UDP rule has
// the name, or when the address is guarded, which no name may lead to. now is the
// time from which b.Expires is reckoned.
func (rs *Ruleset) Learn(b egress.Binding, now time.Time) (elements []Element) {
	left := b.Expires.Sub(now)
	addr := b.Addr.Unmap()
	if left <= 0 || egress.Guarded(addr) {
		return nil
	}
	family := families[0]
	if addr.Is6() {
		family = families[1]
	}
	for _, u := range rs.learned {
		if u.scope != b.Scope || !u.pattern.Match(b.Name) {
			continue
		}
		e := Element{Set: u.sets + "." + family.name, Addr: addr, Mark: u.mark, Timeout: left}
		if !has(elements, e.Set) {
			elements = append(elements, e)
		}
	}
	return elements
}

func has(elements []Element, set string) bool {
	for _, e := range elements {
		if e.Set == set {
			return true
		}
	}
	return false
}
