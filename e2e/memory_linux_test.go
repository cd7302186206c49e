package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// maxMemory is what all parts together may have resident: the tests have to run beside others on small machines.
const maxMemory = 1 << 30

// largest adds up the largest resident size of every part, and of this process.
func (c *cluster) largest(t *testing.T) {
	t.Helper()
	var text strings.Builder
	sum := 0
	pids := map[string]int{"the test": os.Getpid(), "gateway": c.GatewayPID()}
	for _, p := range c.running {
		pids[p.name] = p.cmd.Process.Pid
	}
	for name, pid := range pids {
		kb := peak(pid)
		sum += kb << 10
		fmt.Fprintf(&text, ", %s %d MB", name, kb>>10)
	}
	t.Logf("memory %d MB%s", sum>>20, text.String())
	if sum > maxMemory {
		t.Errorf("%d MB are more than %d", sum>>20, maxMemory>>20)
	}
}

// peak is a process's largest resident size in kB.
func peak(pid int) (kb int) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb
		}
	}
	return 0
}
