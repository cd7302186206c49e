package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tidegate.io/tidegate/config"
	"tidegate.io/tidegate/lab"
)

// TestWhatHasToBeTriedIs: of a cluster with rules for HTTPS, the lab tries the hellos that filters stumble over, and the
// attacks that have worked on others, in both families. TestLabThroughTheGateway runs them.
func TestWhatHasToBeTriedIs(t *testing.T) {
	g, err := config.Read(lab.GatewayFile, []byte(lab.GatewayConfig("lab", "")), func(string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(lab.Example)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := g.Policy()
	if err != nil {
		t.Fatal(err)
	}
	zone := &lab.Zone{}
	needs, misses, attacks := lab.Bootstrap(zone, policy), lab.NearMisses(zone, policy), lab.Attacks(zone, policy)
	if atLeast := 200; len(misses) < atLeast {
		t.Errorf("%d near misses, want %d", len(misses), atLeast)
	}
	for _, part := range []struct {
		cases []lab.Case
		words []string
	}{
		{needs, []string{
			"a post-quantum hello", "a hello in 1-byte writes", "a hello of 15 KB", "a hello of 17 KB", "a hello of 60 KB",
			"a hello over 15 records", "a second hello when it is asked for one", "speaks konnectivity",
		}},
		{misses, []string{"UDP to", "an address as host", "a second host on the same connection", "a CONNECT"}},
		{attacks, []string{"a decoy that dies on the way", "is asked again", "and shows another name on its ports"}},
	} {
		for _, word := range part.words {
			for _, v6 := range families {
				if !slices.ContainsFunc(part.cases, func(c lab.Case) bool {
					return strings.Contains(c.Name, word) && (strings.Contains(c.Name, familyName(v6)) || strings.Contains(word, " host") || strings.Contains(word, "CONNECT"))
				}) {
					t.Errorf("nobody tries %q over %s", word, familyName(v6))
				}
			}
		}
	}
}

// TestCurl: a client that is not written in Go gets ten megabytes whole, by every version of its protocols.
func TestCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("SKIP: another client needs the curl command: %v", err)
	}
	bothGSO(t, func(t *testing.T, noGSO bool) {
		s := startSite(t, setting{noGSO: noGSO})
		for _, args := range [][]string{
			{"--http2", "https://login.microsoftonline.com/bytes"},
			{"--http1.1", "https://login.microsoftonline.com/bytes"},
			{"--tls-max", "1.2", "https://login.microsoftonline.com/bytes"},
			{"--curves", "P-521:X25519", "https://login.microsoftonline.com/bytes"},
			{"http://security.ubuntu.com/bytes"},
		} {
			for _, v6 := range families {
				s.curl(t, append([]string{map[bool]string{false: "-4", true: "-6"}[v6]}, args...))
			}
		}
	})
}

func (s *site) curl(t *testing.T, args []string) {
	t.Helper()
	const want = "200 10485760"
	cmd := exec.Command("curl", append([]string{"-sS", "-m", "30", "-o", os.DevNull, "-w", "%{http_code} %{size_download}"}, args...)...)
	cmd.Env = s.Environ(os.Environ())
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := s.Node(1).Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil || out.String() != want {
		t.Errorf("curl %s: %v: %s, want %s", strings.Join(args, " "), err, out.String(), want)
	}
}
