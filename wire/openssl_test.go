package wire

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/wire/wiretest"
)

// opensslServer is an s_server on a loopback port that tells which names it was shown.
type opensslServer struct {
	addr string
	out  *bufio.Scanner // its standard output, of which the rest comes when it ends
}

// startOpenSSL starts one that ends after so many connections. It skips only where there is no
// openssl command (Debian package openssl).
func startOpenSSL(t *testing.T, connections int, args ...string) *opensslServer {
	t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skipf("SKIP: a real OpenSSL as peer needs the openssl command: %v", err)
	}
	cert := writeCertificate(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"s_server", "-accept", addr, "-naccept", strconv.Itoa(connections),
		"-cert", cert, "-key", cert, "-servername", "nobody.example", "-cert2", cert, "-key2", cert}, args...)
	cmd := exec.CommandContext(t.Context(), openssl, args...)
	if _, err := cmd.StdinPipe(); err != nil { // it closes connections when its input ends
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s := &opensslServer{addr: addr, out: bufio.NewScanner(out)}
	for s.out.Scan() && s.out.Text() != "ACCEPT" {
	}
	return s
}

// names returns what each connection showed, once the last one is closed.
func (s *opensslServer) names() []string {
	var all, names []string
	for s.out.Scan() {
		line := s.out.Text()
		if _, quoted, ok := strings.Cut(line, "Hostname in TLS extension: "); ok {
			names = append(names, strings.Trim(quoted, `"`))
		}
		if line == "CONNECTION CLOSED" {
			all, names = append(all, strings.Join(names, " then ")), nil
		}
	}
	return all
}

func (s *opensslServer) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	const stuck = 10 * time.Second // ends a hung test, asserts nothing
	if err := conn.SetDeadline(time.Now().Add(stuck)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func writeCertificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	file := filepath.Join(t.TempDir(), "server.pem")
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestOpenSSLSeesTheSameName: a hello that passes under one name must not reach OpenSSL under
// another, and for what we refuse, the row tells whether OpenSSL would have let it in.
func TestOpenSSLSeesTheSameName(t *testing.T) {
	client := wiretest.Client(name)
	message := client.Message()
	evil := "evil.example"
	rows := []struct {
		what   string
		stream []byte
		ours   string // name or fault
		theirs string // name, "" when they refuse or see none
	}{
		{"an ordinary hello", client.Bytes(), name, name},
		{"a post-quantum hello", wiretest.PostQuantum(name).Bytes(), name, name},
		{"17 KB", client.PadTo(17_000).Bytes(), name, name},
		{"seven records of 1 byte", wiretest.Records(message, 1, 1, 1, 1, 1, 1, 1, 500), name, name},
		{"no name", client.Without(0).Bytes(), "", ""},
		{"capitals", wiretest.Client("MCR.Microsoft.com").Bytes(), "MCR.Microsoft.com", "MCR.Microsoft.com"},
		{"two names in the list", client.With(wiretest.ServerName(name, evil)).Bytes(), "bad-server-name", ""},
		{"two extensions", client.Also(wiretest.ServerName(evil)).Bytes(), "duplicate-extension", ""},
		{"a trailing dot", wiretest.Client(name + ".").Bytes(), "bad-server-name", name + "."},
		{"20 records", wiretest.Records(message, len(message)/19), "too-many-records", name},
		{"a record of another minor version", wiretest.Record(22, 0x0309, message), "bad-version", name},
		{"a warning alert first", append([]byte{21, 3, 1, 0, 2, 1, 90}, client.Bytes()...), "not-tls", ""},
		{"an empty record first", append([]byte{22, 3, 1, 0, 0}, client.Bytes()...), "empty-record", name},
	}
	server := startOpenSSL(t, len(rows))
	for _, row := range rows {
		conn := server.dial(t)
		if _, err := conn.Write(row.stream); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).CloseWrite() // it may have closed already
		_, _ = io.Copy(io.Discard, conn)     // to its end; a reset is one too
	}
	theirs := server.names()
	if len(theirs) != len(rows) {
		t.Fatalf("OpenSSL had %d connections, want %d: %q", len(theirs), len(rows), theirs)
	}
	for i, row := range rows {
		h, err := ReadClientHello(row.stream)
		ours := h.ServerName
		if err != nil {
			ours = err.Error()
		}
		if ours != row.ours || theirs[i] != row.theirs {
			t.Errorf("%s: we %q, OpenSSL %q; want %q, %q", row.what, ours, theirs[i], row.ours, row.theirs)
		}
	}
}

// TestRetrySwitchesName is the attack that passes every filter of first hellos: OpenSSL takes
// the name of the second. ReadAnswer and SameServer are what stops it.
func TestRetrySwitchesName(t *testing.T) {
	server := startOpenSSL(t, 1, "-groups", "X25519")
	conn := server.dial(t)
	hello := wiretest.Client(name, wiretest.NoKeyShare()).Bytes()
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	answer, n := readAnswer(t, conn)
	if a, _ := ReadAnswer(answer); a != RetryHello || n == 0 {
		t.Fatalf("%v; want a HelloRetryRequest", a)
	}
	second := append([]byte{20, 3, 3, 0, 1, 1}, wiretest.Client("evil.example").Bytes()...)
	if _, err := conn.Write(second); err != nil {
		t.Fatal(err)
	}
	answer, _ = readAnswer(t, conn, answer[n:]...)
	if a, _ := ReadAnswer(answer); a != ServerHello {
		t.Errorf("OpenSSL says %v to the second hello; the attack does not reach it", a)
	}
	_ = conn.Close()
	if got, want := server.names(), []string{name + " then evil.example"}; !slices.Equal(got, want) {
		t.Errorf("OpenSSL saw %q, want %q", got, want)
	}

	h1, err1 := ReadClientHello(append(bytes.Clone(hello), second...))
	h2, err2 := ReadSecondHello(second)
	if err1 != nil || err2 != nil || h1.SameServer(h2) {
		t.Errorf("%+v, %v; %+v, %v", h1, err1, h2, err2)
	}
}

// readAnswer reads from conn until ReadAnswer decides about what was there and what came.
func readAnswer(t *testing.T, conn net.Conn, stream ...byte) ([]byte, int) {
	t.Helper()
	for {
		if a, n := ReadAnswer(stream); a != AnswerMore {
			return stream, n
		}
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		stream = append(stream, buf[:n]...)
	}
}
