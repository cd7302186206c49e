//go:build linux

package lab

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// peers are other people's servers, which run as processes in the internet's box: what they make of a hello is what counts,
// not what the lab's own servers would. Clients reach them through a relay that records what came.
type peers struct {
	room    *room
	openssl chan netip.AddrPort // each is one process, which serves one connection at a time
	nginx   netip.AddrPort
	web     netip.AddrPort
	missing []string
}

// opensslServers is how many connections OpenSSL serves at a time.
const opensslServers = 24

// Ports of the peers, on the loopback of the internet's box.
const (
	nginxPort     = 20443
	nginxWebPort  = 20080
	opensslPort   = 21000
	relayPatience = 30 * time.Second // for an OpenSSL that is free
	relayLife     = 8 * time.Second  // of a connection: a client that has left without a word holds nobody up
)

var loopbackAddr = netip.MustParseAddr("127.0.0.1")

// startPeers starts what is installed of them; they end with the lab.
func (l *Lab) startPeers() error {
	dir := filepath.Join(l.conf.Dir, "peers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the peers' directory: %w", err)
	}
	room, err := newRoom(l.boxes.internet, nil)
	if err != nil {
		return err
	}
	p := &peers{room: room, openssl: make(chan netip.AddrPort, opensslServers)}
	l.peers = p
	if err := l.startOpenSSL(dir); err != nil {
		return err
	}
	return l.startNginx(dir)
}

// writeLeaf writes the certificate and key of a name, and returns their files.
func (l *Lab) writeLeaf(dir, name string) (cert, key string, err error) {
	leaf, err := l.CA.Leaf(name, l.Zone.Addrs(name)[0])
	if err != nil {
		return "", "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		return "", "", fmt.Errorf("write a peer's key: %w", err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	var chain []byte
	for _, c := range leaf.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	if err := os.WriteFile(cert, chain, 0o600); err != nil {
		return "", "", fmt.Errorf("write a peer's certificate: %w", err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return "", "", fmt.Errorf("write a peer's key: %w", err)
	}
	return cert, key, nil
}

func (l *Lab) startOpenSSL(dir string) error {
	path, err := exec.LookPath("openssl")
	if err != nil {
		l.peers.missing = append(l.peers.missing, serverOpenSSL)
		return nil
	}
	cert, key, err := l.writeLeaf(dir, frontDoors[1])
	if err != nil {
		return err
	}
	for i := range opensslServers {
		to := netip.AddrPortFrom(loopbackAddr, uint16(opensslPort+i))
		// With a second certificate it says which name a client has shown, as often as it is told one.
		args := []string{path, "s_server", "-www", "-accept", to.String(), "-cert", cert, "-key", key, "-cert2", cert, "-key2", key, "-servername", frontDoors[1]}
		if buffer, err := exec.LookPath("stdbuf"); err == nil { // or it is not heard before it has said a page
			args = append([]string{buffer, "-oL"}, args...)
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := l.peers.room.start(cmd); err != nil {
			return fmt.Errorf("start OpenSSL: %w", err)
		}
		go func() { l.listenOpenSSL(out); _ = cmd.Wait() }()
		l.peers.openssl <- to
	}
	return nil
}

// listenOpenSSL notes the names that OpenSSL says it has been shown.
func (l *Lab) listenOpenSSL(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), `Hostname in TLS extension: "`); ok {
			name = strings.TrimSuffix(name, `"`)
			l.Record.add(Seen{Proto: "openssl", Name: name, Whole: true, Data: []byte(name)})
		}
	}
}

func (l *Lab) startNginx(dir string) error {
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx"
		if _, err := os.Stat(path); err != nil {
			l.peers.missing = append(l.peers.missing, serverNginx)
			return nil
		}
	}
	cert, key, err := l.writeLeaf(dir, frontDoors[2])
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log;
events { worker_connections 4096; }
http {
	access_log off;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server {
		listen 127.0.0.1:%[2]d ssl;
		ssl_protocols TLSv1.2 TLSv1.3;
		ssl_certificate %[3]s;
		ssl_certificate_key %[4]s;
		location / { return 200 "nginx"; }
	}
	server {
		listen 127.0.0.1:%[5]d;
		location / { return 200 "nginx"; }
	}
}
`, dir, nginxPort, cert, key, nginxWebPort)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write nginx's file: %w", err)
	}
	cmd := exec.Command(path, "-p", dir, "-e", filepath.Join(dir, "nginx.log"), "-c", conf)
	if err := l.peers.room.start(cmd); err != nil {
		return fmt.Errorf("start nginx: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	l.peers.nginx = netip.AddrPortFrom(loopbackAddr, nginxPort)
	l.peers.web = netip.AddrPortFrom(loopbackAddr, nginxWebPort)
	return nil
}

// Missing names the servers that are not installed; those of the lab itself stand in for them.
func (l *Lab) Missing() []string {
	if l.peers == nil {
		return nil
	}
	return l.peers.missing
}

// behind says who serves an address of the internet, if it is not the lab itself: take returns where, and give takes it back.
func (l *Lab) behind(a netip.Addr, kind string) (take func(context.Context) (netip.AddrPort, error), give func(netip.AddrPort)) {
	if l.peers == nil {
		return nil, nil
	}
	has := func(name string) bool { return l.Zone.addr(name, a.Is6()) == a }
	always := func(to netip.AddrPort) func(context.Context) (netip.AddrPort, error) {
		return func(context.Context) (netip.AddrPort, error) { return to, nil }
	}
	switch {
	case kind == "tls" && has(frontDoors[1]) && !slices.Contains(l.peers.missing, serverOpenSSL):
		return func(ctx context.Context) (netip.AddrPort, error) {
			select {
			case to := <-l.peers.openssl:
				return to, nil
			case <-ctx.Done():
				return netip.AddrPort{}, ctx.Err()
			}
		}, func(to netip.AddrPort) { l.peers.openssl <- to }
	case kind == "tls" && has(frontDoors[2]) && l.peers.nginx.IsValid():
		return always(l.peers.nginx), func(netip.AddrPort) {}
	case kind == "http" && has(webDoorNginx) && l.peers.web.IsValid():
		return always(l.peers.web), func(netip.AddrPort) {}
	}
	return nil, nil
}

// relay gives a connection to the peer behind its address, and reports whether there is one. What the client sends
// is recorded on its way.
func (l *Lab) relay(t *tap, kind string) bool {
	take, give := l.behind(addrPort(t.LocalAddr()).Addr(), kind)
	if take == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), relayPatience)
	defer cancel()
	to, err := take(ctx)
	if err != nil {
		return true
	}
	defer give(to)
	up, err := l.dialPeer(ctx, to)
	if err != nil || !l.server.track(up) {
		return true
	}
	defer l.server.untrack(up)
	_ = t.SetDeadline(time.Now().Add(relayLife))
	done := make(chan struct{})
	go func() { _, _ = io.Copy(t.Conn, up); _ = t.Conn.Close(); close(done) }()
	_, _ = io.Copy(up, struct{ io.Reader }{t})
	_ = up.Close()
	<-done
	return true
}

// dialPeer connects with a peer, which may not have begun to listen yet.
func (l *Lab) dialPeer(ctx context.Context, to netip.AddrPort) (c net.Conn, err error) {
	for {
		err = l.boxes.internet.Do(func() (err error) {
			var d net.Dialer
			c, err = d.DialContext(ctx, "tcp", to.String())
			return err
		})
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return c, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}
