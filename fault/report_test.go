//go:build linux

package fault

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }

func TestGapIsTheLongestTimeWithoutASuccess(t *testing.T) {
	for _, row := range []struct {
		what     string
		ends     []int // milliseconds
		from, to int
		want     int
	}{
		{"nothing succeeds", nil, 0, 500, 500},
		{"one in the middle", []int{200}, 0, 500, 300},
		{"at the beginning", []int{400, 450}, 0, 500, 400},
		{"what succeeded before does not count", []int{-300, -100}, 0, 500, 500},
		{"nor what does afterwards", []int{100, 900}, 0, 500, 400},
		{"in any order", []int{450, 100, 300}, 0, 500, 200},
	} {
		var l latencies
		for _, end := range row.ends {
			l.all = append(l.all, sample{at(end - 10), 10 * time.Millisecond})
		}
		if got := l.gap(at(row.from), at(row.to)); got != time.Duration(row.want)*time.Millisecond {
			t.Errorf("%s: %v, want %d ms", row.what, got, row.want)
		}
	}
}

func TestP99IsOfWhatBeganMeanwhile(t *testing.T) {
	var l latencies
	for i := range 200 {
		l.all = append(l.all, sample{at(i), time.Duration(i) * time.Millisecond})
	}
	if got := l.p99(at(0), at(100)); got != 98*time.Millisecond {
		t.Errorf("%v", got)
	}
	if got := l.p99(at(1000), at(2000)); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestTrendIsNotMovedByOneSample(t *testing.T) {
	var flat, rising []size
	for i := range 100 {
		x := size{at: time.Duration(i) * time.Minute, memory: 1000}
		if i == 50 {
			x.memory = 1e9
		}
		flat = append(flat, x)
		x.memory = 1000 + float64(i)
		rising = append(rising, x)
	}
	of := func(x size) float64 { return x.memory }
	if got := trend(flat, of); got.PerHour != 0 || got.Start != 1000 || got.End != 1000 || got.Most != 1e9 {
		t.Errorf("flat: %+v", got)
	}
	if got := trend(rising, of); got.PerHour < 59.9 || got.PerHour > 60.1 {
		t.Errorf("one a minute: %+v", got)
	}
	random := rand.New(rand.NewPCG(1, 2))
	noisy := slices.Clone(flat)
	for i := range noisy {
		noisy[i].memory = 1000 + random.NormFloat64()
	}
	if got := trend(noisy, of); got.Low >= 0 || got.High <= 0 || got.High-got.Low > 10 {
		t.Errorf("flat, with noise: %+v", got)
	}
	for i := range noisy {
		noisy[i].memory += float64(i)
	}
	if got := trend(noisy, of); got.Low < 55 || got.High > 65 {
		t.Errorf("one a minute, with noise: %+v", got)
	}
}

// TestTrendsAreNotOfTheBeginning, in which a process grows.
func TestTrendsAreNotOfTheBeginning(t *testing.T) {
	var all []size
	for at := time.Duration(0); at < settling; at += time.Second {
		all = append(all, size{at: at})
	}
	if got := steady(all); len(got) != 0 {
		t.Errorf("of a process that is young there are %d looks", len(got))
	}
	all = append(all, size{at: settling}, size{at: settling + time.Minute})
	if got := steady(all); len(got) != 2 || got[0].at != settling {
		t.Errorf("%d looks", len(got))
	}
}

// TestABagHasEachFaultOnce, before it has one again.
func TestABagHasEachFaultOnce(t *testing.T) {
	b := bag{random: rand.New(rand.NewPCG(1, 2)), rows: []Row{{Name: "a"}, {Name: "b"}, {Name: "c"}}, made: map[string]int{}}
	any := func(*Row) bool { return true }
	for range 2 {
		for range b.rows {
			b.take(any)
		}
		if b.made["a"] != b.made["b"] || b.made["b"] != b.made["c"] {
			t.Errorf("made: %v", b.made)
		}
	}
	if r := b.take(func(r *Row) bool { return r.Name == "b" }); r == nil || r.Name != "b" {
		t.Errorf("the only one that may be made: %v", r)
	}
	if r := b.take(func(r *Row) bool { return r.Name == "b" }); r != nil {
		t.Errorf("none may be made, and it is %s", r.Name)
	}
}

func TestReport(t *testing.T) {
	r := NewReport("v1", false, []Result{
		{Row: 1, Name: "kill", OK: true, Established: 64, Evil: 10, New: 20},
		{Row: 9, Name: "flush-dead", OK: true, Lost: 3, MayLose: true, Established: 64},
		{Row: 18, Name: "memory", NotRun: "there is no control group"},
	}, nil)
	if !r.OK || r.Lost != 0 || r.NotRun != 1 {
		t.Errorf("%+v", r)
	}
	var text, table strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteMarkdown(&table); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{text.String(), table.String()} {
		if !strings.Contains(strings.ToLower(s), "not run") || !strings.Contains(s, "there is no control group") {
			t.Errorf("what was not run is not said:\n%s", s)
		}
	}
	if bad := NewReport("v1", false, []Result{{Name: "kill", EvilPassed: 1}}, nil); bad.OK || bad.Evil != 1 {
		t.Errorf("%+v", bad)
	}
	path := filepath.Join(t.TempDir(), "results.json")
	if err := os.WriteFile(path, []byte(`{"attacks": {"ok": true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Save(path); err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Attacks struct{ OK bool }
		Faults  struct{ NotRun int }
	}
	if err := json.Unmarshal(saved, &all); err != nil {
		t.Fatal(err)
	}
	if !all.Attacks.OK || all.Faults.NotRun != 1 {
		t.Errorf("%s", saved)
	}
}

// TestReportKeepsRowsOfBefore: some faults can be made again without the others.
func TestReportKeepsRowsOfBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	soak := &Soaked{OK: true, Seed: 7}
	if err := NewReport("v1", false, []Result{{Name: "flush", OK: true}, {Name: "kill", Lost: 1}}, soak).Save(path); err != nil {
		t.Fatal(err)
	}
	again := NewReport("v1", false, []Result{{Name: "kill", OK: true}}, nil)
	if err := again.Keep(path); err != nil {
		t.Fatal(err)
	}
	if len(again.Rows) != 2 || again.Rows[0].Name != "kill" || again.Lost != 0 || !again.OK || again.Soak == nil {
		t.Errorf("%+v", again)
	}
	if err := again.Keep(filepath.Join(t.TempDir(), "absent")); err != nil {
		t.Error(err)
	}
}

// TestRowsCanBeTold: each has a name of its own, and says what is expected.
func TestRowsCanBeTold(t *testing.T) {
	names := map[string]bool{}
	for _, r := range Rows() {
		if names[r.Name] || r.Name == "" || r.Name == "all" || r.Number == 0 || r.Fault == "" || r.Expect == "" || r.Inject == nil {
			t.Errorf("row %q", r.Name)
		}
		names[r.Name] = true
	}
}
