package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the outputs in the docs anew")

// fence is a block of a page: its info string, and its text.
var fence = regexp.MustCompile("(?ms)^```(json [a-z.]+|console)\n(.*?)^```$")

// TestDocs runs the commands of the pages, with the files that stand on them, and holds the output against what is shown.
func TestDocs(t *testing.T) {
	for _, page := range []string{"audit.md"} {
		t.Run(page, func(t *testing.T) {
			file, err := filepath.Abs("../../docs/" + page)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Chdir(t.TempDir())
			commands := 0
			renewed := fence.ReplaceAllFunc(text, func(block []byte) []byte {
				m := fence.FindSubmatch(block)
				if name, ok := strings.CutPrefix(string(m[1]), "json "); ok {
					if err := os.WriteFile(name, m[2], 0o644); err != nil {
						t.Fatal(err)
					}
					return block
				}
				commands++
				line, _, _ := strings.Cut(string(m[2]), "\n")
				return []byte("```console\n" + line + "\n" + output(t, line) + "```")
			})
			if commands == 0 {
				t.Fatal("no command on the page")
			}
			switch {
			case bytes.Equal(text, renewed):
			case *update:
				if err := os.WriteFile(file, renewed, 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("docs/%s shows another output than its commands have (run with -update)", page)
			}
		})
	}
}

func output(t *testing.T, line string) string {
	t.Helper()
	words := pipeline(strings.TrimPrefix(line, "$ "))[0].words
	var out, errors bytes.Buffer
	if code := run(words[1:], strings.NewReader(""), &out, &errors); code != exitYes && code != exitNo || words[0] != "tidegate" {
		t.Errorf("%s: exit %d: %s", line, code, errors.String())
	}
	return out.String()
}
