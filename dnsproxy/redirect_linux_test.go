package dnsproxy

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/internal/netns"
	"tidegate.io/tidegate/internal/netns/netnstest"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// TestRedirected: a client that asks a resolver of its own choice, by UDP or
// TCP, IPv4 or IPv6, is answered by us and in that resolver's name.
func TestRedirected(t *testing.T) {
	netnstest.Need(t)
	node, gateway := netnstest.New(t), netnstest.New(t)
	prefixes := func(ss ...string) (ps []netip.Prefix) {
		for _, s := range ss {
			ps = append(ps, netip.MustParsePrefix(s))
		}
		return ps
	}
	must(t, netns.Veth(
		netns.End{NS: node, Name: "eth0", Addrs: prefixes("10.9.0.4/24", "fd09::4/64")},
		netns.End{NS: gateway, Name: "node", Addrs: prefixes("10.9.0.1/24", "10.9.0.2/24", "fd09::1/64", "fd09::2/64")}))
	must(t, node.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.9.0.2")))
	must(t, node.Route(netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd09::2")))
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(`table inet t { chain c {
		type nat hook prerouting priority dstnat
		udp dport 53 redirect to :1053
		tcp dport 53 redirect to :1053
	}; }`)
	nft.Stderr = os.Stderr
	must(t, gateway.Start(nft))
	must(t, nft.Wait())

	s, _ := newServer(upstreamSaying(t, func(*dns.Msg, bool) *dns.Msg { return message(t, aliceA) }))
	must(t, gateway.Do(func() error {
		udp, err := net.ListenUDP("udp", &net.UDPAddr{Port: 1053})
		if err != nil {
			return err
		}
		tcp, err := net.Listen("tcp", ":1053")
		s.UDP, s.TCP = append(s.UDP, udp), append(s.TCP, tcp)
		return err
	}))
	run(t, s)
	for _, resolver := range []string{"8.8.8.8:53", "[2001:4860:4860::8888]:53", "10.9.0.1:53", "10.9.0.2:53", "[fd09::1]:53", "[fd09::2]:53"} {
		for _, network := range []string{"udp", "tcp"} {
			var conn net.Conn
			must(t, node.Do(func() (err error) {
				conn, err = net.DialTimeout(network, resolver, 5*time.Second)
				return err
			}))
			m, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).ExchangeWithConn(queryFor(t, alice), &dns.Conn{Conn: conn})
			if err != nil || text(m) != aliceA {
				t.Errorf("%s %s: %v %v", network, resolver, m, err)
			}
			conn.Close()
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
