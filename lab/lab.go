//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"

	"github.com/miekg/dns"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns"
)

// A Config says what stands in the gateway's box and what the cluster is. Only Dir is needed.
type Config struct {
	// Dir holds the lab's files (resolv.conf, ca.pem, gateway.log) and is the gateway's working directory.
	Dir string
	// Gateway makes the gateway's command, anew for each start; it has all powers over the network of its box. Nil: the
	// box only forwards and masquerades.
	Gateway func() *exec.Cmd
	// Ready is asked until it returns nil before Start and RestartGateway return. Nil: the gateway is ready at once.
	Ready func(ctx context.Context, l *Lab) error
	// Rules and Clusters are what the gateway enforces: they say which ports have servers, and which names are API servers.
	Rules    []egress.Rule
	Clusters []egress.Cluster
	// Private lists names with an address inside the virtual network; see [Zone].
	Private []string
	// HTTP answers requests in place of the lab's web servers, over HTTP and HTTPS; false leaves one to them. Nil: all.
	HTTP func(w http.ResponseWriter, r *http.Request) bool
	// APIServer takes each TLS connection to an address of a cluster's API server, its ClientHello still to be read, and
	// closes it. Nil: the lab imitates an API server.
	APIServer func(c net.Conn)
	// Watch is told what the servers see, as [Record] has it.
	Watch func(*Seen)
	// Unkept leaves the gateway without a [Keeper], as one that is started by hand.
	Unkept bool
	// NoGSO makes every packet one that a wire would carry. With GSO on, veth carries a whole ClientHello as one.
	NoGSO bool
	// Peers starts OpenSSL and nginx behind the names that [AttackRules] permits, as far as they are installed.
	Peers bool
	// Parallel is how many cases are tried at a time; 0 is some.
	Parallel int
}

// A Lab is running. Its methods may be called from any number of goroutines.
type Lab struct {
	Zone   *Zone
	CA     *CA
	Record *Record // what the servers saw

	conf   Config
	boxes  *boxes
	nodes  [2]*Node
	server *server
	peers  *peers // nil without Config.Peers

	mu      sync.Mutex
	gateway *process
	keepers []*Keeper // of the units that have run, the newest last
	room    *room     // the gateway's
	apart   []*Node
	outside []*room
}

// Start builds the lab and starts everything in it. The caller closes it. It needs power over network namespaces: as
// root, or inside a user namespace.
func Start(ctx context.Context, conf Config) (_ *Lab, err error) {
	l := &Lab{Zone: &Zone{Private: conf.Private}, Record: &Record{Watch: conf.Watch}, conf: conf}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.CA, err = NewCA(); err != nil {
		return nil, err
	}
	if l.boxes, err = build(ownRanges(conf.Rules), !conf.NoGSO); err != nil {
		return nil, err
	}
	l.server = newServer(l.Zone, l.CA, l.Record, l.isAPI, l.relay)
	l.server.also, l.server.api = conf.HTTP, conf.APIServer
	if err := l.settle(); err != nil {
		return nil, err
	}
	if conf.Peers {
		if err := l.startPeers(); err != nil {
			return nil, err
		}
	}
	if err := l.serve(); err != nil {
		return nil, err
	}
	if l.room, err = newRoom(l.boxes.gateway, nil); err != nil {
		return nil, err
	}
	if conf.Gateway == nil {
		return l, l.boxes.forwardPlainly()
	}
	return l, l.RestartGateway(ctx)
}

// ownRanges are the addresses at which the lab's internet has servers: those of names, well-known ones, and what the
// rules name by address.
func ownRanges(rules []egress.Rule) []netip.Prefix {
	own := append([]netip.Prefix{publicV4, publicV6}, prefixes(elsewhere)...)
	for _, r := range rules {
		for _, e := range r.To {
			if n, ok := e.Host.(egress.Net); ok && n.Bits() > 0 && !slices.ContainsFunc(own, n.Overlaps) && !inside(n.Prefix) {
				own = append(own, n.Prefix)
			}
		}
	}
	return own
}

// inside reports whether p is in the virtual network or on the way out of it.
func inside(p netip.Prefix) bool {
	reserved := slices.Concat(NodeRanges, InsideRanges, prefixes([]string{"20.200.0.0/15", "2603:2000::/32"}))
	return slices.ContainsFunc(reserved, p.Overlaps)
}

// isAPI reports whether a is an address of a cluster's API server.
func (l *Lab) isAPI(a netip.Addr) bool {
	for _, c := range l.conf.Clusters {
		if slices.Contains(l.Zone.Addrs(c.APIServer.String()), a) {
			return true
		}
	}
	return false
}

