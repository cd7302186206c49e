package export

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
)

// nearNames are names around the patterns of dnsPolicy.
var nearNames = []string{
	"one.exact.example", "x.one.exact.example", "x.y.one.exact.example", "xone.exact.example", "exact.example", "y.exact.example",
	"x.below.example.com", "x.y.below.example.com", "below.example.com", "xbelow.example.com", "example.com", "y.example.com",
	"both.example.net", "x.both.example.net", "x.y.both.example.net",
	"deep.sub.exact.example", "sub.exact.example", "x.deep.sub.exact.example",
	"alias.example.org", "target.elsewhere.test", "x.target.elsewhere.test", "com", "example", "unrelated.test",
}

func dnsPolicy() Policy {
	var p Policy
	for i, s := range []string{
		"https://one.exact.example:443", "https://*.below.example.com:443",
		"https://both.example.net:443", "https://*.both.example.net:443",
		"https://deep.sub.exact.example:443", "https://alias.example.org:443",
	} {
		p.Rules = append(p.Rules, egress.Rule{ID: fmt.Sprintf("r/%d", i), To: []egress.Endpoint{egress.MustParseEndpoint(s)}})
	}
	return p
}

// TestDNSServers asks the real servers, with what is written for them, for
// names and near misses: those of the rules have an address, others do not
// exist. A name that leads to another by CNAME has its address too.
func TestDNSServers(t *testing.T) {
	upstream := answering(t)
	policy := dnsPolicy()
	policy.Resolvers = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	for name, start := range map[string]func(t *testing.T, dir string, upstream, port int) *exec.Cmd{
		"dnsmasq": dnsmasqOn, "unbound": unboundOn,
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Find(name)
			if err != nil {
				t.Fatal(err)
			}
			out, err := f.Export(policy)
			if err != nil {
				t.Fatal(err)
			}
			port := freePort(t)
			cmd := start(t, folder(t, out), upstream, port)
			var said strings.Builder
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				cmd.Process.Kill()
				cmd.Wait()
				if t.Failed() {
					t.Log(said.String())
				}
			})
			server := fmt.Sprintf("127.0.0.1:%d", port)
			await(t, server)
			for _, n := range nearNames {
				want := false
				for _, r := range policy.Rules {
					want = want || r.To[0].Host.(egress.Pattern).Match(egress.MustParseName(n))
				}
				if got := resolves(t, server, n); got != want {
					t.Errorf("%s resolves: %v, want %v", n, got, want)
				}
			}
		})
	}
}

func dnsmasqOn(t *testing.T, dir string, upstream, port int) *exec.Cmd {
	path := program(t, "dnsmasq")
	conf := filepath.Join(dir, "dnsmasq.conf")
	rewrite(t, conf, "/127.0.0.1\n", fmt.Sprintf("/127.0.0.1#%d\n", upstream))
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	// Its sets are the firewall's, which is not here.
	b = regexp.MustCompile(`(?m)^nftset=.*\n`).ReplaceAll(b, nil)
	if err := os.WriteFile(conf, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return exec.Command(path, "--keep-in-foreground", "--conf-file="+conf, fmt.Sprintf("--port=%d", port), "--listen-address=127.0.0.1",
		"--bind-interfaces", "--user=", "--group=", "--pid-file=", "--log-facility=-")
}

func unboundOn(t *testing.T, dir string, upstream, port int) *exec.Cmd {
	path := program(t, "unbound")
	conf := filepath.Join(dir, "unbound.conf")
	rewrite(t, conf, "forward-addr: 127.0.0.1", fmt.Sprintf("forward-addr: 127.0.0.1@%d", upstream))
	rewrite(t, conf, "server:\n", fmt.Sprintf("server:\n    interface: 127.0.0.1@%d\n    do-not-query-localhost: no\n    use-syslog: no\n    logfile: \"\"\n    username: \"\"\n    chroot: \"\"\n    directory: %q\n    pidfile: \"\"\n    do-daemonize: no\n    ip-freebind: yes\n    access-control: 127.0.0.0/8 allow\n    num-threads: 1\n    outgoing-range: 64\nremote-control:\n    control-enable: no\nserver:\n", port, dir))
	return exec.Command(path, "-d", "-c", conf)
}

// answering serves an address for every name; alias.example.org has it by way
// of a name that no rule has. It returns its port.
func answering(t *testing.T) int {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		if q.Question[0].Qtype == dns.TypeA {
			if name == "alias.example.org." {
				m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 60}, Target: "target.elsewhere.test."})
				name = "target.elsewhere.test."
			}
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(198, 51, 100, 7)})
		}
		w.WriteMsg(m)
	})}
	go server.ActivateAndServe()
	t.Cleanup(func() { server.Shutdown() })
	return pc.LocalAddr().(*net.UDPAddr).Port
}

func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20000 + rand.IntN(10000) // which Linux gives to nobody by itself
		pc, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		pc.Close()
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("no port is free for UDP and TCP")
	return 0
}

func ask(server, name string) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	c := dns.Client{Timeout: 2 * time.Second}
	r, _, err := c.Exchange(m, server)
	return r, err
}

func await(t *testing.T, server string) {
	t.Helper()
	var err error
	for range 100 {
		if _, err = ask(server, "one.exact.example"); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("the server does not answer: %v", err)
}

func resolves(t *testing.T, server, name string) bool {
	t.Helper()
	r, err := ask(server, name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return false
	}
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok && a.A.Equal(net.IPv4(198, 51, 100, 7)) {
			return true
		}
	}
	return false
}
