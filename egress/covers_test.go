package egress

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestPatternCovers(t *testing.T) {
	for _, tt := range []struct {
		wide, narrow string
		want         bool
	}{
		{"a.example.com", "a.example.com", true},
		{"*.example.com", "a.example.com", true},
		{"*.example.com", "b.a.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "*.a.example.com", true},
		{"*.a.example.com", "*.example.com", false},
		{"*.example.com", "x.*.example.com", true},
		{"x.*.example.com", "*.example.com", false},
		{"x.*.example.com", "x.y.example.com", true},
		{"x.*.example.com", "x.y*z.example.com", true},
		{"md-*.example.com", "md-a*.example.com", true},
		{"md-a*.example.com", "md-*.example.com", false},
		{"a*b.example.com", "ac*db.example.com", true},
		{"a*.example.com", "*.example.com", false},
		{"*.example.com", "*.example.org", false},
	} {
		if got := MustParsePattern(tt.wide).Covers(MustParsePattern(tt.narrow)); got != tt.want {
			t.Errorf("%s covers %s: %v, want %v", tt.wide, tt.narrow, got, tt.want)
		}
	}
}

func TestEndpointCovers(t *testing.T) {
	for _, tt := range []struct {
		wide, narrow string
		want         bool
	}{
		{"https://*.example.com:443", "https://a.example.com:443", true},
		{"https://*.example.com:443", "https://a.example.com:8443", false},
		{"https://*.example.com:443", "http://a.example.com:443", false},
		{"https://*.example.com:1-65535", "https://a.example.com:443", true},
		{"tcp://*.example.com:443", "https://a.example.com:443", true},
		{"https://*.example.com:443", "tcp://a.example.com:443", false},
		{"tcp://20.0.0.0/8:443", "tcp://20.1.0.0/16:443", true},
		{"tcp://20.1.0.0/16:443", "tcp://20.0.0.0/8:443", false},
		{"tcp://20.0.0.0/8:443", "udp://20.1.0.0/16:443", false},
		{"tcp://20.0.0.0/8:443", "https://a.example.com:443", false},
		{"tcp://0.0.0.0/0:443", "https://a.example.com:443", true},
		{"udp://0.0.0.0/0:123", "udp://ntp.ubuntu.com:123", true},
		{"udp://0.0.0.0/0:123", "udp://[::/0]:123", false},
		{"tcp://@AzureMonitor:443", "tcp://@AzureMonitor:443", true},
		{"tcp://@AzureMonitor:443", "tcp://@AzureCloud:443", false},
	} {
		if got := MustParseEndpoint(tt.wide).Covers(MustParseEndpoint(tt.narrow)); got != tt.want {
			t.Errorf("%s covers %s: %v, want %v", tt.wide, tt.narrow, got, tt.want)
		}
	}
}

// FuzzCovers looks for a name that breaks the promise, and for a missing
// "covers" where no name of many breaks it.
func FuzzCovers(f *testing.F) {
	f.Add("*.example.com", "a*b.example.com", uint64(1))
	f.Add("x.*.example.com", "x.y*.example.com", uint64(2))
	f.Fuzz(func(t *testing.T, a, b string, seed uint64) {
		wide, errA := ParsePattern(a)
		narrow, errB := ParsePattern(b)
		if errA != nil || errB != nil {
			return
		}
		if !wide.Covers(wide) {
			t.Fatalf("%s does not cover itself", wide)
		}
		r := rand.New(rand.NewPCG(seed, 2))
		counterexample := false
		for range 64 {
			n, err := ParseName(instance(r, narrow.String()))
			if err != nil {
				continue
			}
			if !narrow.Match(n) {
				t.Fatalf("%s is no instance of %s", n, narrow)
			}
			counterexample = counterexample || !wide.Match(n)
		}
		if counterexample && wide.Covers(narrow) {
			t.Fatalf("%s covers %s, but not every name", wide, narrow)
		}
	})
}

func instance(r *rand.Rand, pattern string) string {
	if rest, ok := strings.CutPrefix(pattern, "*."); ok && r.IntN(2) == 0 {
		pattern = "k.*." + rest
	}
	for strings.Contains(pattern, "*") {
		pattern = strings.Replace(pattern, "*", pick(r, []string{"k", "xy", "q-q", "a"}), 1)
	}
	return pattern
}
