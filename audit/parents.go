package audit

import (
	"slices"
	"strings"
)

// An Azure Firewall policy may inherit from another. What is inherited comes
// first, whatever its priority: in each tier the rule collection groups of the
// parent are asked before those of the child.

// maxInherited bounds the line of policies; Azure allows a parent and a child.
const maxInherited = 8

// inherits notes that the policy called child has the base of that id, which
// may be empty.
func (p *Policy) inherits(child, base string) {
	if child = lower(lastName(child)); child == "" {
		return
	}
	if p.bases == nil {
		p.bases = map[string]string{}
	}
	p.bases[child] = lower(lastName(base))
}

// groupOf remembers the policies that have groups in the file.
func (p *Policy) groupOf(policy string) string {
	policy = lower(policy)
	if policy != "" && !slices.Contains(p.owners, policy) {
		p.owners = append(p.owners, policy)
	}
	return policy
}

// depth is how many policies stand before one.
func (p *Policy) depth(policy string) int {
	n := 0
	for base := p.bases[policy]; base != "" && n < maxInherited; base = p.bases[base] {
		n++
	}
	return n
}

// lineage puts inherited rules first. It may be called again when more of the line
// of policies is known.
func (p *Policy) lineage() {
	for i := range p.grants {
		p.grants[i].depth = p.depth(p.grants[i].policy)
	}
	inOrder(p.grants)
}

// unknownLineage is what is not known of the line of policies, in sentences.
func (p *Policy) unknownLineage() []string {
	var out, roots []string
	for _, name := range p.owners {
		switch base := p.bases[name]; {
		case base == "":
			roots = append(roots, name)
		case !slices.Contains(p.owners, base):
			out = append(out, "policy "+name+" inherits the rules of "+base+", which come first and are not in the file: give its rule collection groups too")
		}
	}
	if len(roots) > 1 {
		out = append(out, "rule collection groups of several policies ("+list(roots)+"), and which of them inherits from which is not in the file: give the policies too (az network firewall policy show)")
	}
	return out
}

// policyOf is the policy's name in a rule collection group's: "policy/group" in
// a template, and a part of the resource's id elsewhere.
func policyOf(name, id string) string {
	const marker = "/firewallpolicies/"
	if i := strings.Index(lower(id), marker); i >= 0 {
		policy, _, _ := strings.Cut(id[i+len(marker):], "/")
		return policy
	}
	if strings.HasPrefix(name, "[") {
		return "" // an expression, whose parts are only known when it is deployed
	}
	policy, _, found := strings.Cut(name, "/")
	if !found {
		return ""
	}
	return policy
}
