package kernel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns/netnstest"
)

func TestNameserversAreOurs(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(nil)
		b.echo(b.gateway, 5300)
		b.echo(b.gateway, 5353)
		b.echo(b.web, 53)
		for i, a := range webAddrs {
			for _, to := range []string{a, gatewayAddrs[i]} {
				for _, network := range []string{"tcp", "udp"} {
					if err := b.reach(network, at(to, 53)); err != nil {
						t.Errorf("%s %s: %v", network, to, err)
					}
				}
			}
		}
		// The echo came from us: without our server there is none.
		b.load(func(s *Settings) { s.DNS, s.Asked = 5301, 0 })
		for _, a := range webAddrs {
			if b.reach("tcp", at(a, 53)) == nil || b.reach("udp", at(a, 53)) == nil {
				t.Errorf("%s: a nameserver outside was reached", a)
			}
		}
	})
}

// A resolver in the cluster asks from one address, and from one port, as often as it likes.
func TestQuestionsAreNoNewConnections(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, true)
	b.load(nil)
	b.echo(b.gateway, 5300)
	c, err := b.dial("udp", at(webAddrs[0], 53))
	must(t, err)
	defer c.Close()
	buf := make([]byte, 100)
	for i := range 2 * freshBurst {
		must(t, c.SetDeadline(time.Now().Add(2*time.Second)))
		_, err := c.Write(buf)
		must(t, err)
		if _, err := c.Read(buf); err != nil {
			t.Fatalf("question %d: %v", i, err)
		}
	}
}

// proxy tells each client where it wanted to connect, as the HTTP proxy is told.
func (b *bench) proxy(port int) {
	b.t.Helper()
	var l net.Listener
	must(b.t, b.gateway.Do(func() (err error) {
		l, err = net.Listen("tcp", at("::", port))
		return err
	}))
	b.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			to, err := Dialled(c.(*net.TCPConn))
			_, _ = fmt.Fprintln(c, "proxy for", to, err)
			c.Close()
		}
	}()
}

// proxied dials from a port, or from any with 0, and expects the proxy to know where.
func (b *bench) proxied(from int, to string) {
	b.t.Helper()
	must(b.t, b.client.Do(func() error {
		d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{Port: from}, Control: func(_, _ string, c syscall.RawConn) (err error) {
			e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return errors.Join(e, err)
		}}
		c, err := d.Dial("tcp", to)
		if err != nil {
			return err
		}
		b.t.Cleanup(func() { c.Close() })
		got, err := io.ReadAll(c)
		if want := "proxy for " + to + " <nil>\n"; string(got) != want {
			b.t.Errorf("got %q, want %q", got, want)
		}
		return err
	}))
}

func TestHTTPGoesToTheProxy(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(nil, rule(t, "web", nil, "http://a.example:80"), rule(t, "plain", nil, "tcp://20.40.0.99:80"))
		b.echo(b.web, 80)
		for _, a := range webAddrs {
			// Nobody there: never forwarded.
			if err := b.reach("tcp", at(a, 80)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s without the proxy: %v, want a refusal", a, err)
			}
		}
		b.proxy(8080)
		for _, a := range webAddrs {
			b.proxied(0, at(a, 80))
		}
		for _, a := range []string{"20.40.0.10", "20.40.0.11", "2603:1020::10", "2603:1020::11"} {
			b.proxied(4321, at(a, 80)) // the proxy has one address for all of them
		}
		must(t, b.reach("tcp", at("20.40.0.99", 80))) // an address rule comes first
		for _, a := range gatewayAddrs {
			if err := b.reach("tcp", at(a, 8080)); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s: the proxy's port itself: %v, want a refusal", a, err)
			}
		}
	})
}

// TestAConnectionThatBecomesOneOfTheProxyGoesNowhere: it was forwarded when it was new, and where a connection leads does not
// change. The re-used-ports attack tries to take its way with a SYN that the policy of now gives to the proxy.
func TestAConnectionThatBecomesOneOfTheProxyGoesNowhere(t *testing.T) {
	netnstest.Need(t)
	b := newBench(t, false)
	var out *Resetter
	must(t, b.client.Do(func() (err error) { out, err = OpenResetter(); return err }))
	defer out.Close()
	see := newSniffer(t, b.web, "gw")
	for i, a := range webAddrs {
		to := netip.MustParseAddrPort(at(a, 80))
		b.load(nil, rule(t, "plain", nil, "tcp://0.0.0.0/0:80", "tcp://[::/0]:80"))
		syn := tcpPacket(netip.MustParseAddrPort(at(clientAddrs[i], 4322)), to, 1, 0, flagSYN, nil, nil)
		must(t, out.Send(syn))
		if !see.sees(patience, fromClient) {
			t.Errorf("control: %s is not reached by a rule for all addresses", a)
		}
		b.load(nil, rule(t, "web", nil, "http://a.example:80"))
		must(t, out.Send(syn))
		if see.sees(300*time.Millisecond, fromClient) {
			t.Errorf("%s is reached past the proxy", a)
		}
	}
}

