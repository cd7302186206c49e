package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
)

func logOptions() LogOptions {
	return LogOptions{Needs: needs(), Seen: func(n egress.Name, _ netip.Addr) (string, bool, bool) {
		return "disks", true, strings.HasPrefix(n.String(), "md-")
	}}
}

func readLog(t testing.TB, text string) *Log {
	t.Helper()
	l := NewLog(logOptions())
	if err := l.Read(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l
}

// One line each, in every form of log.
func TestLines(t *testing.T) {
	app := func(fqdn, action string) string {
		return `{"category":"AZFWApplicationRule","time":"2026-06-18T10:00:00.5Z","resourceId":"/SUBSCRIPTIONS/S","properties":{"Protocol":"HTTPS","SourceIp":"10.224.0.4","SourcePort":50312,"DestinationPort":443,"Fqdn":"` + fqdn + `","TargetUrl":"","Action":"` + action + `","ActionReason":"Default Action","Policy":"p","RuleCollectionGroup":"g","RuleCollection":"c","Rule":"r","WebCategory":"","IsTlsInspected":false,"IsExplicitProxyRequest":false}}`
	}
	network := func(proto, dst string, port int, action string) string {
		return fmt.Sprintf(`{"category":"AZFWNetworkRule","time":"2026-06-18T10:00:00Z","properties":{"Protocol":%q,"SourceIp":"10.224.0.4","SourcePort":1,"DestinationIp":%q,"DestinationPort":%d,"Action":%q,"ActionReason":"","Rule":"r"}}`, proto, dst, port, action)
	}
	dns := func(name, code string) string {
		return `{"category":"AZFWDnsQuery","time":"2026-06-18T10:00:00Z","properties":{"SourceIp":"10.224.0.4","QueryType":"A","QueryName":"` + name + `","Protocol":"udp","ResponseCode":"` + code + `"}}`
	}
	old := func(msg string) string {
		return `{"category":"AzureFirewallApplicationRule","time":"2026-06-18T10:00:00Z","properties":{"msg":"` + msg + `"}}`
	}
	for _, row := range []struct{ line, want string }{
		{app("mcr.microsoft.com", "Deny"), "denied-required https://mcr.microsoft.com:443 mcr"},
		{app("MCR.Microsoft.com.", "Deny"), "denied-required https://mcr.microsoft.com:443 mcr"},
		{app("mcr.microsoft.com:443", "Deny"), "denied-required https://mcr.microsoft.com:443 mcr"},
		{app("eastus.data.mcr.microsoft.com", "Deny"), "denied-required https://eastus.data.mcr.microsoft.com:443 data"},
		{app("mcr.microsoft.com", "Allow"), "allowed-needed https://mcr.microsoft.com:443 mcr"},
		{app("evil.example", "Deny"), "denied-unknown https://evil.example:443"},
		{app("evil.example", "Allow"), "allowed-unneeded https://evil.example:443"},
		{app("md-1.blob.storage.azure.net", "Deny"), "denied-benign https://md-1.blob.storage.azure.net:443"},
		{app("", "Deny"), "denied-unknown https://(no name):443"},
		{strings.Replace(app("security.ubuntu.com", "Deny"), `HTTPS`, `HTTP`, 1), "denied-unknown http://security.ubuntu.com:443"},
		{network("TCP", "20.1.2.3", 9000, "Deny"), "denied-required tcp://20.1.2.3:9000 tunnel"},
		{network("TCP", "20.1.2.3", 9001, "Deny"), "denied-unknown tcp://20.1.2.3:9001"},
		{network("UDP", "8.8.8.8", 53, "Allow"), "allowed-unneeded udp://8.8.8.8:53"},
		{network("TCP", "2603::1", 443, "Deny"), "denied-unknown tcp://[2603::1]:443"},
		{network("ICMP Type=8", "8.8.8.8", 0, "Deny"), ""},
		{dns("mcr.microsoft.com.", "SERVFAIL"), "denied-required dns://mcr.microsoft.com mcr"},
		{dns("c-1.hcp.westeurope.azmk8s.io", "NXDOMAIN"), "denied-required dns://c-1.hcp.westeurope.azmk8s.io core/apiserver"},
		{dns("x.data.mcr.microsoft.com", "NXDOMAIN"), "denied-optional dns://x.data.mcr.microsoft.com data"},
		{dns("mcr.microsoft.com.svc.cluster.local", "NXDOMAIN"), "denied-benign dns://mcr.microsoft.com.svc.cluster.local"},
		{dns("evil.example", "REFUSED"), "denied-unknown dns://evil.example"},
		{dns("mcr.microsoft.com", "NOERROR"), ""},
		{old("HTTPS request from 10.224.0.4:50312 to mcr.microsoft.com:443. Action: Deny. No rule matched. Proceeding with default action"), "denied-required https://mcr.microsoft.com:443 mcr"},
		{old("HTTPS request from 10.224.0.4:50312 to mcr.microsoft.com:443. Action: Allow. Rule Collection: c. Rule: r"), "allowed-needed https://mcr.microsoft.com:443 mcr"},
		{old("HTTPS request from 10.224.0.4:50312. Action: Deny. Reason: SNI TLS extension was missing."), "denied-unknown https://(no name)"},
		{old("TCP request from 10.224.0.4:50312 to 20.1.2.3:9000. Action: Deny"), "denied-required tcp://20.1.2.3:9000 tunnel"},
		{old("DNS Request: 10.224.0.4:48197 - 15676 AAAA IN mcr.microsoft.com. udp 43 false 512 SERVFAIL qr,rd,ra 100 0.003s"), "denied-required dns://mcr.microsoft.com mcr"},
		{`{"TimeGenerated":"2026-06-18T10:00:00Z","Type":"AZFWApplicationRule","Protocol":"HTTPS","SourceIp":"10.224.0.4","DestinationPort":443,"Fqdn":"mcr.microsoft.com","Action":"Deny"}`, "denied-required https://mcr.microsoft.com:443 mcr"},
		{`{"TimeGenerated":"2026-06-18T10:00:00Z","Category":"AzureFirewallNetworkRule","msg_s":"UDP request from 10.224.0.4:1 to 9.9.9.9:53. Action: Deny. "}`, "denied-unknown udp://9.9.9.9:53"},
		{old("HTTPS request from 10.224.0.4:50312 to mcr.microsoft.com:443. Url: mcr.microsoft.com. Action: Allow. Policy: p. Rule Collection Group: g. Rule Collection: c. Rule: r. Web Category: w"), "allowed-needed https://mcr.microsoft.com:443 mcr"},
		{old("HTTPS request from 10.224.0.4:50312 to mcr.microsoft.com:443. Action: Deny. Policy: p. Rule Collection Group: g. Rule Collection: c. Rule: r"), "denied-required https://mcr.microsoft.com:443 mcr"},
		{old("HTTP request from 10.224.0.4:50312 to evil.example:80. Action: Deny. ThreatIntel: Bot Networks"), "denied-unknown http://evil.example:80"},
		{old("HTTP request from 10.224.0.4:50312 to evil.example:80. Action: Alert. ThreatIntel: Bot Networks"), ""},
		{old("TCP request from 10.224.0.4:50312 to 20.1.2.3:80. Action: Alert. Signature: 2032081. IDS: USER_AGENTS Suspicious"), ""},
		{old("TCP request from 198.51.100.7:50312 to 20.9.9.9:443 was DNAT'ed to 10.1.0.4:443"), ""},
		{old("ICMP Type=8 request from 10.224.0.4: to 8.8.8.8:. Action: Deny. "), ""},
		{old("UDP request from 10.224.0.4:123 to 20.9.9.9:123. Action: Allow. Policy: p. Rule Collection Group: g. Rule Collection: c. Rule: r"), "allowed-unneeded udp://20.9.9.9:123"},
		{`{"TimeGenerated":"2026-06-18T10:00:00Z","Category":"AZFWApplicationRule","Protocol_s":"HTTPS","SourceIp_s":"10.224.0.4","SourcePort_d":50312.0,"DestinationPort_d":443.0,"Fqdn_s":"mcr.microsoft.com","Action_s":"Deny"}`, "denied-required https://mcr.microsoft.com:443 mcr"},
		{`{"TimeGenerated":"2026-06-18T10:00:00Z","Category":"AZFWNetworkRule","Protocol_s":"TCP","SourceIP":"10.224.0.4","DestinationIp_s":"20.1.2.3","DestinationPort_d":9000,"Action_s":"Deny"}`, "denied-required tcp://20.1.2.3:9000 tunnel"},
		{`{"TimeGenerated":"2026-06-18T10:00:00Z","Category":"AZFWDnsQuery","QueryName_s":"mcr.microsoft.com.","ResponseCode_s":"SERVFAIL","SourceIp_s":"10.224.0.4"}`, "denied-required dns://mcr.microsoft.com mcr"},
		{`{"category":"AZFWThreatIntel","time":"2026-06-18T10:00:00Z","properties":{"Protocol":"HTTPS","SourceIp":"10.224.0.4","DestinationPort":443,"Fqdn":"evil.example","Action":"Alert"}}`, ""},
		{`{"category":"AZFWIdpsSignature","time":"2026-06-18T10:00:00Z","properties":{"Protocol":"TCP","SourceIp":"10.224.0.4","DestinationIp":"20.9.9.9","DestinationPort":443,"Action":"alert","SignatureId":"2032081"}}`, ""},
		{`{"time":"2026-06-18T10:00:00Z","properties":"{\"Protocol\":\"HTTPS\",\"Fqdn\":\"mcr.microsoft.com\",\"DestinationPort\":\"443\",\"Action\":\"Deny\"}"}`, "denied-required https://mcr.microsoft.com:443 mcr"},
		{`{"records":[` + app("mcr.microsoft.com", "Deny") + `]}`, "denied-required https://mcr.microsoft.com:443 mcr"},
		{ours(t, "https 10.224.0.4:50312 > 20.9.9.9:443 mcr.microsoft.com", egress.Verdict{}), "denied-required https://mcr.microsoft.com:443 mcr"},
		{ours(t, "tcp 10.224.0.4:50312 > 20.1.2.3:9000", egress.Verdict{Action: egress.Allow}), "allowed-needed tcp://20.1.2.3:9000 tunnel"},
	} {
		l := readLog(t, row.line+"\n")
		got := ""
		for _, g := range l.Groups {
			got += strings.TrimSpace(string(g.Class) + " " + g.To + " " + g.Need)
			if len(g.Sources) == 0 && !strings.Contains(row.line, `properties":"`) || g.First != g.Last || g.First.Year() != 2026 {
				t.Errorf("%s: %+v", row.line, g)
			}
		}
		if got != row.want || l.Skipped > 0 {
			t.Errorf("%s\n got %q\nwant %q, %d skipped", row.line, got, row.want, l.Skipped)
		}
	}
}

func ours(t testing.TB, conn string, v egress.Verdict) string {
	t.Helper()
	c, err := egress.ParseConn(conn)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(egress.Flow{Time: time.Date(2026, 6, 18, 10, 0, 0, 0, time.UTC), Conn: c, Verdict: v})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAnArrayOfRowsIsALogToo(t *testing.T) {
	l := readLog(t, "[\n  {\n \"TimeGenerated\": \"2026-06-18T10:00:00Z\",\n \"Protocol\": \"HTTPS\", \"Fqdn\": \"mcr.microsoft.com\", \"DestinationPort\": 443, \"Action\": \"Deny\"}\n, {}]\n")
	if len(l.Groups) != 1 || l.Groups[0].Class != Broken || l.Skipped != 1 {
		t.Errorf("%+v", l)
	}
}

func TestLinesThatAreNoneAreCounted(t *testing.T) {
	l := readLog(t, "hello\n{\"a\":1}\n{\n\n"+strings.Repeat("x", maxLine+10)+"\n"+`{"Protocol":"TCP","DestinationIp":"1.2.3.4","DestinationPort":1,"Action":"Deny"}`)
	if l.Lines != 5 || l.Skipped != 4 || l.Events != 1 {
		t.Errorf("%d lines, %d skipped, %d events", l.Lines, l.Skipped, l.Events)
	}
}

func TestUnusedRules(t *testing.T) {
	l := readLog(t, `{"Protocol":"HTTPS","Fqdn":"mcr.microsoft.com","DestinationPort":443,"Action":"Allow"}`)
	if got, want := strings.Join(l.Unused, " "), "api data ubuntu tag tunnel"; got != want {
		t.Errorf("unused %q, want %q", got, want)
	}
}

func TestReplayAgainstAProposedPolicy(t *testing.T) {
	o := logOptions()
	proposed := read(t, azureClean)
	o.Against, o.BySource = proposed.Decider(o.Needs), proposed.TellsClients()
	l := NewLog(o)
	for _, line := range []string{
		`{"Protocol":"HTTPS","SourceIp":"10.224.0.4","Fqdn":"mcr.microsoft.com","DestinationPort":443,"Action":"Allow"}`,       // as before
		`{"Protocol":"HTTPS","SourceIp":"10.9.0.4","Fqdn":"mcr.microsoft.com","DestinationPort":443,"Action":"Allow"}`,         // another client
		`{"Protocol":"HTTPS","SourceIp":"10.224.0.4","Fqdn":"evil.example","DestinationPort":443,"Action":"Allow"}`,            // no longer
		`{"Protocol":"HTTPS","SourceIp":"10.224.0.4","Fqdn":"x.data.mcr.microsoft.com","DestinationPort":443,"Action":"Deny"}`, // now
		`{"Protocol":"TCP","SourceIp":"10.224.0.4","DestinationIp":"20.1.2.3","DestinationPort":9000,"Action":"Deny"}`,         // now
		`{"Protocol":"TCP","SourceIp":"10.224.0.4","DestinationIp":"20.1.2.4","DestinationPort":9000,"Action":"Deny"}`,         // as before
	} {
		if err := l.Read(strings.NewReader(line)); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	changes := map[string]bool{}
	for _, g := range l.Groups {
		if g.Changes {
			changes[g.To+" "+strings.Join(g.Sources, ",")] = g.Allowed
		}
	}
	want := map[string]bool{
		"https://mcr.microsoft.com:443 10.9.0.4": true, "https://evil.example:443 10.224.0.4": true,
		"https://x.data.mcr.microsoft.com:443 10.224.0.4": false, "tcp://20.1.2.3:9000 10.224.0.4": false,
	}
	if fmt.Sprint(changes) != fmt.Sprint(want) {
		t.Errorf("changes %v, want %v", changes, want)
	}
}

// A scan of ever new names does not fill the memory.
func TestGroupsAreBounded(t *testing.T) {
	l := NewLog(logOptions())
	var b bytes.Buffer
	for i := range maxGroups + 5000 {
		fmt.Fprintf(&b, `{"Protocol":"HTTPS","SourceIp":"10.0.%d.%d","Fqdn":"n%d.example","DestinationPort":443,"Action":"Deny"}`+"\n", i>>8&255, i&255, i)
	}
	for i := range 100 {
		fmt.Fprintf(&b, `{"Protocol":"HTTPS","SourceIp":"10.0.0.%d","Fqdn":"n0.example","DestinationPort":443,"Action":"Deny"}`+"\n", i)
	}
	if err := l.Read(&b); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if len(l.Groups) != maxGroups || l.Crowded != 5000 || len(l.Groups[0].Sources) != maxSources || !l.Groups[0].More {
		t.Errorf("%d groups, %d crowded, first %+v", len(l.Groups), l.Crowded, l.Groups[0])
	}
}

// endless repeats lines without holding them.
type endless struct {
	lines []byte
	at    int
	left  int64
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p, e.lines[e.at:])
	e.at = (e.at + n) % len(e.lines)
	e.left -= int64(n)
	return n, nil
}

// sample is a day's log in small: 300 destinations, 500 clients.
func sample() []byte {
	var b bytes.Buffer
	for i := range 3000 {
		name := fmt.Sprintf("n%d.example", i%300)
		if i%5 == 0 {
			name = "mcr.microsoft.com"
		}
		fmt.Fprintf(&b, `{"category":"AZFWApplicationRule","time":"2026-06-18T10:%02d:%02d.123456Z","resourceId":"/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/RG/PROVIDERS/MICROSOFT.NETWORK/AZUREFIREWALLS/FW","properties":{"Protocol":"HTTPS","SourceIp":"10.224.%d.%d","SourcePort":50312,"DestinationPort":443,"Fqdn":%q,"TargetUrl":"","Action":"Allow","ActionReason":"","Policy":"p","RuleCollectionGroup":"g","RuleCollection":"c","Rule":"r","WebCategory":"","IsTlsInspected":false,"IsExplicitProxyRequest":false}}`+"\n", i/60%60, i%60, i%2, i%250, name)
	}
	return b.Bytes()
}

func TestALongLogTakesNoMoreMemory(t *testing.T) {
	lines := sample()
	l := NewLog(logOptions())
	if err := l.Read(&endless{lines: lines, left: int64(len(lines))}); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	if err := l.Read(&endless{lines: lines, left: int64(len(lines)) * 20}); err != nil {
		t.Fatal(err)
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew from %d to %d bytes over 60,000 lines of the same destinations", before, after)
	}
	if l.Skipped > 1 {
		t.Errorf("%d lines skipped", l.Skipped)
	}
	runtime.KeepAlive(l)
}

// BenchmarkLog reports lines a second on one core.
func BenchmarkLog(b *testing.B) {
	lines := sample()
	n := bytes.Count(lines, []byte("\n"))
	b.SetBytes(int64(len(lines) / n))
	b.ReportAllocs()
	l := NewLog(logOptions())
	b.ResetTimer()
	if err := l.Read(&endless{lines: lines, left: int64(len(lines)) * int64(b.N) / int64(n)}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(l.Lines)/b.Elapsed().Seconds(), "lines/s")
}

// What the scanner takes, encoding/json takes, and reads alike.
func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"a":"b","c":{"d":[1,2,{"e":null}]},"f":-1.5e3,"g":"\u00e9\n"}`))
	f.Add(sample()[:600])
	f.Add([]byte(`{"":"` + "\xff" + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := map[string]string{}
		err := eachField(b, "", func(k, v []byte) { got[string(k)] = string(v) })
		var want map[string]json.RawMessage
		if jerr := json.Unmarshal(b, &want); (err == nil) != (jerr == nil && want != nil) {
			if err == nil {
				t.Fatalf("%q: read, and encoding/json says %v", b, jerr)
			}
			if jerr == nil && want != nil && bytes.Count(b, []byte("[")) < maxDepth && bytes.Count(b, []byte("{")) < maxDepth {
				t.Fatalf("%q: refused, and encoding/json reads it", b)
			}
			return
		}
		for k, raw := range want {
			v := string(raw)
			var s string
			if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
				v = s
			}
			if got[k] != v {
				t.Fatalf("%q: field %q is %q, want %q", b, k, got[k], v)
			}
		}
	})
}

