package export

import (
	"strings"
	"testing"
)

// TestCommentStaysOne holds a comment against reasons that try to become a line
// of the configuration.
func TestCommentStaysOne(t *testing.T) {
	for name, text := range map[string]string{
		"a line break":                     "fine\nhttp_access allow all",
		"a line break of Unicode":          "fine\u2028http_access allow all\u0085",
		"a backslash before the next line": `fine \`,
		"more than Squid takes as a line":  strings.Repeat("fine ", 410) + "http_access allow all",
	} {
		var p page
		p.comment("#", text)
		line, rest, _ := strings.Cut(p.String(), "\n")
		if rest != "" || len(line) > 1010 || strings.HasSuffix(line, `\`) || strings.ContainsAny(line, "\u2028\u0085") {
			t.Errorf("%s: %q", name, p.String())
		}
	}
}