func TestTheGatewayItselfIsClosedToClients(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(func(s *Settings) { s.Management = netip.AddrPortFrom(netip.Addr{}, 0) },
			rule(t, "any", nil, "tcp://0.0.0.0/0:1-65535", "tcp://[::/0]:1-65535", "udp://0.0.0.0/0:1-65535", "udp://[::/0]:1-65535"))
		for _, port := range []int{22, 3128, 5300, 5353, 9090} {
			b.echo(b.gateway, port)
		}
		for _, a := range gatewayAddrs {
			for port, open := range map[int]bool{22: false, 9090: false, 3128: true, 5300: true} {
				if err := b.reach("tcp", at(a, port)); (err == nil) != open {
					t.Errorf("tcp %s:%d: %v, want open %t", a, port, err, open)
				}
			}
			for _, port := range []int{22, 5353} { // the second under its own number
				if err := b.reach("udp", at(a, port)); err == nil {
					t.Errorf("udp %s:%d is open", a, port)
				}
			}
		}
		// From outside, what serves clients is closed too; the rest is not ours.
		for _, a := range []string{"20.0.0.2", "2603:1020:ffff::2"} {
			for port, open := range map[int]bool{22: true, 3128: false, 5300: false} {
				err := b.web.Do(func() error {
					d := net.Dialer{Timeout: patience / 20}
					c, err := d.Dial("tcp", at(a, port))
					if err == nil {
						c.Close()
					}
					return err
				})
				if (err == nil) != open {
					t.Errorf("from outside %s:%d: %v, want open %t", a, port, err, open)
				}
			}
		}
	})
}

func TestInsideIsNotOurs(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(func(s *Settings) {
			s.Clusters = []Cluster{{Name: "prod", Internal: prefixes("20.40.0.0/24", "2603:1020::/64")}}
		}, rule(t, "web", nil, "https://a.example:443", "http://a.example:80"))
		for _, port := range []int{443, 80, 53, 22} {
			b.echo(b.web, port)
			b.echo(b.client, port)
		}
		for i, a := range webAddrs {
			for _, port := range []int{443, 80, 53, 22} {
				if err := b.reach("tcp", at(a, port)); err != nil {
					t.Errorf("tcp %s:%d: %v", a, port, err)
				}
				if err := b.reach("udp", at(a, port)); err != nil {
					t.Errorf("udp %s:%d: %v", a, port, err)
				}
			}
			// The other way round, with an address that is inside.
			err := b.web.Do(func() error {
				d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(a)}}
				c, err := d.Dial("tcp", at(clientAddrs[i], 22))
				if err == nil {
					c.Close()
				}
				return err
			})
			if err != nil {
				t.Errorf("from %s: %v", a, err)
			}
			// And with one that is not.
			err = b.web.Do(func() error {
				d := net.Dialer{Timeout: patience / 20}
				_, err := d.Dial("tcp", at(clientAddrs[i], 22))
				return err
			})
			if err == nil {
				t.Error("the outside opened a connection to a client")
			}
		}
	})
}

func TestNTPIsNoTunnel(t *testing.T) {
	eachWay(t, func(t *testing.T, b *bench) {
		b.load(nil, rule(t, "ntp", nil, "udp://20.40.0.0/24:123", "udp://[2603:1020::/64]:123"))
		b.echo(b.web, 123)
		request := func(mode byte, size int) []byte {
			p := make([]byte, size)
			p[0] = 4<<3 | mode
			return p
		}
		for _, a := range webAddrs {
			for _, row := range []struct {
				name    string
				payload []byte
				passes  bool
			}{
				{"a request", request(3, 48), true},
				{"a server's answer", request(4, 48), false},
				{"a request with more", request(3, 68), false},
				{"another protocol", request(3, 12), false},
			} {
				c, err := b.dial("udp", at(a, 123))
				must(t, err)
				_, err = c.Write(row.payload)
				must(t, err)
				must(t, c.SetReadDeadline(deadline(row.passes)))
				if _, err := c.Read(make([]byte, 100)); (err == nil) != row.passes {
					t.Errorf("%s: %s: %v, want it to pass: %t", a, row.name, err, row.passes)
				}
			}
			// A flow that has begun with a request cannot go on with something else.
			c, err := b.dial("udp", at(a, 123))
			must(t, err)
			for i, p := range [][]byte{request(3, 48), request(3, 500)} {
				_, err = c.Write(p)
				must(t, err)
				must(t, c.SetReadDeadline(deadline(i == 0)))
				if _, err := c.Read(make([]byte, 1000)); (err == nil) != (i == 0) {
					t.Errorf("%s: datagram %d: %v", a, i, err)
				}
			}
		}
	})
}
