package kernel

import (
	"time"

	"tidegate.io/tidegate/egress"
)

const (
	// maxLearned bounds each set of learned addresses: twice what names below
	// wildcards may have.
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

// learnedNames finds the uses of a name without a look at all of them.
type learnedNames struct {
	exact    map[egress.Name][]learnedUse
	patterns []learnedUse // those that match more than one name
}

func (l *learnedNames) add(u learnedUse) {
	n, exact := u.pattern.Exact()
	if !exact {
		l.patterns = append(l.patterns, u)
		return
	}
	if l.exact == nil {
		l.exact = map[egress.Name][]learnedUse{}
	}
	l.exact[n] = append(l.exact[n], u)
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
	for _, uses := range [][]learnedUse{rs.learned.exact[b.Name], rs.learned.patterns} {
		for _, u := range uses {
			e := Element{Set: u.sets + "." + family.name, Addr: addr, Mark: u.mark, Timeout: left}
			if u.scope == b.Scope && u.pattern.Match(b.Name) && !has(elements, e.Set) {
				elements = append(elements, e)
			}
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
