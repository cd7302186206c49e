package httpproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/wire/wiretest"
)

// proxied is a house with an explicit proxy in front of one origin, which serves every address.
func proxied(t *testing.T, origin func(net.Conn), endpoints ...string) (*house, string) {
	h := newHouse(t, endpoints...)
	at := listen(t, origin)
	for _, addr := range []string{
		"20.1.2.3:80", "20.1.2.3:443", "20.1.2.3:22", "20.1.2.4:80", "20.1.2.4:443", "20.7.7.7:443", "20.9.9.9:9000",
		"10.0.0.7:80", "10.0.0.7:443", "169.254.169.254:80", "169.254.169.254:443", "[2001:4860::1]:9000", "127.0.0.1:443",
	} {
		h.origins[netip.MustParseAddrPort(addr)] = at
	}
	return h, h.proxy(t)
}

// TestProxyRequests says what becomes of absolute-form requests.
func TestProxyRequests(t *testing.T) {
	for _, row := range []struct{ sentence, request, told, reaches, verdict string }{
		{"a permitted name passes", "GET http://allowed.test/p HTTP/1.1|Host: allowed.test||", "200", "GET /p allowed.test", "allow name-rule"},
		{"OPTIONS of a server passes", "OPTIONS http://allowed.test HTTP/1.1|Host: allowed.test||", "200", "OPTIONS * allowed.test", "allow name-rule"},
		{"HTTP/1.0 passes without Host", "GET http://allowed.test/ HTTP/1.0||", "200", "GET / allowed.test", "allow name-rule"},
		{"another name is refused and not looked up", "GET http://evil.test/ HTTP/1.1|Host: evil.test||", "403", "", "deny name-not-allowed"},
		{"another port is refused", "GET http://allowed.test:8080/ HTTP/1.1|Host: allowed.test:8080||", "403", "", "deny port-not-allowed"},
		{"a name that leads inside is refused", "GET http://inside.test/ HTTP/1.1|Host: inside.test||", "403", "", "deny guarded-address"},
		{"a name that leads to the metadata service is refused", "GET http://meta.test/ HTTP/1.1|Host: meta.test||", "403", "", "deny guarded-address"},
		{"a name without addresses is bad gateway", "GET http://nowhere.test/ HTTP/1.1|Host: nowhere.test||", "502", "", "deny upstream-unreachable"},
		{"a path alone is refused", "GET / HTTP/1.1|Host: allowed.test||", "400", "", "deny malformed-request"},
		{"https is refused", "GET https://allowed.test/ HTTP/1.1|Host: allowed.test||", "400", "", "deny malformed-request"},
		{"an address is refused", "GET http://20.1.2.3/ HTTP/1.1|Host: 20.1.2.3||", "403", "", "deny address-as-name"},
		{"an address of a tcp rule passes", "GET http://20.9.9.9:9000/ HTTP/1.1|Host: 20.9.9.9:9000||", "200", "GET / 20.9.9.9:9000", "allow address-rule"},
		{"the metadata service's address is refused", "GET http://169.254.169.254/ HTTP/1.1|Host: 169.254.169.254||", "403", "", "deny address-as-name"},
		{"an address in octal is refused", "GET http://0251.254.169.254/ HTTP/1.1|Host: 0251.254.169.254||", "403", "", "deny address-as-name"},
		{"an address as a number is refused", "GET http://2852039166/ HTTP/1.1|Host: 2852039166||", "403", "", "deny address-as-name"},
		{"an address in hexadecimal is refused", "GET http://0xa9fea9fe/ HTTP/1.1|Host: 0xa9fea9fe||", "403", "", "deny address-as-name"},
		{"a mapped address is refused", "GET http://[::ffff:169.254.169.254]/ HTTP/1.1|Host: [::ffff:169.254.169.254]||", "403", "", "deny address-as-name"},
	} {
		t.Run(strings.ReplaceAll(row.sentence, " ", "_"), func(t *testing.T) {
			t.Parallel()
			var origin recorder
			h, addr := proxied(t, origin.serve, "http://allowed.test:80", "http://inside.test:80", "http://meta.test:80", "http://nowhere.test:80", "tcp://20.9.9.9:9000")
			lookup := h.Lookup
			h.Lookup = func(ctx context.Context, client netip.Addr, n egress.Name) ([]netip.Addr, error) {
				if n.String() == "evil.test" {
					t.Error("evil.test was looked up")
				}
				return lookup(ctx, client, n)
			}
			back := say(t, addr, strings.ReplaceAll(row.request, "|", "\r\n"))
			if got := statuses(t, back); got != row.told {
				t.Errorf("told %q, want %q", got, row.told)
			}
			origin.expect(t, row.reaches)
			if got := h.verdicts(); !slices.Equal(got, []string{row.verdict}) {
				t.Errorf("verdicts %q, want %q", got, row.verdict)
			}
		})
	}
}

