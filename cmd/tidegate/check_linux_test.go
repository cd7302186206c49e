package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tidegate.io/tidegate/lab"
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
			if code != exitYes || d.Passed < 12 {
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

// TestFromTheErrorToTheRule goes the way of the person on call: a check fails, its error and the gateway's own log and
// file say what to write, and with that written the check passes.
func TestFromTheErrorToTheRule(t *testing.T) {
	const target = "https://api.stripe.example.org:443"
	h := open(t, examples+"example-china-windows-cost.cli.json", "", true)
	if d, code := h.check(t, target); code != exitNo {
		t.Fatalf("before: exit %d, %+v", code, d.Results)
	}
	ask := []string{
		"why", `Post "https://api.stripe.example.org/v1/charges": dial tcp: lookup api.stripe.example.org on 10.0.0.10:53: no such host`, "-o", "json",
		"--flows", filepath.Join(h.dir, lab.FlowLogFile), "--config", filepath.Join(h.dir, lab.GatewayFile),
	}
	var item whyItem
	eventually(t, "the denial is in the flow log", func() bool {
		var out, errors bytes.Buffer
		if code := run(ask, strings.NewReader(""), &out, &errors); code != exitYes {
			t.Fatalf("why: exit %d\n%s", code, errors.String())
		}
		var d whyDocument
		if err := json.Unmarshal(out.Bytes(), &d); err != nil || len(d.Items) != 1 {
			t.Fatalf("%v\n%s", err, out.String())
		}
		item = d.Items[0]
		return len(item.Denials) > 0
	})
	if len(item.Denials) == 0 || item.Reaching[0].Denied == nil || item.Change == "" {
		t.Fatalf("%+v", item)
	}
	h.write(t, lab.GatewayFile, lab.GatewayConfig("lab", item.Change))
	if err := h.SignalGateway(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new rule is in force", func() bool {
		_, code := h.check(t, target)
		return code == exitYes
	})
}