// settle writes the nodes' files and opens their rooms.
func (l *Lab) settle() error {
	files := map[string]string{
		"resolv.conf":   "nameserver " + resolver.Addr().String() + "\noptions timeout:2 attempts:2\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
		"ca.pem":        string(l.CA.PEM),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(l.conf.Dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the nodes' files: %w", err)
		}
	}
	addrs := [2][2]string{{"10.224.1.4", "fd00:224:0:1::4"}, {"10.224.2.4", "fd00:224:0:2::4"}}
	for i := range l.nodes {
		room, err := newRoom(l.boxes.node[i], l.instead("resolv.conf"))
		if err != nil {
			return fmt.Errorf("make node%d: %w", i+1, err)
		}
		l.nodes[i] = &Node{
			Name:  fmt.Sprintf("node%d", i+1),
			Addrs: [2]netip.Addr{netip.MustParseAddr(addrs[i][0]), netip.MustParseAddr(addrs[i][1])},
			ns:    l.boxes.node[i],
			room:  room,
		}
	}
	return nil
}

// instead says what a machine finds in place of this one's files, with the lab's file of that name as its resolv.conf.
func (l *Lab) instead(resolvConf string) map[string]string {
	return map[string]string{
		"/etc/resolv.conf":   filepath.Join(l.conf.Dir, resolvConf),
		"/etc/nsswitch.conf": filepath.Join(l.conf.Dir, "nsswitch.conf"),
		"/run/nscd/socket":   os.DevNull,
	}
}

// Rules returns the rules of the configuration.
func (l *Lab) Rules() []egress.Rule { return l.conf.Rules }

// Clusters returns the clusters of the configuration.
func (l *Lab) Clusters() []egress.Cluster { return l.conf.Clusters }

// Node returns node 1 or 2.
func (l *Lab) Node(number int) *Node { return l.nodes[number-1] }

// Plain reports whether there is no gateway: the lab is the control.
func (l *Lab) Plain() bool { return l.conf.Gateway == nil }

// A Tamperer has a look at an answer of a resolver, by "udp" or "tcp", before it leaves: what it returns leaves, and nothing
// if that is nil. It runs on the answer's own goroutine, so it may sleep.
type Tamperer func(resolver netip.Addr, network string, answer *dns.Msg) *dns.Msg

// Tamper lets f have a look at every answer of the internet's resolvers from now on. Nil ends it.
func (l *Lab) Tamper(f Tamperer) {
	l.server.tamper.Store(&f)
}

// Edge is the box of the last router before the internet, for what happens to a wire. It stays the lab's.
func (l *Lab) Edge() *netns.NS { return l.boxes.edge }

// GatewayBox is the gateway's box. It stays the lab's.
func (l *Lab) GatewayBox() *netns.NS { return l.boxes.gateway }

// VNet is the box of the virtual network's router. It stays the lab's.
func (l *Lab) VNet() *netns.NS { return l.boxes.vnet }

// Plug pulls the cable between the gateway and the edge out, or puts it in again.
func (l *Lab) Plug(in bool) error {
	// A router that loses its IPv6 addresses with the carrier would be another fault.
	if err := l.boxes.edge.Sysctl("net/ipv6/conf/all/keep_addr_on_down", "1"); err != nil {
		return err
	}
	if err := l.boxes.edge.Plug(edgeInside, in); err != nil || !in {
		return err
	}
	return l.boxes.route()
}

// DoInternet runs f inside the internet's box, where a test may open further servers, on ports that are free.
func (l *Lab) DoInternet(f func() error) error { return l.boxes.internet.Do(f) }

// DoGateway runs f inside the gateway's box.
func (l *Lab) DoGateway(f func() error) error { return l.boxes.gateway.Do(f) }

// DNSElsewhere makes the cluster's DNS answer by itself, past the gateway, or ask through it again.
func (l *Lab) DNSElsewhere(on bool) { l.server.ownDNS.Store(on) }

// Saw waits until a server has got a complete message that holds token, and returns what was got; nil once ctx is done.
func (l *Lab) Saw(ctx context.Context, token []byte) []Seen { return l.Record.Wait(ctx, Got(token)) }

// Connections counts the connections that the servers at an address believe to be open.
func (l *Lab) Connections(to netip.AddrPort) int { return l.server.connections(to) }

// Environ is what a command on a node needs to trust the lab's servers, added to env.
func (l *Lab) Environ(env []string) []string {
	ca := filepath.Join(l.conf.Dir, "ca.pem")
	for _, name := range []string{"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"} {
		env = append(env, name+"="+ca)
	}
	return env
}

// Close ends everything in the lab and waits for it.
func (l *Lab) Close() {
	l.KillGateway()
	for _, k := range l.keepers {
		_ = k.Close()
	}
	if l.server != nil {
		l.server.Close()
	}
	for _, n := range l.nodes {
		if n != nil {
			n.room.close()
		}
	}
	for _, n := range l.apart {
		n.room.close()
		_ = n.ns.Close()
	}
	for _, r := range l.outside {
		r.close()
	}
	if l.peers != nil {
		l.peers.room.close()
	}
	if l.room != nil {
		l.room.close()
	}
	if l.boxes != nil {
		l.boxes.close()
	}
}
