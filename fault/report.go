//go:build linux

package fault

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/results"
)

// A Report is what came of a run, as results.json has it.
type Report struct {
	When    time.Time `json:"when"`
	Machine string    `json:"machine"`
	Version string    `json:"version"`
	Quick   bool      `json:"quick"`
	OK      bool      `json:"ok"`
	Lost    int       `json:"lost"`
	Evil    int64     `json:"evilPassed"`
	NotRun  int       `json:"notRun"`
	Rows    []Result  `json:"rows"`
	Soak    *Soaked   `json:"soak,omitempty"`
}

// NewReport sums results up. version is the program's.
func NewReport(version string, quick bool, rows []Result, soak *Soaked) *Report {
	r := &Report{When: time.Now().UTC().Truncate(time.Second), Machine: machine(), Version: version, Quick: quick, OK: true, Rows: rows, Soak: soak}
	for _, x := range rows {
		if !x.MayLose {
			r.Lost += x.Lost
		}
		r.Evil += x.EvilPassed
		if x.NotRun != "" {
			r.NotRun++
		} else if !x.OK {
			r.OK = false
		}
	}
	if soak != nil && !soak.OK {
		r.OK = false
	}
	return r
}

// Keep adds to the report what an earlier one in a file says of rows that were not run this time, in the table's order,
// and its soak. A report of another machine or of quick faults adds nothing, nor does a missing file.
func (r *Report) Keep(path string) error {
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	var all struct{ Faults Report }
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	old := &all.Faults
	if old.Machine != r.Machine || old.Quick != r.Quick {
		return nil
	}
	by := map[string]Result{}
	for _, x := range slices.Concat(old.Rows, r.Rows) {
		by[x.Name] = x
	}
	var rows []Result
	for _, row := range Rows() {
		if x, ok := by[row.Name]; ok {
			rows = append(rows, x)
		}
	}
	if r.Soak == nil {
		r.Soak = old.Soak
	}
	*r = *NewReport(r.Version, r.Quick, rows, r.Soak)
	return nil
}

// machine says on what it was measured.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Sprintf("%d cores", runtime.NumCPU())
	}
	return fmt.Sprintf("%d cores, Linux %s %s", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]))
}

// Line is a result in one line.
func (r *Result) Line() string {
	mark := "ok "
	switch {
	case r.NotRun != "":
		return fmt.Sprintf("NOT RUN  %2d %-15s %s", r.Row, r.Name, r.NotRun)
	case !r.OK:
		mark = "NO "
	case len(r.Missed) > 0:
		mark = "ok*"
	}
	return fmt.Sprintf("%s %2d %-15s lost %d of %d, new failed %d of %d, evil passed %d of %d, blackout %.0f ms, p99 %.1f → %.1f ms, %.0f s",
		mark, r.Row, r.Name, r.Lost, r.Established, r.NewFailed+r.OthersFailed, r.New, r.EvilPassed, r.Evil, r.BlackoutMS, r.P99BeforeMS, r.P99DuringMS, r.Seconds)
}

// Details are the lines below it: figures, goals in time that were missed, and problems.
func (r *Result) Details() []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(r.Figures)) {
		lines = append(lines, name+": "+r.Figures[name])
	}
	for _, m := range r.Missed {
		lines = append(lines, "* missed: "+m)
	}
	for _, p := range r.Problems {
		lines = append(lines, "PROBLEM: "+p)
	}
	return lines
}

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for i := range r.Rows {
		fmt.Fprintln(&b, r.Rows[i].Line())
		for _, line := range r.Rows[i].Details() {
			fmt.Fprintln(&b, "        "+line)
		}
	}
	if r.Soak != nil {
		b.WriteString(r.Soak.text())
	}
	word := "PASS"
	if !r.OK {
		word = "FAIL"
	}
	fmt.Fprintf(&b, "%s  %d faults; %d established connections lost, %d evil messages passed", word, len(r.Rows)-r.NotRun, r.Lost, r.Evil)
	if r.NotRun > 0 {
		fmt.Fprintf(&b, "; %d NOT RUN on this machine", r.NotRun)
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteMarkdown writes the tables of docs/reliability.md.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s on %s.\n\n", r.When.Format("2006-01-02"), r.Machine)
	b.WriteString("| # | Fault | What has to come of it | Result | Lost | New that failed | Evil that passed | Blackout | p99 before → during |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|\n")
	for i := range r.Rows {
		x := &r.Rows[i]
		if x.NotRun != "" {
			fmt.Fprintf(&b, "| %d | `%s`: %s | %s | **not run**: %s | | | | | |\n", x.Row, x.Name, x.Fault, x.Expect, x.NotRun)
			continue
		}
		result := "as expected"
		if !x.OK {
			result = "**no**: " + strings.Join(x.Problems, "; ")
		} else if len(x.Missed) > 0 {
			result += "; missed: " + strings.Join(x.Missed, "; ")
		}
		times := ""
		if x.Times > 1 {
			times = fmt.Sprintf(", ×%d", x.Times)
		}
		fmt.Fprintf(&b, "| %d | `%s`: %s%s | %s | %s | %d of %d | %d of %d | %d of %d | %.0f ms | %.1f → %.1f ms |\n",
			x.Row, x.Name, x.Fault, times, x.Expect, result, x.Lost, x.Established, x.NewFailed+x.OthersFailed, x.New, x.EvilPassed, x.Evil, x.BlackoutMS, x.P99BeforeMS, x.P99DuringMS)
	}
	b.WriteString("\n")
	for i := range r.Rows {
		x := &r.Rows[i]
		for _, name := range slices.Sorted(maps.Keys(x.Figures)) {
			fmt.Fprintf(&b, "- `%s`: %s: %s\n", x.Name, name, x.Figures[name])
		}
	}
	if r.Soak != nil {
		b.WriteString("\n" + r.Soak.markdown())
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Save puts the report under the key "faults" of a file that other proofs write to as well.
func (r *Report) Save(path string) error { return results.Save(path, "faults", r) }
