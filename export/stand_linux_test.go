package export

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

func TestMain(m *testing.M) { os.Exit(netnstest.Main(m)) }

// A stand is a program with an exported file, in the place of the lab's gateway.
type stand struct {
	format string
	// dns is the format that the cluster's DNS server is configured by: names are not the business of a proxy.
	dns string
	// rules are loaded by nft: what the file itself says how to put it in place, or the file.
	rules func(t *testing.T, dir string) string
	// start returns the program, and where it listens when it is ready. Nil: the rules are all.
	start func(t *testing.T, dir string) (cmd *exec.Cmd, ready string)
	// excuses are the limits of the format that the lab shows.
	excuses []excuse
}

func stands() []stand {
	return []stand{
		{
			format: "squid", dns: "unbound", rules: commented("squid.conf"), start: squidInPlace,
			excuses: []excuse{
				excuseNoName, excuseSecondHello, excuseOddHellos, excuseHellos("A ClientHello that comes in many pieces may be refused.", "of 15 KB", "of 17 KB", "of 60 KB", "over 15 records", "1-byte writes"),
			},
		},
		{
			format: "haproxy", dns: "unbound", rules: commented("haproxy.cfg"), start: haproxyInPlace,
			excuses: []excuse{
				excuseOnlyIPv4, excuseNoName, excuseSecondHello, excuseOddHellos,
				excuseHellos("A ClientHello of more than 15 KB, or in more than a few records, is refused.", "of 15 KB", "of 17 KB", "of 60 KB", "over 15 records"),
			},
		},
		{
			format: "nginx", rules: commented("nginx.conf"), start: nginxInPlace,
			excuses: []excuse{
				excuseOnlyIPv4, excuseNoName, excuseSecondHello, excuseOddHellos, excuseFollows, excuseNotDNS,
				excuseHellos("A ClientHello of more than 16 KB is refused.", "of 17 KB", "of 60 KB"),
			},
		},
		{
			format: "nftables", dns: "dnsmasq", excuses: []excuse{excuseLearned},
			rules: func(t *testing.T, dir string) string { return readText(t, filepath.Join(dir, "tidegate.nft")) },
		},
	}
}

// commented are the rules of nftables that a file says in its comments.
func commented(name string) func(t *testing.T, dir string) string {
	return func(t *testing.T, dir string) string {
		var rules strings.Builder
		for line := range strings.Lines(readText(t, filepath.Join(dir, name))) {
			if rule, ok := strings.CutPrefix(line, placeMark); ok {
				rules.WriteString(rule)
			}
		}
		if rules.Len() == 0 {
			t.Fatalf("%s does not say how to put it in place", name)
		}
		return rules.String()
	}
}

