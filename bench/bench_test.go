//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire"
)

func TestIntervalHoldsTheMedian(t *testing.T) {
	for name, values := range map[string][]float64{
		"one round":      {3},
		"the same":       {2, 2, 2, 2},
		"one far away":   {1, 1.1, 0.9, 1, 50},
		"an even number": {1, 2, 3, 4},
	} {
		f := figure(values)
		if f.Low > f.Median || f.Median > f.High || f.Rounds != len(values) {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if f := figure([]float64{1, 1.1, 0.9, 1, 50}); f.Median != 1 {
		t.Errorf("one far away moves the median to %v", f.Median)
	}
	if f := figure(nil); f.Rounds != 0 || f.String() != "–" {
		t.Errorf("nothing measured is %v", f)
	}
}

func TestTheQuietestRoundsAreKept(t *testing.T) {
	loud := func(foreign ...float64) (all []round) {
		for _, f := range foreign {
			all = append(all, round{"plain": {foreign: f}, "tidegate": {foreign: f / 2}})
		}
		return all
	}
	for _, tt := range []struct {
		measured, kept []float64
	}{
		{[]float64{0.01, 0.02, 0.01}, []float64{0.01, 0.02, 0.01}},
		{[]float64{0.5, 0.02, 0.3, 0.01, 0.02}, []float64{0.02, 0.01, 0.02}},
		{[]float64{0.5, 0.4, 0.3, 0.3, 0.3, 0.6}, []float64{0.3, 0.3, 0.3}},
	} {
		var kept []float64
		for _, r := range quietest(loud(tt.measured...), 3) {
			kept = append(kept, r.foreign())
		}
		if !slices.Equal(kept, tt.kept) {
			t.Errorf("of %v: %v, want %v", tt.measured, kept, tt.kept)
		}
	}
}

func TestNamesAskedForOnceAreSoonOver(t *testing.T) {
	for name, want := range map[string]uint32{"once-7.zone-1.cloud1.example.": 1, "oNCe-7.zOne-1.cloud1.example.": 1, "app.zone-1.cloud1.example.": 3600} {
		if got := ttlOf(name); got != want {
			t.Errorf("%s: %d s, want %d", name, got, want)
		}
	}
}

func TestHellosAreWhatTheyAreCalled(t *testing.T) {
	p := newPolicy(100)
	for _, size := range []int{0, 277, 517, mainHello, 4096, 16384} {
		for _, name := range p.hot(8) {
			b := helloOf(name, size)
			if size > 300 && len(b) != size {
				t.Errorf("asked for %d bytes: %d", size, len(b))
			}
			hello, err := wire.ReadClientHello(b)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if hello.ServerName != name {
				t.Errorf("%d bytes: asks for %q, want %q", size, hello.ServerName, name)
			}
		}
	}
}

// A peer must not be measured with another policy: the hot names are permitted by what is written for each.
func TestHotNamesAreInThePolicy(t *testing.T) {
	p := newPolicy(100)
	var patterns []egress.Pattern
	for _, e := range p.endpoints(false) {
		endpoint, err := egress.ParseEndpoint(strings.Trim(e, `"`))
		if err != nil {
			t.Fatal(err)
		}
		patterns = append(patterns, endpoint.Host.(egress.Pattern))
	}
	for _, name := range p.hot(64) {
		found := 0
		for _, pattern := range patterns {
			if pattern.Match(egress.MustParseName(name)) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s is in %d rules", name, found)
		}
	}
}

func TestReportKeepsWhatPeopleWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(path, []byte("old\n"+byHand+"\n\n## By hand\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(filepath.Dir(path), "performance-t9-14.svg")
	if err := os.WriteFile(stale, []byte("<svg/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := Results{Violations: []Violation{{"T1", "tidegate", "1 failed"}}}
	table := r.table("T1", "connections", Column{"CPU", "µs"}, Column{"÷ plain", ""})
	one, two := figure([]float64{100}), figure([]float64{130, 131})
	table.row("plain forwarding", &one, nil)
	table.row("Tidegate & co", &two, &one)
	r.atMost("P1", "CPU", 30, "µs", one)
	r.atLeast("P2", "rate", 0.85, "", one)
	if err := r.report(path); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| P1 | CPU | ≤ 30.0 µs | 100 (100–100) | **no** |", "| P2 | rate | ≥ 0.85  | 100 (100–100) | yes |",
		"| plain forwarding | 100 (100–100) | – |", "| T1 | tidegate | 1 failed |", "## By hand", "* **P1**: ",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the plot of an earlier page: %v, want that it is gone", err)
	}
	svg, err := os.ReadFile(filepath.Join(filepath.Dir(path), "performance-t1-0.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is not XML: %v", err)
		}
	}
}

func TestResultsAreJSONWithoutWhatIsNotANumber(t *testing.T) {
	r := Results{}
	table := r.table("T1", "x", Column{"y", ""})
	f := figure([]float64{1, 2})
	table.row("a", &f)
	if _, err := json.Marshal(r); err != nil {
		t.Fatal(err)
	}
}
