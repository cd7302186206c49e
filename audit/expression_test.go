package audit

import (
	"regexp"
	"testing"
)

func TestExpressions(t *testing.T) {
	for _, row := range []struct {
		text     string
		in, out  []string
		open, no bool
	}{
		{text: `^mcr\.microsoft\.com$`, in: []string{"mcr.microsoft.com"}, out: []string{"a.mcr.microsoft.com", "mcr.microsoft.com.evil.io"}},
		{text: `^mcr.microsoft.com$`, in: []string{"mcr.microsoft.com"}},
		{text: `\.azurecr\.io$`, in: []string{"a.azurecr.io", "a.b.azurecr.io"}, out: []string{"azurecr.io", "xazurecr.io"}},
		{text: `azurecr\.io$`, in: []string{"azurecr.io", "xazurecr.io", "a.azurecr.io"}, out: []string{"azurecr.io.evil"}},
		{text: `(^|\.)azurecr\.io$`, in: []string{"azurecr.io", "a.b.azurecr.io"}, out: []string{"xazurecr.io"}},
		{text: `^(.*\.)?azurecr\.io$`, in: []string{"azurecr.io", "a.azurecr.io"}, out: []string{"xazurecr.io"}},
		{text: `^.*\.azurecr\.io$`, in: []string{"a.azurecr.io", "a.b.azurecr.io"}, out: []string{"azurecr.io"}},
		{text: `.*azurecr\.io$`, in: []string{"xazurecr.io"}},
		{text: `^[a-z0-9_-]+\.data\.mcr\.microsoft\.com$`, in: []string{"a.data.mcr.microsoft.com"}, out: []string{"a.b.data.mcr.microsoft.com"}},
		{text: `^([a-z0-9_-]+\.)*[a-z0-9_-]+\.a\.b$`, in: []string{"x.a.b", "y.x.a.b"}, out: []string{"a.b", "xa.b"}},
		{text: `^md-[^.]+\.blob\.storage\.azure\.net$`, in: []string{"md-1.blob.storage.azure.net"}, out: []string{"md-1.z1.blob.storage.azure.net"}},
		{text: `^mcr\.microsoft\.com`, in: []string{"mcr.microsoft.com"}, open: true},
		{text: `microsoft\.com`, in: []string{"microsoft.com", "evilmicrosoft.com"}, open: true},
		{text: `.*`, in: []string{"anything.at.all"}},
		{text: `^(a|b)\.com$`, no: true},
		{text: `^a\Wcom$`, no: true},
		{text: `^$`, no: true},
		{text: `^a*k\.com$`, no: true},
		{text: `^`, in: []string{"anything.at.all"}},
		{text: `[0-9]{3}\.com$`, no: true},
	} {
		n, open, ok := expressionNames(row.text)
		if ok == row.no || open != row.open {
			t.Errorf("%s: understood %v, open %v", row.text, ok, open)
			continue
		}
		for _, s := range row.in {
			if !n.has(s) {
				t.Errorf("%s lacks %s", row.text, s)
			}
		}
		for _, s := range row.out {
			if n.has(s) {
				t.Errorf("%s has %s", row.text, s)
			}
		}
	}
}

// FuzzExpression: whatever is in the set, the expression matches.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{`^mcr\.microsoft\.com$`, `\.azurecr\.io$`, `(^|\.)a\.io$`, `^([a-z0-9_-]+\.)*[a-z0-9_-]+\.a\.b$`, `^md-[^.]+\.a\.net$`, `^.*\.a\.b$`, `a`, `.*a\.b$`, `^(.+\.)?a\.b`} {
		f.Add(s, "x.a.b")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		n, _, ok := expressionNames(text)
		e, err := regexp.Compile("(?i)" + text)
		if !ok || err != nil {
			return
		}
		candidates := []string{lower(name)}
		if n.rest != "" {
			candidates = append(candidates, n.instances("x")...)
		}
		for _, s := range candidates {
			if plainName.MatchString(s) && n.has(s) && !e.MatchString(s) {
				t.Errorf("%q is in the set of %q, which does not match it", s, text)
			}
		}
	})
}
