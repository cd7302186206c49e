package egress

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestConnRoundTrip(t *testing.T) {
	for _, s := range []string{
		"https 10.224.0.4:50312 > 20.1.2.3:443 mcr.microsoft.com",
		"https 10.224.0.4 > 20.1.2.3:443 mcr.microsoft.com",
		"https 20.1.2.3:443 mcr.microsoft.com",
		"https 20.1.2.3:443 20.1.2.3",
		"https 20.1.2.3:443",
		"https mcr.microsoft.com:443",
		"udp [fd00::4]:5000 > [2603:1000::1]:123",
	} {
		c, err := ParseConn(s)
		if err != nil || c.String() != s {
			t.Errorf("ParseConn(%q) = %q, %v", s, c, err)
		}
	}
}

func TestParseConnRefuses(t *testing.T) {
	for _, tt := range []struct{ in, hint string }{
		{"", "want proto"},
		{"https", "want proto"},
		{"quic 20.1.2.3:443", `protocol "quic"`},
		{"https 20.1.2.3", "want address:port or name:port"},
		{"https 20.1.2.3:0", "want address:port"},
		{"https nowhere > 20.1.2.3:443", `source "nowhere"`},
		{"https 20.1.2.3:443 a..b", "empty label"},
		{"https mcr.microsoft.com:443 other.example.com", "two names"},
		{"https 20.1.2.3:443 a.b extra", `unexpected "extra"`},
	} {
		if _, err := ParseConn(tt.in); err == nil || !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("ParseConn(%q): %v, want an error with %q", tt.in, err, tt.hint)
		}
	}
}

// FuzzParseConn: what is read is the same when printed and read again.
func FuzzParseConn(f *testing.F) {
	f.Add("https 10.224.0.4:50312 > 20.1.2.3:443 mcr.microsoft.com")
	f.Add("udp [::1]:1")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseConn(s)
		if err != nil {
			return
		}
		if again, err := ParseConn(c.String()); err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%q does not round trip: %q, %v", c, again, err)
		}
	})
}

func TestFlowRoundTrip(t *testing.T) {
	for _, s := range []string{
		"https 10.224.0.4:50312 > 20.1.2.3:443 mcr.microsoft.com | bound=mcr.microsoft.com strict",
		"https 10.224.0.4:50312 > 20.1.2.3:443 20.1.2.3 | api",
		"https mcr.microsoft.com:443",
	} {
		f := Flow{
			Time: time.Date(2026, 11, 25, 12, 0, 0, 5, time.UTC), Policy: "abc", Cluster: "prod", Conn: conn(t, s),
			Verdict: Verdict{Allow, ByNameRule, &Rule{ID: "core/mcr"}}, End: true, Sent: 10, Received: 20, Duration: 1500 * time.Millisecond,
		}
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var back Flow
		if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, f) {
			t.Errorf("%s comes back from %s as %+v, %v", s, b, back, err)
		}
	}
}

func TestEveryReasonHasItsWords(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Reasons() {
		back, err := ParseReason(r.String())
		if err != nil || back != r || seen[r.String()] || !strings.HasSuffix(r.Advice(), ".") {
			t.Errorf("reason %d: word %q, advice %q, %v", r, r, r.Advice(), err)
		}
		seen[r.String()] = true
	}
}
