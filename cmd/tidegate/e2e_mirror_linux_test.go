package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// Where the registry and its mirror are in the lab. On the ends of a rule's ports
// the lab has servers of its own, so the registry is between them.
const (
	registryPort = 5443
	mirrorPort   = 5000
)

// TestNodesPullFromTheMirrorOnly: in a network isolated cluster a node gets its images from a mirror inside, and from
// nowhere else: the gateway lets the mirror alone out, to its registry alone, and says so in its log.
func TestNodesPullFromTheMirrorOnly(t *testing.T) {
	netnstest.Need(t)
	rule := fmt.Sprintf("rules:\n  - {id: mirror/mcr, from: [10.224.2.4], to: [\"https://mcr.microsoft.com:%d-%d\"], why: the mirror fetches what it lacks}\n", registryPort-1, registryPort+1)
	h := open(t, examples+"example-network-isolated.cli.json", rule, true)
	stopRegistry := serveRegistry(t, h)
	m := startMirrorOnNode(t, h)

	node := nodeClient(t, h)
	image := bootFrom(t, node, m)
	flows := lab.FollowFlows(filepath.Join(h.dir, lab.FlowLogFile))
	eventually(t, "the mirror's way out is in the flow log", func() bool {
		all, err := flows.All()
		if err != nil {
			t.Fatal(err)
		}
		allowed := 0
		for _, f := range all {
			if f.Verdict.Action != egress.Allow || f.Conn.Proto == egress.UDP {
				continue
			}
			if from := f.Conn.Src.Addr().String(); f.Verdict.Rule == nil || f.Verdict.Rule.ID != "mirror/mcr" || from != "10.224.2.4" {
				t.Errorf("%s was let out: %s", from, f.Verdict)
			}
			allowed++
		}
		return allowed > 0
	})
	// The node itself gets nowhere near the registry, nor does the mirror's machine get elsewhere.
	at := netip.AddrPortFrom(h.Zone.Addrs("mcr.microsoft.com")[0], registryPort)
	for name, n := range map[string]*lab.Node{"node": h.Node(1), "mirror's machine": h.Node(2)} {
		for _, shown := range []string{"mcr.microsoft.com", "evil.example.net"} {
			if n == h.Node(2) && shown == "mcr.microsoft.com" {
				continue
			}
			if err := shakeFrom(t, h, n, at, shown); err == nil {
				t.Errorf("the %s reached the registry as %s", name, shown)
			}
		}
	}
	// And with nothing behind the mirror at all the next node boots as well.
	stopRegistry()
	if again := bootFrom(t, node, m); again != image {
		t.Errorf("%s without the registry, %s with it", again, image)
	}
}

// serveRegistry has a registry in the lab's internet, beside what is there already.
func serveRegistry(t *testing.T, h *house) (stop func()) {
	t.Helper()
	store := ocimem.New()
	if err := pushImage(store, "oss/kubernetes/pause", "3.6", strings.Repeat("pause", 100_000)); err != nil {
		t.Fatal(err)
	}
	leaf, err := h.CA.Leaf("mcr.microsoft.com", h.Zone.Addrs("mcr.microsoft.com")[0])
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	if err := h.DoInternet(func() error {
		l, err = net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", registryPort))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: ociserver.New(store, nil), TLSConfig: &tls.Config{Certificates: []tls.Certificate{*leaf}}, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.ServeTLS(l, "", "") }()
	stop = func() { _ = server.Close() }
	t.Cleanup(stop)
	return stop
}

// startMirrorOnNode runs the program on the second node, where it asks the cluster's DNS, as a pod would.
func startMirrorOnNode(t *testing.T, h *house) (address netip.AddrPort) {
	t.Helper()
	address = netip.AddrPortFrom(h.Node(2).Addrs[0], mirrorPort)
	h.write(t, "mirror.yaml", fmt.Sprintf(`apiVersion: tidegate.io/v1
kind: Mirror
store: mirror
listen: %q
management: 127.0.0.1:0
recheck: 0s
tls: {names: [%s]}
upstreams:
  - name: mcr.microsoft.com
    url: https://mcr.microsoft.com:%d
    authorities: ca.pem
    prefixes: [aks-managed-repository]
`, address, address.Addr(), registryPort))
	cmd := exec.Command("/proc/self/exe", "mirror", "run", "-c", filepath.Join(h.dir, "mirror.yaml"))
	cmd.Args[0] = "tidegate"
	cmd.Env = h.Environ(os.Environ())
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := h.Node(2).Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the mirror's log:\n%s", said.String())
		}
	})
	eventually(t, "the mirror listens", func() bool {
		c, err := h.Node(1).Dial(within(t, 5*time.Second), "tcp", address)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return address
}

// nodeClient is an HTTP client on the first node that trusts the mirror.
func nodeClient(t *testing.T, h *house) *http.Client {
	t.Helper()
	roots, err := readRoots(filepath.Join(h.dir, "mirror", "tls", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, err
		}
		return h.Node(1).Dial(ctx, "tcp", to)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// bootFrom asks a mirror for what a node's containerd asks for, by AKS's path, and returns what the tag is.
func bootFrom(t *testing.T, node *http.Client, mirror netip.AddrPort) digest.Digest {
	t.Helper()
	get := func(kind, ref string) []byte {
		t.Helper()
		resp, err := node.Get(fmt.Sprintf("https://%s/v2/aks-managed-repository/oss/kubernetes/pause/%s/%s?ns=mcr.microsoft.com", mirror, kind, ref))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		if d := digest.Digest(ref); err == nil && d.Validate() == nil && d != digest.FromBytes(b) {
			err = errors.New("other bytes")
		}
		if err != nil {
			t.Fatalf("%s %s: %v: %s", kind, ref, err, b)
		}
		return b
	}
	text := get("manifests", "3.6")
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	var image ocispec.Manifest
	if err := json.Unmarshal(get("manifests", index.Manifests[0].Digest.String()), &image); err != nil {
		t.Fatal(err)
	}
	for _, b := range append(image.Layers, image.Config) {
		get("blobs", b.Digest.String())
	}
	return digest.FromBytes(text)
}

// shakeFrom shakes hands from a node as name.
func shakeFrom(t *testing.T, h *house, n *lab.Node, to netip.AddrPort, name string) error {
	t.Helper()
	ctx := within(t, 5*time.Second)
	c, err := n.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return tls.Client(c, &tls.Config{ServerName: name, RootCAs: h.CA.Pool(), InsecureSkipVerify: true}).HandshakeContext(ctx)
}
