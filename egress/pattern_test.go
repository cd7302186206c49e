package egress

import (
	"regexp"
	"strings"
	"testing"
)

func TestPatternMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"mcr.microsoft.com", "mcr.microsoft.com", true},
		{"mcr.microsoft.com", "a.mcr.microsoft.com", false},
		{"*.hcp.eastus.azmk8s.io", "x-1.hcp.eastus.azmk8s.io", true},
		{"*.hcp.eastus.azmk8s.io", "a.x-1.hcp.eastus.azmk8s.io", true},
		{"*.hcp.eastus.azmk8s.io", "hcp.eastus.azmk8s.io", false},
		{"*.hcp.eastus.azmk8s.io", "xhcp.eastus.azmk8s.io", false},
		{"*.data.mcr.microsoft.com", "eastus.data.mcr.microsoft.com", true},
		{"md-*.blob.storage.azure.net", "md-abc.blob.storage.azure.net", true},
		{"md-*.blob.storage.azure.net", "md-abc.z1.blob.storage.azure.net", false},
		{"md-*.blob.storage.azure.net", "xmd-abc.blob.storage.azure.net", false},
		{"md-*.blob.storage.azure.net", "md-.blob.storage.azure.net", false},
		{"md-*.blob.storage.azure.net", "a.md-abc.blob.storage.azure.net", false},
		{"umsa*.blob.core.windows.net", "umsa1234abcd.blob.core.windows.net", true},
		{"umsa*.blob.core.windows.net", "umsa.blob.core.windows.net", false},
		{"a*z.example.com", "az.example.com", false},
		{"a*z.example.com", "abz.example.com", true},
		{"aba*aba.example.com", "abaaba.example.com", false},
		{"aba*aba.example.com", "abaxaba.example.com", true},
		{"arcmktplaceprod.*.data.azurecr.io", "arcmktplaceprod.eastus.data.azurecr.io", true},
		{"arcmktplaceprod.*.data.azurecr.io", "arcmktplaceprod.a.b.data.azurecr.io", false},
		{"arcmktplaceprod.*.data.azurecr.io", "arcmktplaceprod.data.azurecr.io", false},
		{"*.x-*.example.com", "a.b.x-1.example.com", true},
		{"*.x-*.example.com", "x-1.example.com", false},
		{"vault.azure.net", "myvault.vault.azure.net", false},
		{"*.contoso.com", "evilcontoso.com", false},
		{"*.contoso.com", "contoso.com.evil.io", false},
	} {
		if got := MustParsePattern(tt.pattern).Match(MustParseName(tt.name)); got != tt.want {
			t.Errorf("%s matches %s: %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
	if (Pattern{}).Match(MustParseName("a.b")) || MustParsePattern("a.b").Match(Name{}) {
		t.Error("a zero value matches")
	}
}

func TestParsePatternRefuses(t *testing.T) {
	for _, tt := range []struct{ in, hint string }{
		{"*", "any name at all"},
		{"*mcr.microsoft.com", `write "*." before "mcr"`},
		{".mcr.microsoft.com", `write "*.mcr.microsoft.com"`},
		{"**.mcr.microsoft.com", `write "*.mcr.microsoft.com"`},
		{"a.*", "last two labels"},
		{"*.*", "last two labels"},
		{"*.com", "last two labels"},
		{"a.b*.com", "last two labels"},
		{"a*b*.example.com", "more than one *"},
		{"*.*.*.example.com", "more than 2 wildcards"},
		{"*.1.2.3.4", "an address"},
		{"*.exa mple.com", "not allowed"},
		{"*..example.com", "empty label"},
		{"", "empty"},
		{"<region>.dp.example.com", "not allowed"},
	} {
		p, err := ParsePattern(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.hint) || p != (Pattern{}) {
			t.Errorf("ParsePattern(%q) = %q, %v; want an error with %q", tt.in, p, err, tt.hint)
		}
	}
}

func TestPatternParts(t *testing.T) {
	for _, tt := range []struct{ in, canonical, fixed, exact string }{
		{"MCR.microsoft.com.", "mcr.microsoft.com", "mcr.microsoft.com", "mcr.microsoft.com"},
		{"*.Data.mcr.microsoft.com", "*.data.mcr.microsoft.com", "data.mcr.microsoft.com", ""},
		{"md-*.blob.storage.azure.net", "md-*.blob.storage.azure.net", "blob.storage.azure.net", ""},
		{"a.*.b.example.com", "a.*.b.example.com", "b.example.com", ""},
	} {
		p := MustParsePattern(tt.in)
		exact, ok := p.Exact()
		if p.String() != tt.canonical || p.Fixed().String() != tt.fixed || exact.String() != tt.exact || ok != (tt.exact != "") {
			t.Errorf("%q: canonical %q, fixed %q, exact %q", tt.in, p, p.Fixed(), exact)
		}
	}
}

// FuzzPattern holds Match against a regular expression.
func FuzzPattern(f *testing.F) {
	f.Add("*.a.b", "x.a.b")
	f.Add("md-*.x.a.b", "md-1.x.a.b")
	f.Add("q.*.a.b", "q.r.a.b")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		n, err := ParseName(name)
		if err != nil {
			n, _ = ParseName(strings.NewReplacer("*", "s").Replace(p.String()))
		}
		if got, want := p.Match(n), naiveMatch(p, n); got != want {
			t.Fatalf("%s matches %s: %v, naively %v", p, n, got, want)
		}
		if again, err := ParsePattern(p.String()); err != nil || again != p {
			t.Fatalf("%q does not round trip: %q, %v", p, again, err)
		}
	})
}

func naiveMatch(p Pattern, n Name) bool {
	labels := strings.Split(p.String(), ".")
	for i, l := range labels {
		switch {
		case l == "*" && i == 0:
			labels[i] = `[^.]+(\.[^.]+)*`
		default:
			labels[i] = strings.ReplaceAll(regexp.QuoteMeta(l), `\*`, `[^.]+`)
		}
	}
	return regexp.MustCompile(`^` + strings.Join(labels, `\.`) + `$`).MatchString(n.String())
}
