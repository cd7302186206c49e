//go:build linux

package lab

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tidegate.io/tidegate/egress"
)

var update = flag.Bool("update", false, "write the golden files")

// results are some of each kind.
func results() []Result {
	need := func(group, name, about string, err error) Result {
		return Result{Case: Case{Group: group, Name: name, About: about}, Err: err, Reached: err == nil, Took: 30 * time.Millisecond}
	}
	miss := func(group, name string, why egress.Reason, reached bool) Result {
		return Result{
			Case:    Case{Group: group, Name: name, Deny: []egress.Reason{egress.NameNotAllowed, egress.AddressUnknown}},
			Reached: reached, Denied: !reached, Reason: why,
		}
	}
	all := []Result{
		need("node checks", "gets https://mcr.microsoft.com/v2/ over IPv4", "", nil),
		need("core/mcr", "reaches https://mcr.microsoft.com:443 over IPv4", "https://mcr.microsoft.com:443", nil),
		need("core/mcr", "reaches https://a.data.mcr.microsoft.com:443 over IPv4", "https://*.data.mcr.microsoft.com:443", nil),
		need("core/arm", "reaches https://management.azure.com:443 over IPv6", "https://management.azure.com:443", errors.New("connection reset by peer")),
		miss("look-alike names", "shows evil\x1b[31m.example", egress.NameNotAllowed, false),
		miss("look-alike names", "shows evil.example to another", egress.AddressUnknown, false),
		miss("look-alike names", "shows evil.example to a third", egress.AddressUnknown, false),
		miss("other ports", "speaks TLS on port 8443", 0, true),
		miss("other ports", "speaks TLS on port 444", egress.NoServerName, false),
	}
	for i := range 40 {
		all = append(all, miss("datagrams", fmt.Sprintf("sends the datagram number %d", i), 0, true))
	}
	return all
}

func TestTable(t *testing.T) {
	for name, r := range map[string]*Report{
		"gateway": {Title: "API server x; 3 rules", Results: results(), Took: 12 * time.Second},
		"plain":   {Plain: true, Results: results()[:7], Took: 8 * time.Second},
	} {
		var out bytes.Buffer
		if err := r.WriteTable(&out, false); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(line) - 1; n > tableWidth || strings.ContainsRune(line, 0x1b) {
				t.Errorf("%d columns: %q", n, line)
			}
		}
		golden(t, "table-"+name+".txt", out.Bytes())
		text, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "report-"+name+".json", text)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update to accept):\n%s", path, got)
	}
}
