package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"tidegate.io/tidegate/check"
	"tidegate.io/tidegate/egress"
)

// progress is a bar on a terminal, and nothing elsewhere.
type progress struct {
	w            io.Writer
	total, count int
	failed       int
	live         bool
}

func (p *progress) done(r check.Result) {
	p.count++
	if r.Outcome == check.Failed {
		p.failed++
	}
	if !p.live {
		return
	}
	const long = 40
	full := p.count * long / p.total
	fmt.Fprintf(p.w, "\r\x1b[K[%s%s] %d/%d, %d failed", strings.Repeat("#", full), strings.Repeat(".", long-full), p.count, p.total, p.failed)
}

func (p *progress) clear() {
	if p.live {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// checkReport is a report as it is printed.
type checkReport struct {
	check.Report
	title string
	took  time.Duration
}

func (r *checkReport) write(w io.Writer, format string) error {
	var b bytes.Buffer
	var err error
	switch format {
	case "json":
		err = writeJSON(&b, r.document())
	case "junit":
		err = r.junit(&b)
	default:
		r.text(&b, painting(w))
	}
	if err != nil {
		return err
	}
	_, err = w.Write(b.Bytes())
	return err
}

func (r *checkReport) text(w io.Writer, p paint) {
	if r.title != "" {
		fmt.Fprintf(w, "%s\n", p.bold(r.title))
	}
	r.trouble(w, p, check.Failed, p.red("FAILED"))
	r.trouble(w, p, check.Unproven, p.yellow("UNPROVEN"))
	r.passed(w, p)
	if len(r.Skipped) > 0 {
		fmt.Fprintf(w, "\n%s\n", p.bold("NOT TRIED"))
		var rows [][]string
		for _, s := range r.Skipped {
			rows = append(rows, []string{s.Endpoint.String(), s.Rule, s.Because})
		}
		writeColumns(w, "  ", rows)
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d unproven, %d not tried, in %s\n",
		r.Count(check.Passed), r.Count(check.Failed), r.Count(check.Unproven), len(r.Skipped), r.took.Round(10*time.Millisecond))
}

// trouble lists what did not pass, by cause: where it broke, what is likely, and what was seen at each target.
func (r *checkReport) trouble(w io.Writer, p paint, o check.Outcome, title string) {
	if r.Count(o) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", p.bold(title))
	for _, c := range check.Causes() {
		first := true
		for _, x := range r.Results {
			if x.Outcome != o || x.Cause != c {
				continue
			}
			if first {
				where := c.String()
				if s := c.Stage(); s != "" {
					where = s + ": " + where
				}
				fmt.Fprintf(w, "  %s\n    %s\n", p.bold(where), wrap("    ", c.Likely()))
			}
			first = false
			fmt.Fprintf(w, "    - %s  %s\n", p.bold(x.Target.String()), clean(forWhat(x.Target)))
			if x.Detail != "" {
				fmt.Fprintf(w, "      %s\n", wrap("      ", clean(x.Detail)))
			}
		}
	}
}

func forWhat(t check.Target) string {
	switch {
	case t.Forbidden:
		return "must be blocked"
	case len(t.Rules) > 0:
		return "rule " + strings.Join(t.Rules, ", ") + ", " + t.Need.String()
	}
	return t.Why
}

func (r *checkReport) passed(w io.Writer, p paint) {
	if r.Count(check.Passed) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", p.bold(p.green("PASSED")))
	var rows [][]string
	for _, x := range r.Results {
		if x.Outcome != check.Passed {
			continue
		}
		remark := strings.Join(x.Target.Rules, ", ")
		switch {
		case x.Target.Forbidden:
			remark = "blocked, " + x.Cause.String()
		case remark == "":
			remark = clean(x.Target.Why)
		}
		rows = append(rows, []string{x.Target.String(), strconv.FormatInt(x.Took.Milliseconds(), 10) + " ms", remark})
	}
	writeColumns(w, "  ", rows)
}

// checkDocument is a report as JSON.
type checkDocument struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Title      string          `json:"title,omitempty"`
	Outcome    check.Outcome   `json:"outcome"`
	Passed     int             `json:"passed"`
	Failed     int             `json:"failed"`
	Unproven   int             `json:"unproven"`
	Seconds    float64         `json:"seconds"`
	Results    []checkItem     `json:"results"`
	Skipped    []check.Skipped `json:"skipped"`
}

type checkItem struct {
	Target    string          `json:"target"`
	Kind      check.Kind      `json:"kind"`
	Rules     []string        `json:"rules,omitempty"`
	Endpoint  egress.Endpoint `json:"endpoint,omitzero"`
	Image     string          `json:"image,omitempty"`
	Platform  string          `json:"platform,omitempty"`
	Need      egress.Need     `json:"need"`
	Why       string          `json:"why,omitempty"`
	Forbidden bool            `json:"forbidden,omitempty"`
	Outcome   check.Outcome   `json:"outcome"`
	Stage     string          `json:"stage,omitempty"`
	Cause     check.Cause     `json:"cause"`
	Detail    string          `json:"detail,omitempty"`
	Likely    string          `json:"likely"`
	Seconds   float64         `json:"seconds"`
}

func (r *checkReport) document() checkDocument {
	d := checkDocument{
		APIVersion: apiVersion, Kind: "CheckReport", Title: r.title, Outcome: r.Outcome, Passed: r.Count(check.Passed),
		Failed: r.Count(check.Failed), Unproven: r.Count(check.Unproven), Seconds: r.took.Seconds(),
		Results: []checkItem{}, Skipped: append([]check.Skipped{}, r.Skipped...),
	}
	for _, x := range r.Results {
		d.Results = append(d.Results, checkItem{
			Target: x.Target.String(), Kind: x.Target.Kind, Rules: x.Target.Rules, Endpoint: x.Target.Endpoint,
			Image: x.Target.Image, Platform: x.Target.Platform, Need: x.Target.Need, Why: x.Target.Why, Forbidden: x.Target.Forbidden,
			Outcome: x.Outcome, Stage: x.Cause.Stage(), Cause: x.Cause, Detail: x.Detail, Likely: x.Cause.Likely(), Seconds: x.Took.Seconds(),
		})
	}
	return d
}

// junitSuite is the form that CI systems read.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string     `xml:"classname,attr"`
	Name    string     `xml:"name,attr"`
	Time    string     `xml:"time,attr"`
	Failure *junitNote `xml:"failure"`
	Error   *junitNote `xml:"error"`
	Skipped *junitNote `xml:"skipped"`
}

type junitNote struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// junit writes a test case for each target: what failed is a failure, what is unproven an error.
func (r *checkReport) junit(w io.Writer) error {
	seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }
	s := junitSuite{
		Name: "tidegate check", Tests: len(r.Results) + len(r.Skipped), Failures: r.Count(check.Failed), Errors: r.Count(check.Unproven),
		Skipped: len(r.Skipped), Time: seconds(r.took),
	}
	for _, x := range r.Results {
		c := junitCase{Class: forWhat(x.Target), Name: x.Target.String(), Time: seconds(x.Took)}
		note := &junitNote{Message: strings.TrimSuffix(x.Cause.String()+": "+clean(x.Detail), ": "), Type: x.Cause.Stage(), Text: x.Cause.Likely()}
		switch x.Outcome {
		case check.Failed:
			c.Failure = note
		case check.Unproven:
			c.Error = note
		}
		s.Cases = append(s.Cases, c)
	}
	for _, k := range r.Skipped {
		s.Cases = append(s.Cases, junitCase{Class: "rule " + k.Rule, Name: k.Endpoint.String(), Time: "0", Skipped: &junitNote{Message: k.Because}})
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(s); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
