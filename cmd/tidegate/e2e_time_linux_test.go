package main

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// timeServer is the one that the row for old nodes names.
const timeServer = "ntp.ubuntu.com"

// oldNodes is the lab's file, of a cluster whose nodes set their clocks by NTP.
func oldNodes() string {
	const plain = "aks: " + lab.ClusterFile
	return strings.Replace(lab.GatewayConfig("lab", ""), plain, "aks: {file: "+lab.ClusterFile+", with: [old-nodes]}", 1)
}

// A clock is a client that asks a time server and leaves the machine's time alone.
type clock struct {
	name, command string
	args          func(server, family string, patience int) []string // seconds
}

// clocks are those of Debian and Ubuntu.
var clocks = []clock{
	{"chronyd", "chronyd", func(server, family string, patience int) []string { return chrony(server, family, "", patience) }},
	{"ntpdate", "ntpdate", func(server, family string, patience int) []string {
		return []string{family, "-q", "-t", strconv.Itoa(patience), server}
	}},
}

// chrony asks every eighth of a second instead of every other second.
func chrony(server, family, options string, patience int) []string {
	return []string{
		"-Q", family, "-U", "-u", "root", "-f", os.DevNull, "-t", strconv.Itoa(patience),
		"server " + server + " iburst minpoll -3 maxpoll -3 maxsamples 4 " + options,
	}
}

// offset is what the clients print when a server has told them the time: chronyd, ntpdate.
var offset = regexp.MustCompile(`System clock wrong by -?[0-9.]+ seconds|[-+][0-9.]+ \+/- [0-9.]+ \S+ \S+ s[1-9]`)

// program is where a client is: scripts/setup takes chronyd out of its package.
func (c clock) program() (string, error) {
	taken, err := filepath.Abs("../../bin/tools/" + c.command)
	if err != nil {
		return "", err
	}
	for _, name := range []string{c.command, "/usr/sbin/" + c.command, taken} {
		var path string
		if path, err = exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", err
}

// needClocks skips, or fails where the test has to run, without the clients.
func needClocks(t *testing.T) {
	t.Helper()
	for _, c := range clocks {
		_, err := c.program()
		if err != nil && os.Getenv(netnstest.Required) != "" {
			t.Fatalf("%v: scripts/setup installs it", err)
		} else if err != nil {
			t.Skipf("SKIP: a time server's real clients: %v", err)
		}
	}
}

// askTime has c, on the first node, ask server for the time, and holds whether it is told against want. One that is to be
// refused is only patient enough to ask: what the log and the servers have seen is the proof.
func (s *site) askTime(server string, c clock, v6, want bool) {
	s.t.Helper()
	patience := map[bool]int{true: 20, false: 1}[want]
	program, err := c.program()
	if err != nil {
		s.t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.CommandContext(s.t.Context(), program, c.args(server, map[bool]string{false: "-4", true: "-6"}[v6], patience)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = s.Environ(os.Environ()), &out, &out
	err = s.Node(1).Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if told := offset.MatchString(out.String()); told != want || want != (err == nil) {
		s.t.Errorf("%s of %s over %s: told the time %v, want %v (%v)\n%s", c.name, server, familyName(v6), told, want, err, out.String())
	}
}

// TestClocks: the programs by which nodes set their clocks are told the time by the row for NTP, by the server that it
// names and by nobody else; and by nobody at all where the row is off.
func TestClocks(t *testing.T) {
	needClocks(t)
	for _, row := range []struct {
		name, file string
		on         bool
	}{
		{"old nodes have the row", oldNodes(), true},
		{"new nodes do not", lab.GatewayConfig("lab", ""), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := startSite(t, setting{file: row.file})
			other := map[bool]string{true: "time.example.org", false: timeServer}[row.on]
			for _, c := range clocks {
				for _, v6 := range families {
					s.askTime(timeServer, c, v6, row.on)
					s.tellsNothing(c, s.where(other, v6))
				}
			}
		})
	}
}

// tellsNothing: a time server that no rule names is not reached, and the log says why.
func (s *site) tellsNothing(c clock, addr netip.Addr) {
	s.t.Helper()
	began := time.Now()
	s.askTime(addr.String(), c, addr.Is6(), false)
	if n := s.arrived(addr); n > 0 {
		s.t.Errorf("%s reached %s with %d datagrams", c.name, addr, n)
	}
	s.refused(c, addr, began, egress.NoRule)
}

// arrived counts the datagrams that the time server at addr has had.
func (s *site) arrived(addr netip.Addr) int {
	to := netip.AddrPortFrom(addr, 123)
	return len(s.Record.Find(func(seen *lab.Seen) bool { return seen.Proto == "udp" && seen.Local == to }))
}

// refused: the log has a denial of datagrams to a server since then, and this reason for it.
func (s *site) refused(c clock, addr netip.Addr, since time.Time, why egress.Reason) {
	s.t.Helper()
	to := netip.AddrPortFrom(addr, 123)
	if _, ok := s.denied(func(f *egress.Flow) bool {
		return f.Conn.Proto == egress.UDP && f.Conn.Dst == to && f.Verdict.Reason == why && f.Time.After(since)
	}); !ok {
		s.t.Errorf("%s to %s: the log has no denial with the reason %s", c.name, to, why)
	}
}

// TestClocksCarryNothingElse: a real client's request of 48 bytes passes, interleaved or not; one with more behind
// it, which could be anything, does not, though the same client sends it to the same server.
func TestClocksCarryNothingElse(t *testing.T) {
	needClocks(t)
	s := startSite(t, setting{file: oldNodes()})
	s.set("keys", "1 SHA1 HEX:6f6e6520746f2074656c6c\n")
	for _, row := range []struct {
		name, options string
		more          []string
		want          bool
	}{
		{"in version 3", "version 3", nil, true},
		{"interleaved", "xleave", nil, true},
		{"with an extension field", "extfield F323", nil, false},
		{"with a MAC", "key 1", []string{"keyfile " + filepath.Join(s.dir, "keys")}, false},
	} {
		c := clock{"chronyd " + row.name, "chronyd", func(server, family string, patience int) []string {
			return append(chrony(server, family, row.options, patience), row.more...)
		}}
		for _, v6 := range families {
			addr := s.found(1, timeServer, v6)
			began, before := time.Now(), s.arrived(addr)
			s.askTime(addr.String(), c, v6, row.want)
			if n := s.arrived(addr) - before; (n > 0) != row.want {
				t.Errorf("%s over %s: %d datagrams arrived", c.name, familyName(v6), n)
			}
			if !row.want {
				s.refused(c, addr, began, egress.NTPPayload)
			}
		}
	}
}
