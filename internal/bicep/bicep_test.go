package bicep

import "testing"

// TestHostileTexts: no text ends its string early, starts an interpolation or a line of its own.
func TestHostileTexts(t *testing.T) {
	for text, want := range map[string]string{
		"a":               `'a'`,
		"it's":            `'it\'s'`,
		`\`:               `'\\'`,
		`\'`:              `'\\\''`,
		"${subscription}": `'\${subscription}'`,
		"a\nb":            `'a\nb'`,
		"[concat('a')]":   `'[concat(\'a\')]'`,
	} {
		if got := String(text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

func TestValue(t *testing.T) {
	got := Value([]byte(`{"a": ["x", 1, true], "b-c": {}}`), "  ")
	want := "{\n    a: [\n      'x'\n      1\n      true\n    ]\n    'b-c': {\n    }\n  }"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
