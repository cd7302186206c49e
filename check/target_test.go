package check

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/egress"
)

func endpoints(words string) []egress.Endpoint {
	var out []egress.Endpoint
	for _, w := range strings.Fields(words) {
		out = append(out, egress.MustParseEndpoint(w))
	}
	return out
}

func TestTargets(t *testing.T) {
	const api = "prod-1.hcp.westeurope.azmk8s.io"
	for _, tt := range []struct {
		rule    string // endpoints
		want    string // targets
		skipped string // what is said of those that cannot be tried
	}{
		{"https://mcr.microsoft.com:443", "https://mcr.microsoft.com:443", ""},
		{"https://" + api + ":443", "api-server://" + api + ":443 konnectivity://" + api + ":443", ""},
		{"https://*.hcp.westeurope.azmk8s.io:443", "api-server://" + api + ":443 konnectivity://" + api + ":443", ""},
		{"https://*.data.mcr.microsoft.com:443", "https://eastus.data.mcr.microsoft.com:443", ""},
		{"https://*.vault.azure.net:443", "https://kv.vault.azure.net:443", ""},
		{"https://*.oms.opinsights.azure.com:443", "", "--instance"},
		{"https://mcr-0001.mcr-msedge.net:443", "lookup://mcr-0001.mcr-msedge.net:443", ""},
		{"https://acs-mirror.azureedge.net:443", "", "retired"},
		{"http://security.ubuntu.com:80", "http://security.ubuntu.com:80", ""},
		{"udp://ntp.ubuntu.com:123", "ntp://ntp.ubuntu.com:123", ""},
		{"udp://0.0.0.0/0:123", "ntp://ntp.ubuntu.com:123", ""},
		{"udp://10.1.0.4:53", "dns://10.1.0.4:53", ""},
		{"udp://@AzureCloud.westeurope:1194", "udp://" + api + ":1194", ""},
		{"tcp://@AzureCloud.westeurope:9000", "tcp://" + api + ":9000", ""},
		{"tcp://20.1.2.3:443", "api-server://20.1.2.3:443", ""},
		{"tcp://20.1.2.3:1433", "tcp://20.1.2.3:1433", ""},
		{"tcp://[2603:1000::1]:22", "tcp://[2603:1000::1]:22", ""},
		{"tcp://20.1.0.0/16:5432", "", "a range"},
		{"https://mcr.microsoft.com:443 https://mcr.microsoft.com:443", "https://mcr.microsoft.com:443", ""},
	} {
		ts, skipped := Targets(Wanted{
			Rules: []egress.Rule{{ID: "r", To: endpoints(tt.rule)}}, APIServer: egress.MustParseName(api), Region: "westeurope",
			Instances: []egress.Name{egress.MustParseName("kv.vault.azure.net")},
		})
		var got []string
		for _, x := range ts {
			got = append(got, x.String())
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %v, want %s", tt.rule, got, tt.want)
		}
		if said := fmt.Sprint(skipped); tt.skipped == "" && len(skipped) > 0 || !strings.Contains(said, tt.skipped) {
			t.Errorf("%s: %s, want %q", tt.rule, said, tt.skipped)
		}
	}
}

// TestForbiddenLeavesOutWhatIsPermitted: what a rule opens is not called open by mistake.
func TestForbiddenLeavesOutWhatIsPermitted(t *testing.T) {
	for _, tt := range []struct {
		rule string
		left int
	}{
		{"https://mcr.microsoft.com:443", 6},
		{"https://*.github.com:443", 5},
		{"https://gist.github.com:8443", 6},
		{"tcp://1.1.1.0/24:853", 5},
		{"tcp://0.0.0.0/0:443", 3}, // both names and the address without a name
		{"tcp://@AzureCloud:443", 3},
	} {
		if got := Forbidden([]egress.Rule{{To: endpoints(tt.rule)}}); len(got) != tt.left {
			t.Errorf("%s: %v, want %d", tt.rule, got, tt.left)
		}
	}
}

func TestConclusion(t *testing.T) {
	wanted := func(c Cause, o Outcome) Result { return Result{Cause: c, Outcome: o} }
	forbidden := func(c Cause, o Outcome) Result {
		return Result{Target: Target{Forbidden: true}, Cause: c, Outcome: o}
	}
	for _, tt := range []struct {
		what    string
		results []Result
		want    Outcome
	}{
		{"all reached, and the forbidden blocked", []Result{wanted(Reached, Passed), forbidden(TLSReset, Passed)}, Passed},
		{"one failed", []Result{wanted(Reached, Passed), wanted(TCPSilent, Failed)}, Failed},
		{"one unproven", []Result{wanted(Reached, Passed), wanted(Accepted, Unproven)}, Unproven},
		{"one failed and one unproven", []Result{wanted(TCPSilent, Failed), wanted(Accepted, Unproven)}, Failed},
		{"a forbidden one open", []Result{wanted(Reached, Passed), forbidden(Open, Failed)}, Failed},
		{"blocked where nothing else is reached", []Result{forbidden(TCPSilent, Passed)}, Unproven},
		{"nothing tried", nil, Unproven},
	} {
		if r := NewReport(tt.results, nil); r.Outcome != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, r.Outcome, tt.want)
		}
	}
}

// TestCausesAreComplete: each has a word of its own and says what is likely, and those that are a place say which.
func TestCausesAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Causes() {
		if c.String() == "" || seen[c.String()] || c.Likely() == "" {
			t.Errorf("cause %d: %q, %q", c, c.String(), c.Likely())
		}
		seen[c.String()] = true
		if c > Interrupted && c.Stage() == "" {
			t.Errorf("%s has no stage", c)
		}
		var again Cause
		if err := again.UnmarshalText([]byte(c.String())); err != nil || again != c {
			t.Errorf("%s does not survive its text", c)
		}
	}
}

func TestReadHosts(t *testing.T) {
	hosts, err := ReadHosts(strings.NewReader("# comment\n10.1.0.4 prod.privatelink.westeurope.azmk8s.io Alias. # pinned\nnonsense\n::1 localhost\n"))
	if err != nil || len(hosts) != 3 || hosts["alias"][0].String() != "10.1.0.4" {
		t.Errorf("%v %v", hosts, err)
	}
}

func TestReadResolvConf(t *testing.T) {
	for text, want := range map[string]string{
		"nameserver 10.0.0.10\nnameserver fd00::10\nsearch svc.cluster.local\n": "[10.0.0.10:53 [fd00::10]:53]",
		"": "[127.0.0.1:53]",
	} {
		servers, err := ReadResolvConf(strings.NewReader(text))
		if err != nil || fmt.Sprint(servers) != want {
			t.Errorf("%q: %v %v, want %s", text, servers, err, want)
		}
	}
}

// TestTroubleshootingNamesEveryCause holds the page against the table.
func TestTroubleshootingNamesEveryCause(t *testing.T) {
	text, err := os.ReadFile("../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	missing := slices.DeleteFunc(Causes(), func(c Cause) bool { return strings.Contains(string(text), "`"+c.String()+"`") })
	if len(missing) > 0 {
		t.Errorf("docs/troubleshooting.md lacks %v", missing)
	}
}
