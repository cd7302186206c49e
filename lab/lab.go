//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"tidegate.io/tidegate/egress"
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
	// NoGSO makes every packet one that a wire would carry. With GSO on, veth carries a whole ClientHello as one.
	NoGSO bool
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

	mu      sync.Mutex
	gateway *process
	room    *room // the gateway's
}

// startTimeout is how long a gateway may take until it is ready.
const startTimeout = 20 * time.Second

// Start builds the lab and starts everything in it. The caller closes it. It needs power over network namespaces: as
// root, or inside a user namespace.
func Start(ctx context.Context, conf Config) (_ *Lab, err error) {
	l := &Lab{Zone: &Zone{Private: conf.Private}, Record: &Record{}, conf: conf}
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
	l.server = newServer(l.Zone, l.CA, l.Record, l.isAPI)
	if err := l.settle(); err != nil {
		return nil, err
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

// ports are those on which a server has to listen, for one transport.
func (l *Lab) ports(transport egress.Proto, also []uint16) []uint16 {
	ports := slices.Clone(also)
	for _, r := range l.conf.Rules {
		for _, e := range r.To {
			if e.Proto.Transport() == transport {
				ports = append(ports, e.Ports.First, e.Ports.Last)
			}
		}
	}
	slices.Sort(ports)
	return slices.DeleteFunc(slices.Compact(ports), func(p uint16) bool { return p == 53 || (transport == egress.TCP && p == 853) })
}

// serve opens every socket of the internet, of the private endpoints and of the cluster's DNS.
func (l *Lab) serve() error {
	if err := l.boxes.internet.Do(l.serveInternet); err != nil {
		return fmt.Errorf("open the internet's servers: %w", err)
	}
	if err := l.boxes.vnet.Do(func() error { return l.listen([]uint16{80, 443, 8443}) }); err != nil {
		return fmt.Errorf("open the private endpoints: %w", err)
	}
	err := l.boxes.node[1].Do(func() error {
		pc, ln, err := listenDNS(resolver.String())
		if err == nil {
			l.server.serveForwarder(pc, ln, l.dialUpstream)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("open the cluster's DNS: %w", err)
	}
	return nil
}

// dialUpstream connects the cluster's DNS with the resolver that the virtual network names: the gateway, if there is one.
func (l *Lab) dialUpstream(ctx context.Context, network string) (net.Conn, error) {
	upstream := AzureDNS
	if l.conf.Gateway != nil {
		upstream = GatewayInside[0]
	}
	return l.nodes[1].Dial(ctx, network, netip.AddrPortFrom(upstream, 53))
}

func (l *Lab) serveInternet() error {
	if err := l.listen(l.ports(egress.TCP, tcpPorts)); err != nil {
		return err
	}
	for _, address := range []string{"0.0.0.0:53", "[::]:53"} {
		pc, ln, err := listenDNS(address)
		if err != nil {
			return err
		}
		l.server.serveDNS(pc, ln)
	}
	dot, err := listen("tcp", ":853")
	if err != nil {
		return err
	}
	l.server.serveDoT(dot)
	for _, port := range l.ports(egress.UDP, udpPorts) {
		for _, host := range []string{"0.0.0.0", "::"} {
			pc, err := listenUDP(netip.AddrPortFrom(netip.MustParseAddr(host), port).String())
			if err != nil {
				return err
			}
			if err := l.server.serveUDP(pc); err != nil {
				return fmt.Errorf("udp %s: %w", pc.LocalAddr(), err)
			}
		}
	}
	raw := []string{fmt.Sprintf("ip4:%d", icmp), fmt.Sprintf("ip6:%d", icmp6)}
	for _, p := range rawProtocols {
		raw = append(raw, fmt.Sprintf("ip4:%d", p.number), fmt.Sprintf("ip6:%d", p.number))
	}
	for _, network := range raw {
		pc, err := net.ListenPacket(network, "")
		if err != nil {
			return err
		}
		l.server.serveRaw(pc)
	}
	return nil
}

func (l *Lab) listen(ports []uint16) error {
	for _, port := range ports {
		ln, err := listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		l.server.serveListener(ln)
	}
	return nil
}

func listen(network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), network, address)
}

func listenUDP(address string) (net.PacketConn, error) {
	network := "udp4"
	if address[0] == '[' {
		network = "udp6"
	}
	return net.ListenPacket(network, address)
}

func listenDNS(address string) (net.PacketConn, net.Listener, error) {
	pc, err := listenUDP(address)
	if err != nil {
		return nil, nil, err
	}
	network := "tcp4"
	if address[0] == '[' {
		network = "tcp6"
	}
	ln, err := listen(network, address)
	return pc, ln, err
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
	instead := map[string]string{
		"/etc/resolv.conf":   filepath.Join(l.conf.Dir, "resolv.conf"),
		"/etc/nsswitch.conf": filepath.Join(l.conf.Dir, "nsswitch.conf"),
		"/run/nscd/socket":   os.DevNull,
	}
	addrs := [2][2]string{{"10.224.1.4", "fd00:224:0:1::4"}, {"10.224.2.4", "fd00:224:0:2::4"}}
	for i := range l.nodes {
		room, err := newRoom(l.boxes.node[i], instead)
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

// Rules returns the rules of the configuration.
func (l *Lab) Rules() []egress.Rule { return l.conf.Rules }

// Clusters returns the clusters of the configuration.
func (l *Lab) Clusters() []egress.Cluster { return l.conf.Clusters }

// Node returns node 1 or 2.
func (l *Lab) Node(number int) *Node { return l.nodes[number-1] }

// Plain reports whether there is no gateway: the lab is the control.
func (l *Lab) Plain() bool { return l.conf.Gateway == nil }

// DoInternet runs f inside the internet's box, where a test may open further servers, on ports that are free.
func (l *Lab) DoInternet(f func() error) error { return l.boxes.internet.Do(f) }

// DoGateway runs f inside the gateway's box.
func (l *Lab) DoGateway(f func() error) error { return l.boxes.gateway.Do(f) }

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
	if l.server != nil {
		l.server.Close()
	}
	for _, n := range l.nodes {
		if n != nil {
			n.room.close()
		}
	}
	if l.room != nil {
		l.room.close()
	}
	if l.boxes != nil {
		l.boxes.close()
	}
}

// A process is a running gateway.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // valid then
}

// KillGateway kills the gateway's process as kill -9 does and waits for its end; nothing is cleaned up after it.
func (l *Lab) KillGateway() { l.stopGateway(syscall.SIGKILL) }

// StopGateway asks the gateway to end, as systemd does, and waits for it.
func (l *Lab) StopGateway() { l.stopGateway(syscall.SIGTERM) }

func (l *Lab) stopGateway(s syscall.Signal) {
	l.mu.Lock()
	p := l.gateway
	l.gateway = nil
	l.mu.Unlock()
	if p != nil {
		_ = p.cmd.Process.Signal(s)
		<-p.done
	}
}

// SignalGateway sends the running gateway a signal, such as SIGHUP for a reload.
func (l *Lab) SignalGateway(s syscall.Signal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gateway == nil {
		return errors.New("signal the gateway: it does not run")
	}
	return l.gateway.cmd.Process.Signal(s)
}

// GatewayPID is the process of the running gateway, or 0.
func (l *Lab) GatewayPID() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gateway == nil {
		return 0
	}
	return l.gateway.cmd.Process.Pid
}

// RestartGateway starts the gateway after KillGateway or StopGateway and waits until it is ready.
func (l *Lab) RestartGateway(ctx context.Context) error {
	out, err := os.OpenFile(filepath.Join(l.conf.Dir, "gateway.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the gateway's log: %w", err)
	}
	defer func() { _ = out.Close() }()
	cmd := l.conf.Gateway()
	cmd.Dir, cmd.Stdout, cmd.Stderr = l.conf.Dir, out, out
	if err := l.room.start(cmd); err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { p.err = cmd.Wait(); close(p.done) }()
	l.mu.Lock()
	l.gateway = p
	l.mu.Unlock()
	if l.conf.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := l.conf.Ready(ctx, l)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("the gateway ended (%v):\n%s", p.err, l.gatewayLog())
		case <-ctx.Done():
			return fmt.Errorf("the gateway is not ready: %w:\n%s", err, l.gatewayLog())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// gatewayLog returns the end of what the gateway wrote.
func (l *Lab) gatewayLog() string {
	const end = 4 << 10
	text, _ := os.ReadFile(filepath.Join(l.conf.Dir, "gateway.log"))
	return string(text[max(0, len(text)-end):])
}
