package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tidegate.io/tidegate/lab"
)

// Where things are in the control plane's box.
var (
	apiAddr    = netip.MustParseAddrPort("127.0.0.1:443")
	tunnelAddr = netip.MustParseAddrPort("127.0.0.1:8132") // konnectivity's end, if there is one
)

// startTimeout is how long a part may take until it is ready, on a machine with other things to do.
const startTimeout = 2 * time.Minute

// startControlPlane starts etcd, the API server and the controllers, and waits for the API server.
func (c *cluster) startControlPlane(s setting) {
	c.t.Helper()
	c.run(c.control, "etcd", part("etcd", "--data-dir", c.path("etcd"), "--unsafe-no-fsync", "--logger", "zap",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
		"--initial-cluster", "default=http://127.0.0.1:2380"))
	c.identify("admin", "https://"+apiAddr.String(), "admin", "system:masters")
	c.identify("controllers", "https://"+apiAddr.String(), "controllers", "system:masters")
	c.write("clients.pem", c.pki.pem)
	c.accountFiles()
	if s.tunnel == nil {
		s.tunnel = straight
	}
	c.write("egress.yaml", []byte(s.tunnel(c)))
	c.startAPIServer()
	c.client = c.connect()
	c.until("the API server is ready", startTimeout, func() error {
		return c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(c.t.Context()).Error()
	})
	c.run(c.control, "kube-controller-manager", part("kube-controller-manager", "--kubeconfig", c.path("controllers.kubeconfig"),
		"--leader-elect=false", "--service-account-private-key-file", c.path("accounts.key"), "--root-ca-file", c.path("ca.pem"),
		"--controllers", strings.Join(controllers, ","), "--kube-api-qps=100", "--kube-api-burst=100",
		"--node-monitor-grace-period", graceful.String(), "--node-monitor-period=500ms"))
}

// controllers are those that the tests need.
var controllers = []string{
	"serviceaccount-controller", "root-ca-certificate-publisher-controller", "node-lifecycle-controller",
	"deployment-controller", "replicaset-controller", "daemonset-controller",
}

// graceful is how long a node may be silent before it is NotReady: in a real cluster 50 s.
const graceful = 10 * time.Second

// startAPIServer starts it as AKS does, as far as a node can tell: one port, one name, and no way to the nodes of its own.
// Nothing makes the addresses of services work here, so it calls webhooks at those of their endpoints.
func (c *cluster) startAPIServer() {
	cert, key := c.serverFiles()
	c.run(c.control, "kube-apiserver", part("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--storage-media-type=application/json",
		"--bind-address", apiAddr.Addr().String(), "--secure-port", fmt.Sprint(apiAddr.Port()), "--advertise-address", c.addr.String(),
		"--tls-cert-file", cert, "--tls-private-key-file", key, "--client-ca-file", c.path("clients.pem"),
		"--cert-dir", c.path("api"), "--authorization-mode=Node,RBAC", "--allow-privileged=true", "--service-cluster-ip-range=10.0.0.0/16",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--service-account-key-file", c.path("accounts.pub"),
		"--service-account-signing-key-file", c.path("accounts.key"), "--kubelet-preferred-address-types=InternalIP",
		"--kubelet-client-certificate", c.path("admin.crt"), "--kubelet-client-key", c.path("admin.key"),
		"--egress-selector-config-file", c.path("egress.yaml"), "--enable-aggregator-routing=true"))
}

// front takes what arrives at the API server's public address, and tells the tunnel from the API by its ALPN.
func (c *cluster) front(conn net.Conn) {
	defer conn.Close()
	hello, conn, err := peek(conn)
	if err != nil || c.control == nil {
		return
	}
	to := apiAddr
	if slices.Contains(hello.SupportedProtos, "konnectivity") {
		to = tunnelAddr
	}
	server, err := c.control.Dial(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	splice(conn, server)
}

// splice carries bytes until one side ends.
func splice(a, b net.Conn) {
	done := make(chan struct{}, 2)
	for _, way := range [2][2]net.Conn{{a, b}, {b, a}} {
		go func() { _, _ = io.Copy(way[0], way[1]); done <- struct{}{} }()
	}
	<-done
	a.Close()
	b.Close()
	<-done
}

// errPeeked ends a handshake once the ClientHello has been read.
var errPeeked = errors.New("peeked")

// peek reads the ClientHello, and returns a connection on which it can be read again.
func peek(conn net.Conn) (*tls.ClientHelloInfo, net.Conn, error) {
	p := &peeked{Conn: conn}
	var hello *tls.ClientHelloInfo
	err := tls.Server(p, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = h
		return nil, errPeeked
	}}).Handshake()
	if hello == nil {
		return nil, nil, err
	}
	return hello, &again{conn, io.MultiReader(strings.NewReader(p.read.String()), conn)}, nil
}

// peeked keeps what is read, and writes nothing.
type peeked struct {
	net.Conn
	read strings.Builder
}

func (p *peeked) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.read.Write(b[:n])
	return n, err
}

func (p *peeked) Write(b []byte) (int, error) { return len(b), nil }

// again is a connection whose first bytes are read once more.
type again struct {
	net.Conn
	from io.Reader
}

func (a *again) Read(b []byte) (int, error) { return a.from.Read(b) }

// straight is a tunnel without a tunnel: the API server asks a proxy, which connects from the node itself. It stands for
// konnectivity where konnectivity is not what a test is about.
func straight(c *cluster) string {
	c.t.Helper()
	socket := c.path("straight.sock")
	var ln net.Listener
	ln, err := net.Listen("unix", socket)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go connectFrom(c.Node(1), conn)
		}
	}()
	return egressSelection("HTTPConnect", socket)
}

// egressSelection sends what the API server asks of nodes, services and webhooks through a unix socket.
func egressSelection(protocol, socket string) string {
	return fmt.Sprintf(`apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection: {proxyProtocol: %s, transport: {uds: {udsName: %q}}}
`, protocol, socket)
}

// connectFrom serves one CONNECT request.
func connectFrom(node *lab.Node, conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	req, err := http.ReadRequest(r)
	if err != nil || req.Method != http.MethodConnect {
		return
	}
	to, err := netip.ParseAddrPort(req.Host)
	if err != nil {
		fmt.Fprintf(conn, "HTTP/1.1 400 %v\r\n\r\n", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	server, err := node.Dial(ctx, "tcp", to)
	if err != nil {
		fmt.Fprintf(conn, "HTTP/1.1 502 %v\r\n\r\n", err)
		return
	}
	defer server.Close()
	fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
	splice(&again{conn, r}, server)
}
