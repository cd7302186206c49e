package why

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func flow(minute int, name, dst string, api bool, v egress.Verdict) egress.Flow {
	f := egress.Flow{Time: noon.Add(time.Duration(minute) * time.Minute), Verdict: v}
	f.Conn = egress.Conn{Proto: egress.HTTPS, Src: netip.MustParseAddrPort("10.224.0.4:40000"), Dst: netip.MustParseAddrPort(dst), API: api}
	if name != "" {
		f.Conn.Name = egress.MustParseName(name)
	}
	return f
}

func TestReadDenials(t *testing.T) {
	bound := flow(6, "", "20.9.9.9:443", false, egress.Denied(egress.NoServerName))
	bound.Conn.Bound = []egress.Name{egress.MustParseName("mcr.microsoft.com")}
	ended := flow(7, "mcr.microsoft.com", "20.1.1.1:443", false, egress.Denied(egress.PolicyChanged))
	ended.End = true
	var log strings.Builder
	for _, f := range []egress.Flow{
		flow(0, "mcr.microsoft.com", "20.1.1.1:443", false, egress.Denied(egress.NameNotAllowed)),
		flow(5, "mcr.microsoft.com", "20.1.1.2:443", false, egress.Denied(egress.NameNotAllowed)),
		flow(5, "mcr.microsoft.com", "20.1.1.2:443", false, egress.Verdict{Action: egress.Allow, Reason: egress.ByNameRule}),
		flow(5, "evil.example", "20.6.6.6:443", false, egress.Denied(egress.NameNotAllowed)),
		flow(5, "", "20.50.0.1:443", true, egress.Denied(egress.APIServerByName)),
		bound, ended,
		flow(90, "mcr.microsoft.com", "20.1.1.1:443", false, egress.Denied(egress.NameNotAllowed)),
	} {
		line, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		log.Write(append(line, '\n'))
	}
	for _, tt := range []struct {
		what    string
		text    string
		window  Window
		want    string // reason and count of each, by spaces
		flows   int
		invalid bool
	}{
		{"the registry, at any time", "50", Window{}, "name-not-allowed×3 no-server-name×1", 7, false},
		{"the registry, around noon", "50", Window{noon.Add(-time.Minute), noon.Add(10 * time.Minute)}, "name-not-allowed×2 no-server-name×1", 6, false},
		{"the API server, which the text does not name", "51", Window{}, "api-server-by-name×1", 7, false},
		{"another day", "50", Window{From: noon.Add(24 * time.Hour)}, "", 0, false},
		{"something that was not denied", "exit status=99", Window{}, "", 7, false},
		{"an address", "dial tcp 20.6.6.6:443: i/o timeout", Window{}, "name-not-allowed×1", 7, false},
	} {
		found, err := Read(strings.NewReader(tt.text))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %+v %v", tt.what, found, err)
		}
		s := Search{Window: tt.window, About: found[0].About}
		if err := ReadDenials(strings.NewReader(log.String()), []*Search{&s}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range s.Denials {
			got = append(got, d.Reason.String()+"×"+string(rune('0'+d.Count)))
		}
		if strings.Join(got, " ") != tt.want || s.Flows != tt.flows {
			t.Errorf("%s: %v of %d flows, want %s of %d", tt.what, got, s.Flows, tt.want, tt.flows)
		}
	}
	if err := ReadDenials(strings.NewReader("{}\nnonsense\n"), nil); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a line that is no flow: %v", err)
	}
}

// TestAzureFirewallsLog: the forms in which it can be had, each with one denial of the registry and other lines.
func TestAzureFirewallsLog(t *testing.T) {
	for what, line := range map[string]string{
		"the resource log":          `{"category":"AZFWApplicationRule","time":"2026-11-25T12:00:00.5Z","properties":{"Protocol":"HTTPS","SourceIp":"10.224.0.4","SourcePort":43210,"DestinationPort":443,"Fqdn":"mcr.microsoft.com","TargetUrl":"","Action":"Deny","Rule":"","ActionReason":"Default Action"}}`,
		"a row of Log Analytics":    `{"Type":"AZFWApplicationRule","TimeGenerated":"2026-11-25T12:00:00Z","Protocol":"HTTPS","SourceIp":"10.224.0.4","DestinationPort":"443","Fqdn":"mcr.microsoft.com","Action":"Deny"}`,
		"a sentence":                `{"category":"AzureFirewallApplicationRule","time":"2026-11-25T12:00:00Z","properties":{"msg":"HTTPS request from 10.224.0.4:43210 to mcr.microsoft.com:443. Action: Deny. No rule matched. Proceeding with default action"}}`,
		"a sentence of diagnostics": `{"Category":"AzureFirewallApplicationRule","TimeGenerated":"2026-11-25T12:00:00Z","msg_s":"HTTPS request from 10.224.0.4:43210 to mcr.microsoft.com:443. Action: Deny. No rule matched."}`,
	} {
		log := line + "\n" + strings.Replace(line, "Deny", "Allow", 1) + "\n" + `{"category":"AZFWDnsQuery","time":"2026-11-25T12:00:00Z","properties":{"QueryName":"mcr.microsoft.com."}}` + "\n"
		found, err := Read(strings.NewReader("50"))
		if err != nil {
			t.Fatal(err)
		}
		s := Search{Window: Window{noon.Add(-time.Minute), noon.Add(time.Minute)}, About: found[0].About}
		if err := ReadDenials(strings.NewReader(log), []*Search{&s}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(s.Denials) != 1 || s.Flows != 2 || s.Denials[0].By != azureFirewall || s.Denials[0].From != "10.224.0.4" || s.Denials[0].Count != 1 {
			t.Errorf("%s: %+v of %d", what, s.Denials, s.Flows)
		}
	}
}

// FuzzReadFlow: what is read of a line of any firewall log is the same after it was written as a line of ours.
func FuzzReadFlow(f *testing.F) {
	f.Add([]byte(`{"category":"AZFWApplicationRule","time":"2026-11-25T12:00:00.5Z","properties":{"Protocol":"HTTPS","SourceIp":"10.224.0.4","DestinationPort":443,"Fqdn":"mcr.microsoft.com","Action":"Deny"}}`))
	f.Add([]byte(`{"Category":"AzureFirewallNetworkRule","msg_s":"TCP request from 10.224.0.4:43210 to 20.1.2.3:9000. Action: Deny. "}`))
	f.Add([]byte(`{"time":"2026-11-25T12:00:00Z","event":"decided","action":"deny","reason":"no-rule","proto":"tcp","src":"10.224.0.4:40000","dst":"20.9.9.9:443"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		flow, by, decided, err := readFlow(line)
		if err != nil || !decided || by == "" {
			return
		}
		text, err := json.Marshal(flow)
		if err != nil {
			return // a year past 9999 has no text
		}
		var again egress.Flow
		if err := json.Unmarshal(text, &again); err != nil || again.Conn.Name != flow.Conn.Name || again.Verdict.Action != flow.Verdict.Action {
			t.Errorf("%s: became %s: %v", line, text, err)
		}
	})
}
