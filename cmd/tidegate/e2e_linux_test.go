package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// A site is a house with a gateway's file of the test's own.
type site struct {
	*house
	t     testing.TB
	flows *lab.FlowLog
}

// A setting says how a site is built.
type setting struct {
	file  string // the gateway's; "" is the lab's, with more
	more  string // appended to the lab's file
	noGSO bool
}

// startSite runs until the test is over. When the test has failed, the end of the gateway's log is shown.
func startSite(t testing.TB, s setting) *site {
	t.Helper()
	netnstest.Need(t)
	if s.file == "" {
		s.file = lab.GatewayConfig("lab", s.more)
	}
	at := &site{house: &house{dir: t.TempDir()}, t: t}
	at.set(lab.ClusterFile, string(lab.Example))
	at.set(lab.GatewayFile, s.file)
	at.flows = lab.FollowFlows(filepath.Join(at.dir, lab.FlowLogFile))
	g, err := readGateway(filepath.Join(at.dir, lab.GatewayFile))
	if err == nil {
		at.policy, err = g.Policy()
	}
	if err != nil {
		t.Fatal(err)
	}
	at.Lab, err = lab.Start(t.Context(), lab.Config{
		Dir: at.dir, Rules: g.Rules, Clusters: at.policy.Clusters(), NoGSO: s.noGSO, Ready: lab.Ready,
		Gateway: func() *exec.Cmd { return exec.Command("tidegate", "gateway", "run", "--config", lab.GatewayFile) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		at.Close()
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", at.log())
		}
	})
	return at
}

// bothGSO runs a test with packets as veth carries them and as a wire would, one after the other.
func bothGSO(t *testing.T, f func(t *testing.T, noGSO bool)) {
	for _, noGSO := range []bool{false, true} {
		t.Run(map[bool]string{false: "GSO", true: "no GSO"}[noGSO], func(t *testing.T) { f(t, noGSO) })
	}
}

// set writes a file in the gateway's directory.
func (s *site) set(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// said is all that the gateway has written to its standard error.
func (s *site) said() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "gateway.log"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// command runs "tidegate gateway" beside the running one, and returns what it prints and its exit code.
func (s *site) command(args ...string) (string, int) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "tidegate", append([]string{"gateway", "--config", lab.GatewayFile}, args...)...)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// within is a context for one step of a test; reaching its end is a failure of the step, so it is far longer than the
// step takes.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// until waits until f is true, and reports whether that came in time.
func until(d time.Duration, f func() bool) bool {
	for end := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		if f() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// families are whether it is IPv6.
var families = []bool{false, true}

func familyName(v6 bool) string { return map[bool]string{false: "IPv4", true: "IPv6"}[v6] }

// resolve asks the gateway itself, from node, for name: unlike node.Lookup not through the cluster's DNS.
func (s *site) resolve(node int, name string, v6 bool) (netip.Addr, error) {
	return s.ask(node, lab.GatewayInside[0], name, v6)
}

// found is resolve for what a test needs before it begins: it asks again, as clients do.
func (s *site) found(node int, name string, v6 bool) (addr netip.Addr) {
	s.t.Helper()
	var err error
	if !until(10*time.Second, func() bool { addr, err = s.resolve(node, name, v6); return err == nil }) {
		s.t.Fatal(err)
	}
	return addr
}

// ask asks any resolver, and takes the first address.
func (s *site) ask(node int, resolver netip.Addr, name string, v6 bool) (netip.Addr, error) {
	qtype := dns.TypeA
	if v6 {
		qtype = dns.TypeAAAA
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	m, err := s.Node(node).Ask(ctx, "udp", netip.AddrPortFrom(resolver, 53), name, qtype)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(rr.A)
			return a.Unmap(), nil
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(rr.AAAA)
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("resolve %s: no address (%s)", name, dns.RcodeToString[m.Rcode])
}

// where is one of name's in the lab's internet, whether or not anybody has asked for it.
func (s *site) where(name string, v6 bool) netip.Addr {
	for _, a := range s.Zone.Addrs(name) {
		if a.Is6() == v6 {
			return a
		}
	}
	s.t.Fatalf("%s has no %s address", name, familyName(v6))
	return netip.Addr{}
}

// shake connects from node to an address and shakes hands as name.
func (s *site) shake(ctx context.Context, node int, name string, to netip.AddrPort, alpn ...string) (*tls.Conn, error) {
	raw, err := s.Node(node).Dial(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	c := tls.Client(raw, &tls.Config{RootCAs: s.CA.Pool(), ServerName: name, NextProtos: alpn, CurvePreferences: []tls.CurveID{tls.X25519}})
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// visit shakes hands once and leaves.
func (s *site) visit(node int, name string, to netip.Addr) error {
	return s.handshake(s.t.Context(), s.Node(node), name, to)
}

// get fetches url from an address on a connection of its own, and returns the status.
func (s *site) get(ctx context.Context, node int, at netip.AddrPort, url string) (int, error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return s.Node(node).Dial(ctx, "tcp", at)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

var words atomic.Uint64

// echo sends a word that was never sent before and waits for it to come back.
func echo(c net.Conn) error {
	word := fmt.Appendf(nil, "word %d", words.Add(1))
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, word) {
		return fmt.Errorf("%q came back as %q", word, got)
	}
	return nil
}

// decided waits for the flow log to have a decision that matches, and returns the last one.
func (s *site) decided(match func(*egress.Flow) bool) (egress.Flow, bool) {
	var found egress.Flow
	ok := until(5*time.Second, func() bool {
		all, err := s.flows.All()
		if err != nil {
			s.t.Error(err)
		}
		for i := range all {
			if f := &all[len(all)-1-i]; !f.End && match(f) {
				found = *f
				return true
			}
		}
		return false
	})
	return found, ok
}

// denied is decided for a denial.
func (s *site) denied(match func(*egress.Flow) bool) (egress.Flow, bool) {
	return s.decided(func(f *egress.Flow) bool { return f.Verdict.Action == egress.Deny && match(f) })
}
