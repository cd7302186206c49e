package kernel

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// String returns the text form: what nft -f reads, with the gate and
// the settings as comments. The queue statement stands for the NFQUEUE target
// too, for which nft has no syntax.
func (rs *Ruleset) String() string {
	var b bytes.Buffer
	b.WriteString("table inet " + tableName + " {\n")
	for _, c := range rs.Counters {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n", c)
	}
	for i := range rs.Sets {
		rs.Sets[i].write(&b)
	}
	for _, c := range rs.Chains {
		c.write(&b)
	}
	b.WriteString("}\n")
	for _, p := range rs.Gate {
		fmt.Fprintf(&b, "# rule: from %s, not fwmark %#x/%#x, not by the machine itself: blackhole (where others can remove the table)\n", p, uint32(seen), uint32(seen))
	}
	for _, s := range rs.Sysctls {
		fmt.Fprintf(&b, "# %s = %s", s.Key, s.Value)
		if s.If != "" {
			fmt.Fprintf(&b, " (where it is %s)", s.If)
		}
		fmt.Fprintf(&b, "  %s\n", s.Why)
	}
	return b.String()
}

func (c *Chain) write(w io.Writer) {
	fmt.Fprintf(w, "\n\tchain %s {\n", c.Name)
	if h := c.Hook; h != nil {
		policy := "accept"
		if h.Drop {
			policy = "drop"
		}
		fmt.Fprintf(w, "\t\ttype %s hook %s priority %d; policy %s;\n", h.Type, h.Name, h.Priority, policy)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(w, "\t\t%s\n", r)
	}
	fmt.Fprint(w, "\t}\n")
}

// String returns the rule in nft's syntax.
func (r Rule) String() string {
	parts := make([]string, len(r))
	for i, s := range r {
		parts[i] = s.text()
	}
	return strings.Join(parts, " ")
}

var keyTexts = [...]string{V4: "ipv4_addr", V6: "ipv6_addr", PortKey: "inet_service"}

func (s *Set) write(w io.Writer) {
	kind, value := "set", ""
	switch s.Kind {
	case Marks:
		kind, value = "map", " : mark"
	case Chains:
		kind, value = "map", " : verdict"
	}
	fmt.Fprintf(w, "\n\t%s %s {\n\t\ttype %s%s\n", kind, s.Name, keyTexts[s.Key], value)
	switch {
	case s.Kind == Rates:
		fmt.Fprintf(w, "\t\tsize %d\n\t\tflags dynamic,timeout\n\t\ttimeout %s\n", maxSources, sourceTimeout)
	case s.Learned:
		fmt.Fprintf(w, "\t\tsize %d\n\t\tflags timeout\n", maxLearned)
	default:
		fmt.Fprint(w, "\t\tflags interval\n")
	}
	if len(s.Ranges) > 0 {
		texts := make([]string, len(s.Ranges))
		for i, r := range s.Ranges {
			texts[i] = r.text(s)
		}
		fmt.Fprintf(w, "\t\telements = { %s }\n", strings.Join(texts, ",\n\t\t\t"))
	}
	fmt.Fprint(w, "\t}\n")
}

func (r *Range) text(s *Set) string {
	key := r.Ports.String()
	if s.Key != PortKey {
		key = r.First.String()
		if r.Last != r.First {
			key += "-" + r.Last.String()
		}
	}
	switch s.Kind {
	case Marks:
		return fmt.Sprintf("%s : %#x", key, uint32(r.Mark))
	case Chains:
		return key + " : goto " + r.Chain
	}
	return key
}
