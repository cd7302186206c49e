package export

import (
	"fmt"
	"strings"

	"tidegate.io/tidegate/egress"
)

// writePaloAlto writes external dynamic lists, one for each service: a list
// holds no ports, so the security rule that uses it has to, and one list for
// two services would let each host through on both.
func writePaloAlto(j *job) []File {
	type edl struct {
		name  string
		lines []string
	}
	var lists []*edl
	add := func(name, line string) {
		for _, l := range lists {
			if l.name == name {
				l.lines = addNew(l.lines, line)
				return
			}
		}
		lists = append(lists, &edl{name, []string{line}})
	}
	for _, g := range j.grants() {
		for _, n := range g.names {
			add(fmt.Sprintf("url-%s-%s.txt", g.proto, g.ports), panURL(n))
		}
		for _, n := range g.nets {
			// What follows the first space of an entry is a comment.
			add(fmt.Sprintf("ip-%s-%s.txt", g.proto, g.ports), n.String()+" "+oneLine(reason(g.rule)))
		}
	}
	var files []File
	for _, l := range lists {
		files = append(files, File{l.name, []byte(strings.Join(l.lines, "\n") + "\n")})
	}
	return files
}

// panURL spells a pattern as an entry of a URL list. There a * is one or more
// labels and a ^ exactly one, and only the slash at the end keeps a name from
// being the beginning of another: without it, older versions let
// mcr.microsoft.com.evil.example through.
func panURL(p egress.Pattern) string {
	labels := strings.Split(p.String(), ".")
	for i, label := range labels {
		if label == "*" && i > 0 {
			labels[i] = "^"
		}
	}
	return strings.Join(labels, ".") + "/"
}
