package main

import (
	"bytes"
	"os/exec"
	"testing"

	"tidegate.io/tidegate/internal/netns/netnstest"
	"tidegate.io/tidegate/lab"
)

// TestNothingGetsAround carries out every tactic in one shape for each kind of cable; `make prove` does so in all.
func TestNothingGetsAround(t *testing.T) {
	netnstest.Need(t)
	const attacks, legal = 400, 80
	siege := lab.Siege{Dir: t.TempDir(), Kinds: lab.Kinds(), Quick: true, Progress: t.Output(), Site: func(dir string) (lab.Config, error) {
		return attackSite(dir, lab.Example, func() *exec.Cmd {
			cmd := exec.Command("/proc/self/exe", "gateway", "run", "--config", lab.GatewayFile)
			cmd.Args[0] = "tidegate" // testscript runs the command of that name
			return cmd
		})
	}}
	report, err := siege.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := report.WriteTable(&table, false); err != nil {
		t.Fatal(err)
	}
	if !report.OK() {
		t.Errorf("\n%s", table.String())
	}
	for _, trial := range report.Void() {
		if trial.Needs == "" { // else this machine may lack it
			t.Errorf("void: %s: a client %s, gso=%t: %v", trial.Kind, trial.Name, trial.GSO, trial.Control.Err)
		}
	}
	var tried, passed int
	for _, c := range report.Counts() {
		tried += c.Attacks
		passed += c.Passed + c.OddOK
	}
	if tried < attacks || passed < legal {
		t.Errorf("%d attacks and %d legal connections, want %d and %d", tried, passed, attacks, legal)
	}
	if len(report.Missing) > 0 {
		t.Errorf("not installed, see scripts/setup: %v", report.Missing)
	}
}