// No line makes the reader panic, and groups are always endpoints or questions.
func FuzzLog(f *testing.F) {
	f.Add([]byte(`{"category":"x","properties":{"msg":"HTTPS request from 10.0.0.4:1 to a.example:443. Action: Deny."}}`))
	f.Add([]byte(`{"properties":{"msg":"DNS Request: 10.0.0.4:1 - 1 A IN a.example. udp 43 false 512 NXDOMAIN qr 100 0.003s"}}`))
	f.Add([]byte(`[{"Protocol":"tcp","DestinationIp":"::1","DestinationPort":"1","Action":"Deny"}]`))
	f.Add(sample()[:600])
	f.Fuzz(func(t *testing.T, b []byte) {
		l := NewLog(logOptions())
		_ = l.Read(bytes.NewReader(b))
		l.Close()
		for _, g := range l.Groups {
			if g.To == "" || g.Class == "" || g.Count == 0 {
				t.Fatalf("%q: %+v", b, g)
			}
		}
	})
}

// No file makes a reader panic, and what is read can be judged.
func FuzzReadPolicy(f *testing.F) {
	for _, text := range cleanPolicies {
		f.Add([]byte(text))
	}
	for _, row := range planted {
		f.Add([]byte(strings.Replace(cleanPolicies[row.format], row.old, row.new, 1)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadPolicy("policy", bytes.NewReader(b))
		if err != nil {
			return
		}
		n := needs()
		r := p.Judge(n)
		decide := p.Decider(n)
		for _, c := range r.Covered {
			partly := slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Kind == PartlyDenied && f.Need == c.Need })
			if byAddresses := strings.HasPrefix(c.Text, "by the addresses of"); byAddresses || partly {
				continue
			}
			if conn, ok := instance(c.Endpoint); ok && !decide(conn) {
				t.Fatalf("%q: %s is covered by %s (%q), and %v is denied", b, c.Need, c.At, c.Text, conn)
			}
		}
	})
}

// instance is a connection that an endpoint permits; ok is false for a service tag, whose addresses are not known.
func instance(e egress.Endpoint) (c egress.Conn, ok bool) {
	c = egress.Conn{Proto: e.Proto, Dst: netip.AddrPortFrom(unknownAddr, e.Ports.First)}
	switch h := e.Host.(type) {
	case egress.Pattern:
		name, err := egress.ParseName(strings.ReplaceAll(h.String(), "*", "x"))
		c.Name, c.Bound = name, []egress.Name{name}
		return c, err == nil
	case egress.Net:
		c.Dst = netip.AddrPortFrom(h.Addr(), e.Ports.First)
		return c, true
	}
	return c, false
}