// TestTunnels says what becomes of CONNECT and of the bytes that follow. The client sends
// what is in first after its 200.
func TestTunnels(t *testing.T) {
	hello := func(name string) string { return string(wiretest.Client(name).Bytes()) }
	noName := string(wiretest.Client("x.test").Without(0).Bytes())
	const all = "*"
	for _, row := range []struct{ sentence, target, first, told, reaches, verdict string }{
		{"TLS of that name passes", "allowed.test:443", hello("allowed.test"), "200", all, "allow name-rule"},
		{"TLS of that name in upper case passes", "allowed.test:443", hello("ALLOWED.test"), "200", all, "allow name-rule"},
		{"CONNECT in upper case passes", "ALLOWED.test.:443", hello("allowed.test"), "200", all, "allow name-rule"},
		{"TLS of another name is cut", "allowed.test:443", hello("evil.test"), "200", "", "deny host-mismatch"},
		{"TLS of another permitted name is cut", "allowed.test:443", hello("also.test"), "200", "", "deny host-mismatch"},
		{"TLS without a name is cut", "allowed.test:443", noName, "200", "", "deny host-mismatch"},
		{"TLS with an address for a name is cut", "allowed.test:443", hello("20.1.2.3"), "200", "", "deny host-mismatch"},
		{"a name with a NUL is cut", "allowed.test:443", hello("allowed.test\x00"), "200", "", "deny malformed-hello"},
		{"a name that Unicode folds is cut", "allowed.test:443", hello("\u212aube.test"), "200", "", "deny malformed-hello"},
		{"SSH is cut", "allowed.test:443", "SSH-2.0-OpenSSH_9\r\n", "200", "", "deny tunnel-not-tls"},
		{"HTTP is cut", "allowed.test:443", "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", "200", "", "deny tunnel-not-tls"},
		{"half a hello is cut", "allowed.test:443", hello("allowed.test")[:50], "200", "", "deny tunnel-not-tls"},
		{"another port is refused", "allowed.test:22", "", "403", "", "deny port-not-allowed"},
		{"port 80 is refused", "web.test:80", "", "403", "", "deny port-not-allowed"},
		{"another name is refused", "evil.test:443", "", "403", "", "deny name-not-allowed"},
		{"a name that leads inside is refused", "inside.test:443", "", "403", "", "deny guarded-address"},
		{"a name that leads to the metadata service is refused", "meta.test:443", "", "403", "", "deny guarded-address"},
		{"no port is refused", "allowed.test", "", "400", "", "deny malformed-request"},
		{"port 0 is refused", "allowed.test:0", "", "400", "", "deny malformed-request"},
		{"user information is refused", "a@allowed.test:443", "", "400", "", "deny malformed-request"},
		{"brackets around a name are refused", "[allowed.test]:443", "", "400", "", "deny malformed-request"},
		{"two trailing dots are refused", "allowed.test..:443", "", "400", "", "deny malformed-request"},
		{"a zone is refused", "[fe80::1%25eth0]:443", "", "400", "", "deny malformed-request"},
		{"a tcp rule for an address carries anything", "20.9.9.9:9000", "anything", "200", all, "allow address-rule"},
		{"one for IPv6 too", "[2001:4860::1]:9000", "anything", "200", all, "allow address-rule"},
		{"a tcp rule for a name carries anything", "ssh.test:22", "SSH-2.0-x\r\n", "200", all, "allow name-rule"},
		{"an address at a port of https rules is refused", "20.1.2.3:443", "", "403", "", "deny address-as-name"},
		{"an address at another port is refused", "20.1.2.3:8443", "", "403", "", "deny no-rule"},
		{"loopback is refused", "127.0.0.1:443", "", "403", "", "deny address-as-name"},
		{"loopback as ::1 is refused", "[::1]:443", "", "403", "", "deny address-as-name"},
		{"mapped loopback is refused", "[::ffff:127.0.0.1]:443", "", "403", "", "deny address-as-name"},
		{"loopback in octal is refused", "0177.0.0.1:443", "", "403", "", "deny address-as-name"},
		{"loopback as a number is refused", "2130706433:443", "", "403", "", "deny address-as-name"},
		{"loopback in hexadecimal is refused", "0x7f.1:443", "", "403", "", "deny address-as-name"},
		{"short loopback is refused", "127.1:443", "", "403", "", "deny address-as-name"},
		{"the API server passes by address without a name", "20.7.7.7:443", noName, "200", all, "allow api-server-address"},
		{"the API server passes by address as kubernetes.default.svc", "20.7.7.7:443", hello("kubernetes.default.svc"), "200", all, "allow api-server-address"},
		{"the API server passes by name without a name in TLS", "api.test:443", noName, "200", all, "allow api-server-address"},
		{"the API server's address with another name is cut", "20.7.7.7:443", hello("evil.test"), "200", "", "deny name-not-allowed"},
		{"the API server's address with something else is cut", "20.7.7.7:443", "SSH-2.0-x\r\n", "200", "", "deny tunnel-not-tls"},
	} {
		t.Run(strings.ReplaceAll(row.sentence, " ", "_"), func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			done := make(chan struct{}, 1)
			h, addr := proxied(t, func(c net.Conn) {
				first := make([]byte, 16<<10)
				n, _ := c.Read(first)
				got.Write(first[:n])
				c.Write([]byte{21, 3, 3, 0, 2, 2, 40}) // a server that refuses the handshake
				io.Copy(&got, c)
				done <- struct{}{}
			}, "https://allowed.test:443", "https://also.test:443", "https://inside.test:443", "https://meta.test:443", "http://web.test:80",
				"tcp://20.9.9.9:9000", "tcp://[2001:4860::1]:9000", "tcp://ssh.test:22", "https://api.test:443")
			h.names["ssh.test"] = []netip.Addr{allowed}
			h.names["web.test"] = []netip.Addr{allowed}
			back := say(t, addr, "CONNECT "+row.target+" HTTP/1.1\r\nHost: "+row.target+"\r\n\r\n"+row.first)
			head, _, _ := strings.Cut(back, "\r\n\r\n")
			if !strings.HasPrefix(head, "HTTP/1.1 "+row.told+" ") {
				t.Errorf("told %q, want %s", head, row.told)
			}
			if verdicts := h.verdicts(); !slices.Equal(verdicts, []string{row.verdict}) {
				t.Errorf("verdicts %q, want %q", verdicts, row.verdict)
			}
			if row.told != "200" {
				return
			}
			want := row.reaches
			if want == all {
				want = row.first
			}
			<-done
			if got.String() != want {
				t.Errorf("the origin sees %q, want %q", got.String(), want)
			}
		})
	}
}

