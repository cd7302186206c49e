package peers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate.io/tidegate/export"
	"tidegate.io/tidegate/export/exporttest"
)

// outputs calls read with every golden file of that name, and with what the
// format writes for the hard policies.
func outputs(t *testing.T, format, name string, read func(policy string, data []byte) error) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "testdata", format, "*", name))
	if err != nil || len(files) < 7 {
		t.Fatalf("golden files of %s: %d, %v", format, len(files), err)
	}
	check := func(policy string, data []byte) {
		t.Run(format+"/"+policy, func(t *testing.T) {
			if err := read(policy, data); err != nil {
				t.Error(err)
			}
		})
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		check(filepath.Base(filepath.Dir(file)), data)
	}
	for policy := range exporttest.Hard() {
		check(policy, written(t, format, name, policy))
	}
}

// written is a file of what a format writes for a hard policy.
func written(t *testing.T, format, name, policy string) []byte {
	t.Helper()
	f, err := export.Find(format)
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.Export(export.Policy{Name: policy, Rules: exporttest.Hard()[policy], From: exporttest.Clients()})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range out.Files {
		if file.Name == name {
			return file.Data
		}
	}
	t.Fatalf("%s writes no %s", format, name)
	return nil
}

// everyShape returns the golden file that holds every shape of rule.
func everyShape(t *testing.T, format, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "testdata", format, "every-shape", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// spoil is one defect that a reader has to find: what stands in a good file,
// and what is put in its first place.
type spoil struct{ good, bad string }

// refuses holds that read takes text, and that it refuses it with each of the
// defects: a reader that takes everything proves nothing.
func refuses(t *testing.T, text string, defects []spoil, read func([]byte) error) {
	t.Helper()
	if err := read([]byte(text)); err != nil {
		t.Errorf("the good file is refused: %v", err)
	}
	for _, d := range defects {
		if !strings.Contains(text, d.good) {
			t.Errorf("%s: not in the file", d.good)
			continue
		}
		err := read([]byte(strings.Replace(text, d.good, d.bad, 1)))
		if err == nil {
			t.Errorf("%s in the place of %s: not noticed", d.bad, d.good)
			continue
		}
		said, _, _ := strings.Cut(err.Error(), "\n")
		t.Logf("%s: %s", d.bad, said)
	}
}

// missing ends a test whose peer is not there. TIDEGATE_REQUIRE=1, as make
// test-exporters sets it, makes that an error.
func missing(t *testing.T, what, how string) {
	t.Helper()
	if os.Getenv("TIDEGATE_REQUIRE") != "" {
		t.Fatalf("%s is missing: %s", what, how)
	}
	t.Skipf("SKIPPED: %s is missing: %s; TIDEGATE_REQUIRE=1 makes this an error", what, how)
}
