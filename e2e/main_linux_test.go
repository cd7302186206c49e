package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/lab"
)

// required is the environment variable that turns a skip into a failure, with the value "required".
const required = "TIDEGATE_E2E"

// inside names, in the inner process, the parent cgroup of this run's containers.
const inside = "TIDEGATE_E2E_INSIDE"

// parts is where scripts/test-bin puts what it builds.
func parts() string { return folder("../bin/parts") }

// own is where tidegate and app are, as they are now.
func own(program string) string { return filepath.Join(folder("../bin/e2e"), program) }

func folder(name string) string {
	dir, _ := filepath.Abs(name) // of a working directory that is gone nothing would work
	return dir
}

// room is this package's own directory in memory, once it has been furnished.
var room string

// TestMain runs the tests as the first process of namespaces of their own: when that ends, however it does, the kernel
// kills whatever was started, shims and containers included.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		dir, err := furnish()
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			os.Exit(1)
		}
		room = dir
		os.Exit(m.Run())
	}
	if why := missing(); why != "" {
		if os.Getenv(required) == "required" {
			fmt.Fprintf(os.Stderr, "e2e: %s=required: %s\n", required, why)
			os.Exit(1)
		}
		os.Exit(m.Run()) // need skips
	}
	code, err := enter()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// need skips a test where the real parts cannot run.
func need(t testing.TB) {
	t.Helper()
	if room == "" {
		t.Skipf("SKIPPED: %s; %s=required makes this an error", missing(), required)
	}
}

// missing says why the tests cannot run here, or nothing.
func missing() string {
	var none []string
	for _, name := range []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kubelet", "kubectl", "containerd", "containerd-shim-runc-v2", "ctr",
		"konnectivity-server", "konnectivity-agent",
	} {
		if _, err := os.Stat(filepath.Join(parts(), name)); err != nil {
			none = append(none, name)
		}
	}
	switch {
	case os.Geteuid() != 0:
		return "this is not root, which a kubelet has to be"
	case len(none) > 0:
		return "not built: " + strings.Join(none, ", ") + " (make test-bin)"
	}
	if _, err := exec.LookPath("runc"); err != nil {
		return "runc is not installed (scripts/setup-e2e)"
	}
	return ""
}

// enter runs this test binary once more, inside, and returns its exit code.
func enter() (int, error) {
	build := exec.Command("go", "build", "-trimpath", "-o", own("")+"/", "../cmd/tidegate", "./app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build tidegate and app: %w\n%s", err, out)
	}
	runtime.LockOSThread() // the kernel's promise to kill is bound to the thread that starts the process
	defer runtime.UnlockOSThread()
	cgroup, err := makeCgroups()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"="+cgroup)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Run()
	left := removeCgroups(cgroup)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, errors.Join(err, left)
}

// furnish gives this process a directory in memory, and puts memory over where the parts write without being asked. The
// machine's own files can be read through it and never change.
func furnish() (string, error) {
	dir, err := lab.Furnish()
	if err != nil {
		return "", err
	}
	for _, over := range []string{"/run", "/var", "/etc"} {
		upper, work := filepath.Join(dir, over, "upper"), filepath.Join(dir, over, "work")
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return "", err
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", over, upper, work)
		if err := unix.Mount("overlay", over, "overlay", 0, options); err != nil {
			return "", fmt.Errorf("mount memory over %s: %w", over, err)
		}
	}
	return dir, nil
}

// killAll ends every process that is left in this package's own process namespace, and waits for it.
func killAll() {
	if os.Getpid() != 1 {
		return // not ours
	}
	_ = syscall.Kill(-1, syscall.SIGKILL)
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			return // there is nobody
		}
	}
}
