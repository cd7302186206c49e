//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// byHand is the line below which a report belongs to people: what stands there is kept.
const byHand = "<!-- What follows is written by hand and kept. -->"

// reasons say why a goal is not met; they are printed only beside one that is not. They hold what is known by construction,
// or from another figure on the page.
var reasons = map[string]string{
	"P1":  "an undecided packet is copied to the process and its verdict back. SYN, SYN-ACK, hello and the server's answer are all looked at, because the hello is held until it is complete and the connection until the server has confirmed it. Both ends of it are also told to conntrack's listeners and written to the flow log (P13 has its share).",
	"P2":  "the rate follows from the CPU a connection (P1): client, server and gateway share the cores.",
	"P3":  "one connection at a time waits for the CPU time of its four visits (P1), which share nothing then, and for two wake-ups of the process; where the cores are busy the process waits for one as everybody does, and a kernel path does not.",
	"P4":  "a decided packet passes a few loads more than one of a bare SNAT. The socket of the table is kept here as systemd keeps it; where nobody does, or before Linux 6.9, its way is looked up through policy rules besides, there and back, and a datagram costs 1.06 to 1.15 of SNAT's.",
	"P5":  "as P4. A datagram has no segmentation offload that several could share.",
	"P6":  "a name is kept in a slot of 32 bytes of a table that is at most half full; the rest is what reading the file has left, and what the runtime keeps ready.",
	"P7":  "an address is in the kernel's sets, the journal and the bindings before its answer leaves.",
	"P8":  "nothing is kept for a decided connection, which a test holds (gateway/memory_test.go). The heap is what a collection of garbage leaves of it when all that has a bound is full, and two of them differ by some hundred kilobytes.",
	"P9":  "four fifths of a cached answer's time are the kernel's, most of it sending; reading and sending go in batches already. Questions and answers pass the gateway's rules, which have a sixteenth of the server's time, where the others are asked in a namespace without any. A sixth is for waking clients that sleep, twice what a server with a thread for each core pays, which leaves them no idle core to sleep on.",
	"P10": "a changed file is read and compiled as a whole, which is linear in its length, and DNS learns of it with the rest.",
	"P11": "a refused connection has been forwarded up to its hello, and both of its ends have to be told; a relay refuses before it has opened anything to the server. What a flood does to others is told beside what it does to them without the gateway: who floods, who is flooded and the packets in between need the same cores.",
	"P13": "a record is made and written at each connection's begin and end.",
}

// report writes the page, with its plots in files beside it.
func (r *Results) report(path string) error {
	kept := ""
	if old, err := os.ReadFile(path); err == nil {
		if _, after, ok := strings.Cut(string(old), byHand); ok {
			kept = after
		}
	}
	var b bytes.Buffer
	r.head(&b)
	r.goals(&b)
	failed := removePlots(path)
	for i, t := range r.Tables {
		if i == 0 || r.Tables[i-1].Test != t.Test {
			fmt.Fprintf(&b, "\n## %s: %s\n", t.Test, subjects[t.Test])
			if r.loud(t.Test) {
				fmt.Fprintf(&b, "\n**Others used up to %.0f %% of the machine meanwhile, in the quietest rounds there were: these are indications, not results.**\n", 100*r.Heard[t.Test])
			}
		}
		fmt.Fprintf(&b, "\n### %s\n\n", strings.ToUpper(t.Title[:1])+t.Title[1:])
		name := fmt.Sprintf("performance-%s-%d.svg", strings.ToLower(t.Test), i)
		if svg := bars(t); svg != "" {
			failed = errors.Join(failed, os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(svg), 0o644))
			fmt.Fprintf(&b, "![%s](%s)\n\n", t.Title, name)
		}
		t.markdown(&b)
	}
	fmt.Fprintf(&b, "\n%s%s", byHand, kept)
	return errors.Join(failed, os.WriteFile(path, b.Bytes(), 0o644))
}

// removePlots removes those of an earlier page: their numbers mean other tables now.
func removePlots(path string) error {
	old, err := filepath.Glob(filepath.Join(filepath.Dir(path), "performance-*.svg"))
	for _, plot := range old {
		err = errors.Join(err, os.Remove(plot))
	}
	return err
}

var subjects = map[string]string{
	"T1": "new connections", "T2": "bulk", "T3": "latency", "T4": "established flows", "T5": "HTTP", "T7": "DNS", "T8": "datagrams",
	"T9": "refusals and floods", "T10": "size", "T11": "reloads", "P10": "changes", "P13": "the flow log",
}

