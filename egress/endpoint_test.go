package egress

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestEndpointRoundTrip(t *testing.T) {
	for _, s := range []string{
		"https://*.data.mcr.microsoft.com:443",
		"http://security.ubuntu.com:80",
		"udp://@AzureCloud.westeurope:1194",
		"tcp://@AzureMonitor:443",
		"tcp://20.103.4.5:9000",
		"udp://0.0.0.0/0:123",
		"udp://[::/0]:123",
		"tcp://[2603:1000::1]:443",
		"udp://ntp.ubuntu.com:123",
		"tcp://git.corp.example:30000-32767",
	} {
		e, err := ParseEndpoint(s)
		if err != nil || e.String() != s {
			t.Errorf("ParseEndpoint(%q) = %q, %v", s, e, err)
		}
		b, err := json.Marshal(e)
		var back Endpoint
		if err != nil || json.Unmarshal(b, &back) != nil || back != e {
			t.Errorf("%s does not come back from JSON %s", s, b)
		}
	}
}

func TestParseEndpointRefuses(t *testing.T) {
	for _, tt := range []struct{ in, hint string }{
		{"mcr.microsoft.com:443", "want proto://host:port"},
		{"ftp://mcr.microsoft.com:21", `protocol "ftp"`},
		{"https://mcr.microsoft.com", "no port"},
		{"https://mcr.microsoft.com:0", `ports "0"`},
		{"https://mcr.microsoft.com:65536", `ports "65536"`},
		{"https://mcr.microsoft.com:0443", `ports "0443"`},
		{"https://mcr.microsoft.com:+443", `ports "+443"`},
		{"https://mcr.microsoft.com:443-80", `ports "443-80"`},
		{"https://20.1.2.3:443", "judged by name; use tcp://"},
		{"https://@AzureMonitor:443", "judged by name; use tcp://"},
		{"tcp://20.1.2.0/8:443", "write 20.0.0.0/8"},
		{"tcp://[20.1.2.3]:443", "brackets are for IPv6"},
		{"tcp://[2603::1:443", "no closing bracket"},
		{"tcp://[2603::1]", "no port"},
		{"tcp://[fe80::1%eth0]:443", "neither an address"},
		{"tcp://[::ffff:1.2.3.4]:443", "write it as IPv4"},
		{"udp://@:1194", "service tag"},
		{"udp://@Azure Cloud:1194", "not allowed"},
		{"https://*:443", "any name at all"},
		{"", "want proto://host:port"},
	} {
		e, err := ParseEndpoint(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.hint) || !e.IsZero() {
			t.Errorf("ParseEndpoint(%q) = %q, %v; want an error with %q", tt.in, e, err, tt.hint)
		}
	}
}

// FuzzParseEndpoint: what is read is the same when printed and read again, and an error leaves nothing behind.
func FuzzParseEndpoint(f *testing.F) {
	f.Add("https://*.data.mcr.microsoft.com:443")
	f.Add("udp://[::/0]:123")
	f.Add("tcp://@A.b:1-2")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEndpoint(s)
		if err != nil {
			if !e.IsZero() {
				t.Fatalf("ParseEndpoint(%q) returns %v beside an error", s, e)
			}
			return
		}
		if again, err := ParseEndpoint(e.String()); err != nil || again != e {
			t.Fatalf("%q does not round trip: %q, %v", e, again, err)
		}
	})
}
