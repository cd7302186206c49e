// Package netnstest lets tests need network namespaces, as root and as an
// ordinary user, and makes sure that a skip is never silent.
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"tidegate.io/tidegate/internal/netns"
)

// Required is the environment variable that turns a skip of [Need] into a
// failure, with the value "required": set where namespaces are known to work.
const Required = "TIDEGATE_NETNS"

// inside marks a test binary that Main has started again.
const inside = "TIDEGATE_NETNS_INSIDE"

// Main is for TestMain: os.Exit(netnstest.Main(m)). Where the tests may not
// make namespaces as they are, it runs the whole test binary once more in a user
// namespace, and returns what that returned.
func Main(m *testing.M) int {
	if os.Getenv(inside) != "" {
		if err := netns.LoopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, "netnstest:", err)
		}
		return m.Run()
	}
	if probe() == nil {
		return m.Run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	netns.Rootless(cmd)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "netnstest: no user namespace either:", err)
		return m.Run()
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "netnstest:", err)
		return 1
	}
	return 0
}

func probe() error {
	n, err := netns.New()
	if err != nil {
		return err
	}
	return n.Close()
}

// Need skips the test where namespaces cannot be made, or fails it where they
// are [Required].
func Need(t testing.TB) {
	t.Helper()
	err := probe()
	switch {
	case err == nil:
	case os.Getenv(Required) == "required":
		t.Fatalf("%s=required: %v", Required, err)
	default:
		t.Skipf("network namespaces cannot be made here: %v", err)
	}
}

// New is [netns.New] for a test, which ends with it.
func New(t testing.TB) *netns.NS {
	t.Helper()
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}