func readText(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func squidInPlace(t *testing.T, dir string) (*exec.Cmd, string) {
	path := program(t, "squid")
	conf := filepath.Join(dir, "squid.conf")
	cert := filepath.Join(dir, "tidegate.pem")
	rewrite(t, conf, "/etc/squid/tidegate.pem", cert)
	if err := os.Rename(selfSigned(t), cert); err != nil {
		t.Fatal(err)
	}
	// Where it writes, which is the machine's business.
	text := readText(t, conf) + "pid_filename none\naccess_log none\ncache_log /dev/null\ncoredump_dir none\nshutdown_lifetime 0 seconds\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return exec.Command(path, "-N", "-d1", "-f", conf), "127.0.0.1:3130"
}

func haproxyInPlace(t *testing.T, dir string) (*exec.Cmd, string) {
	return exec.Command(program(t, "haproxy"), "-db", "-f", filepath.Join(dir, "haproxy.cfg")), "127.0.0.1:443"
}

func nginxInPlace(t *testing.T, dir string) (*exec.Cmd, string) {
	path := program(t, "nginx")
	conf := filepath.Join(dir, "nginx.conf")
	if module := "/usr/lib/nginx/modules/ngx_stream_module.so"; exists(module) {
		rewrite(t, conf, "events {", "load_module "+module+"; events {")
	}
	return exec.Command(path, "-e", "stderr", "-c", conf, "-g", "daemon off; master_process off; pid "+dir+"/pid;"), "127.0.0.1:443"
}

// dnsInPlace answers the lab's cluster, from an exported file or, where there is none, for every name.
func dnsInPlace(t *testing.T, format, dir string) *exec.Cmd {
	at := lab.GatewayInside[0].String()
	if format == "dnsmasq" {
		return exec.Command(program(t, "dnsmasq"), "--keep-in-foreground", "--conf-file="+filepath.Join(dir, "dnsmasq.conf"), "--listen-address="+at,
			"--bind-interfaces", "--user=", "--group=", "--pid-file=", "--log-facility=-")
	}
	conf := filepath.Join(dir, "unbound.conf")
	if format == "" {
		dir = t.TempDir()
		conf = filepath.Join(dir, "unbound.conf")
		if err := os.WriteFile(conf, []byte(fmt.Sprintf("server:\nforward-zone:\n    name: \".\"\n    forward-addr: %s\n", lab.AzureDNS)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rewrite(t, conf, "server:\n", fmt.Sprintf(`server:
    interface: %s
    access-control: 0.0.0.0/0 allow
    directory: %q
    use-syslog: no
    logfile: ""
    username: ""
    chroot: ""
    pidfile: ""
    do-daemonize: no
    trust-anchor-signaling: no
`, at, dir))
	return exec.Command(program(t, "unbound"), "-d", "-c", conf)
}

// ownRules are of the kinds that the cluster's own rules are not.
func ownRules() []egress.Rule {
	rule := func(id string, to ...string) egress.Rule {
		r := egress.Rule{ID: id, Why: "What the cluster's rules do not have."}
		for _, s := range to {
			r.To = append(r.To, egress.MustParseEndpoint(s))
		}
		return r
	}
	return []egress.Rule{
		rule("own/time", "udp://ntp.ubuntu.com:123"),
		rule("own/tunnel", "tcp://20.103.4.5:9000", "udp://20.103.4.5:1194"),
		rule("own/git", "tcp://git.example.org:22"),
		rule("own/disks", "https://md-*.blob.storage.azure.net:443"),
		rule("own/market", "https://arcmktplaceprod.*.data.azurecr.io:443"),
		rule("own/port", "https://registry.example.org:8443"),
		rule("own/web", "http://*.updates.example.org:80"),
	}
}

const labAPIServer = "aks-ml-3k2j1h0g.hcp.eastus2.azmk8s.io"

// A bench is a lab with a stand in it.
type bench struct {
	*lab.Lab
	rules  string // of nftables
	policy *egress.Policy
	gaps   []Gap // of the stand's format and of its DNS server's
}

func putInPlace(t *testing.T, s stand, gso bool, more ...egress.Rule) *bench {
	t.Helper()
	netnstest.Need(t)
	p := clusterPolicy(t, "../aks/testdata/clusters/example-public-gpu-monitor-policy.cli.json")
	p.Rules = append(append(p.Rules, ownRules()...), more...)
	p.From = lab.NodeRanges
	b := &bench{}
	var names Output
	if s.dns != "" {
		names = written(t, s.dns, p, WidenAnyClient) // who may look a name up is not who may connect
		p.Resolvers = []netip.Addr{lab.GatewayInside[0]}
	}
	out := written(t, s.format, p)
	b.gaps = ownGaps(out.Gaps, names.Gaps)
	dir, dnsDir := folder(t, out), folder(t, names)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	clusters := []egress.Cluster{{Name: "aks-ml", From: lab.NodeRanges, APIServer: egress.MustParseName(labAPIServer), ByAddress: true}}
	conf := lab.Config{Dir: t.TempDir(), Rules: p.Rules, Clusters: clusters, NoGSO: !gso}
	conf.Gateway = func() *exec.Cmd { return exec.Command("sleep", "inf") } // the programs follow once the network is there
	var err error
	if b.policy, err = egress.Compile(p.Rules, clusters); err != nil {
		t.Fatal(err)
	}
	if b.Lab, err = lab.Start(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	b.rules = s.rules(t, dir)
	b.load(t, b.rules)
	b.run(t, dnsInPlace(t, s.dns, dnsDir), net.JoinHostPort(lab.GatewayInside[0].String(), "53"))
	if s.start != nil {
		cmd, ready := s.start(t, dir)
		b.run(t, cmd, ready)
	}
	return b
}

// ownGaps are a format's gaps, and those of its DNS server about what the format can say.
func ownGaps(format, dns []Gap) []Gap {
	for _, g := range dns {
		_, named := g.Endpoint.Host.(egress.Pattern) // addresses need no DNS
		if named && !g.Widened && !slices.ContainsFunc(format, func(f Gap) bool { return f.Endpoint == g.Endpoint && f.Rule == g.Rule }) {
			format = append(format, g)
		}
	}
	return format
}

func written(t *testing.T, format string, p Policy, allow ...Widening) Output {
	t.Helper()
	f, err := Find(format)
	if err != nil {
		t.Fatal(err)
	}
	out, err := f.Export(p, allow...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// load makes the box a router with these rules.
func (b *bench) load(t *testing.T, rules string) {
	t.Helper()
	var said bytes.Buffer
	err := b.DoGateway(func() error {
		for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/"+key, []byte("1"), 0o644); err != nil {
				return err
			}
		}
		cmd := exec.Command(program(t, "nft"), "-f", "-")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(rules), &said, &said
		return cmd.Run()
	})
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, said.String(), rules)
	}
}

// run starts a program in the box and waits until it listens.
func (b *bench) run(t *testing.T, cmd *exec.Cmd, ready string) {
	t.Helper()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := b.DoGateway(cmd.Start); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		if t.Failed() {
			t.Logf("%s: %s", cmd.Path, said.String()[max(0, said.Len()-4096):])
		}
	})
	for range 200 {
		var c net.Conn
		err := b.DoGateway(func() (err error) { c, err = net.DialTimeout("tcp", ready, time.Second); return err })
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-done:
			t.Fatalf("%s ended", cmd.Path)
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Fatalf("%s does not listen on %s", cmd.Path, ready)
}
