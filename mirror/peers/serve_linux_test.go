package peers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// cached puts a blob of a size into the store of a mirror that is not running
// yet, and returns the file and its digest.
func cached(t testing.TB, dir string, size int64) (file string, d digest.Digest) {
	t.Helper()
	blobs := filepath.Join(dir, "store", "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o750); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(blobs, "new"))
	if err != nil {
		t.Fatal(err)
	}
	hash := digest.Canonical.Digester()
	if _, err := io.CopyN(io.MultiWriter(f, hash.Hash()), rand.NewChaCha8([32]byte{1}), size); err != nil {
		t.Fatal(err)
	}
	f.Close()
	d = hash.Digest()
	file = filepath.Join(blobs, d.Encoded())
	if err := os.Rename(f.Name(), file); err != nil {
		t.Fatal(err)
	}
	return file, d
}

// nginx serves a file over TLS with a mirror's own certificate, by one process.
func nginx(b *testing.B, m *mirror, file string) (address string, process *exec.Cmd) {
	program := need(b, "nginx")
	dir := b.TempDir()
	address = freeAddress(b)
	config := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 256; }
http {
  access_log off; sendfile on; tcp_nopush on; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
  server { listen %[2]s ssl; ssl_certificate %[3]s/tls.crt; ssl_certificate_key %[3]s/tls.key; ssl_protocols TLSv1.3; location / { root %[4]s; } }
}
`, dir, address, filepath.Join(m.dir, "store", "tls"), filepath.Dir(file))
	name := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	process = exec.Command(program, "-c", name, "-p", dir)
	var out bytes.Buffer
	process.Stderr = &out
	if err := process.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = process.Process.Signal(syscall.SIGTERM)
		_ = process.Wait()
	})
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return address, process
		}
		if time.Now().After(until) {
			b.Fatalf("nginx does not listen: %v: %s", err, out.String())
		}
	}
}

// cpu is the time that a process has used.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime, of proc(5)
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// fetch has curl read an address to its end, with the cipher that both servers have.
func fetch(t testing.TB, ctx context.Context, m *mirror, at string, more ...string) {
	args := append([]string{"-sS", "--fail", "--cacert", m.ca(), "--tls13-ciphers", "TLS_AES_128_GCM_SHA256", "--http1.1", "-o", os.DevNull}, more...)
	if _, err := run(ctx, need(t, "curl"), append(args, at)...); err != nil {
		t.Error(err)
	}
}

// BenchmarkServing serves a blob of 1 GB from the mirror's store and, in turns,
// the same file from nginx, over TLS with one certificate and one cipher.
func BenchmarkServing(b *testing.B) {
	const size = 1e9
	o := newOrigin(b)
	dir := b.TempDir()
	file, d := cached(b, dir, size)
	m := startMirror(b, dir, o)
	address, server := nginx(b, m, file)
	sides := []struct {
		name, at string
		pid      int
		took     time.Duration
		cpu      time.Duration
	}{
		{name: "nginx", at: "https://" + address + "/" + d.Encoded(), pid: server.Process.Pid},
		{name: "mirror", at: fmt.Sprintf("https://%s/v2/a/b/blobs/%s", m.address, d), pid: m.process.Process.Pid},
	}
	for _, s := range sides { // the file is in memory, and the connections' code warm
		fetch(b, b.Context(), m, s.at)
	}
	for b.Loop() {
		for i := range sides {
			s := &sides[i]
			before, began := cpu(b, s.pid), time.Now()
			fetch(b, b.Context(), m, s.at)
			s.took += time.Since(began)
			s.cpu += cpu(b, s.pid) - before
		}
	}
	for _, s := range sides {
		b.ReportMetric(size*float64(b.N)/s.took.Seconds()/1e6, s.name+"-MB/s")
		b.ReportMetric(s.cpu.Seconds()/float64(b.N), s.name+"-CPU-s/GB")
	}
	b.ReportMetric(sides[0].took.Seconds()/sides[1].took.Seconds(), "of-nginx")
}

// TestMemoryOfAHundredPulls: a hundred clients that pull at once, none of them
// fast, cost no more than the smallest VM has to spare.
func TestMemoryOfAHundredPulls(t *testing.T) {
	const limit = 64 << 20
	o := newOrigin(t)
	dir := t.TempDir()
	_, d := cached(t, dir, 20<<20)
	m := startMirror(t, dir, o)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			fetch(t, t.Context(), m, fmt.Sprintf("https://%s/v2/a/b/blobs/%s", m.address, d), "--limit-rate", "8M")
		})
	}
	all.Wait()
	peak := resident(t, m.process.Process.Pid)
	t.Logf("%d MB at most", peak>>20)
	if peak > limit {
		t.Errorf("%d MB, more than %d", peak>>20, limit>>20)
	}
}

// resident is the most memory that a process has had.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