func (r *Results) head(b *bytes.Buffer) {
	m := r.Machine
	fmt.Fprintf(b, "# Performance\n\nWritten by `make bench`, which anyone can run (root, Linux, %s). On %d cores (%s), %d MB, Linux %s, %s, commit %s, %s, in %s.\n\n",
		"ten minutes to a quarter of an hour", m.CPUs, m.CPU, m.MemoryMB, m.Kernel, m.Go, r.Commit, r.Date.Format("2006-01-02 15:04 MST"), time.Duration(r.Seconds*float64(time.Second)).Round(time.Second))
	switch {
	case r.Quick:
		b.WriteString("**A quick run: it shows that everything works. Its times mean nothing.**\n\n")
	case r.Foreign >= 1:
		fmt.Fprintf(b, "**Others used up to %.0f %% of the machine meanwhile, and no round was repeated for it: these are indications, not results.**\n\n", 100*r.Worst)
	default:
		fmt.Fprintf(b, "%d rounds were discarded and repeated because others used more than %.0f %% of the machine; in those kept it was %.0f %% at most.\n\n", r.Discarded, 100*r.Foreign, 100*r.Worst)
	}
	b.WriteString(`How it is measured: client, gateway, router and server are four network namespaces in a row, one such row a mode, all on this
machine. The first figure is always **CPU time of everything together** (client, server, kernel, gateway) a connection: it depends
far less on what else runs than a rate does, and what the load itself costs falls out where modes are compared. Rounds go through all
modes and back (plain, X, Y, Y, X, plain); a comparison is the median of the rounds' own ratios or differences, with the
interval of 95 % of 2,000 resamplings in brackets. Every mode has the same policy of 5,000 names (` + "`bench/policy.go`" + `) and writes a log of
every connection; Tidegate has what an AKS cluster needs on top, and its table's socket is kept as systemd keeps it. The load speaks real ClientHellos and does no cryptography, which would
hide the network's cost. Peers are Debian's, configured in ` + "`bench/peers.go`" + ` and ` + "`bench/names.go`" + `. What must be zero (failed connections, packets
that a queue dropped, conntrack insertions that failed, log records lost) is looked at after each part of a round.

`)
	if len(r.Violations) == 0 {
		b.WriteString("**All of it was zero.**\n\n")
	} else {
		b.WriteString("What was not zero:\n\n| test | mode | what |\n|---|---|---|\n")
		for _, v := range r.Violations {
			fmt.Fprintf(b, "| %s | %s | %s |\n", v.Test, v.Mode, v.What)
		}
		b.WriteString("\n")
	}
	for _, m := range r.Missing {
		fmt.Fprintf(b, "Not measured: %s.\n\n", strings.ReplaceAll(m, "\n", " "))
	}
}

// goals is the table of goals, and why those that are not met are not.
func (r *Results) goals(b *bytes.Buffer) {
	b.WriteString("## Goals\n\n| goal | | wanted | measured | met |\n|---|---|---|---|---|\n")
	missed := []string{}
	goals := slices.Clone(r.Goals)
	order := func(g Goal) int { n, _ := strconv.Atoi(g.ID[1:]); return n }
	slices.SortStableFunc(goals, func(a, c Goal) int { return order(a) - order(c) })
	for _, g := range goals {
		sign, met := "≥", "**no**"
		if g.AtMost {
			sign = "≤"
		}
		if g.Met {
			met = "yes"
		} else if len(missed) == 0 || missed[len(missed)-1] != g.ID {
			missed = append(missed, g.ID)
		}
		measured := g.Figure.String()
		if r.loud(g.Test) {
			measured += fmt.Sprintf(", others used %.0f %%", 100*r.Heard[g.Test])
		}
		fmt.Fprintf(b, "| %s | %s | %s %s %s | %s | %s |\n", g.ID, g.Text, sign, number(g.Limit), g.Unit, measured, met)
	}
	if len(missed) > 0 {
		b.WriteString("\nWhy those that are not met are not:\n\n")
	}
	seen := map[string]bool{}
	for _, id := range missed {
		if reasons[id] != "" && !seen[id] {
			fmt.Fprintf(b, "* **%s**: %s\n", id, reasons[id])
		}
		seen[id] = true
	}
}

func (t *Table) markdown(b *bytes.Buffer) {
	b.WriteString("| |")
	for _, c := range t.Columns {
		fmt.Fprintf(b, " %s |", strings.TrimSuffix(c.Name+", "+c.Unit, ", "))
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(t.Columns)) + "\n")
	for _, row := range t.Rows {
		fmt.Fprintf(b, "| %s |", row.Name)
		for _, f := range row.Figures {
			if f == nil {
				b.WriteString(" – |")
				continue
			}
			fmt.Fprintf(b, " %s |", f)
		}
		b.WriteString("\n")
	}
	if t.Note != "" {
		fmt.Fprintf(b, "\n%s\n", t.Note)
	}
}
