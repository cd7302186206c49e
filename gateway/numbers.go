package gateway

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"tidegate.io/tidegate/egress"
)

// MaxNumber is the highest number of a rule. A connection's mark has room for 24 bits, of which the upper half of
// the numbers is for names.
const MaxNumber = 1<<23 - 1

// maxVanished is how many vanished rules keep their number, so that a rule that comes back means
// the connections it allowed before.
const maxVanished = 65536

// Numbers gives each rule the number that its connections carry in their marks. A rule is its
// content: id, clients and destinations; with another content it gets another number, and its old
// connections can be told from the new ones. Numbers are given in turn, so that one is not used
// again while a connection may still carry it. The zero Numbers is empty; Assign is for one
// goroutine at a time, the other methods for many at once.
type Numbers struct {
	mu   sync.Mutex
	all  map[string]numbered // by content
	next uint32
	view atomic.Pointer[numbersView]
}

// numbered is a rule that has a number. Vanished counts the policies since it was in one.
type numbered struct {
	Number   uint32 `json:"number"`
	Rule     string `json:"rule"`
	Content  string `json:"content"`
	Vanished int    `json:"vanished,omitempty"`
}

// numbersView is what readers need, and never changes.
type numbersView struct {
	current  map[*egress.Rule]uint32
	content  map[string]uint32 // every rule, vanished ones too, by content
	byID     map[string]uint32
	byNumber map[uint32]string // every rule's id, vanished ones too
	holds    map[uint32]bool
}

// Assign numbers the rules of a policy that will come into force. It fails when there are more
// rules than numbers.
func (n *Numbers) Assign(p *egress.Policy) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	rules := p.Rules()
	if len(rules)+maxVanished > MaxNumber {
		return fmt.Errorf("number rules: %d are too many", len(rules))
	}
	if n.all == nil {
		n.all = map[string]numbered{}
	}
	for content, e := range n.all {
		e.Vanished++
		n.all[content] = e
	}
	taken := map[uint32]bool{}
	for _, e := range n.all {
		taken[e.Number] = true
	}
	v := &numbersView{current: map[*egress.Rule]uint32{}, content: map[string]uint32{}, byID: map[string]uint32{}, byNumber: map[uint32]string{}, holds: map[uint32]bool{}}
	for i := range rules {
		r := &rules[i]
		content := contentOf(r)
		e, known := n.all[content]
		if !known {
			e = numbered{Number: n.free(taken), Rule: r.ID, Content: content}
			taken[e.Number] = true
		}
		e.Vanished = 0
		n.all[content] = e
		v.current[r], v.byID[r.ID], v.holds[e.Number] = e.Number, e.Number, true
	}
	n.trim(len(rules))
	for _, e := range n.all {
		v.byNumber[e.Number], v.content[e.Content] = e.Rule, e.Number
	}
	n.view.Store(v)
	return nil
}

// lost stands for the rule of a number that a connection carries and nothing tells about.
const lost = "lost"

// Knows reports whether every rule of a policy has its number already, so that Assign gives none.
func (n *Numbers) Knows(p *egress.Policy) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	rules := p.Rules()
	for i := range rules {
		if _, known := n.all[contentOf(&rules[i])]; !known {
			return false
		}
	}
	return true
}

// Reserve keeps numbers that live connections carry from being given to another rule, where
// nothing is known of the rule that had one: the file of numbers was lost, or is older than the
// connection. No rule holds such a number, so the next policy ends its connections. Call it before
// the first Assign that gives a number.
func (n *Numbers) Reserve(live map[uint32]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := map[uint32]bool{0: true}
	for _, e := range n.all {
		known[e.Number] = true
	}
	if n.all == nil {
		n.all = map[string]numbered{}
	}
	found := map[uint32]string{}
	for number := range live {
		if !known[number] && number <= MaxNumber {
			content := fmt.Sprintf("%s %d", lost, number)
			n.all[content] = numbered{Number: number, Rule: lost, Content: content}
			found[number] = lost
		}
	}
	if v := n.view.Load(); v != nil && len(found) > 0 {
		next := *v
		maps.Copy(found, v.byNumber)
		next.byNumber = found
		n.view.Store(&next)
	}
}

