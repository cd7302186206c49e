//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tidegate.io/tidegate/internal/netns"
)

// insideVariable marks a process that [Enter] has started.
const insideVariable = "TIDEGATE_LAB_INSIDE"

// doorFD is the listening socket of [Serve] in a process that Enter has started.
const doorFD = 3

// leaveTimeout is how long the lab may take to clean up before it is killed, which cleans up as well.
const leaveTimeout = 10 * time.Second

// Inside reports whether this process is the one that Enter has started.
func Inside() bool { return os.Getenv(insideVariable) != "" }

// Enter runs this program again, with the same arguments, as the first process of namespaces of its own: process,
// mounts, network and, for an ordinary user, users. It waits, and returns the exit code.
//
// When the first process of a process namespace ends, the kernel kills all others in it; and the kernel kills the first
// one when Enter's caller ends. So whoever of them is killed, nothing of the lab stays behind. Once ctx is done the
// lab is asked to end.
func Enter(ctx context.Context) (int, error) {
	runtime.LockOSThread() // the kernel's promise to kill is bound to the thread that starts the process
	defer runtime.UnlockOSThread()
	door, err := openDoor()
	if err != nil {
		return 0, err
	}
	defer func() { _ = door.Close() }()
	cmd := Self(os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{door}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		netns.Rootless(cmd)
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the lab in namespaces of its own (run as root where the system allows no user namespaces): %w", err)
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(leaveTimeout):
			_ = cmd.Process.Kill()
		}
	}()
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if exit.ExitCode() < 0 {
			return 0, fmt.Errorf("the lab ended: %s", exit.ProcessState)
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}

// Self is this very program with other arguments, under the name by which it was called.
func Self(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	return cmd
}

// doorVariable names one of several labs of the same user.
const doorVariable = "TIDEGATE_LAB"

// doorName is the abstract socket of a user's lab: it has no file, so none is left behind. Abstract names are open to
// everybody; both ends look at who is at the other.
func doorName() string {
	name := fmt.Sprintf("@tidegate-lab-%d", os.Getuid())
	if word := os.Getenv(doorVariable); word != "" {
		name += "-" + word
	}
	return name
}

// openDoor listens for lab exec, outside, where it can be found.
func openDoor() (*os.File, error) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: doorName(), Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.New("a lab of yours runs already; set " + doorVariable + " to a word to name another one")
	} else if err != nil {
		return nil, fmt.Errorf("open the lab's door: %w", err)
	}
	defer func() { _ = ln.Close() }()
	return ln.File()
}

// Furnish prepares the mounts of a process that Enter has started, and returns an empty directory that only this
// process and its children can see, and that goes with them.
func Furnish() (string, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return "", fmt.Errorf("make the mounts private: %w", err)
	}
	// Where the system hides parts of /proc it allows no second one. The old one shows too many processes, no more.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err := netns.LoopbackUp(); err != nil {
		return "", err
	}
	var errs []error
	for _, dir := range []string{"/mnt", "/media", "/srv", "/opt"} { // exist everywhere and are in nobody's way
		err := unix.Mount("tidegate-lab", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
		if err == nil {
			return dir, nil
		}
		errs = append(errs, fmt.Errorf("mount a directory on %s: %w", dir, err))
	}
	return "", errors.Join(errs...)
}
