package isolated

import (
	"bytes"
	"fmt"
	"strings"
)

// Script returns the steps as a file of sh that stops at the first failure.
// Where something is unsupported it stops before it begins, until that line is
// taken out by whoever knows better. Only what is to do runs: what the
// file shows as done, or cannot show, is a comment.
func (p *Plan) Script() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "#!/bin/sh\n# Isolates the cluster %s. The order matters.\nset -eu\n", p.place.cluster)
	if p.Unsupported() {
		b.WriteString("\n")
		for _, f := range p.Findings {
			if f.Severity == Unsupported {
				fmt.Fprintf(&b, "# unsupported: %s\n", comment(f.Text))
			}
		}
		b.WriteString("echo 'something of this cluster is not supported; see the top of this file' >&2; exit 1\n")
	}
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "\n# %d. %s (%s)\n# %s\n", i+1, s.Title, s.State, comment(s.Why))
		for _, c := range s.Commands {
			if s.State != ToDo {
				c = "# " + c
			}
			fmt.Fprintln(&b, c)
		}
	}
	return b.Bytes()
}

// comment keeps a text on one line: a pool's name with a line's end in it would
// become a command.
func comment(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
