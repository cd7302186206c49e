package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestCheckThroughTheGateway runs the program on a node behind the real gateway: everything that a cluster needs is
// reached, what must be blocked is, and what the gateway has no rule for is found out.
func TestCheckThroughTheGateway(t *testing.T) {
	for _, c := range []struct{ file, more string }{
		{"example-public-gpu-monitor-policy.cli.json", ownRules},
		{"example-usgov-private-keyvault-wi.cli.json", ""},
		{"example-china-windows-cost.cli.json", ""},
	} {
		t.Run(c.file, func(t *testing.T) {
			h := open(t, examples+c.file, c.more, true)
			cluster, err := filepath.Abs(examples + c.file)
			if err != nil {
				t.Fatal(err)
			}
			d, code := h.check(t, "--cluster", cluster)
			for _, r := range d.Results {
				if r.Outcome.String() != "passed" {
					t.Errorf("%s: %s %s: %s", r.Target, r.Outcome, r.Cause, r.Detail)
				}
			}
			if code != exitYes || d.Passed < 15 {
				t.Errorf("exit %d with %d passed\n%s", code, d.Passed, h.log())
			}
			d, code = h.check(t, "https://not-in-the-rules.example.org:443")
			if code != exitNo || d.Failed != 1 {
				t.Errorf("what has no rule: exit %d, %+v", code, d.Results)
			}
		})
	}
}

// check runs tidegate check on the first node.
func (h *house) check(t *testing.T, args ...string) (checkDocument, int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"check", "-o", "json", "--ca", filepath.Join(h.dir, "ca.pem")}, args...)...)
	cmd.Args[0] = "tidegate" // testscript runs the command of that name
	cmd.Env = h.Environ(os.Environ())
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	if err := h.Node(1).Start(cmd); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code says it
	var d checkDocument
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		t.Fatalf("exit %d: %v\n%s%s", cmd.ProcessState.ExitCode(), err, out.String(), errors.String())
	}
	return d, cmd.ProcessState.ExitCode()
}
