//go:build linux

package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate.io/tidegate/egress"
	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// program, as first argument, makes the test binary a small version of the command.
const program = "lab-program"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == program {
		code, err := runProgram(os.Args[2:])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 3
		}
		os.Exit(code)
	}
	os.Exit(netnstest.Main(m))
}

func runProgram(args []string) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case len(args) > 1 && args[0] == "exec":
		return lab.Exec(1, args[1:])
	case !lab.Inside():
		return lab.Enter(ctx)
	}
	dir, err := lab.Furnish()
	if err != nil {
		return 0, err
	}
	show := lab.Show{Out: os.Stdout, Progress: os.Stderr, Once: args[0] == "once", Config: lab.Config{
		Dir:   dir,
		Rules: []egress.Rule{{ID: "mcr", To: []egress.Endpoint{egress.MustParseEndpoint("https://mcr.microsoft.com:443")}}},
	}}
	ok, err := show.Run(ctx)
	if err == nil && !ok {
		return 1, nil
	}
	return 0, err
}

// own returns the program with a lab that no other test shares.
func own(t *testing.T, args ...string) *exec.Cmd {
	netnstest.Need(t)
	cmd := exec.Command("/proc/self/exe", append([]string{program}, args...)...)
	cmd.Env = append(os.Environ(), "TIDEGATE_LAB="+t.Name())
	return cmd
}

func TestOnceReportsAndEnds(t *testing.T) {
	t.Parallel()
	out, err := own(t, "once").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("PASS")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// open starts a lab that stays, and waits until it lets visitors in.
func open(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := own(t, "stay")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "a node boots") {
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return cmd
		}
	}
	t.Fatal("the lab did not open")
	return nil
}

func TestVisitors(t *testing.T) {
	t.Parallel()
	lab := open(t)
	for _, c := range []struct {
		what, script, in, out string
		code                  int
	}{
		{"the exit code comes back", "exit 7", "", "", 7},
		{"input and output are the caller's", "tr a-z A-Z", "quiet", "QUIET", 0},
		{"names are the lab's", "getent ahostsv4 mcr.microsoft.com | grep -c '^20\\.'", "", "3\n", 0},
		{"the environment is the caller's", "echo $VISITOR", "", "me\n", 0},
		{"a signal's end is told as a shell tells it", "kill -9 $$", "", "", 137},
		{"the lab's processes are all it sees", "test $(ls /proc | grep -c '^[0-9]') -lt 20", "", "", 0},
		{"the lab trusts its own servers", "command -v curl >/dev/null || exit 0; curl -sSo /dev/null https://mcr.microsoft.com/v2/", "", "", 0},
	} {
		cmd := own(t, "exec", "sh", "-c", c.script)
		cmd.Env = append(cmd.Env, "VISITOR=me")
		cmd.Stdin = strings.NewReader(c.in)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != c.code || out.String() != c.out {
			t.Errorf("%s: exit %d %q, want %d %q (%v)", c.what, code, out.String(), c.code, c.out, err)
		}
	}
	_ = lab.Process.Signal(syscall.SIGINT)
	if err := lab.Wait(); err != nil && lab.ProcessState.ExitCode() > 1 {
		t.Errorf("interrupted: %v", err)
	}
	if out, err := own(t, "exec", "true").CombinedOutput(); err == nil || !strings.Contains(string(out), "no lab of yours runs") {
		t.Errorf("without a lab: %v %s", err, out)
	}
}

// TestNothingStaysBehind kills either process of a lab as hard as can be.
func TestNothingStaysBehind(t *testing.T) {
	for _, victim := range []string{"the supervisor", "the lab itself"} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			lab := open(t)
			mark := strconv.Itoa(100000+os.Getpid()) + "." + strconv.Itoa(len(victim))
			visitor := own(t, "exec", "sh", "-c", "setsid sleep "+mark+" & sleep "+mark)
			if err := visitor.Start(); err != nil {
				t.Fatal(err)
			}
			wait(t, "two sleepers", func() bool { return len(running(t, mark)) >= 2 })
			pid := lab.Process.Pid
			if victim == "the lab itself" {
				pid = child(t, pid)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = visitor.Wait()
			_ = lab.Wait()
			wait(t, "their end", func() bool { return len(running(t, mark)) == 0 })
			if out, err := own(t, "exec", "true").CombinedOutput(); err == nil {
				t.Errorf("the lab's door is still there: %s", out)
			}
		})
	}
}

func wait(t *testing.T, what string, until func() bool) {
	t.Helper()
	for range 1000 {
		if until() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

// running returns the sleepers for mark.
func running(t *testing.T, mark string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && bytes.HasPrefix(text, []byte("sleep\x00"+mark)) {
			found = append(found, f)
		}
	}
	return found
}

// child returns the process that Enter has started.
func child(t *testing.T, parent int) int {
	t.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if pids := strings.Fields(string(text)); err == nil && len(pids) > 0 {
			pid, _ := strconv.Atoi(pids[0])
			return pid
		}
	}
	t.Fatal(errors.New("no child"))
	return 0
}
