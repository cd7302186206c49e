package egress

import "slices"

// Slim returns the same policy for whoever only asks it: its rules have no To, which
// is most of the memory that many names take.
func (p *Policy) Slim() *Policy {
	slim := *p
	slim.rules = slices.Clone(p.rules)
	for i := range slim.rules {
		slim.rules[i].To = nil
	}
	return &slim
}

// Whole undoes Slim, with the endpoints of each rule in no order.
func (p *Policy) Whole() *Policy {
	if len(p.rules) == 0 || len(p.rules[0].To) > 0 { // each rule has some, see Compile
		return p
	}
	whole := *p
	whole.rules = slices.Clone(p.rules)
	give := func(list int32, host func(use) Host) {
		for ; list != 0; list = p.uses[list].next {
			u := p.uses[list]
			r := &whole.rules[u.rule]
			r.To = append(r.To, Endpoint{u.proto, host(u), u.ports})
		}
	}
	p.exact.each(func(name string, list int32) {
		give(list, func(use) Host { return Pattern{name} })
	})
	p.below.each(func(zone string, list int32) {
		give(list, func(u use) Host {
			if u.pattern != 0 {
				return p.patterns[u.pattern]
			}
			return Pattern{"*." + zone}
		})
	})
	for t := range p.addrs {
		for i, prefix := range p.addrs[t].prefixes {
			give(p.addrs[t].lists[i], func(use) Host { return Net{prefix} })
		}
	}
	return &whole
}
