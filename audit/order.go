package audit

import (
	"fmt"
	"maps"
	"slices"

	"tidegate.io/tidegate/egress"
)

// maxCompared bounds the rules that are compared with each other, which takes
// the square of their number: a policy of this product's limits is below it.
const maxCompared = 4096

// order finds rules that are never asked, since an earlier one matches all that
// they do. Equal permissions are left alone: one destination may be needed for
// several reasons.
func (j *judge) order() {
	switch {
	case j.Format == List:
		return
	case len(j.grants) > maxCompared:
		j.report.Unread = append(slices.Clone(j.report.Unread), fmt.Sprintf("the order of %d destinations: more than %d are not compared with each other", len(j.grants), maxCompared))
		return
	}
	masks := map[int][]string{} // by the network rule's grant
	for _, r := range j.rules() {
		by, ok := j.eclipse(r)
		if !ok {
			continue
		}
		first, g := &j.grants[r[0]], &j.grants[by]
		for _, i := range r {
			j.dead[i] = true
		}
		switch {
		case first.builtin || g.deny && first.deny:
			continue
		case g.tier == networkTier && first.tier == applicationTier:
			masks[by] = append(masks[by], first.at)
			continue
		}
		f := Finding{Kind: Unreachable, Level: Warning, At: first.at, Text: first.text,
			Why: fmt.Sprintf("It is never asked: %s %s %s first.", g.at, verb(g), clip(g.text))}
		if g.deny == first.deny {
			if j.allNeeded(r) {
				continue // a reason of its own
			}
			f.Level = Info
		}
		j.say(f)
	}
	for _, i := range slices.Sorted(maps.Keys(masks)) {
		g := &j.grants[i]
		j.say(Finding{Kind: Masked, Level: Warning, At: g.at, Text: g.text,
			Why: fmt.Sprintf("A network rule is asked before every application rule, and this one %s %s for %s: %d of them are never asked (%s).",
				verb(g), clip(g.text), g.service(), len(masks[i]), list(masks[i]))})
	}
	j.maskedInPart()
}

func (j *judge) allNeeded(rule []int) bool {
	return !slices.ContainsFunc(rule, func(i int) bool { return !j.needed(&j.grants[i]) })
}

func verb(g *grant) string {
	if g.deny {
		return "denies"
	}
	return "permits"
}

// rules are the grants of each rule, as indices.
func (j *judge) rules() [][]int {
	var out [][]int
	place := map[string]int{}
	for i := range j.grants {
		at := j.grants[i].at
		k, ok := place[at]
		if !ok {
			k = len(out)
			place[at] = k
			out = append(out, nil)
		}
		out[k] = append(out[k], i)
	}
	return out
}

// eclipse returns a grant before which the whole rule is never asked.
func (j *judge) eclipse(rule []int) (by int, ok bool) {
	for _, i := range rule {
		g := &j.grants[i]
		by = j.earlier(i, func(h *grant) bool { return h.deny != g.deny || !g.precedes(h) })
		if by < 0 {
			return 0, false
		}
	}
	return by, true
}

// earlier returns the first grant of another rule that matches all that the
// i-th does and satisfies also, or -1.
func (j *judge) earlier(i int, also func(*grant) bool) int {
	g := &j.grants[i]
	for k := range j.grants[:i] {
		if h := &j.grants[k]; h.at != g.at && h.precedes(g) && also(h) {
			return k
		}
	}
	return -1
}

// maskedInPart: a network rule for a service tag on the ports of application
// rules hides them as far as the tag's addresses go.
func (j *judge) maskedInPart() {
	applications := 0
	for _, r := range j.rules() {
		if g := &j.grants[r[0]]; g.tier == applicationTier && !g.deny {
			applications++
		}
	}
	if applications == 0 {
		return
	}
	var said []string
	for _, g := range j.grants {
		if g.tier != networkTier || g.deny || g.to.tag == "" || !g.speaks(egress.HTTPS) || !meet(g.ports, egress.Ports{First: 443, Last: 443}) || slices.Contains(said, g.at) {
			continue
		}
		said = append(said, g.at)
		j.say(Finding{Kind: Masked, Level: Warning, At: g.at, Text: g.text,
			Why: fmt.Sprintf("A network rule is asked before every application rule: to the addresses of %s, names are not looked at on port 443.", g.text)})
	}
}
