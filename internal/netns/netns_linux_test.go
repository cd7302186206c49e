package netns_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is two namespaces with a cable.
func pair(t *testing.T) (a, b *netns.NS) {
	netnstest.Need(t)
	a, b = netnstest.New(t), netnstest.New(t)
	must(t, netns.Veth(
		netns.End{NS: a, Name: "toB", Addrs: prefixes("192.0.2.1/24", "2001:db8::1/64")},
		netns.End{NS: b, Name: "toA", Addrs: prefixes("192.0.2.2/24", "2001:db8::2/64")},
	))
	return a, b
}

// exchange listens in b and dials from a.
func exchange(a, b *netns.NS, addr string) error {
	var l net.Listener
	if err := b.Do(func() (err error) { l, err = net.Listen("tcp", addr); return err }); err != nil {
		return err
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.WriteString(c, "hello")
			err = errors.Join(err, c.Close())
		}
		done <- err
	}()
	var c net.Conn
	if err := a.Do(func() (err error) { c, err = net.Dial("tcp", l.Addr().String()); return err }); err != nil {
		return err
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if string(got) != "hello" {
		err = errors.Join(err, errors.New("wrong bytes"))
	}
	return errors.Join(err, <-done)
}

func TestConnectionsCrossTheCable(t *testing.T) {
	a, b := pair(t)
	for _, addr := range []string{"192.0.2.2:0", "[2001:db8::2]:0"} {
		must(t, exchange(a, b, addr))
	}
}

func TestOwnedPrefixesAnswer(t *testing.T) {
	a, b := pair(t)
	for _, p := range prefixes("198.51.100.0/24", "2001:db8:1::/48") {
		must(t, b.Own(p))
	}
	must(t, a.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.0.2.2")))
	must(t, a.Route(netip.MustParsePrefix("::/0"), netip.MustParseAddr("2001:db8::2")))
	for _, addr := range []string{"198.51.100.77:0", "[2001:db8:1::77]:0"} {
		must(t, exchange(a, b, addr))
	}
}

func TestProcessesRunInside(t *testing.T) {
	a, _ := pair(t)
	cmd := exec.Command("cat", "/proc/net/dev")
	var out bytes.Buffer
	cmd.Stdout = &out
	must(t, a.Start(cmd))
	must(t, cmd.Wait())
	if !strings.Contains(out.String(), "toB:") {
		t.Errorf("the process does not see the cable: %s", out.String())
	}
	here, err := os.ReadFile("/proc/net/dev")
	must(t, err)
	if bytes.Contains(here, []byte("toB:")) {
		t.Error("the test's own namespace has the cable")
	}
}

func TestSysctlIsTheNamespacesOwn(t *testing.T) {
	a, b := pair(t)
	must(t, a.Sysctl("net/ipv4/ip_forward", "1"))
	must(t, b.Sysctl("net/ipv4/ip_forward", "0"))
	must(t, a.Do(func() error {
		v, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		if string(v) != "1\n" {
			t.Errorf("ip_forward is %q", v)
		}
		return err
	}))
}

func TestGSODecidesTheLargestPacket(t *testing.T) {
	for _, on := range []bool{true, false} {
		a, b := pair(t)
		must(t, a.GSO("toB", on))
		must(t, b.GSO("toA", on))
		if got := largestPacket(t, a, b) > 1514; got != on {
			t.Errorf("GSO %t: packets larger than the wire's: %t", on, got)
		}
	}
}

// largestPacket returns the size of the largest frame that b gets while a sends
// it a megabyte.
func largestPacket(t *testing.T, a, b *netns.NS) (largest int) {
	var sniff, l io.Closer
	must(t, b.Do(func() (err error) { sniff, err = openSniffer("toA"); return err }))
	must(t, b.Do(func() (err error) { l, err = net.Listen("tcp", "192.0.2.2:7777"); return err }))
	defer l.Close()
	go func() {
		c, err := l.(net.Listener).Accept()
		if err == nil {
			io.Copy(io.Discard, c)
			c.Close()
		}
		sniff.Close()
	}()
	go a.Do(func() error {
		c, err := net.Dial("tcp", "192.0.2.2:7777")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(make([]byte, 1<<20))
		return err
	})
	buf := make([]byte, 1<<17)
	for {
		n, err := sniff.(io.Reader).Read(buf)
		if err != nil {
			return largest
		}
		largest = max(largest, n)
	}
}

func TestRefusalsAreErrors(t *testing.T) {
	netnstest.Need(t)
	a := netnstest.New(t)
	for name, err := range map[string]error{
		"route without a device": a.Route(netip.MustParsePrefix("192.0.2.0/24"), netip.MustParseAddr("192.0.2.1")),
		"unknown device":         a.GSO("nowhere", false),
		"unknown setting":        a.Sysctl("net/ipv4/no_such_thing", "1"),
		"f that ends its thread": a.Do(func() error { t.Helper(); return errors.New("said so") }),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
