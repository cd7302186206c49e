package results_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"tidegate.io/tidegate/internal/results"
)

func TestProofsStandBesideEachOther(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	for _, s := range []struct {
		key   string
		value int
	}{{"attacks", 1}, {"faults", 2}, {"attacks", 3}} {
		if err := results.Save(file, s.key, s.value); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Kind            string
		Attacks, Faults int
	}
	if err := json.Unmarshal(text, &got); err != nil || got.Kind != "Results" || got.Attacks != 3 || got.Faults != 2 {
		t.Errorf("%+v: %v\n%s", got, err, text)
	}
}

func TestWhatIsNoResultsFileIsNotOverwritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "notes.txt")
	if err := os.WriteFile(file, []byte("notes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := results.Save(file, "attacks", 1); err == nil {
		t.Error("no error")
	}
	if text, _ := os.ReadFile(file); string(text) != "notes" {
		t.Errorf("the file holds %q", text)
	}
}