// certificate is a self-signed one for those names, and the pool that trusts it.
func certificate(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestRealTLS runs HTTPS and HTTP/2 of real peers through tunnels, with a HelloRetryRequest and
// without.
func TestRealTLS(t *testing.T) {
	cert, pool := certificate(t, "allowed.test", "evil.test")
	for name, curves := range map[string][]tls.CurveID{"plain": nil, "retry": {tls.CurveP384}} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, CurvePreferences: curves, MaxVersion: version}
			go srv.ServeTLS(l, "", "")
			defer srv.Close()
			h := newHouse(t, "https://allowed.test:443")
			h.origins[netip.AddrPortFrom(allowed, 443)] = l.Addr().String()
			proxy := &url.URL{Scheme: "http", Host: h.proxy(t)}
			tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
			defer tr.CloseIdleConnections()
			res, err := (&http.Client{Transport: tr}).Get("https://allowed.test/")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(body) != "HTTP/2.0" {
				t.Errorf("%s: %s", name, body)
			}
			_, err = (&http.Client{Transport: tr}).Get("https://evil.test/")
			if err == nil || !strings.Contains(err.Error(), "Forbidden") {
				t.Errorf("%s: evil: %v", name, err)
			}
		}
	}
}

// retrying is a TLS server that asks for a second hello, and keeps all it receives.
func retrying(t *testing.T, cert tls.Certificate, got *bytes.Buffer, done chan<- error) func(net.Conn) {
	return func(c net.Conn) {
		server := tls.Server(recording{c, got}, &tls.Config{Certificates: []tls.Certificate{cert}, CurvePreferences: []tls.CurveID{tls.CurveP256}})
		done <- server.HandshakeContext(t.Context())
	}
}

type recording struct {
	net.Conn
	to *bytes.Buffer
}

func (r recording) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.to.Write(p[:n])
	return n, err
}

// TestNameSwitchAfterRetry is the attack on everything that reads only the first hello: the
// second one, which the server asked for, names another server.
func TestNameSwitchAfterRetry(t *testing.T) {
	cert, _ := certificate(t, "allowed.test")
	first := wiretest.Client("allowed.test", wiretest.KeyShare(wiretest.X25519, 32), wiretest.Groups(wiretest.X25519, wiretest.P256))
	for _, row := range []struct {
		name    string
		reaches bool
		verdict []string
	}{
		{"allowed.test", true, []string{"allow name-rule"}},
		{"evil.test", false, []string{"allow name-rule", "deny server-name-changed"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got bytes.Buffer
			done := make(chan error, 1)
			h, addr := proxied(t, retrying(t, cert, &got, done), "https://allowed.test:443")
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			io.WriteString(c, "CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test:443\r\n\r\n")
			br := bufio.NewReader(c)
			if res, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect}); err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("%v %v", res, err)
			}
			c.Write(first.Bytes())
			if _, err := io.ReadFull(br, make([]byte, 5)); err != nil { // the retry is there
				t.Fatal(err)
			}
			p256 := wiretest.Client(row.name, wiretest.Groups(wiretest.X25519, wiretest.P256), wiretest.KeyShare(wiretest.P256, 65))
			c.Write(p256.Bytes())
			io.Copy(io.Discard, br)
			c.Close()
			<-done // fails either way, for the keys are made up
			if reached := bytes.Count(got.Bytes(), []byte(row.name)) > 0 && bytes.Count(got.Bytes(), []byte(".test")) == 2; reached != row.reaches {
				t.Errorf("the second hello reached the server: %v", reached)
			}
			if v := h.verdicts(); !slices.Equal(v, row.verdict) {
				t.Errorf("verdicts %q", v)
			}
		})
	}
}