// free returns the next number that no rule has.
func (n *Numbers) free(taken map[uint32]bool) uint32 {
	for {
		if n.next++; n.next > MaxNumber {
			n.next = 1
		}
		if !taken[n.next] {
			return n.next
		}
	}
}

// trim forgets the rules that vanished longest ago.
func (n *Numbers) trim(rules int) {
	over := len(n.all) - rules - maxVanished
	if over <= 0 {
		return
	}
	oldest := slices.SortedFunc(maps.Values(n.all), func(a, b numbered) int { return b.Vanished - a.Vanished })
	for _, e := range oldest[:over] {
		delete(n.all, e.Content)
	}
}

func contentOf(r *egress.Rule) string {
	sum := r.Content()
	return hex.EncodeToString(sum[:])
}

// Of returns the number of a rule: quickly for one of the policy assigned last, taken from a Verdict
// or from Policy.Rules, and by its content for one of any policy before, which a connection that
// was decided under it may still need. It is 0 for nil and for what never had a number.
func (n *Numbers) Of(r *egress.Rule) uint32 {
	v := n.view.Load()
	if v == nil || r == nil {
		return 0
	}
	if number, ok := v.current[r]; ok {
		return number
	}
	return v.content[contentOf(r)]
}

// Number returns the number of a rule of the policy assigned last by its id, or 0.
func (n *Numbers) Number(id string) uint32 {
	if v := n.view.Load(); v != nil {
		return v.byID[id]
	}
	return 0
}

// Rule returns the id of the rule that has, or had, a number; "" when that is not known any more.
func (n *Numbers) Rule(number uint32) string {
	if v := n.view.Load(); v != nil {
		return v.byNumber[number]
	}
	return ""
}

// Holds reports whether the rule of this number is in the policy assigned last, unchanged.
func (n *Numbers) Holds(number uint32) bool {
	v := n.view.Load()
	return v != nil && v.holds[number]
}

// numbersJSON is the form in which Numbers outlive the process.
type numbersJSON struct {
	Next  uint32     `json:"next"`
	Rules []numbered `json:"rules"`
}

// MarshalJSON writes what UnmarshalJSON needs to go on with the same numbers.
func (n *Numbers) MarshalJSON() ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rules := slices.SortedFunc(maps.Values(n.all), func(a, b numbered) int { return int(a.Number) - int(b.Number) })
	return json.Marshal(numbersJSON{n.next, rules})
}

// UnmarshalJSON replaces all numbers; they count for the next Assign. It refuses what contradicts
// itself, for a wrong number would let one rule's connections live under another.
func (n *Numbers) UnmarshalJSON(b []byte) error {
	var j numbersJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	all, taken := map[string]numbered{}, map[uint32]string{}
	for _, e := range j.Rules {
		if e.Rule == lost && e.Number > MaxNumber {
			continue // kept by a version that had no names
		}
		other, twice := taken[e.Number]
		switch {
		case e.Number == 0 || e.Number > MaxNumber || e.Content == "" || e.Rule == "" || e.Vanished < 0:
			return fmt.Errorf("rule %q: number %d is not complete", e.Rule, e.Number)
		case twice:
			return fmt.Errorf("rules %q and %q: both have number %d", other, e.Rule, e.Number)
		case all[e.Content].Number != 0:
			return fmt.Errorf("rule %q: has two numbers", e.Rule)
		}
		taken[e.Number], all[e.Content] = e.Rule, e
	}
	if j.Next > MaxNumber {
		return fmt.Errorf("next number %d is over %d", j.Next, MaxNumber)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all, n.next = all, j.Next
	n.view.Store(nil)
	return nil
}
