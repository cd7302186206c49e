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

// containerd runs Debian's containerd on folders of its own, and returns the
// address of its socket. It starts no containers, and touches no network.
func containerd(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("TIDEGATE_REQUIRE") != "" {
			t.Fatal("containerd needs root")
		}
		t.Skip("containerd needs root")
	}
	program := need(t, "containerd")
	dir, err := os.MkdirTemp("", "c8d") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.toml")
	text := `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(program, "--config", config, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--address", socket)
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
		_, err := run(t.Context(), need(t, "ctr"), "--address", socket, "version")
		if err == nil {
			return socket
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// containerdByPrefix pulls as a node of AKS does, whose hosts.toml turns the
// registry into a path of another.
func containerdByPrefix(t *testing.T, ctx context.Context, m *mirror, i images) (digest.Digest, error) {
	return pullByContainerd(t, ctx, m, i, "--prefix", prefix)
}

// containerdByNamespace pulls from a mirror that is told by ?ns= what is meant.
func containerdByNamespace(t *testing.T, ctx context.Context, m *mirror, i images) (digest.Digest, error) {
	return pullByContainerd(t, ctx, m, i)
}

func pullByContainerd(t *testing.T, ctx context.Context, m *mirror, i images, hosts ...string) (digest.Digest, error) {
	socket, ctr := containerd(t), need(t, "ctr")
	certs := t.TempDir()
	args := append([]string{"mirror", "hosts-toml", "--mirror", "https://" + m.address, "--registry", mcr, "--ca", m.ca(), "--only", "--dir", certs, "--write"}, hosts...)
	if _, err := run(ctx, program, args...); err != nil {
		t.Fatal(err)
	}
	image := fmt.Sprintf("%s/%s:%s", mcr, i.repo, i.tag)
	if _, err := run(ctx, ctr, "--address", socket, "images", "pull", "--hosts-dir", certs, "--snapshotter", "native", "--platform", "linux/amd64", image); err != nil {
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
