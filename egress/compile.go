package egress

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// compiler fills the tables of a policy. The rules and their endpoints are taken
// from the last to the first, so that the first is at the beginning of each list.
type compiler struct {
	*Policy
	uses   uses
	addrs  [2][]netUse
	judged map[judgedKey]use
}

// judgedKey is what one entry of Policy.judged stands for.
type judgedKey struct {
	proto Proto
	ports Ports
	from  string
}

func newCompiler(p *Policy) *compiler {
	p.patterns = make([]Pattern, 1)
	return &compiler{Policy: p, uses: newUses(), judged: map[judgedKey]use{}}
}

func (c *compiler) compile() {
	contents := make([][16]byte, len(c.rules))
	var beside sync.WaitGroup // as much work as all else
	beside.Go(func() {
		for i := range c.rules {
			contents[i] = contentOf(&c.rules[i])
		}
	})
	for i := range slices.Backward(c.rules) {
		c.add(&c.rules[i], int32(i))
	}
	beside.Wait()
	for i := range c.rules {
		c.rules[i].content = contents[i]
	}
	for t := range c.addrs {
		c.Policy.addrs[t] = c.nets(c.addrs[t])
	}
	c.Policy.uses = c.uses.all
	for _, u := range c.judged {
		c.Policy.judged = append(c.Policy.judged, u)
	}
}

func (c *compiler) add(r *Rule, rule int32) {
	from := fmt.Sprint(r.From)
	var last judgedKey
	for _, e := range slices.Backward(r.To) {
		u := use{ports: e.Ports, proto: e.Proto, rule: rule}
		switch h := e.Host.(type) {
		case Net:
			t := transportIndex(e.Proto)
			c.addrs[t] = append(c.addrs[t], netUse{h.Prefix, u})
		case Pattern:
			if !e.Proto.Named() {
				c.byBound[transportIndex(e.Proto)] = true
			} else if key := (judgedKey{e.Proto, e.Ports, from}); key != last {
				c.judged[key], last = u, key
			}
			c.addPattern(h, u)
		}
	}
}

func (c *compiler) addPattern(h Pattern, u use) {
	if n, ok := h.Exact(); ok {
		list := c.exact.put(n.s)
		*list = c.uses.before(u, *list)
		return
	}
	if !h.plain() {
		u.pattern = int32(len(c.patterns))
		c.patterns = append(c.patterns, Pattern{strings.Clone(h.s)}) // h may be part of a whole file's text
	}
	key := h.Fixed().s
	list := c.below.put(key)
	if *list == 0 {
		c.depths |= 1 << min(strings.Count(key, ".")+1, deepest)
	}
	*list = c.uses.before(u, *list)
}

// netUse is a use by address.
type netUse struct {
	prefix netip.Prefix
	use    use
}

func (c *compiler) nets(all []netUse) nets {
	slices.SortStableFunc(all, func(a, b netUse) int {
		if c := a.prefix.Addr().Compare(b.prefix.Addr()); c != 0 {
			return c
		}
		return a.prefix.Bits() - b.prefix.Bits()
	})
	var n nets
	for _, nu := range all {
		last := len(n.prefixes) - 1
		if last >= 0 && n.prefixes[last] == nu.prefix {
			n.lists[last] = c.uses.before(nu.use, n.lists[last])
			continue
		}
		parent := int32(last)
		for parent >= 0 && !n.prefixes[parent].Contains(nu.prefix.Addr()) {
			parent = n.parents[parent]
		}
		n.prefixes = append(n.prefixes, nu.prefix)
		n.parents = append(n.parents, parent)
		n.lists = append(n.lists, c.uses.before(nu.use, 0))
	}
	return n
}
