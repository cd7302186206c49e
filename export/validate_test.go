package export

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidegate.io/tidegate/export/exporttest"
)

// program finds a target's own program. Where it is missing the test skips,
// unless TIDEGATE_REQUIRE says that everything is there (make test-exporters).
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	if os.Getenv("TIDEGATE_REQUIRE") != "" {
		t.Fatalf("%s is not installed: scripts/setup-exporters installs it", name)
	}
	t.Skipf("SKIPPED: %s is not installed; TIDEGATE_REQUIRE=1 makes this an error", name)
	return ""
}

// folder holds the files of an output.
func folder(t *testing.T, out Output) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range out.Files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rewrite changes a file of an output where it depends on the machine.
func rewrite(t *testing.T, file, old, new string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%s does not contain %q", file, old)
	}
	if err := os.WriteFile(file, bytes.ReplaceAll(b, []byte(old), []byte(new)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkers are how each target's own program reads a folder. A checker has to
// refuse the spoiled folder that spoil makes of it, or it proves nothing. What
// has its reader in a Go module is in the module peers, beside.
var checkers = map[string]struct {
	program    string
	args       func(t *testing.T, dir string) []string
	spoil      [2]string // in the main file
	complaints []string  // words of warnings that are errors to us
}{
	"squid": {program: "squid", args: func(t *testing.T, dir string) []string {
		rewrite(t, dir+"/squid.conf", "/etc/squid/tidegate.pem", selfSigned(t))
		return []string{"-k", "parse", "-f", dir + "/squid.conf"}
	}, spoil: [2]string{"http_access deny all", "http_acess deny all"}, complaints: []string{"WARNING", "ERROR", "FATAL"}},
	"haproxy": {program: "haproxy", args: func(_ *testing.T, dir string) []string {
		return []string{"-c", "-f", dir + "/haproxy.cfg"}
	}, spoil: [2]string{"server named 0.0.0.0:0", "sever named"}, complaints: []string{"WARNING", "ALERT"}},
	"nginx": {program: "nginx", args: func(t *testing.T, dir string) []string {
		if module := "/usr/lib/nginx/modules/ngx_stream_module.so"; exists(module) {
			rewrite(t, dir+"/nginx.conf", "events {", "load_module "+module+"; events {")
		}
		return []string{"-t", "-e", "stderr", "-c", dir + "/nginx.conf", "-g", "pid " + dir + "/pid;"}
	}, spoil: [2]string{"resolver", "resolve"}, complaints: []string{"[warn]", "[emerg]"}},
	"nftables": {program: "unshare", args: func(t *testing.T, dir string) []string {
		inside := []string{"--net", program(t, "nft"), "-c", "-f", dir + "/tidegate.nft"}
		if os.Geteuid() != 0 {
			return append([]string{"--user", "--map-root-user"}, inside...)
		}
		return inside // where the buffer of netlink may be as large as nft asks for
	}, spoil: [2]string{"policy accept", "policy perhaps"}},
	"dnsmasq": {program: "dnsmasq", args: func(_ *testing.T, dir string) []string {
		return []string{"--test", "-C", dir + "/dnsmasq.conf"}
	}, spoil: [2]string{"no-resolv", "no-resolve"}},
	"unbound": {program: "unbound-checkconf", args: func(t *testing.T, dir string) []string {
		rewrite(t, dir+"/unbound.conf", "zonefile: ", "zonefile: "+dir+"/")
		return []string{dir + "/unbound.conf"}
	}, spoil: [2]string{"forward-addr: 168", "forward-addr: x168"}},
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestPrograms lets each target's own program read what is written for it.
func TestPrograms(t *testing.T) {
	for name, c := range checkers {
		t.Run(name, func(t *testing.T) {
			path := program(t, c.program)
			f, err := Find(name)
			if err != nil {
				t.Fatal(err)
			}
			check := func(t *testing.T, dir string) (string, bool) {
				cmd := exec.Command(path, c.args(t, dir)...)
				cmd.Dir = dir
				said, err := cmd.CombinedOutput()
				ok := err == nil
				for _, word := range c.complaints {
					ok = ok && !strings.Contains(string(said), word)
				}
				return string(said), ok
			}
			policies := clusters(t)
			for cluster, rules := range exporttest.Hard() {
				policies[cluster] = Policy{Name: cluster, Rules: rules, From: exporttest.Clients()}
			}
			for cluster, policy := range policies {
				out, err := f.Export(policy)
				if err != nil {
					t.Fatal(err)
				}
				if said, ok := check(t, folder(t, out)); !ok {
					t.Errorf("%s: %s", cluster, said)
				}
			}
			out, err := f.Export(everyShape())
			if err != nil {
				t.Fatal(err)
			}
			dir := folder(t, out)
			rewrite(t, filepath.Join(dir, out.Files[0].Name), c.spoil[0], c.spoil[1])
			if said, ok := check(t, dir); ok {
				t.Errorf("the check takes a spoiled file as well: %s", said)
			}
		})
	}
}

// selfSigned makes a certificate and its key in one file.
func selfSigned(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tidegate.pem")
	data := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