func TestTunnelHalfClose(t *testing.T) {
	h, addr := proxied(t, func(c net.Conn) {
		b, _ := io.ReadAll(c) // until the client has ended its half
		c.Write(bytes.ToUpper(b))
	}, "tcp://20.9.9.9:9000")
	back := say(t, addr, "CONNECT 20.9.9.9:9000 HTTP/1.1\r\nHost: 20.9.9.9:9000\r\n\r\nhalf")
	if !strings.HasSuffix(back, "\r\n\r\nHALF") {
		t.Errorf("%q", back)
	}
	if f := h.awaitEnd(t, 1); f.Sent != 4 || f.Received != 4 {
		t.Errorf("%d sent, %d received", f.Sent, f.Received)
	}
}

func TestRecheckCutsTunnels(t *testing.T) {
	h, addr := proxied(t, func(c net.Conn) { io.Copy(io.Discard, c) }, "tcp://20.9.9.9:9000")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "CONNECT 20.9.9.9:9000 HTTP/1.1\r\nHost: 20.9.9.9:9000\r\n\r\nx")
	io.ReadFull(c, make([]byte, 5))
	for len(h.verdicts()) == 0 {
		time.Sleep(time.Millisecond)
	}
	h.allow(t, "tcp://20.9.9.8:9000")
	for h.Recheck(t.Context()) == 0 { // the flow is reported a moment before it is live
		time.Sleep(time.Millisecond)
	}
	if f := h.awaitEnd(t, 1); f.Verdict.Reason != egress.PolicyChanged {
		t.Errorf("ended: %v", f.Verdict)
	}
}

func TestAccessList(t *testing.T) {
	h := newHouse(t, "http://allowed.test:80")
	h.From = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	addr := h.proxy(t)
	if back := say(t, addr, "GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n"); back != "" {
		t.Errorf("a stranger is told %q", back)
	}
	if got := h.verdicts(); !slices.Equal(got, []string{"deny no-rule"}) {
		t.Errorf("verdicts %q", got)
	}
}

func TestProxyThatNamesItself(t *testing.T) {
	h := newHouse(t, "tcp://127.0.0.0/8:1-65535")
	addr := h.proxy(t)
	self := netip.MustParseAddrPort(addr)
	h.origins[self] = addr
	back := say(t, addr, "CONNECT "+addr+" HTTP/1.1\r\nHost: "+addr+"\r\n\r\n")
	if got := statuses(t, back); got != "403" {
		t.Errorf("told %s", got)
	}
}

func TestConnectionsPerClient(t *testing.T) {
	h, addr := proxied(t, (&recorder{}).serve, "http://allowed.test:80")
	for range MaxConnsPerClient {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for h.Conns() < MaxConnsPerClient {
		time.Sleep(time.Millisecond)
	}
	if back := say(t, addr, ""); back != "" {
		t.Errorf("one too many is told %q", back)
	}
	if got := h.verdicts(); !slices.Equal(got, []string{"deny too-many-pending"}) {
		t.Errorf("verdicts %q", got)
	}
	if h.enter(netip.MustParseAddr("127.0.0.2")) {
		h.leave(netip.MustParseAddr("127.0.0.2"))
	} else {
		t.Error("another client finds no room")
	}
}

func TestCurlProxy(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is needed: apt-get install curl")
	}
	_, addr := proxied(t, (&recorder{}).serve, "http://allowed.test:80")
	for _, row := range []struct{ url, want string }{
		{"http://allowed.test/", "ok200"},
		{"http://evil.test/", "403"},
		{"https://evil.test/", "000"},
	} {
		out, _ := exec.Command(curl, "-s", "--max-time", "20", "-w", "%{http_code}", "-x", "http://"+addr, row.url).CombinedOutput()
		if !strings.HasSuffix(string(out), row.want) {
			t.Errorf("curl %s: %q, want %q", row.url, out, row.want)
		}
	}
}
