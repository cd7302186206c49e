package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// release is one containerd of those that nodes have.
type release struct {
	name            string
	containerd, ctr string   // programs
	disabled        string   // what pulling does not need
	flags           []string // of ctr images pull
}

const (
	tags     = "no_btrfs no_devmapper no_zfs"
	commands = "github.com/containerd/containerd/v2/cmd/"
)

// releases are Debian's, and the second, built from its module.
func releases(t *testing.T) []release {
	t.Helper()
	all := []release{{"containerd 1.6", need(t, "containerd"), need(t, "ctr"),
		`"io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"`, nil}}
	dir := filepath.Dir(program) // once for all tests
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", dir+"/", commands+"containerd", commands+"ctr")
	build.Dir = "containerd"
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := os.Stat(filepath.Join(dir, "ctr")); err != nil {
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("containerd 2: %v\n%s", err, out)
		}
	}
	return append(all, release{"containerd 2", filepath.Join(dir, "containerd"), filepath.Join(dir, "ctr"),
		`"io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"`, []string{"--local"}})
}

// start runs a containerd on folders of its own, and returns the address of its
// socket. It starts no containers, and touches no network.
func (r release) start(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("TIDEGATE_REQUIRE") != "" {
			t.Fatal("containerd needs root")
		}
		t.Skip("containerd needs root")
	}
	dir, err := os.MkdirTemp("", "c8d") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte("version = 2\ndisabled_plugins = ["+r.disabled+"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(r.containerd, "--config", config, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--address", socket)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("containerd's log:\n%.5000s", b)
		}
		log.Close()
		_ = os.RemoveAll(dir)
	})
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := run(t.Context(), r.ctr, "--address", socket, "version")
		if err == nil {
			return socket
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// containerds are clients that pull as a node of AKS does, whose hosts.toml turns
// the registry into a path of another, and by ?ns=, as containerd does by itself.
func containerds(t *testing.T) []client {
	t.Helper()
	var all []client
	for _, r := range releases(t) {
		all = append(all,
			client{r.name + ", AKS's hosts.toml", func(t *testing.T, ctx context.Context, m *mirror, i images) (digest.Digest, error) {
				return r.pull(t, ctx, m, i, "--prefix", prefix)
			}},
			client{r.name + ", by ns", func(t *testing.T, ctx context.Context, m *mirror, i images) (digest.Digest, error) {
				return r.pull(t, ctx, m, i)
			}})
	}
	return all
}

func (r release) pull(t *testing.T, ctx context.Context, m *mirror, i images, hosts ...string) (digest.Digest, error) {
	socket, ctr := r.start(t), r.ctr
	certs := t.TempDir()
	args := append([]string{"mirror", "hosts-toml", "--mirror", "https://" + m.address, "--registry", mcr, "--ca", m.ca(), "--only", "--dir", certs, "--write"}, hosts...)
	if _, err := run(ctx, program, args...); err != nil {
		t.Fatal(err)
	}
	image := fmt.Sprintf("%s/%s:%s", mcr, i.repo, i.tag)
	args = append([]string{"--address", socket, "images", "pull", "--hosts-dir", certs, "--snapshotter", "native", "--platform", "linux/amd64"}, r.flags...)
	if _, err := run(ctx, ctr, append(args, image)...); err != nil {
		return "", err
	}
	// What it says that it has, byte by byte.
	list, err := run(ctx, ctr, "--address", socket, "images", "list")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, ctr, "--address", socket, "content", "get", i.layer.Digest.String()).Output()
	if err != nil {
		return "", fmt.Errorf("content get: %w", err)
	}
	if got := digest.FromBytes(out); got != i.layer.Digest {
		return "", fmt.Errorf("its layer is %s", got)
	}
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[0] == image {
			return digest.Digest(fields[2]), nil
		}
	}
	return "", fmt.Errorf("not listed: %s", list)
}
